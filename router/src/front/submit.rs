//! `POST /prompt`.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName};
use serde_json::Value;
use uuid::Uuid;

use super::answer::{self, Answered, Failed};
use super::place::Inputs;
use super::{Call, Caller, Front, body, lacks, once};
use crate::comfy::errors::clip;
use crate::comfy::graph::{self, Analysis, Known, Rules};
use crate::comfy::{PromptError, Submission, prompt};
use crate::fleet::InstanceInfo;
use crate::metrics::{self, RouteKind};
use crate::model::id::JobId;
use crate::model::job::{Body, Job, JobClass, Number, Once, Rename};
use crate::scheduler::SubmitError;
use crate::scheduler::input::Refusal;

/// Of one kept header.
const MAX_HEADER: usize = 1_024;
const CLASS: HeaderName = HeaderName::from_static("x-comfy-class");

impl Front {
    pub(super) async fn submit(&self, call: Call) -> Answered {
        let headers = call.request.headers().clone();
        let body = body::read(call.request, self.limits.prompt_bytes, RouteKind::Here).await?;
        let once = self.once(&headers, &body)?;
        if let Some(once) = &once
            && let Some(answer) = self.answered_before(&call.caller.tenant, once).await?
        {
            return Ok(answer);
        }
        let submission = prompt::parse(&body).map_err(refused)?;
        drop(body);
        let client = |sid| self.parts.sessions.client(&call.caller.tenant, sid);
        let _post =
            submission.client_id.as_deref().and_then(client).map(|client| self.answering.begin(client));
        let (mut found, inputs) = self.examined(&submission, &call.caller).await?;
        let node_errors = found.node_errors.clone();
        let gathered = self.gather(&inputs, &found.needs.uploads).await?;
        found.needs.uploads = gathered.uploads;
        let files = (gathered.renames, gathered.kib);
        let mut job = self.job_of(submission, found, call.caller.tenant.clone(), &headers, files);
        let once = once.map(|once| Arc::new(Once { node_errors: node_errors.clone(), ..once }));
        job.once.clone_from(&once);
        let failed = match self.parts.scheduler.submit(job).await {
            Ok(taken) => {
                let node_errors = taken.known.as_deref().unwrap_or(&node_errors);
                return Ok(once::accepted(&taken.prompt_id, taken.number, node_errors));
            }
            Err(failed) => failed,
        };
        // The first of two equal requests may have become durable, and its job may be over, since the ledger was asked.
        if let (Some(once), SubmitError::Refused(Refusal::Storage { full: false, .. })) = (&once, &failed)
            && let Some(answer) = self.answered_before(&call.caller.tenant, once).await?
        {
            return Ok(answer);
        }
        Ok(answer::not_submitted(&failed))
    }

    /// ComfyUI's validation, against the whole fleet. Before a model is said to be nowhere, the instances are asked
    /// whether their lists have changed: ComfyUI reads the disk.
    async fn examined(&self, submission: &Submission, caller: &Caller) -> Result<(Analysis, Inputs), Failed> {
        let first = self.examined_now(submission, caller).await?;
        let found = match first {
            Err(error) if !error.lacking.loaders.is_empty() && self.renewed(&error.lacking.loaders).await => {
                self.examined_now(submission, caller).await?
            }
            other => other,
        };
        found.map_err(|error| refused(lacks::named(error, &self.parts.fleet.instances())).into())
    }

    async fn examined_now(
        &self,
        submission: &Submission,
        caller: &Caller,
    ) -> Result<Result<(Analysis, Inputs), PromptError>, Failed> {
        let catalogue = self.catalogue().await;
        if catalogue.is_empty() {
            metrics::job_refused("no_instance");
            return Err(answer::no_instance().into());
        }
        let inputs = self.inputs(caller, graph::named_files(&submission.graph, &catalogue)).await;
        let instances = self.parts.fleet.instances();
        let mut known: Vec<&InstanceInfo> =
            instances.iter().filter(|info| !info.catalogue.is_empty()).collect();
        known.sort_by_key(|info| !info.is_up());
        let rules = Rules::of(known.iter().filter_map(|info| info.version.as_deref()));
        let known = Known { catalogue: &catalogue, rules, absent: &inputs.absent };
        let found = graph::analyse(submission, &known);
        let found = found.and_then(|found| lacks::nobody(&found.needs, &instances).map_or(Ok(found), Err));
        Ok(found.map(|found| (found, inputs)))
    }

    fn job_of(
        &self,
        submission: Submission,
        found: Analysis,
        tenant: String,
        headers: &HeaderMap,
        (renames, input_kib): (Vec<Rename>, u32),
    ) -> Job {
        let minted = || Uuid::new_v4().to_string();
        let class = class(headers, &submission.extra_data);
        let prompt_id = submission.prompt_id.clone().unwrap_or_else(minted);
        let (client_id, requested) = (submission.client_id.clone(), submission.requested);
        let body = submission.into_body(found.outputs, self.kept(headers));
        Job {
            id: JobId::mint(),
            prompt_id,
            // The scheduler counts.
            number: Number::Counted(0),
            client_id,
            tenant,
            class,
            requested,
            accepted_at: self.parts.clock.now().wall,
            body: Arc::new(Body { renames, input_kib, ..body }),
            needs: Arc::new(found.needs),
            once: None,
        }
    }

    /// The headers that the operator wants policies to see.
    fn kept(&self, headers: &HeaderMap) -> Vec<(String, String)> {
        let text = |name: &String| {
            let value = String::from_utf8_lossy(headers.get(name)?.as_bytes()).into_owned();
            Some((name.clone(), clip(&value, MAX_HEADER).to_owned()))
        };
        self.kept_headers.iter().filter_map(text).collect()
    }
}

fn refused(error: PromptError) -> hyper::Response<axum::body::Body> {
    metrics::job_refused("invalid");
    if error.kind == "prompt_too_large" {
        let mut answer = answer::refused(&error);
        *answer.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        return answer;
    }
    answer::refused(&error)
}

/// `X-Comfy-Class`, else `extra_data.comfy_router.class`; anything unknown is standard.
fn class(headers: &HeaderMap, extra_data: &str) -> JobClass {
    let header = headers.get(CLASS).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let named = header.or_else(|| {
        if !extra_data.contains("comfy_router") {
            return None;
        }
        let extra: Value = serde_json::from_str(extra_data).ok()?;
        Some(extra.get("comfy_router")?.get("class")?.as_str()?.to_owned())
    });
    let named = named.unwrap_or_default().to_ascii_lowercase();
    serde_json::from_value(Value::String(named)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_is_the_submitters_word_or_standard() {
        let with = |header: Option<&str>, extra: &str| {
            let mut headers = HeaderMap::new();
            if let Some(value) = header {
                headers.insert(CLASS, value.parse().unwrap());
            }
            class(&headers, extra)
        };
        assert_eq!(with(Some("Batch"), "{}"), JobClass::Batch);
        assert_eq!(with(None, r#"{"comfy_router":{"class":"interactive"}}"#), JobClass::Interactive);
        assert_eq!(with(Some("root"), r#"{"comfy_router":{"class":"batch"}}"#), JobClass::Standard);
        for odd in
            ["{}", r#"{"comfy_router":null}"#, r#"{"comfy_router":{"class":[1]}}"#, "broken comfy_router"]
        {
            assert_eq!(with(None, odd), JobClass::Standard);
        }
    }
}
