//! What the handle and the supervisor of one instance share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::Foreign;
use super::calls::QueueSnapshot;
use super::pool::Pool;
use super::submit::{SubmitError, Submitted};
use crate::config;
use crate::metrics::{InstanceFrames, InstanceRequests};
use crate::model::id::InstanceId;

#[derive(Debug)]
pub(super) struct Member {
    id: InstanceId,
    index: u32,
    pool: Arc<Pool>,
    sid: Arc<str>,
    requests: InstanceRequests,
    frames: InstanceFrames,
    launched: bool,
    known: Mutex<Known>,
    hurry: Notify,
    /// How often somebody has asked for its catalogue to be read again.
    wanted: AtomicU64,
    /// How many of those a look has taken up.
    taken_up: AtomicU64,
    restarted: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    /// Its websocket is up.
    linked: bool,
    /// Prompts of this router, with the number of looks at the queue since each was last seen there.
    ours: HashMap<String, u8>,
    /// At the last look, others' prompts were there.
    company: bool,
    /// The last prompt it took.
    witness: Option<String>,
    /// ComfyUI counts the prompts it takes; a process that starts anew counts from 0.
    number: Option<f64>,
}

/// A prompt that was gone at two looks in a row is not on its way into the queue any more.
const GONE: u8 = 2;

impl Member {
    /// `router` tells this router from others that the instance serves.
    pub(super) fn new(index: u32, instance: &config::Instance, config: &config::Fleet, router: &str) -> Self {
        let patience = Duration::from_millis(config.connect_timeout_ms);
        Self {
            id: instance.name.clone(),
            index,
            pool: Arc::new(Pool::new(instance.url.clone(), patience, config.idle_connections)),
            sid: format!("{router}-{}", instance.name).into(),
            requests: InstanceRequests::new(&instance.name),
            frames: InstanceFrames::new(&instance.name),
            launched: instance.launched,
            known: Mutex::default(),
            hurry: Notify::new(),
            wanted: AtomicU64::new(0),
            taken_up: AtomicU64::new(0),
            restarted: AtomicBool::new(false),
        }
    }

    pub(super) fn id(&self) -> &InstanceId {
        &self.id
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(super) fn requests(&self) -> &InstanceRequests {
        &self.requests
    }

    pub(super) fn frames(&self) -> &InstanceFrames {
        &self.frames
    }

    /// Its process is the router's own.
    pub(super) fn is_launched(&self) -> bool {
        self.launched
    }

    /// The one of all websockets to it, one after the other: ComfyUI tells of a prompt only the sid it was posted under.
    pub(super) fn sid(&self) -> &Arc<str> {
        &self.sid
    }

    pub(super) fn is_linked(&self) -> bool {
        self.known().linked
    }

    pub(super) fn set_linked(&self, linked: bool) {
        self.known().linked = linked;
    }

    pub(super) fn witness(&self) -> Option<String> {
        self.known().witness.clone()
    }

    /// It came up, perhaps as another process: nothing it said before holds.
    pub(super) fn forget(&self) {
        let mut known = self.known();
        known.witness = None;
        known.number = None;
        self.restarted.store(false, Ordering::Relaxed);
    }

    /// A prompt is about to be sent. Returns the count that its answer must exceed.
    pub(super) fn sending(&self, upstream: &str) -> Option<f64> {
        let mut known = self.known();
        known.ours.insert(upstream.to_owned(), 0);
        known.number
    }

    pub(super) fn sent(&self, upstream: &str, before: Option<f64>, outcome: &Result<Submitted, SubmitError>) {
        let mut known = self.known();
        match outcome {
            Ok(submitted) => {
                known.witness = Some(submitted.prompt_id.clone());
                known.ours.insert(submitted.prompt_id.clone(), 0);
                if before.is_some_and(|before| submitted.number <= before) {
                    self.restarted.store(true, Ordering::Relaxed);
                    self.hurry.notify_one();
                }
                known.number =
                    Some(known.number.map_or(submitted.number, |number| number.max(submitted.number)));
            }
            Err(SubmitError::Unknown(_)) => {}
            Err(_) => {
                known.ours.remove(upstream);
            }
        }
    }

    /// A prompt that leaves the queue leaves no history, and proves nothing any more.
    pub(super) fn dequeued(&self, upstream: &str) {
        let mut known = self.known();
        if known.witness.as_deref() == Some(upstream) {
            known.witness = None;
        }
    }

    /// How much of a queue is not ours.
    pub(super) fn foreign(&self, queue: &QueueSnapshot) -> Foreign {
        let mut known = self.known();
        let count = |ids: &[String]| ids.iter().filter(|id| !known.ours.contains_key(*id)).count() as u32;
        let foreign = Foreign { running: count(&queue.running), pending: count(&queue.pending) };
        known.company = foreign.running + foreign.pending > 0;
        known.ours.retain(|id, unseen| {
            let seen = queue.running.contains(id) || queue.pending.contains(id);
            *unseen = if seen { 0 } else { *unseen + 1 };
            *unseen <= GONE
        });
        foreign
    }

    /// Does a queue of this length mean that others' prompts are or were there?
    pub(super) fn has_company(&self, remaining: u64) -> bool {
        let known = self.known();
        known.company || remaining > known.ours.len() as u64
    }

    /// Asks for the catalogue to be read again; gives the number of this wish.
    pub(super) fn refresh(&self) -> u64 {
        let wish = self.wanted.fetch_add(1, Ordering::Relaxed) + 1;
        self.hurry.notify_one();
        wish
    }

    /// The number of the last wish that was not yet taken up, which now it is.
    pub(super) fn take_wish(&self) -> Option<u64> {
        let wanted = self.wanted.load(Ordering::Relaxed);
        let before = self.taken_up.swap(wanted, Ordering::Relaxed);
        (wanted > before).then_some(wanted)
    }

    pub(super) fn take_restarted(&self) -> bool {
        self.restarted.swap(false, Ordering::Relaxed)
    }

    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Ends when there is a reason to look at once.
    pub(super) async fn hurried(&self) {
        self.hurry.notified().await;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Member {
        let instance = config::Instance::at(config::Url::new("127.0.0.1", 1));
        Member::new(0, &instance, &config::Fleet::default(), "router")
    }

    fn taken(id: &str, number: f64) -> Result<Submitted, SubmitError> {
        Ok(Submitted { prompt_id: id.into(), number, node_errors: "{}".into() })
    }

    #[test]
    fn a_count_that_starts_again_is_a_restart() {
        let member = member();
        let (first, second) = (member.sending("a"), member.sending("b"));
        // Answers may overtake each other.
        member.sent("b", second, &taken("b", 8.0));
        member.sent("a", first, &taken("a", 7.0));
        assert!(!member.take_restarted());
        let third = member.sending("c");
        member.sent("c", third, &taken("c", 0.0));
        assert!(member.take_restarted());
    }

    #[test]
    fn foreign_prompts_are_those_we_did_not_send() {
        let member = member();
        member.sending("mine");
        let queue = |running: &[&str], pending: &[&str]| QueueSnapshot {
            running: running.iter().map(ToString::to_string).collect(),
            pending: pending.iter().map(ToString::to_string).collect(),
        };
        // Not there yet, there, gone: never foreign, and in the end forgotten.
        assert!(member.has_company(2) && !member.has_company(1));
        assert_eq!(member.foreign(&queue(&["other"], &[])), Foreign { running: 1, pending: 0 });
        assert!(member.has_company(0), "it may have gone");
        assert_eq!(member.foreign(&queue(&["mine"], &["x", "y"])), Foreign { running: 0, pending: 2 });
        for _ in 0..=GONE {
            member.foreign(&queue(&[], &[]));
        }
        assert!(member.known().ours.is_empty());
        assert!(!member.has_company(0));
    }
}
