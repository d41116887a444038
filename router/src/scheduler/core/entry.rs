//! What is known of one open job and of its live attempt.

use std::sync::Arc;

use crate::clock::Tick;
use crate::model::decision::{Limits, Priority};
use crate::model::event::StopReason;
use crate::model::id::JobId;
use crate::model::job::{Attempt, Job, ModelRef, Number};
use crate::scheduler::queue::Waiting;

use super::routing::RECONSIDER_MS;

/// One open job.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) job: Arc<Job>,
    pub(super) seq: u64,
    pub(super) tenant: u32,
    pub(super) client: u32,
    /// What the job's capabilities are told apart by.
    pub(super) kind: u64,
    /// An operator's, see [`crate::model::event::Standing`].
    pub(super) place: i64,
    pub(super) pinned: bool,
    pub(super) priority: Priority,
    pub(super) limits: Limits,
    pub(super) accepted: Tick,
    pub(super) phase: Phase,
    /// Attempts started so far.
    pub(super) attempts: u32,
    pub(super) last_attempt: Option<Attempt>,
    /// The policy asked to keep away from this instance.
    pub(super) avoid: Option<usize>,
    /// It was stopped for good while there was no attempt to stop, and in which words it ends.
    pub(super) unwanted: Option<&'static str>,
    /// It ran out of memory before.
    pub(super) ran_out: bool,
    /// It did so on a GPU of so many MiB: only larger ones are tried.
    pub(super) outgrew_mib: Option<u32>,
    /// Milliseconds it has been held by the policy in all, the present hold not counted.
    pub(super) held_ms: u64,
    pub(super) held: Option<Hold>,
}

/// The policy does not want it to start yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    pub(super) since: Tick,
    pub(super) ms: u64,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Its acceptance is being made durable.
    Accepting,
    Waiting,
    /// A live attempt.
    Running(Box<Run>),
    /// It was taken out of the queue, which is being made durable.
    Removed,
    /// Its end is being made durable, or that it waits again.
    Ending,
}

#[derive(Debug)]
pub(super) struct Run {
    pub(super) attempt: Attempt,
    pub(super) instance: usize,
    pub(super) delivery: Delivery,
    /// Its instance said that it is over; until then the end is waited for.
    pub(super) settling: Option<Tick>,
    /// Since when it waits in its instance's queue though nothing runs there.
    pub(super) stuck_since: Option<Tick>,
    pub(super) started: Tick,
    pub(super) last_sign: Tick,
    pub(super) nodes_done: u32,
    pub(super) node_percent: Option<f32>,
    /// Moved by extensions.
    pub(super) run_deadline: Option<Tick>,
    /// Added to the stall limit by extensions, until the next sign of life.
    pub(super) stall_grace_ms: u64,
    pub(super) predicted_ms: Option<u32>,
    /// Models that were not resident when it started.
    pub(super) cold: Vec<ModelRef>,
    /// It was told to stop, and why.
    pub(super) stopping: Option<Stopping>,
    /// A question about a passed limit is open.
    pub(super) timing_out: bool,
    /// A question about its failure is open.
    pub(super) failing: bool,
    pub(super) last_inspected: Tick,
}

/// How far an attempt has come on its way to its instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// Its start is being made durable.
    Starting,
    /// It is being sent; a `Sighting` will say what came of that.
    Sending,
    /// It may be there.
    Unsure,
    /// The instance has it.
    Taken,
}

#[derive(Debug, Clone)]
pub(super) struct Stopping {
    pub(super) why: StopReason,
    /// When to stop waiting for the instance to confirm.
    pub(super) until: Tick,
    /// The reason is durable, as far as it ever will be: the instance may be told.
    pub(super) noted: bool,
}

impl Hold {
    /// What it has cost the job. Not more than was asked for, since nothing may have been free when it was over; and as
    /// it really was, since a change in the fleet may have ended it early and the clock ends it late.
    fn cost_ms(self, now: Tick) -> u64 {
        now.since(self.since).min(self.ms.max(RECONSIDER_MS))
    }
}

impl Entry {
    pub(super) fn held_in_all_ms(&self, now: Tick) -> u64 {
        self.held_ms + self.held.map_or(0, |hold| hold.cost_ms(now))
    }

    pub(super) fn end_hold(&mut self, now: Tick) {
        self.held_ms = self.held_in_all_ms(now);
        self.held = None;
    }

    pub(super) fn row(&self, id: JobId, ready_at: Tick) -> Waiting {
        Waiting {
            id,
            seq: self.seq,
            place: self.place,
            priority: self.priority,
            number: match self.job.number {
                Number::Counted(number) => number as f64,
                Number::Given(number) => number,
            },
            class: self.job.class,
            since: self.accepted,
            ready_at,
            held: false,
            deadline: self.queue_deadline(),
        }
    }

    pub(super) fn queue_deadline(&self) -> Option<Tick> {
        let deadline = self.limits.queue_ms.map(|ms| self.accepted.after(ms.into()));
        deadline.filter(|_| self.attempts == 0)
    }
}
