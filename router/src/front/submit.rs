//! `POST /prompt`.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName};
use serde_json::Value;
use uuid::Uuid;

use super::answer::{self, Answered};
use super::{Call, Front, body};
use crate::comfy::errors::clip;
use crate::comfy::graph::{self, Analysis};
use crate::comfy::{PromptError, Submission, history, json, prompt};
use crate::metrics;
use crate::model::id::JobId;
use crate::model::job::{Body, Job, JobClass, Number};

/// Of one kept header.
const MAX_HEADER: usize = 1_024;
const CLASS: HeaderName = HeaderName::from_static("x-comfy-class");

impl Front {
    pub(super) async fn submit(&self, call: Call) -> Answered {
        let headers = call.request.headers().clone();
        let body = body::read(call.request, self.limits.prompt_bytes, "here").await?;
        let submission = prompt::parse(&body).map_err(refused)?;
        drop(body);
        let catalogue = self.catalogue().await;
        if catalogue.is_empty() {
            metrics::job_refused("no_instance");
            return Ok(answer::no_instance());
        }
        let found = graph::analyse(&submission, &catalogue).map_err(refused)?;
        let node_errors = found.node_errors.clone();
        let input_kib = self.gather(&found.needs.uploads).await;
        let job = self.job_of(submission, found, call.caller.tenant, &headers, input_kib);
        match self.parts.scheduler.submit(job).await {
            Ok(accepted) => Ok(answer::json_text(format!(
                r#"{{"prompt_id": {}, "number": {}, "node_errors": {node_errors}}}"#,
                json::quote(&accepted.prompt_id),
                history::number(accepted.number),
            ))),
            Err(failed) => Ok(answer::not_submitted(&failed)),
        }
    }

    fn job_of(
        &self,
        submission: Submission,
        found: Analysis,
        tenant: String,
        headers: &HeaderMap,
        kib: u32,
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
            body: Arc::new(Body { input_kib: kib, ..body }),
            needs: Arc::new(found.needs),
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
