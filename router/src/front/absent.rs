//! What only the instances' disks can tell when a prompt is posted: ComfyUI looks there, so the router must ask. Whether
//! uploaded files that the prompt names are there, and whether lists of models have changed since they were read.

use std::collections::HashSet;
use std::time::Duration;

use axum::body::Body;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Limited};
use hyper::{Method, Request, StatusCode};
use serde_json::Value;

use super::{Front, body, upload};
use crate::comfy::{files, json};
use crate::fleet::InstanceInfo;
use crate::model::id::InstanceId;
use crate::model::job::UploadRef;

/// A prompt that names more files is let through: the instance looks again.
const MOST: usize = 32;
/// An instance that does not answer in time may have the file.
const PATIENCE: Duration = Duration::from_secs(3);
/// Reading a whole catalogue again.
const RENEWAL: Duration = Duration::from_secs(15);
/// Of one class's description, in bytes.
const MAX_LIST: usize = 16 << 20;

impl Front {
    /// Those that the router does not keep and that every instance which is up denies. Files of a result belong to the
    /// instance that made it, and are asked for there.
    pub(super) async fn absent(&self, named: HashSet<UploadRef>) -> HashSet<UploadRef> {
        if named.len() > MOST {
            return HashSet::new();
        }
        let unknown = named.into_iter().filter(|file| self.parts.assets.path(file).is_none());
        let looked_for = unknown.map(|file| async move { self.nobody_has(&file).await.then_some(file) });
        join_all(looked_for).await.into_iter().flatten().collect()
    }

    async fn nobody_has(&self, file: &UploadRef) -> bool {
        let (tagged, subfolder) = files::untag(&file.subfolder);
        let there = UploadRef { subfolder: subfolder.to_owned(), ..file.clone() };
        let instances = self.parts.fleet.instances();
        let asked =
            instances.iter().filter(|info| info.is_up() && tagged.as_ref().is_none_or(|id| *id == info.id));
        let denied = join_all(asked.map(|info| self.denies(&info.id, &there))).await;
        !denied.is_empty() && denied.into_iter().all(|denied| denied)
    }

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
            let newer = self.parts.fleet.newer_catalogue(&info.id, &info.catalogue);
            tokio::time::timeout(RENEWAL, newer).await.is_ok()
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

    async fn denies(&self, instance: &InstanceId, file: &UploadRef) -> bool {
        let Ok(request) =
            Request::builder().method(Method::HEAD).uri(upload::view_path(file)).body(Body::empty())
        else {
            return false;
        };
        let answer = tokio::time::timeout(PATIENCE, self.parts.fleet.forward(instance, request)).await;
        matches!(answer, Ok(Ok(answer)) if answer.status() == StatusCode::NOT_FOUND)
    }
}
