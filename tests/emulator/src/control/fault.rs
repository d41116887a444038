//! Scripted faults: armed by a test, they strike at a named moment.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// When a fault strikes. Every moment but `now` strikes once, at the next time it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    #[default]
    Now,
    /// A `POST /prompt` was read, nothing is queued.
    PostReceived,
    /// The prompt is queued, the reply has not left.
    PostAccepted,
    /// `execution_start` was sent.
    Started,
    /// This many nodes of the execution have run.
    AfterNodes(u64),
    /// The first `executed` of the execution was sent.
    Executed,
    /// `execution_success` was sent, history is not written.
    Succeeded,
    /// History is written and `executing {node: null}` was sent.
    Ended,
}

/// What goes wrong. As JSON: `{"fault": "crash", "at": "started"}`, `{"fault": "crash", "at": {"after_nodes": 2}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// The process dies: connections drop, the port closes (see `CrashMode`).
    Crash {
        #[serde(default)]
        at: Moment,
    },
    /// The process dies and comes back on the same port after `down_ms`, with empty queue, history and caches.
    RestartEmpty {
        #[serde(default)]
        at: Moment,
        #[serde(default)]
        down_ms: u64,
    },
    /// HTTP and sockets answer, the worker makes no progress, interrupts do nothing. Ends with `Thaw`.
    Hang {
        #[serde(default)]
        at: Moment,
    },
    /// Nothing answers, connections stay open. Ends with `Thaw`.
    Freeze {
        #[serde(default)]
        at: Moment,
    },
    Thaw,
    /// The worker thread dies: the job stays in `queue_running` for ever.
    WorkerDeath {
        #[serde(default)]
        at: Moment,
    },
    /// Modelled times are multiplied, and every node and sampler step takes `extra_ms` more in any timing mode.
    Slow {
        #[serde(default = "one")]
        factor: f64,
        #[serde(default)]
        extra_ms: u64,
    },
    /// The next `count` posts of a prompt answer `status` and queue nothing.
    FailPosts {
        count: u32,
        #[serde(default = "server_error")]
        status: u16,
    },
    /// The next `count` posts of a prompt are answered `ms` late, after queueing.
    DelayPosts {
        count: u32,
        ms: u64,
    },
    /// The next `count` answers at this path (written without `/api`) break off after half of their body.
    BreakAnswers {
        path: String,
        #[serde(default = "one_execution")]
        count: u32,
    },
    /// All websockets break off without a close frame.
    DropSockets,
    /// No websocket is accepted any more, or they are again: the upgrade is answered 503.
    RefuseSockets {
        on: bool,
    },
    /// All websockets that are open now fall silent for ever and stay open: nothing is sent on them, nothing is answered.
    MuteSockets,
    /// The server notices that the silent websockets are dead and ends them, and with each, as ComfyUI does, the sid that
    /// another websocket may have by now.
    EndMuteSockets,
    /// Every event to a client is followed by a repetition of the one before it.
    EchoEvents {
        on: bool,
    },
    /// The next `count` executions run out of GPU memory at their sampler, or at their first node.
    OutOfMemory {
        #[serde(default = "one_execution")]
        count: u32,
    },
    /// The next `count` executions fail at their first node with this message (`RuntimeError`).
    NodeError {
        message: String,
        #[serde(default = "one_execution")]
        count: u32,
    },
}

fn one() -> f64 {
    1.0
}

fn one_execution() -> u32 {
    1
}

fn server_error() -> u16 {
    500
}

/// What a moment does to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blow {
    Crash,
    RestartEmpty { down_ms: u64 },
    Hang,
    Freeze,
    WorkerDeath,
}

/// A failure to give to the next execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    OutOfMemory,
    Error(String),
}

#[derive(Debug)]
pub(crate) struct Faults {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    armed: Vec<(Moment, Blow)>,
    failures: Vec<Failure>,
    fail_posts: (u32, u16),
    delay_posts: (u32, u64),
    slow: (f64, u64),
    break_answers: Vec<(String, u32)>,
    refuse_sockets: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            armed: Vec::new(),
            failures: Vec::new(),
            fail_posts: (0, 500),
            delay_posts: (0, 0),
            slow: (1.0, 0),
            break_answers: Vec::new(),
            refuse_sockets: false,
        }
    }
}

/// What is left to do after a fault was noted: what befalls a process needs the living one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strike {
    Nothing,
    Blow(Blow),
    Thaw,
    DropSockets,
    MuteSockets,
    EndMuteSockets,
    EchoEvents(bool),
}

impl Faults {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default() }
    }

    pub(crate) fn note(&self, fault: Fault) -> Strike {
        match fault {
            Fault::Crash { at } => self.arm(at, Blow::Crash),
            Fault::RestartEmpty { at, down_ms } => self.arm(at, Blow::RestartEmpty { down_ms }),
            Fault::Hang { at } => self.arm(at, Blow::Hang),
            Fault::Freeze { at } => self.arm(at, Blow::Freeze),
            Fault::WorkerDeath { at } => self.arm(at, Blow::WorkerDeath),
            Fault::Thaw => Strike::Thaw,
            Fault::DropSockets => Strike::DropSockets,
            Fault::MuteSockets => Strike::MuteSockets,
            Fault::EndMuteSockets => Strike::EndMuteSockets,
            Fault::EchoEvents { on } => Strike::EchoEvents(on),
            other => {
                self.set(other);
                Strike::Nothing
            }
        }
    }

    fn set(&self, fault: Fault) {
        let mut state = self.lock();
        let repeat = |failure: Failure, count: u32| std::iter::repeat_n(failure, count as usize);
        match fault {
            Fault::Slow { factor, extra_ms } => state.slow = (factor, extra_ms),
            Fault::FailPosts { count, status } => state.fail_posts = (count, status),
            Fault::RefuseSockets { on } => state.refuse_sockets = on,
            Fault::DelayPosts { count, ms } => state.delay_posts = (count, ms),
            Fault::BreakAnswers { path, count } => state.break_answers.push((path, count)),
            Fault::OutOfMemory { count } => state.failures.extend(repeat(Failure::OutOfMemory, count)),
            Fault::NodeError { message, count } => {
                state.failures.extend(repeat(Failure::Error(message), count))
            }
            _ => {}
        }
    }

    fn arm(&self, at: Moment, blow: Blow) -> Strike {
        if at == Moment::Now {
            return Strike::Blow(blow);
        }
        self.lock().armed.push((at, blow));
        Strike::Nothing
    }

    /// The blow armed for this moment, if any; it strikes once.
    pub(crate) fn reached(&self, moment: Moment) -> Option<Blow> {
        let mut state = self.lock();
        let at = state.armed.iter().position(|(armed, _)| *armed == moment)?;
        Some(state.armed.remove(at).1)
    }

    /// Forgets the blows that have not struck.
    pub(crate) fn disarm(&self) {
        self.lock().armed.clear();
    }

    pub(crate) fn take_failure(&self) -> Option<Failure> {
        let mut state = self.lock();
        if state.failures.is_empty() { None } else { Some(state.failures.remove(0)) }
    }

    pub(crate) fn take_failed_post(&self) -> Option<u16> {
        let mut state = self.lock();
        let (count, status) = state.fail_posts;
        state.fail_posts.0 = count.saturating_sub(1);
        (count > 0).then_some(status)
    }

    pub(crate) fn take_post_delay(&self) -> Option<u64> {
        let mut state = self.lock();
        let (count, ms) = state.delay_posts;
        state.delay_posts.0 = count.saturating_sub(1);
        (count > 0).then_some(ms)
    }

    /// Does the answer at this path break off?
    pub(crate) fn take_broken_answer(&self, path: &str) -> bool {
        let mut state = self.lock();
        let path = path.strip_prefix("/api").unwrap_or(path);
        let Some((_, count)) = state.break_answers.iter_mut().find(|(at, count)| at == path && *count > 0)
        else {
            return false;
        };
        *count -= 1;
        true
    }

    pub(crate) fn refuses_sockets(&self) -> bool {
        self.lock().refuse_sockets
    }

    pub(crate) fn slow(&self) -> (f64, u64) {
        self.lock().slow
    }

    /// Forgets everything scripted.
    pub(crate) fn reset(&self) {
        *self.lock() = State::default();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn faults_are_written_as_flat_json() {
        let fault: Fault = from_value(json!({"fault": "crash", "at": {"after_nodes": 2}})).expect("a crash");
        assert_eq!(fault, Fault::Crash { at: Moment::AfterNodes(2) });
        assert_eq!(from_value::<Fault>(json!({"fault": "thaw"})).expect("thaw"), Fault::Thaw);
        assert!(from_value::<Fault>(json!({"fault": "crash", "when": "now"})).is_err());
        let slow: Fault = from_value(json!({"fault": "slow", "factor": 3.0})).expect("slow");
        assert_eq!(slow, Fault::Slow { factor: 3.0, extra_ms: 0 });
    }

    #[test]
    fn an_armed_blow_strikes_once() {
        let faults = Faults::new();
        assert_eq!(faults.note(Fault::Crash { at: Moment::Started }), Strike::Nothing);
        assert_eq!(faults.reached(Moment::Executed), None);
        assert_eq!(faults.reached(Moment::Started), Some(Blow::Crash));
        assert_eq!(faults.reached(Moment::Started), None);
        assert_eq!(faults.note(Fault::Hang { at: Moment::Now }), Strike::Blow(Blow::Hang));
    }

    #[test]
    fn counted_faults_run_out() {
        let faults = Faults::new();
        faults.note(Fault::FailPosts { count: 1, status: 503 });
        faults.note(Fault::OutOfMemory { count: 1 });
        assert_eq!((faults.take_failed_post(), faults.take_failed_post()), (Some(503), None));
        assert_eq!((faults.take_failure(), faults.take_failure()), (Some(Failure::OutOfMemory), None));
    }
}
