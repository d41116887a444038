//! The client listener: bounded connections, bounded heads, an orderly end.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::server::conn::http1;

use super::{Front, connection};
use crate::config;
use crate::drain::Watch;
use crate::listen::{ListenError, Socket};

/// Connections of one address that is not this machine's.
const PER_ADDRESS: usize = 256;
/// Prompts are 5 to 200 KiB, and each read of a body is a write to an instance.
const MAX_READ: usize = 128 << 10;
const HYPERS_HEADERS: usize = 100;

/// A bound listener; it accepts once it [`run`](Listener::run)s.
#[derive(Debug)]
pub struct Listener(Socket);

/// Who is connected.
#[derive(Debug, Default)]
struct Crowd(Mutex<(usize, HashMap<IpAddr, usize>)>);

/// A place in the crowd.
pub(super) struct Place(Arc<Crowd>, IpAddr);

impl Listener {
    /// On a socket that is open already, or one of its own.
    pub async fn open(
        address: SocketAddr,
        given: Option<std::net::TcpListener>,
    ) -> Result<Self, ListenError> {
        Socket::open("clients", address, given).await.map(Self)
    }

    /// Where it listens; tells the port when any was asked for.
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// Accepts until the drain begins; answers under way then have a few seconds, which the drain waits for. Clients'
    /// websockets are the sessions' to close.
    pub async fn run(self, front: Arc<Front>, drain: Watch) {
        let crowd = Arc::new(Crowd::default());
        let builder = builder(&front.limits);
        while let Some((stream, peer)) = self.0.accept(&drain).await {
            match crowd.enter(peer.ip(), front.limits.connections) {
                Some(place) => connection::serve(stream, &builder, front.clone(), drain.clone(), place),
                None => tracing::warn!(peer = %peer.ip(), "connection refused: too many"),
            }
        }
    }
}

fn builder(limits: &config::Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // Bounds heads too; those that are over their own limit are refused by the gate.
        .max_buf_size(limits.header_bytes.max(MAX_READ))
        // `pipeline_flush` would make it collect whole answers, however large, in front of a client that reads slowly.
        .half_close(false);
    // Naming even hyper's own limit makes it clear two lists of that length for each head.
    if limits.headers != HYPERS_HEADERS {
        builder.max_headers(limits.headers);
    }
    builder
}

impl Crowd {
    fn enter(self: &Arc<Self>, address: IpAddr, limit: usize) -> Option<Place> {
        let mut crowd = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, addresses) = &mut *crowd;
        let here = addresses.get(&address).copied().unwrap_or(0);
        if *all >= limit || (here >= PER_ADDRESS && !address.is_loopback()) {
            return None;
        }
        *all += 1;
        addresses.insert(address, here + 1);
        Some(Place(self.clone(), address))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut crowd = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, addresses) = &mut *crowd;
        *all -= 1;
        if let Some(here) = addresses.get_mut(&self.1) {
            *here -= 1;
            if *here == 0 {
                addresses.remove(&self.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crowd_is_bounded_as_a_whole_and_by_address() {
        let crowd = Arc::new(Crowd::default());
        let remote: IpAddr = "192.0.2.1".parse().unwrap();
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        let places: Vec<_> = (0..PER_ADDRESS).map(|_| crowd.enter(remote, 1_000).unwrap()).collect();
        assert!(crowd.enter(remote, 1_000).is_none());
        let others: Vec<_> = (0..1_000 - PER_ADDRESS).map(|_| crowd.enter(local, 1_000).unwrap()).collect();
        assert!(crowd.enter(local, 1_000).is_none());
        drop(places);
        assert!(crowd.enter(remote, 1_000).is_some());
        drop(others);
        assert!(crowd.0.lock().unwrap().1.is_empty());
    }
}
