//! How a client hears of the end of its job: the event that ends it, `status`, `executing {node: null}`. In ComfyUI's
//! order, and not before the ledger has it.

use crate::comfy::frame::{self, UntoldEnd};
use crate::sessions::Message;

use super::{End, Service};

impl Service {
    pub(super) fn announce(&mut self, end: &End) {
        let held = end.attempt.as_ref().and_then(|attempt| {
            let running = self.running.remove(&attempt.upstream_id.to_string())?;
            self.left(&running);
            running.held
        });
        let sid = end.job.client_id.as_deref();
        if let Some(sid) = sid {
            let last = held.unwrap_or_else(|| self.made_up(end));
            self.sessions.send(sid, Message::terminal(last));
        }
        self.sessions.broadcast_status(end.remaining);
        if let Some(sid) = sid {
            self.sessions.send(sid, Message::terminal(frame::executing_done(&end.job.prompt_id)));
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
