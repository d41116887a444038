//! What several instances say, told as one: nodes, devices, features, `/free`.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use http_body_util::{BodyExt, Limited};
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer::{self, Answer, Answered};
use super::{Call, Front, body};
use crate::comfy::{Catalogue, PromptError, json};
use crate::metrics::RouteKind;
use crate::model::id::InstanceId;
use crate::tasks::{self, OnError};

const MAX_FEATURES: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Caches {
    merged: Mutex<Merged>,
    features: Mutex<Option<Features>>,
}

/// What an instance answered in one of its lives.
#[derive(Debug, Clone)]
struct Features {
    instance: InstanceId,
    epoch: u64,
    flags: Map<String, Value>,
}

/// The catalogues that were merged, and the result.
#[derive(Debug, Clone, Default)]
struct Merged {
    of: Vec<Arc<Catalogue>>,
    whole: Arc<Catalogue>,
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
                return cached.whole.clone();
            }
        }
        // Several MB of JSON; nothing that may hold up the sockets.
        let work = tokio::task::spawn_blocking(move || Merged { whole: Catalogue::merged(&of), of });
        let merged = work.await.unwrap_or_default();
        let whole = merged.whole.clone();
        *self.caches.merged.lock().unwrap_or_else(PoisonError::into_inner) = merged;
        whole
    }

    /// Clients ask for this when their user wants fresh lists, so the instances are asked again; what they say is in
    /// the next answer.
    pub(super) async fn object_info(&self) -> Answered {
        let catalogue = self.catalogue().await;
        if catalogue.is_empty() {
            return Ok(answer::no_instance());
        }
        self.parts.fleet.instances().iter().for_each(|info| self.parts.fleet.refresh(&info.id));
        Ok(answer::json_text(catalogue.raw().clone()))
    }

    pub(super) async fn object_info_of(&self, call: Call) -> Answered {
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
        let mut flags = self.home_features().await;
        let limit = self.limits.upload_bytes;
        let theirs = flags.get("max_upload_size").and_then(Value::as_f64).unwrap_or(limit as f64);
        flags.insert("supports_preview_metadata".to_owned(), Value::from(true));
        flags.insert("max_upload_size".to_owned(), Value::from(limit.min(theirs.max(0.0) as u64)));
        // Progress texts pass as they come, without a prompt id.
        flags.remove("supports_progress_text_metadata");
        Value::Object(flags)
    }

    async fn home_features(&self) -> Map<String, Value> {
        let instances = self.parts.fleet.instances();
        let Some(home) = instances.iter().find(|info| info.is_up()) else { return Map::new() };
        let cached = self.caches.features.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = cached
            && (&known.instance, known.epoch) == (&home.id, home.epoch)
        {
            return known.flags;
        }
        let flags: Option<Map<String, Value>> = async {
            let request = Request::get("/features").body(Body::empty()).ok()?;
            let answer = self.parts.fleet.forward(&home.id, request).await.ok()?;
            let body = Limited::new(answer.into_body(), MAX_FEATURES).collect().await.ok()?;
            json::parse(&body.to_bytes()).ok()
        }
        .await;
        let Some(flags) = flags else { return Map::new() };
        let known = Features { instance: home.id.clone(), epoch: home.epoch, flags: flags.clone() };
        *self.caches.features.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        flags
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
