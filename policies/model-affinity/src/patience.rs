//! How long each job has been held already.

use comfy_router_policy::Job;

/// Jobs remembered; with more, the longest held are forgotten first, and could be held a second time.
const REMEMBERED: usize = 1_024;

/// Two clocks are behind `waited_ms` and `now_ms`; their sum may differ by this from call to call.
const JITTER_MS: f64 = 50.0;

#[derive(Debug, Default)]
pub(crate) struct Patience(Vec<Held>);

/// A job has no number that outlives a call, so it is known by who sent what when. Jobs that share all three share
/// their patience, which can only make it shorter.
#[derive(Debug)]
struct Held {
    client: u32,
    signature: u32,
    accepted_ms: f64,
    since_ms: f64,
}

impl Held {
    fn is(&self, job: &Job, now_ms: f64) -> bool {
        self.client == job.client
            && self.signature == job.signature
            && (self.accepted_ms - accepted(job, now_ms)).abs() <= JITTER_MS
    }
}

impl Patience {
    /// What is left of `total_ms` for this job. The first question starts its count.
    pub(crate) fn left(&mut self, job: &Job, now_ms: f64, total_ms: u32) -> u32 {
        if let Some(held) = self.0.iter().find(|held| held.is(job, now_ms)) {
            let used = (now_ms - held.since_ms).max(0.0);
            return (f64::from(total_ms) - used).max(0.0) as u32;
        }
        if self.0.len() == REMEMBERED {
            self.0.remove(0);
        }
        let accepted_ms = accepted(job, now_ms);
        self.0.push(Held { client: job.client, signature: job.signature, accepted_ms, since_ms: now_ms });
        total_ms
    }

    /// The job is sent somewhere.
    pub(crate) fn forget(&mut self, job: &Job, now_ms: f64) {
        self.0.retain(|held| !held.is(job, now_ms));
    }
}

fn accepted(job: &Job, now_ms: f64) -> f64 {
    now_ms - f64::from(job.waited_ms)
}
