//! A bound socket, for clients or for operators. Owns only the socket; what a connection is served with is the caller's.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::drain::Watch;

/// After an error of `accept`, such as too many open files: trying again at once would only spin.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {whom}: {error}")]
pub struct ListenError {
    whom: &'static str,
    address: SocketAddr,
    error: io::Error,
}

#[derive(Debug)]
pub struct Socket {
    whom: &'static str,
    listener: TcpListener,
    address: SocketAddr,
}

impl Socket {
    /// One that is open already, or one of its own. `whom`: who connects, in the plural.
    pub async fn open(
        whom: &'static str,
        address: SocketAddr,
        given: Option<std::net::TcpListener>,
    ) -> Result<Self, ListenError> {
        let failed = |error| ListenError { whom, address, error };
        let listener = match given {
            Some(open) => TcpListener::from_std(open),
            None => TcpListener::bind(address).await,
        };
        let listener = listener.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { whom, listener, address })
    }

    /// Where it listens; tells the port when any was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection; none once `stop` is signalled.
    pub async fn accept(&self, stop: &Watch) -> Option<(TcpStream, SocketAddr)> {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.signalled() => return None,
            };
            match accepted {
                Ok(accepted) => return Some(accepted),
                Err(error) => {
                    let (whom, address) = (self.whom, self.address);
                    tracing::warn!(%address, %error, "a connection of {whom} could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_address_is_named_with_whom_it_was_for() {
        let first = Socket::open("clients", "127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let error = Socket::open("operators", first.address(), None).await.unwrap_err().to_string();
        let expected = format!("cannot listen on {} for operators: ", first.address());
        assert!(error.starts_with(&expected), "{error}");
    }

    #[tokio::test]
    async fn accepting_ends_with_the_signal() {
        let socket = Socket::open("clients", "127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let (signal, watch) = crate::drain::channel();
        let _client = TcpStream::connect(socket.address()).await.unwrap();
        assert!(socket.accept(&watch).await.is_some());
        signal.drain();
        assert!(socket.accept(&watch).await.is_none());
    }
}
