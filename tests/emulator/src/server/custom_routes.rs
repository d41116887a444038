//! `/custom/...`: what a custom node may add to a ComfyUI. A router has to let it through without knowing it.

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{State, WebSocketUpgrade, ws::WebSocket},
    http::{Method, Uri},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use futures_util::{StreamExt, stream};

use super::{
    App,
    reply::{self, Reply},
};
use crate::control::gate::Each;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/custom/echo", get(echo))
        .route("/custom/mirror", any(mirror))
        .route("/custom/stream", get(in_two_parts))
        .route("/custom/note/{*what}", any(note))
        .route("/custom/view", get(super::view::view))
        .route("/manager/{*what}", any(manage))
        .route("/api/manager/{*what}", any(manage))
        .route("/customnode/{*what}", any(manage))
        .route("/api/customnode/{*what}", any(manage))
}

/// A websocket that says what it is told.
async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async |mut socket: WebSocket| {
        while let Some(Ok(message)) = socket.next().await {
            if socket.send(message).await.is_err() {
                break;
            }
        }
    })
}

/// The body of the request.
async fn mirror(body: Bytes) -> Bytes {
    body
}

/// Remembers that it was asked; answers which emulator this is.
async fn note(State(life): State<App>, method: Method, uri: Uri, body: Bytes) -> String {
    life.machine.visit(format!("{method} {uri} {}", body.len()));
    life.machine.dirs.root().display().to_string()
}

/// ComfyUI-Manager before it asked who is there.
async fn manage(life: State<App>, method: Method, uri: Uri, body: Bytes) -> Reply {
    if !life.machine.config.careless {
        return reply::unknown_path(method).await;
    }
    note(life, method, uri, body).await.into_response()
}

/// A body whose second part comes when the gate lets it pass.
async fn in_two_parts(State(life): State<App>) -> Body {
    let first = stream::once(async { Ok::<_, std::convert::Infallible>(Bytes::from_static(b"first ")) });
    let second = stream::once(async move {
        life.gate(Each::Execution).await;
        Ok(Bytes::from_static(b"second"))
    });
    Body::from_stream(first.chain(second))
}
