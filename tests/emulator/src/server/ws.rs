//! `/ws`: one sid, one socket, feature flags as the first message, then only sending.

use axum::{
    extract::{
        Query, State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures_util::{SinkExt, StreamExt};
use indexmap::IndexMap;
use serde_json::Value;
use uuid::Uuid;

use super::{App, info};

/// Largest message a client may send; a larger one tears the connection down.
const CLIENT_LIMIT: usize = 4 << 20;

pub(super) async fn connect(
    State(life): State<App>,
    Query(query): Query<IndexMap<String, String>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    if life.machine.faults.refuses_sockets() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let sid = query.get("clientId").filter(|sid| !sid.is_empty()).cloned();
    let sid = sid.unwrap_or_else(|| Uuid::new_v4().simple().to_string());
    let upgrade = upgrade.max_message_size(CLIENT_LIMIT).max_frame_size(CLIENT_LIMIT);
    upgrade.on_upgrade(move |socket| serve(life, sid, socket)).into_response()
}

async fn serve(life: App, sid: String, socket: WebSocket) {
    let (mut drops, mut mutes) = (life.hub.drops(), life.hub.mutes());
    drops.mark_unchanged();
    mutes.mark_unchanged();
    let remaining = life.queue.remaining();
    let mut inbox = life.hub.join(&sid, remaining);
    let (mut sink, mut stream) = socket.split();
    let writer = async {
        while let Some(message) = inbox.recv().await {
            life.stillness.answers_allowed().await;
            let sent = sink.send(message).await;
            life.hub.sent();
            if sent.is_err() {
                break;
            }
        }
        // The sid was taken over: this connection stays open, silent.
        std::future::pending::<()>().await;
    };
    let reader = async {
        let mut first = true;
        while let Some(Ok(message)) = stream.next().await {
            life.stillness.answers_allowed().await;
            if let Message::Text(text) = message {
                receive(&life, &sid, &text, &mut first);
            }
        }
    };
    tokio::select! {
        () = writer => {}
        () = reader => {}
        _ = life.ended() => {}
        _ = drops.changed() => {}
        _ = mutes.changed() => {
            let mut ends = life.hub.mute_ends();
            tokio::select! {
                _ = ends.changed() => {}
                _ = life.ended() => {}
            }
        }
    }
    life.hub.leave(&sid);
    while inbox.try_recv().is_ok() {
        life.hub.sent();
    }
}

/// Only the first valid JSON object can be the feature flags; everything else is ignored.
fn receive(life: &App, sid: &str, text: &str, first: &mut bool) {
    // Anything else raises in ComfyUI before it can count as the first.
    let Ok(Value::Object(message)) = serde_json::from_str::<Value>(text) else { return };
    if std::mem::take(first) && message.get("type").and_then(Value::as_str) == Some("feature_flags") {
        let flags = message.get("data").cloned().unwrap_or_default();
        life.hub.set_flags(sid, flags, &info::feature_flags(&life.machine.config));
    }
}
