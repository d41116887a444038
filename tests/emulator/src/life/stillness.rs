//! A process that lives and does nothing: its worker is hung, or all of it is frozen. Both end with a thaw.

use tokio::sync::watch;

#[derive(Debug, Default)]
pub(crate) struct Stillness {
    hung: watch::Sender<bool>,
    frozen: watch::Sender<bool>,
}

impl Stillness {
    pub(super) fn hang(&self) {
        self.hung.send_replace(true);
    }

    pub(super) fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    pub(super) fn thaw(&self) {
        self.hung.send_replace(false);
        self.frozen.send_replace(false);
    }

    /// Waits while the worker is hung or the process frozen.
    pub(crate) async fn progress_allowed(&self) {
        let _ = self.hung.subscribe().wait_for(|hung| !hung).await;
        self.answers_allowed().await;
    }

    /// Waits while the process is frozen.
    pub(crate) async fn answers_allowed(&self) {
        let _ = self.frozen.subscribe().wait_for(|frozen| !frozen).await;
    }
}
