//! The one door to a detached task. Tasks of a server life live in a `JoinSet` instead and die with it.

use std::future::Future;

use tokio::task::JoinHandle;

#[expect(
    clippy::disallowed_methods,
    reason = "the crate's only spawn; the task ends with its emulator's stop signal"
)]
pub(crate) fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(task)
}
