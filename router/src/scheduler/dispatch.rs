//! Bringing an attempt to its instance, and telling it to stop.

use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use hyper::header::{ETAG, IF_NONE_MATCH};
use hyper::{Request, StatusCode};

use crate::assets::{self, Found};
use crate::comfy::files;
use crate::comfy::graph;
use crate::comfy::json::quote;
use crate::failpoint;
use crate::fleet::{self, SubmitError};
use crate::metrics;
use crate::model::id::{InstanceId, UpstreamId};
use crate::model::job::{Attempt, Job, UploadRef};

use super::driver::Organs;
use super::input::{EndKind, Ending, Input, Sighting};
use super::{settle, texts};

/// Register, stage what it lacks, send; says what came of it.
pub(super) async fn send(organs: &Organs, job: Arc<Job>, attempt: Attempt) -> Option<Input> {
    let (id, number) = (job.id, attempt.number);
    let job = match texts::whole(&organs.ledger, job).await {
        Ok(job) => job,
        Err(detail) => {
            return Some(Input::Attempt {
                job: id,
                number,
                sighting: Sighting::NotDispatched { detail, blame: false },
            });
        }
    };
    organs.relay.register(job.clone(), attempt.clone());
    let sighting = match bring(organs, &job, &attempt).await {
        Ok(()) => Sighting::Dispatched,
        Err(sighting) => sighting,
    };
    Some(Input::Attempt { job: id, number, sighting })
}

async fn bring(organs: &Organs, job: &Job, attempt: &Attempt) -> Result<(), Sighting> {
    let instance = &attempt.instance;
    let not_sent = |detail: String| Sighting::NotDispatched { detail, blame: false };
    if let Err(error) = organs.assets.stage(instance, &job.needs.uploads, &organs.fleet).await {
        return Err(not_sent(format!("an input could not be staged: {error}")));
    }
    let Some(sid) = organs.fleet.sid(instance) else {
        return Err(not_sent("its instance's socket is not connected".into()));
    };
    let body = body(job, attempt.upstream_id, &sid);
    failpoint::hit("before_post");
    let outcome = organs.fleet.submit(instance, attempt.upstream_id, body).await;
    failpoint::hit("after_post");
    match outcome {
        Ok(_) => Ok(()),
        Err(SubmitError::Invalid { body, .. }) => Err(Sighting::Ended(rejected(job, &body))),
        Err(error @ SubmitError::NoSuchInstance(_)) => Err(not_sent(error.to_string())),
        Err(error @ SubmitError::Refused(_)) => {
            Err(Sighting::NotDispatched { detail: error.to_string(), blame: true })
        }
        Err(error @ SubmitError::Unknown(_)) => Err(Sighting::DispatchUnknown { detail: error.to_string() }),
    }
}

impl assets::Instances for fleet::Handle {
    fn epoch(&self, instance: &InstanceId) -> u64 {
        self.instance(instance).map_or(0, |info| info.epoch)
    }

    async fn upload(&self, instance: &InstanceId, file: &UploadRef, source: &Path) -> Result<(), String> {
        let size = tokio::fs::metadata(source).await.map_or(0, |meta| meta.len());
        self.upload(instance, file, source).await.map_err(|error| error.to_string())?;
        metrics::upload_staged(instance, size);
        Ok(())
    }

    async fn download(
        &self,
        instance: &InstanceId,
        file: &UploadRef,
        tag: Option<&str>,
    ) -> Result<Found, String> {
        let mut request = Request::get(files::view_path(file));
        if let Some(tag) = tag {
            request = request.header(IF_NONE_MATCH, tag);
        }
        let request = request.body(Body::empty()).map_err(|error| error.to_string())?;
        let answer = self.forward(instance, request).await.map_err(|error| error.to_string())?;
        let tag = answer.headers().get(ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        match answer.status() {
            StatusCode::OK => Ok(Found::Content { body: answer.into_body(), tag }),
            StatusCode::NOT_MODIFIED => Ok(Found::Same),
            StatusCode::NOT_FOUND => Ok(Found::Absent),
            other => Err(format!("the instance answers {other}")),
        }
    }
}

/// The instance found the prompt invalid.
fn rejected(job: &Job, body: &[u8]) -> Ending {
    let (detail, history) = settle::rejection(job, body);
    Ending { kind: EndKind::Rejected, detail, history, load_ms: 0 }
}

/// What the instance is sent: the graph byte for byte but for renamed files, under the attempt's own id and the router's own session.
fn body(job: &Job, upstream: UpstreamId, sid: &str) -> Bytes {
    let body = &job.body;
    let mut text = String::with_capacity(body.prompt.len() + body.extra_data.len() + 512);
    text.push_str("{\"client_id\":");
    text.push_str(&quote(sid));
    text.push_str(",\"prompt_id\":");
    text.push_str(&quote(&upstream.to_string()));
    text.push_str(",\"extra_data\":");
    text.push_str(&extra_data(job));
    if let Some(targets) = &body.targets {
        text.push_str(",\"partial_execution_targets\":");
        text.push_str(&serde_json::json!(targets).to_string());
    }
    text.push_str(",\"prompt\":");
    match body.renames.is_empty() {
        true => text.push_str(&body.prompt),
        false => text.push_str(&graph::renamed(&body.prompt, &body.renames)),
    }
    text.push('}');
    text.into()
}

/// With the credentials back in.
fn extra_data(job: &Job) -> String {
    let plain = job.body.extra_data.trim();
    let mut text = plain.strip_suffix('}').unwrap_or("{").to_owned();
    for (name, value) in &job.body.secrets.0 {
        if !text.trim_end().ends_with('{') {
            text.push(',');
        }
        text.push_str(&quote(name));
        text.push(':');
        text.push_str(value);
    }
    text.push('}');
    text
}

/// Interrupt it, or take it out of the instance's queue if it has not begun.
pub(super) async fn stop(
    fleet: &fleet::Handle,
    instance: &InstanceId,
    upstream: UpstreamId,
) -> Option<Input> {
    if let Err(error) = fleet.dequeue(instance, upstream).await {
        tracing::warn!(%instance, %error, "could not take a prompt out of the instance's queue");
    }
    if let Err(error) = fleet.interrupt(instance, upstream).await {
        tracing::warn!(%instance, %error, "could not interrupt");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::job::{Body, Rename, Secrets};

    fn job(extra_data: &str, secrets: &[(&str, &str)]) -> Job {
        let secrets = Secrets(secrets.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect());
        let body = Body {
            prompt: r#"{"1": {"class_type":"A","inputs":{"x":1e400}}}"#.into(),
            extra_data: extra_data.into(),
            secrets,
            targets: Some(vec!["1".into()]),
            ..Body::default()
        };
        Job { body: body.into(), ..crate::scheduler::core::plain_job("t") }
    }

    #[test]
    fn the_graph_travels_byte_for_byte_and_credentials_with_it() {
        let job = job(r#"{"extra_pnginfo": {}}"#, &[("api_key_comfy_org", "\"k\"")]);
        let upstream = UpstreamId::mint();
        let text = String::from_utf8(body(&job, upstream, "router").to_vec()).unwrap();
        assert!(text.contains(&format!(r#""prompt":{}"#, job.body.prompt)));
        assert!(text.contains(r#""extra_data":{"extra_pnginfo": {},"api_key_comfy_org":"k"}"#), "{text}");
        assert!(text.contains(&format!(r#""prompt_id":"{upstream}""#)));
        assert!(text.contains(r#""partial_execution_targets":["1"]"#));
    }

    #[test]
    fn a_file_is_sent_under_the_name_that_the_instance_has_it_by() {
        let mut job = job("{}", &[]);
        let rename = Rename { node: "1".into(), input: "x".into(), value: "~i0/a.png [output]".into() };
        Arc::make_mut(&mut job.body).renames = vec![rename];
        let text = String::from_utf8(body(&job, UpstreamId::mint(), "router").to_vec()).unwrap();
        assert!(
            text.contains(r#""prompt":{"1": {"class_type":"A","inputs":{"x":"~i0/a.png [output]"}}}"#),
            "{text}"
        );
    }

    #[test]
    fn empty_extra_data_takes_credentials_too() {
        assert_eq!(extra_data(&job("{}", &[("a", "1"), ("b", "2")])), r#"{"a":1,"b":2}"#);
        assert_eq!(extra_data(&job("{}", &[])), "{}");
    }
}
