//! `/custom/...`: what a custom node may add to a ComfyUI. A router has to let it through without knowing it.

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{State, WebSocketUpgrade, ws::WebSocket},
    response::Response,
    routing::{any, get},
};
use futures_util::{StreamExt, stream};

use super::App;
use crate::control::gate::Each;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/custom/echo", get(echo))
        .route("/custom/mirror", any(mirror))
        .route("/custom/stream", get(in_two_parts))
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

/// A body whose second part comes when the gate lets it pass.
async fn in_two_parts(State(life): State<App>) -> Body {
    let first = stream::once(async { Ok::<_, std::convert::Infallible>(Bytes::from_static(b"first ")) });
    let second = stream::once(async move {
        life.gate(Each::Execution).await;
        Ok(Bytes::from_static(b"second"))
    });
    Body::from_stream(first.chain(second))
}
