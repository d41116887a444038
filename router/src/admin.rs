//! The operators' listener: to be replaced by the real one within the hour.
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::drain::Watch;
use crate::{fleet, ledger, metrics, policy, scheduler, sessions, telemetry};

#[derive(Debug, Clone)]
pub struct Parts {
    pub scheduler: scheduler::Handle,
    pub ledger: ledger::Handle,
    pub fleet: fleet::Handle,
    pub policy: policy::Handle,
    pub telemetry: telemetry::Handle,
    pub sessions: sessions::Handle,
    pub metrics: metrics::Metrics,
    pub drain: Watch,
}

#[derive(Debug)]
pub struct Admin(Parts);

impl Admin {
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self(parts))
    }
}

#[derive(Debug)]
pub struct Listener(TcpListener, SocketAddr);

impl Listener {
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self(listener, address))
    }

    pub fn address(&self) -> SocketAddr {
        self.1
    }

    pub async fn run(self, admin: Arc<Admin>, drain: Watch) {
        let metrics = admin.0.metrics.clone();
        let app = Router::new()
            .route("/livez", get(|| async { "ok" }))
            .route("/metrics", get(move || async move { metrics.render() }));
        let _ = axum::serve(self.0, app).with_graceful_shutdown(async move { drain.signalled().await }).await;
    }
}
