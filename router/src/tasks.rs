//! The only place that spawns: every task has a name and a rule for its failure.
//!
//! Owns the process's one "a task that must not end has ended" signal; the app waits for [`fatal`] and drains. Never decides
//! how to shut down. Called by every organ and face.

use std::any::Any;
use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::LazyLock;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::drain::Guard;

/// What the failure of a task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// One connection or one job is lost: say so and go on.
    Log,
    /// The process cannot serve without this task: say so and shut down.
    Shutdown,
}

/// How a task may end: with nothing, or with a result whose error is its failure.
pub trait Ending {
    fn failure(self) -> Option<String>;
}

impl Ending for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: Display> Ending for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| format!("{error:#}"))
    }
}

static FATAL: LazyLock<watch::Sender<Option<&'static str>>> = LazyLock::new(|| watch::Sender::new(None));

/// Spawns `future` in a span that carries its name. An error or a panic is logged, and follows the rule.
///
/// The handle may be dropped; aborting it is no failure.
pub fn spawn<F>(name: &'static str, on_error: OnError, future: F) -> JoinHandle<()>
where
    F: Future<Output: Ending> + Send + 'static,
{
    let span = tracing::debug_span!(parent: None, "task", task = name);
    #[allow(clippy::disallowed_methods, reason = "this is the helper that all others must use")]
    tokio::spawn(watched(name, on_error, future).instrument(span))
}

/// As [`spawn`]; a drain waits for this task.
pub fn spawn_guarded<F>(name: &'static str, on_error: OnError, guard: Guard, future: F) -> JoinHandle<()>
where
    F: Future<Output: Ending> + Send + 'static,
{
    spawn(name, on_error, async move {
        let _guard = guard;
        future.await
    })
}

/// Waits for the failure of a task that must not end, and names it.
pub async fn fatal() -> &'static str {
    let mut failed = FATAL.subscribe();
    match failed.wait_for(Option::is_some).await {
        Ok(name) => name.unwrap_or("unknown"),
        // The sender is static.
        Err(_) => std::future::pending().await,
    }
}

/// Reports a failure that happened outside a task, such as on a named thread.
pub fn failed(name: &'static str, on_error: OnError, error: &str) {
    match on_error {
        OnError::Log => tracing::error!(task = name, error, "task failed"),
        OnError::Shutdown => {
            tracing::error!(task = name, error, "task failed, and the process cannot go on without it");
            FATAL.send_replace(Some(name));
        }
    }
}

async fn watched<F: Future<Output: Ending>>(name: &'static str, on_error: OnError, future: F) {
    let failure = match AssertUnwindSafe(future).catch_unwind().await {
        Ok(ending) => ending.failure(),
        Err(panic) => Some(format!("panicked: {}", message_of(&*panic))),
    };
    if let Some(error) = failure {
        failed(name, on_error, &error);
    }
}

fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&'static str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_fatal_task_is_named_and_a_logged_one_is_not() {
        spawn("logged", OnError::Log, async { Err::<(), _>("harmless") }).await.unwrap();
        let panicking = async {
            let empty: Vec<u8> = Vec::new();
            assert!(!empty.is_empty(), "nothing to do");
        };
        spawn("fatal", OnError::Shutdown, panicking).await.unwrap();
        assert_eq!(fatal().await, "fatal");
    }

    #[tokio::test]
    async fn a_drain_waits_for_a_guarded_task() {
        let (signal, watch) = crate::drain::channel();
        let (go, gate) = tokio::sync::oneshot::channel::<()>();
        spawn_guarded("guarded", OnError::Log, watch.guard(), gate);
        assert_eq!(signal.in_flight(), 1);
        go.send(()).unwrap();
        assert_eq!(signal.drained(Duration::from_secs(60)).await, Ok(()));
    }

    #[test]
    fn panics_of_both_kinds_keep_their_message() {
        assert_eq!(message_of(&"plain"), "plain");
        assert_eq!(message_of(&String::from("made")), "made");
        assert_eq!(message_of(&7), "no message");
    }
}
