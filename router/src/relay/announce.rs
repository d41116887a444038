//! How a client hears of the end of its job: the event that ends it, `status`, `executing {node: null}`. In ComfyUI's
//! order, and not before the ledger has it.

use std::sync::Arc;

use crate::comfy::frame::{self, UntoldEnd};
use crate::sessions::Message;

use super::{End, Relay};

impl Relay {
    pub(super) fn announce(&mut self, end: &End) {
        let held = end.attempt.as_ref().and_then(|attempt| {
            let running = self.running.remove(&attempt.upstream_id.to_string())?;
            self.left(&running.attempt);
            running.held
        });
        let client = self.client_of(&end.job).zip(Some(Arc::<str>::from(end.job.prompt_id.as_str())));
        if let Some((client, job)) = &client {
            let last = held.unwrap_or_else(|| self.made_up(end));
            self.sessions.send(client, job, Message::terminal(last));
        }
        self.sessions.broadcast_status(end.remaining);
        if let Some((client, job)) = &client {
            self.sessions.send(client, job, Message::terminal(frame::executing_done(&end.job.prompt_id)));
        }
    }

    /// For an end that no instance told of.
    fn made_up(&self, end: &End) -> frame::Utf8Bytes {
        let at = self.clock.now().wall;
        let untold = UntoldEnd {
            outcome: end.outcome,
            attempt: end.attempt.as_ref().map(|attempt| attempt.number),
            detail: &end.detail,
            node_errors: &end.node_errors,
        };
        let (kind, data) = frame::end_of(&end.job, &untold, at);
        frame::event(kind, data)
    }
}
