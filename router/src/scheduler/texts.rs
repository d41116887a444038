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

/// What a policy may read of the jobs that it is asked about. Without it the policy is asked all the same.
pub(super) async fn fill(ledger: &ledger::Handle, question: &mut Question) {
    let views = jobs_of(question);
    let stored = |view: &JobView| view.texts.job.filter(|_| view.texts.body.stored.is_some());
    let wanted: Vec<JobId> = views.iter().filter_map(stored).collect();
    if wanted.is_empty() {
        return;
    }
    let mut read = match ledger.texts(wanted).await {
        Ok(read) => read,
        Err(error) => return tracing::warn!(%error, "the policy is asked without the prompts"),
    };
    for view in views {
        if let Some(texts) = view.texts.job.and_then(|job| read.remove(&job)) {
            view.texts.body = Arc::new(Body::with_texts(&view.texts.body, texts));
        }
    }
}

fn jobs_of(question: &mut Question) -> &mut [JobView] {
    match question {
        Question::Intake { job, .. }
        | Question::Reassess { job }
        | Question::Route { job, .. }
        | Question::OnTimeout { job, .. }
        | Question::OnFailure { job, .. } => std::slice::from_mut(job),
        Question::Place { jobs, .. } => jobs,
        Question::Tick { .. } | Question::Observe { .. } => &mut [],
    }
}

async fn read(ledger: &ledger::Handle, job: JobId) -> Result<Texts, String> {
    let mut found = ledger.texts(vec![job]).await.map_err(|error| error.to_string())?;
    found.remove(&job).ok_or_else(|| "its prompt is not in the ledger".to_owned())
}
