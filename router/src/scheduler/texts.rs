//! Large texts of waiting jobs that are not in memory: read from the ledger for whoever needs them.

use std::sync::Arc;

use crate::ledger;
use crate::model::decision::Question;
use crate::model::id::JobId;
use crate::model::job::{Body, Job, Texts};
use crate::model::view::JobView;

/// The job with its texts; the error is one line for its record.
pub(super) async fn whole(ledger: &ledger::Handle, job: Arc<Job>) -> Result<Arc<Job>, String> {
    if job.body.stored.is_none() {
        return Ok(job);
    }
    let texts = read(ledger, job.id).await?;
    let body = Arc::new(job.body.with_texts(texts));
    Ok(Arc::new(Job { body, ..Job::clone(&job) }))
}

/// What a policy may read of the job that it is asked about. Without it the policy is asked all the same.
pub(super) async fn fill(ledger: &ledger::Handle, question: &mut Question) {
    let Some(view) = job_of(question).filter(|view| view.texts.body.stored.is_some()) else { return };
    let Some(job) = view.texts.job else { return };
    match read(ledger, job).await {
        Ok(texts) => view.texts.body = Arc::new(Body::with_texts(&view.texts.body, texts)),
        Err(error) => tracing::warn!(%job, error, "the policy is asked without the prompt"),
    }
}

fn job_of(question: &mut Question) -> Option<&mut JobView> {
    match question {
        Question::Intake { job, .. }
        | Question::Reassess { job }
        | Question::Route { job, .. }
        | Question::OnTimeout { job, .. }
        | Question::OnFailure { job, .. } => Some(job),
        Question::Tick { .. } | Question::Observe { .. } => None,
    }
}

async fn read(ledger: &ledger::Handle, job: JobId) -> Result<Texts, String> {
    let mut found = ledger.texts(vec![job]).await.map_err(|error| error.to_string())?;
    found.remove(&job).ok_or_else(|| "its prompt is not in the ledger".to_owned())
}
