//! The sockets of a server life and the broadcast rules between them: a job's events go to the socket whose sid
//! equals the job's client id at that moment, `status` to all, and nothing is buffered for those who are away.

use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::extract::ws::{Message, Utf8Bytes};
use bytes::Bytes;
use indexmap::IndexMap;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::pyjson;

#[derive(Debug)]
pub(crate) struct Hub {
    state: Mutex<State>,
    /// Counts the scripted socket drops; each open socket closes when it moves.
    drops: watch::Sender<u64>,
    /// The same for sockets that fall silent.
    mutes: watch::Sender<u64>,
    /// The same for the ends of silent sockets.
    mute_ends: watch::Sender<u64>,
    /// Messages on their way out.
    unsent: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    sockets: IndexMap<String, Socket>,
    /// Sockets that ever were.
    joined: u64,
    /// `PromptServer.client_id` and `last_node_id`: owner of the running job and the node being shown.
    owner: Option<String>,
    last_node: Option<String>,
    /// Each event to one client is followed by the one before it.
    echo: bool,
    /// Sids that want log lines.
    log_readers: Vec<String>,
}

#[derive(Debug)]
struct Socket {
    outbox: mpsc::UnboundedSender<Message>,
    flags: Value,
    frames: u64,
    last: Option<Message>,
}

impl Socket {
    fn push(&mut self, message: Message, unsent: &watch::Sender<usize>) {
        self.frames += 1;
        if self.outbox.send(message).is_ok() {
            unsent.send_modify(|count| *count += 1);
        }
    }
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            drops: watch::Sender::new(0),
            mutes: watch::Sender::new(0),
            mute_ends: watch::Sender::new(0),
            unsent: watch::Sender::new(0),
        }
    }

    /// Registers a socket, replacing an older one of the same sid, and sends what a fresh connection gets.
    pub(crate) fn join(&self, sid: &str, remaining: usize) -> mpsc::UnboundedReceiver<Message> {
        let (outbox, inbox) = mpsc::unbounded_channel();
        let mut state = self.lock();
        let mut status = status_data(remaining);
        status["sid"] = json!(sid);
        let mut socket = Socket { outbox, flags: json!({}), frames: 0, last: None };
        socket.push(text("status", &status), &self.unsent);
        if let (Some(owner), Some(node)) = (&state.owner, &state.last_node)
            && owner == sid
        {
            socket.push(text("executing", &json!({ "node": node })), &self.unsent);
        }
        state.sockets.insert(sid.into(), socket);
        state.joined += 1;
        inbox
    }

    /// ComfyUI removes the sid whoever owns it by then: the end of an old connection silences a newer one.
    pub(crate) fn leave(&self, sid: &str) {
        self.lock().sockets.shift_remove(sid);
    }

    pub(crate) fn set_flags(&self, sid: &str, flags: Value, reply: &Value) {
        let mut state = self.lock();
        if let Some(socket) = state.sockets.get_mut(sid) {
            socket.flags = flags;
            socket.push(text("feature_flags", reply), &self.unsent);
        }
    }

    /// True only for a literal `true`, as the server's strict check.
    pub(crate) fn wants_preview_metadata(&self, sid: Option<&str>) -> bool {
        let state = self.lock();
        let flags = sid.and_then(|sid| state.sockets.get(sid)).map(|socket| &socket.flags);
        flags.is_some_and(|flags| flags.get("supports_preview_metadata") == Some(&Value::Bool(true)))
    }

    pub(crate) fn set_owner(&self, owner: Option<String>) {
        self.lock().owner = owner;
    }

    pub(crate) fn set_last_node(&self, node: Option<&str>) {
        self.lock().last_node = node.map(str::to_owned);
    }

    /// To one sid, or to everybody without one.
    pub(crate) fn send(&self, sid: Option<&str>, event: &str, data: &Value) {
        self.push(sid, text(event, data));
    }

    pub(crate) fn send_binary(&self, sid: Option<&str>, bytes: Vec<u8>) {
        self.push(sid, Message::Binary(Bytes::from(bytes)));
    }

    /// The client of the running job.
    pub(crate) fn owner(&self) -> Option<String> {
        self.lock().owner.clone()
    }

    pub(crate) fn subscribe_logs(&self, sid: &str, wants: bool) {
        let mut state = self.lock();
        state.log_readers.retain(|reader| reader != sid);
        if wants {
            state.log_readers.push(sid.to_owned());
        }
    }

    /// To those who asked. Whoever is not connected is struck off.
    pub(crate) fn log(&self, data: &Value) {
        let mut state = self.lock();
        let State { sockets, log_readers, .. } = &mut *state;
        log_readers.retain(|reader| sockets.contains_key(reader));
        for reader in log_readers {
            sockets[reader.as_str()].push(text("logs", data), &self.unsent);
        }
    }

    pub(crate) fn status(&self, remaining: usize) {
        self.send(None, "status", &status_data(remaining));
    }

    pub(crate) fn drop_sockets(&self) {
        self.drops.send_modify(|count| *count += 1);
    }

    /// A message has left, or its socket is gone.
    pub(crate) fn sent(&self) {
        self.unsent.send_modify(|count| *count = count.saturating_sub(1));
    }

    /// Resolves when everything that was sent has left.
    pub(crate) async fn flushed(&self) {
        let _ = self.unsent.subscribe().wait_for(|count| *count == 0).await;
    }

    pub(crate) fn echo(&self, on: bool) {
        self.lock().echo = on;
    }

    pub(crate) fn mute_sockets(&self) {
        self.mutes.send_modify(|count| *count += 1);
    }

    pub(crate) fn end_mute_sockets(&self) {
        self.mute_ends.send_modify(|count| *count += 1);
    }

    pub(crate) fn mute_ends(&self) -> watch::Receiver<u64> {
        self.mute_ends.subscribe()
    }

    pub(crate) fn mutes(&self) -> watch::Receiver<u64> {
        self.mutes.subscribe()
    }

    pub(crate) fn drops(&self) -> watch::Receiver<u64> {
        self.drops.subscribe()
    }

    /// Frames ever put on the socket of this sid.
    pub(crate) fn frames(&self, sid: &str) -> u64 {
        self.lock().sockets.get(sid).map_or(0, |socket| socket.frames)
    }

    pub(crate) fn joined(&self) -> u64 {
        self.lock().joined
    }

    pub(crate) fn sids(&self) -> Vec<String> {
        self.lock().sockets.keys().cloned().collect()
    }

    fn push(&self, sid: Option<&str>, message: Message) {
        let mut state = self.lock();
        match sid {
            Some(sid) => {
                let echo = state.echo;
                if let Some(socket) = state.sockets.get_mut(sid) {
                    socket.push(message.clone(), &self.unsent);
                    let before = socket.last.replace(message).filter(|_| echo);
                    before.into_iter().for_each(|before| socket.push(before, &self.unsent));
                }
            }
            None => {
                state.sockets.values_mut().for_each(|socket| socket.push(message.clone(), &self.unsent));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn status_data(remaining: usize) -> Value {
    json!({ "status": { "exec_info": { "queue_remaining": remaining } } })
}

fn text(event: &str, data: &Value) -> Message {
    let frame = json!({ "type": event, "data": data });
    Message::Text(Utf8Bytes::from(pyjson::dumps(&frame)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(inbox: &mut mpsc::UnboundedReceiver<Message>) -> Vec<String> {
        std::iter::from_fn(|| inbox.try_recv().ok())
            .map(|m| m.into_text().expect("text").to_string())
            .collect()
    }

    #[test]
    fn events_reach_the_owner_only_and_status_reaches_all() {
        let hub = Hub::new();
        let (mut a, mut b) = (hub.join("a", 0), hub.join("b", 0));
        hub.send(Some("a"), "execution_start", &json!({}));
        hub.send(Some("away"), "execution_start", &json!({}));
        hub.status(1);
        assert_eq!(drain(&mut a).len(), 3);
        assert_eq!(
            drain(&mut b)[1],
            r#"{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 1}}}}"#
        );
    }

    #[test]
    fn the_owner_who_returns_is_told_the_node() {
        let hub = Hub::new();
        hub.set_owner(Some("a".into()));
        hub.set_last_node(Some("7"));
        assert_eq!(drain(&mut hub.join("a", 2))[1], r#"{"type": "executing", "data": {"node": "7"}}"#);
        assert_eq!(drain(&mut hub.join("b", 2)).len(), 1);
    }

    #[test]
    fn an_old_handler_that_ends_silences_the_new_socket() {
        let hub = Hub::new();
        let _old = hub.join("a", 0);
        let mut new = hub.join("a", 0);
        hub.leave("a");
        hub.status(0);
        assert_eq!(drain(&mut new).len(), 1);
    }
}
