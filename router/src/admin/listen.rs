//! The operator's listener. It answers until the very end of a drain, so that health can be watched.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

use super::Admin;
use crate::drain::Watch;
use crate::tasks::{self, OnError};

const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for the operator: {error}")]
pub struct ListenError {
    address: SocketAddr,
    error: io::Error,
}

/// A bound listener; it accepts once it [`run`](Listener::run)s.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// On a socket that is open already, or one of its own.
    pub async fn open(
        address: SocketAddr,
        given: Option<std::net::TcpListener>,
    ) -> Result<Self, ListenError> {
        let failed = |error| ListenError { address, error };
        let listener = match given {
            Some(open) => TcpListener::from_std(open),
            None => TcpListener::bind(address).await,
        };
        let listener = listener.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`.
    pub async fn run(self, admin: Admin, stop: Watch) {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.signalled() => return,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let service = TowerToHyperService::new(admin.0.clone());
            tasks::spawn("operator connection", OnError::Log, async move {
                let mut builder = http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
                if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                    tracing::debug!(error = %error, "operator connection ended");
                }
                Ok::<(), Infallible>(())
            });
        }
    }
}
