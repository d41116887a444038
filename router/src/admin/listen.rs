//! The operator's listener. It answers until the very end of a drain, so that health can be watched.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;

use super::Admin;
use crate::drain::Watch;
use crate::listen::{ListenError, Socket};
use crate::tasks::{self, OnError};

const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Status pages, scrapers and commands; whoever has more open has forgotten them.
const MOST_CONNECTIONS: usize = 256;

/// A bound listener; it accepts once it [`run`](Listener::run)s.
#[derive(Debug)]
pub struct Listener(Socket);

impl Listener {
    /// On a socket that is open already, or one of its own.
    pub async fn open(
        address: SocketAddr,
        given: Option<std::net::TcpListener>,
    ) -> Result<Self, ListenError> {
        Socket::open("operators", address, given).await.map(Self)
    }

    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// Serves until `stop`.
    pub async fn run(self, admin: Admin, stop: Watch) {
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        while let Some((stream, peer)) = self.0.accept(&stop).await {
            let Ok(place) = places.clone().try_acquire_owned() else {
                tracing::warn!(peer = %peer.ip(), "operator connection refused: too many");
                continue;
            };
            let service = TowerToHyperService::new(admin.0.clone());
            tasks::spawn("operator connection", OnError::Log, async move {
                let mut builder = http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
                if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                    tracing::debug!(error = %error, "operator connection ended");
                }
                drop(place);
                Ok::<(), Infallible>(())
            });
        }
    }
}
