//! `Idempotency-Key`: a prompt that is posted again, because its answer was lost, is the same job and gets the same answer.

use hyper::header::{HeaderMap, HeaderName};
use sha2::{Digest, Sha256};

use super::Front;
use super::answer::{self, Answer, Failed};
use crate::comfy::{PromptError, history, json};
use crate::model::job::{Number, Once};
use crate::scheduler::SubmitError;
use crate::scheduler::input::Refusal;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const MAX_KEY: usize = 255;

impl Front {
    /// The request's key, if it has one.
    pub(super) fn once(&self, headers: &HeaderMap, body: &[u8]) -> Result<Option<Once>, Answer> {
        let Some(key) = headers.get(KEY) else { return Ok(None) };
        let key = std::str::from_utf8(key.as_bytes()).ok().filter(|key| (1..=MAX_KEY).contains(&key.len()));
        let Some(key) = key else {
            let message = format!("an Idempotency-Key is a text of 1 to {MAX_KEY} bytes");
            return Err(answer::refused(&PromptError::new("invalid_idempotency_key", message, "")));
        };
        let until = self.parts.clock.now().wall.saturating_add(self.once_ms);
        let digest = Sha256::digest(body).into();
        Ok(Some(Once { key: key.to_owned(), digest, until, node_errors: String::new() }))
    }

    /// What the same request was answered before.
    pub(super) async fn answered_before(&self, tenant: &str, once: &Once) -> Result<Option<Answer>, Failed> {
        let known = self.parts.ledger.once(tenant, &once.key).await?;
        let now = self.parts.clock.now().wall;
        Ok(known.filter(|known| known.until > now).map(|known| match known.digest == once.digest {
            true => accepted(&known.prompt_id, known.number, &known.node_errors),
            false => answer::not_submitted(&SubmitError::Refused(Refusal::KeyReused)),
        }))
    }
}

pub(super) fn accepted(prompt_id: &str, number: Number, node_errors: &str) -> Answer {
    answer::json_text(format!(
        r#"{{"prompt_id": {}, "number": {}, "node_errors": {node_errors}}}"#,
        json::quote(prompt_id),
        history::number(number),
    ))
}
