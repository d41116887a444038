//! Was anything lost or run twice? Three accounts are compared: what the clients saw, what the router's ledger says,
//! and what the instances executed.

use std::collections::{BTreeMap, HashMap};

use comfyui_emulator::{Execution, Outcome};
use futures_util::StreamExt;
use serde::Deserialize;

use super::board::{Board, Entry, State};
use super::watch::Watch;
use crate::ledger::AttemptRow;

const AT_ONCE: usize = 16;

#[derive(Debug, Default, PartialEq)]
pub(super) struct Audit {
    /// By instance.
    pub(super) executions: BTreeMap<&'static str, usize>,
    pub(super) attempts: usize,
    /// Accepted, and without an end.
    pub(super) lost: usize,
    pub(super) images: usize,
    /// One sentence for each thing that is not as it must be.
    pub(super) problems: Vec<String>,
}

/// What the ledger says of one job.
#[derive(Debug, Deserialize)]
struct Job {
    attempts: Vec<AttemptRow>,
}

/// # Errors
/// When the router does not answer for a job it accepted.
pub(super) async fn audit(
    board: &Board,
    watch: &Watch,
    executions: &[(&'static str, Vec<Execution>)],
) -> anyhow::Result<Audit> {
    let mut ask = futures_util::stream::iter(board.entries().iter().map(|entry| async move {
        let Some(prompt_id) = &entry.prompt_id else { return Ok((entry, Vec::new())) };
        Ok::<_, anyhow::Error>((entry, watch.job::<Job>(prompt_id).await?.attempts))
    }))
    .buffered(AT_ONCE);
    let mut jobs = Vec::new();
    while let Some(job) = ask.next().await {
        jobs.push(job?);
    }
    Ok(compare(&jobs, executions))
}

fn compare(jobs: &[(&Entry, Vec<AttemptRow>)], executions: &[(&'static str, Vec<Execution>)]) -> Audit {
    let mut audit = Audit::default();
    // Attempts are told apart by the id the instance knows them by.
    let mut ran: HashMap<&str, Vec<(&str, &Execution)>> = HashMap::new();
    for (instance, executions) in executions {
        audit.executions.insert(*instance, executions.len());
        for execution in executions {
            ran.entry(&execution.prompt_id).or_default().push((*instance, execution));
        }
    }
    for (entry, attempts) in jobs {
        audit.attempts += attempts.len();
        let mut successes = 0;
        for row in attempts {
            let id = row.attempt.upstream_id.to_string();
            let found = ran.remove(id.as_str()).unwrap_or_default();
            successes +=
                found.iter().filter(|(_, execution)| execution.outcome == Some(Outcome::Success)).count();
            if found.len() > 1 || found.iter().any(|(instance, _)| *instance != row.attempt.instance.as_str())
            {
                audit
                    .problems
                    .push(format!("{} ran more than once or elsewhere than recorded", entry.label()));
            }
        }
        audit.judge(entry, successes);
    }
    audit.problems.extend(ran.keys().map(|id| format!("execution {id} is no attempt of any job")));
    audit
}

impl Audit {
    fn judge(&mut self, entry: &Entry, successes: usize) {
        let label = entry.label();
        match (&entry.state, &entry.checked) {
            (State::Done, Some(Ok(images))) => {
                self.images += images;
                if successes != 1 {
                    self.problems
                        .push(format!("{label} finished, but the instances ran it {successes} times"));
                }
            }
            (State::Done, Some(Err(wrong))) => self.problems.push(format!("image of {label}: {wrong}")),
            (State::Done, None) => self.problems.push(format!("the image of {label} was never fetched")),
            (State::Failed(why), _) => self.problems.push(format!("{label} failed: {why}")),
            (State::Planned, _) => self.problems.push(format!("{label} was never sent")),
            (State::Queued | State::Running(_), _) => {
                self.lost += 1;
                self.problems.push(format!("{label} was accepted and never ended"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::UpstreamId;
    use crate::model::job::{Attempt, AttemptOutcome};

    fn entry(state: State) -> Entry {
        Entry {
            client: "ann",
            workflow: "txt2img",
            models: "sdxl".into(),
            prompt_id: Some("p".into()),
            state,
            accepted: None,
            started: None,
            ended: None,
            checked: Some(Ok(1)),
        }
    }

    fn attempt() -> AttemptRow {
        let attempt =
            Attempt { number: 1, upstream_id: UpstreamId::mint(), instance: "gpu0-a".into(), started_at: 0 };
        AttemptRow {
            attempt,
            outcome: Some(AttemptOutcome::Success),
            ended_at: Some(1),
            detail: String::new(),
            stop: None,
        }
    }

    fn execution(attempt: &AttemptRow) -> Execution {
        Execution {
            order: 0,
            life: 1,
            prompt_id: attempt.attempt.upstream_id.to_string(),
            client_id: None,
            started_ms: 0,
            ended_ms: Some(1),
            outcome: Some(Outcome::Success),
            nodes_run: Vec::new(),
            inputs_hash: String::new(),
        }
    }

    #[test]
    fn one_attempt_and_one_execution_is_right() {
        let (done, row) = (entry(State::Done), attempt());
        let ran = vec![("gpu0-a", vec![execution(&row)])];
        let audit = compare(&[(&done, vec![row])], &ran);
        assert_eq!((audit.attempts, audit.images, audit.problems), (1, 1, vec![]));
    }

    #[test]
    fn what_ran_twice_elsewhere_or_never_is_found() {
        let (done, row) = (entry(State::Done), attempt());
        let one = execution(&row);
        for ran in [
            vec![("gpu0-a", vec![one.clone(), one.clone()])],
            vec![("gpu0-b", vec![one.clone()])],
            vec![("gpu0-a", vec![])],
            vec![("gpu0-a", vec![one.clone(), execution(&attempt())])],
        ] {
            assert!(!compare(&[(&done, vec![row.clone()])], &ran).problems.is_empty(), "{ran:?}");
        }
    }

    #[test]
    fn a_prompt_without_an_end_is_lost() {
        let queued = entry(State::Queued);
        let audit = compare(&[(&queued, vec![])], &[]);
        assert_eq!((audit.lost, audit.problems.len()), (1, 1));
        let failed = entry(State::Failed("no".into()));
        assert_eq!(compare(&[(&failed, vec![])], &[]).problems, ["ann sdxl failed: no"]);
    }
}
