//! Whether lists of models have changed since they were read. ComfyUI looks at its disk when a prompt is posted, so before the
//! router says that a model is nowhere it asks.

use std::collections::HashSet;
use std::time::Duration;

use axum::body::Body;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Limited};
use hyper::Request;
use serde_json::Value;

use super::{Front, body};
use crate::comfy::json;
use crate::fleet::InstanceInfo;

/// Loaders of one prompt that are asked about.
const MOST: usize = 32;
/// An instance that does not answer in time has nothing new.
const PATIENCE: Duration = Duration::from_secs(3);
/// Reading a whole catalogue again.
const RENEWAL: Duration = Duration::from_secs(15);
/// Of one class's description, in bytes.
const MAX_LIST: usize = 16 << 20;

impl Front {
    /// Asks every instance that is up for the lists of these classes; true if one of them changed, and is known now.
    pub(super) async fn renewed(&self, loaders: &[String]) -> bool {
        let loaders: HashSet<&String> = loaders.iter().take(MOST).collect();
        let instances = self.parts.fleet.instances();
        let up = instances.iter().filter(|info| info.is_up());
        let renewed = join_all(up.map(|info| async {
            let asked = join_all(loaders.iter().map(|class| self.has_changed(info, class))).await;
            if !asked.contains(&true) {
                return false;
            }
            tokio::time::timeout(RENEWAL, self.parts.fleet.reread(&info.id)).await.is_ok()
        }));
        renewed.await.contains(&true)
    }

    async fn has_changed(&self, info: &InstanceInfo, class: &str) -> bool {
        let path = format!("/object_info/{}", body::percent_encoded(class));
        let Ok(request) = Request::get(path).body(Body::empty()) else { return false };
        let asking = async {
            let answer = self.parts.fleet.forward(&info.id, request).await.ok()?;
            let text = Limited::new(answer.into_body(), MAX_LIST).collect().await.ok()?.to_bytes();
            json::parse::<Value>(&text).ok()
        };
        let Ok(Some(now)) = tokio::time::timeout(PATIENCE, asking).await else { return false };
        serde_json::from_str::<Value>(&info.catalogue.raw_class(class)).is_ok_and(|known| known != now)
    }
}
