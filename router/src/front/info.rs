//! What several instances say, told as one: nodes, devices, features, `/free`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Limited};
use hyper::header::{CACHE_CONTROL, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, PRAGMA};
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::answer::{self, Answer, Answered};
use super::{Call, Front, body, home};
use crate::comfy::{Catalogue, PromptError, json};
use crate::fleet::InstanceInfo;
use crate::metrics::RouteKind;
use crate::model::id::InstanceId;
use crate::tasks::{self, OnError};

const MAX_FEATURES: usize = 1 << 20;
/// How long a client that wants fresh lists is made to wait for an instance; then it gets those known.
const FRESH: Duration = Duration::from_secs(5);
/// How long an instance may take to name its features.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Default)]
pub(super) struct Caches {
    merged: Mutex<Merged>,
    features: Mutex<Vec<Features>>,
    /// An upload changed a list since the instances were last asked.
    lists_changed: AtomicBool,
}

/// What an instance answered in one of its lives.
#[derive(Debug, Clone)]
struct Features {
    instance: InstanceId,
    epoch: u64,
    flags: Map<String, Value>,
}

/// The catalogues that were merged, and the result.
#[derive(Debug, Clone)]
struct Merged {
    of: Vec<Arc<Catalogue>>,
    whole: Arc<Catalogue>,
    /// Of the whole text.
    tag: HeaderValue,
}

impl Default for Merged {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Merged {
    fn new(of: Vec<Arc<Catalogue>>) -> Self {
        let whole = Catalogue::merged(&of);
        let digest = Sha256::digest(whole.raw());
        let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let tag = HeaderValue::try_from(format!("\"{hex}\""));
        Self { of, whole, tag: tag.unwrap_or_else(|_| HeaderValue::from_static("\"\"")) }
    }
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Free {
    unload_models: Value,
    free_memory: Value,
}

impl Front {
    /// The union of what all instances have, those included that were up once and are down now: a job for them waits.
    pub(super) async fn catalogue(&self) -> Arc<Catalogue> {
        self.merged().await.whole
    }

    async fn merged(&self) -> Merged {
        let instances = self.parts.fleet.instances();
        let of: Vec<Arc<Catalogue>> = instances
            .iter()
            .map(|info| info.catalogue.clone())
            .filter(|catalogue| !catalogue.is_empty())
            .collect();
        {
            let cached = self.caches.merged.lock().unwrap_or_else(PoisonError::into_inner);
            let same =
                cached.of.len() == of.len() && cached.of.iter().zip(&of).all(|(a, b)| Arc::ptr_eq(a, b));
            if same {
                return cached.clone();
            }
        }
        // Several MB of JSON; nothing that may hold up the sockets.
        let merged = tokio::task::spawn_blocking(move || Merged::new(of)).await.unwrap_or_default();
        *self.caches.merged.lock().unwrap_or_else(PoisonError::into_inner) = merged.clone();
        merged
    }

    /// From memory, like a file. A client that says it wants nothing old, as the page does when its user asks for fresh
    /// lists, waits until the instances have been asked again; so does the first after an upload.
    pub(super) async fn object_info(&self, call: Call) -> Answered {
        let headers = call.request.headers();
        self.brought_up_to_date(headers).await;
        let merged = self.merged().await;
        if merged.whole.is_empty() {
            return Ok(answer::no_instance());
        }
        let known = headers.get_all(IF_NONE_MATCH).iter().any(|tags| has_tag(tags, &merged.tag));
        let mut answer = match known {
            true => answer::status(StatusCode::NOT_MODIFIED),
            false => answer::json_text(merged.whole.raw().clone()),
        };
        answer.headers_mut().insert(ETAG, merged.tag);
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        Ok(answer)
    }

    async fn brought_up_to_date(&self, headers: &HeaderMap) {
        let changed = self.caches.lists_changed.swap(false, Ordering::Relaxed);
        let instances = self.parts.fleet.instances();
        let up = instances.iter().filter(|info| info.is_up());
        // An upload is given to the home instance, and it alone has to be asked about it.
        let asked = if wants_fresh(headers) { usize::MAX } else { usize::from(changed) };
        self.reread(up.take(asked).map(|info| info.id.clone()).collect()).await;
    }

    async fn reread(&self, instances: Vec<InstanceId>) {
        let asked = join_all(instances.iter().map(|id| self.parts.fleet.reread(id)));
        if tokio::time::timeout(FRESH, asked).await.is_err() {
            tracing::info!("an instance did not list its nodes in time, those known are shown");
        }
    }

    /// The lists of uploads are others than a moment ago.
    pub(super) fn lists_changed(&self) {
        self.caches.lists_changed.store(true, Ordering::Relaxed);
    }

    pub(super) async fn object_info_of(&self, call: Call) -> Answered {
        self.brought_up_to_date(call.request.headers()).await;
        let class = call.params.first().map(String::as_str).unwrap_or_default();
        Ok(answer::json_text(self.catalogue().await.raw_class(class)))
    }

    /// The home instance's system, and the devices of all instances.
    pub(super) fn system_stats(&self) -> Answered {
        let instances = self.parts.fleet.instances();
        let mut system = None;
        let mut devices = Vec::new();
        for info in instances.iter().filter(|info| info.is_up()) {
            let Ok(mut stats) = json::parse::<Map<String, Value>>(&info.system_stats) else { continue };
            system = system.or_else(|| stats.remove("system"));
            let Some(Value::Array(own)) = stats.remove("devices") else { continue };
            for mut device in own {
                if let Some(device) = device.as_object_mut() {
                    device.insert("index".to_owned(), Value::from(devices.len()));
                    device.insert("instance".to_owned(), Value::from(info.id.as_str()));
                }
                devices.push(device);
            }
        }
        Ok(match system {
            Some(system) => {
                answer::json_value(StatusCode::OK, &json!({"system": system, "devices": devices}))
            }
            None => answer::no_instance(),
        })
    }

    pub(super) async fn features_answer(&self) -> Answer {
        answer::json_value(StatusCode::OK, &self.features().await)
    }

    /// The home instance's flags, with what the router itself does better or worse.
    pub(super) async fn features(&self) -> Value {
        let all = self.all_features().await;
        let mut flags = all.first().cloned().unwrap_or_default();
        flags.insert("supports_preview_metadata".to_owned(), Value::from(true));
        flags.insert("max_upload_size".to_owned(), Value::from(least_upload(self.limits.upload_bytes, &all)));
        // Progress texts pass as they come, without a prompt id.
        flags.remove("supports_progress_text_metadata");
        Value::Object(flags)
    }

    /// What every instance takes: an upload may have to go to any of them.
    pub(super) async fn upload_limit(&self) -> u64 {
        least_upload(self.limits.upload_bytes, &self.all_features().await)
    }

    /// Of the instances that are up, the home instance first. Asked once in each of their lives.
    async fn all_features(&self) -> Vec<Map<String, Value>> {
        let instances = self.parts.fleet.instances();
        let up: Vec<_> = instances.iter().filter(|info| info.is_up()).collect();
        let known = self.caches.features.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of = |info: &InstanceInfo| {
            known.iter().find(|known| known.instance == info.id && known.epoch == info.epoch).cloned()
        };
        let asked = up.iter().map(async |info| match of(info) {
            Some(known) => Some(known),
            None => self.asked_features(info).await,
        });
        let now: Vec<Features> = join_all(asked).await.into_iter().flatten().collect();
        if now.len() != known.len() || up.iter().any(|info| of(info).is_none()) {
            self.caches.features.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&now);
        }
        now.into_iter().map(|features| features.flags).collect()
    }

    async fn asked_features(&self, info: &InstanceInfo) -> Option<Features> {
        let asking = async {
            let request = Request::get("/features").body(Body::empty()).ok()?;
            let answer = self.parts.fleet.forward(&info.id, request).await.ok()?;
            let body = Limited::new(answer.into_body(), MAX_FEATURES).collect().await.ok()?;
            json::parse(&body.to_bytes()).ok()
        };
        let flags = tokio::time::timeout(PATIENCE, asking).await.ok()??;
        Some(Features { instance: info.id.clone(), epoch: info.epoch, flags })
    }

    /// Every instance that is up is told; as in ComfyUI the answer does not wait for it to be done.
    pub(super) async fn free(&self, call: Call) -> Answered {
        let (_, body) = self.command(call).await?;
        let Some(free) = body::parsed::<Free>(&body)? else {
            return Ok(answer::refused(&PromptError::invalid_json("the body is empty")));
        };
        let wanted = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
        let (unload, memory) = (wanted(&free.unload_models), wanted(&free.free_memory));
        if !unload && !memory {
            return Ok(answer::ok());
        }
        for info in self.parts.fleet.instances().iter().filter(|info| info.is_up()) {
            let (fleet, id) = (self.parts.fleet.clone(), info.id.clone());
            tasks::spawn("free", OnError::Log, async move {
                if let Err(error) = fleet.free(&id, unload, memory).await {
                    tracing::warn!(instance = %id, error = %error, "instance could not be told to free memory");
                }
            });
        }
        Ok(answer::ok())
    }

    /// Log lines go to the socket that the instance knows, the router's own; the sessions know which clients asked.
    pub(super) async fn log_subscription(&self, call: Call) -> Answered {
        if call.caller.apart {
            return Ok(home::denied());
        }
        let tenant = call.caller.tenant.clone();
        let (parts, body) = call.request.into_parts();
        let body =
            body::read(Request::from_parts(parts.clone(), body), self.limits.body_bytes, RouteKind::Home)
                .await?;
        let Some(home) = self.parts.fleet.home() else { return Ok(answer::no_instance()) };
        let Some(mut wanted) = body::parsed::<Map<String, Value>>(&body)? else { return Ok(answer::ok()) };
        if let (Some(client), Some(enabled)) = (wanted.get("clientId"), wanted.get("enabled")) {
            let client = client.as_str().unwrap_or_default();
            let enabled = !matches!(enabled, Value::Null | Value::Bool(false));
            let anybody = self.parts.sessions.subscribe_logs(&tenant, client, enabled);
            wanted.insert("enabled".to_owned(), Value::from(anybody));
            self.parts.fleet.follow_logs(anybody);
            if let Some(sid) = self.parts.fleet.sid(&home) {
                wanted.insert("clientId".to_owned(), Value::from(&*sid));
            }
        }
        let text = Value::Object(wanted).to_string();
        let mut request = Request::from_parts(parts, Body::from(text.clone()));
        request.headers_mut().insert(hyper::header::CONTENT_LENGTH, text.len().into());
        Ok(self.pass(&home, request).await)
    }
}

/// What browsers add to a request whose answer must not come from their cache.
fn wants_fresh(headers: &HeaderMap) -> bool {
    let says = |name| headers.get(name).is_some_and(|value: &HeaderValue| value.as_bytes() == b"no-cache");
    says(CACHE_CONTROL) || says(PRAGMA)
}

/// `If-None-Match` compares weakly.
fn has_tag(list: &HeaderValue, tag: &HeaderValue) -> bool {
    let (Ok(list), Ok(tag)) = (list.to_str(), tag.to_str()) else { return false };
    list.split(',').map(|one| one.trim().trim_start_matches("W/")).any(|one| one == tag || one == "*")
}

fn least_upload(own: u64, all: &[Map<String, Value>]) -> u64 {
    let theirs = all.iter().filter_map(|flags| flags.get("max_upload_size").and_then(Value::as_f64));
    theirs.map(|size| size.max(0.0) as u64).fold(own, u64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_of_all_counts() {
        let says = |size: Value| Map::from_iter([("max_upload_size".to_owned(), size)]);
        let all = [says(json!(200)), says(json!(150.0)), Map::new(), says(json!("many"))];
        assert_eq!(least_upload(100, &all), 100);
        assert_eq!(least_upload(1_000, &all), 150);
        assert_eq!(least_upload(1_000, &[says(json!(-1))]), 0);
    }

    #[test]
    fn tags_are_found_in_lists_and_weak_ones_count() {
        let has =
            |list: &'static str| has_tag(&HeaderValue::from_static(list), &HeaderValue::from_static("\"a\""));
        assert!(has("\"a\"") && has("\"b\", W/\"a\"") && has("*"));
        assert!(!has("\"b\"") && !has("a") && !has(""));
    }
}
