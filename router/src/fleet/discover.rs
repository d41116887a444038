//! Finding the ComfyUI servers of this machine.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::pool::Pool;
use super::{calls, stats};
use crate::config::{Discover, Instance, Url};

/// Tries every host and port at once; what answers `/system_stats` as a ComfyUI does is one. In the order of the
/// configuration.
pub async fn discover(config: &Discover) -> Vec<Instance> {
    let patience = Duration::from_millis(config.timeout_ms);
    let ports = || config.ports.first..=config.ports.last;
    let urls = config.hosts.iter().flat_map(|host| ports().map(move |port| Url::new(host.clone(), port)));
    let found = join_all(urls.map(|url| is_comfyui(url, patience))).await;
    found.into_iter().flatten().map(Instance::at).collect()
}

async fn is_comfyui(url: Url, patience: Duration) -> Option<Url> {
    let pool = Arc::new(Pool::new(url.clone(), patience, 0));
    match calls::get(&pool, "/system_stats", patience).await {
        Ok(body) => match stats::parse(&body) {
            Ok(_) => Some(url),
            Err(error) => {
                tracing::debug!(%url, %error, "something else than a ComfyUI listens there");
                None
            }
        },
        Err(error) => {
            if !error.is_refused() {
                tracing::info!(%url, %error, "a port is open, but no ComfyUI answers there");
            }
            None
        }
    }
}
