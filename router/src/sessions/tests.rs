use bytes::{BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use serde_json::Value;

use super::*;
use crate::comfy::frame::{Frame, Utf8Bytes};

fn handle(config: Config) -> Handle {
    Service::new(config).1
}

fn event(text: &str) -> Message {
    Message::ordinary(Utf8Bytes::from(format!("{{\"type\":{text:?}}}")))
}

fn preview(format: u32, node: &str, size: usize) -> Message {
    let metadata = serde_json::json!({"node_id": node, "prompt_id": "p", "image_type": if format == 2 { "image/png" } else { "image/jpeg" }});
    let metadata = metadata.to_string();
    let mut bytes = BytesMut::new();
    bytes.put_u32(4);
    bytes.put_u32(metadata.len() as u32);
    bytes.put_slice(metadata.as_bytes());
    bytes.put_bytes(7, size);
    match Frame::binary(bytes.freeze()) {
        Frame::Preview(preview) => Message::preview(preview),
        other => panic!("{other:?}"),
    }
}

/// What waits, as the types of events; binary messages as their class.
fn waiting(outbox: &Outbox) -> Vec<String> {
    let mut messages = Vec::new();
    let _ = outbox.take(&mut messages).now_or_never();
    let show = |message: &Message| match &message.payload {
        Payload::Text(text) => {
            serde_json::from_str::<Value>(text.as_str()).unwrap()["type"].as_str().unwrap().to_owned()
        }
        Payload::Binary(_) | Payload::Preview(_) => format!("<{}>", message.class.as_str()),
    };
    messages.iter().map(show).collect()
}

#[test]
fn a_client_is_greeted_with_status_and_its_sid() {
    let sessions = handle(Config::default());
    sessions.broadcast_status(3);
    let connection = sessions.connect(None, "t").unwrap();
    assert_eq!(connection.sid.len(), 32);
    let mut messages = Vec::new();
    connection.outbox.take(&mut messages).now_or_never().unwrap().unwrap();
    let Payload::Text(text) = &messages[0].payload else { panic!() };
    let status: Value = serde_json::from_str(text.as_str()).unwrap();
    assert_eq!(status["data"]["sid"], connection.sid.as_str());
    assert_eq!(status["data"]["status"]["exec_info"]["queue_remaining"], 3);
}

#[test]
fn only_the_addressed_client_hears_and_status_reaches_all() {
    let sessions = handle(Config::default());
    let (a, b) = (sessions.connect(Some("a"), "t").unwrap(), sessions.connect(Some("b"), "t").unwrap());
    sessions.send("a", event("execution_start"));
    sessions.broadcast_status(1);
    assert_eq!(waiting(&a.outbox), ["status", "execution_start", "status"]);
    assert_eq!(waiting(&b.outbox), ["status", "status"]);
}

#[test]
fn the_newest_socket_wins_and_the_old_ones_end_takes_nothing_away() {
    let sessions = handle(Config::default());
    let old = sessions.connect(Some("a"), "t").unwrap();
    let new = sessions.connect(Some("a"), "t").unwrap();
    sessions.send("a", event("one"));
    assert_eq!(waiting(&old.outbox), ["status"]);
    drop(old);
    sessions.send("a", event("two"));
    assert_eq!(waiting(&new.outbox), ["status", "one", "two"]);

    let newest = sessions.connect(Some("a"), "t").unwrap();
    drop(newest);
    sessions.send("a", event("three"));
    assert_eq!(waiting(&new.outbox), ["three"]);
    drop(new);
    assert_eq!(sessions.sockets(), 0);
}

#[test]
fn a_sid_is_not_given_to_another_tenant_and_hostile_ones_are_replaced() {
    let sessions = handle(Config::default());
    let _mine = sessions.connect(Some("a"), "me").unwrap();
    assert_ne!(sessions.connect(Some("a"), "you").unwrap().sid, "a");
    let long = "x".repeat(MAX_SID + 1);
    for sid in ["", &long] {
        assert_eq!(sessions.connect(Some(sid), "me").unwrap().sid.len(), 32);
    }
}

#[test]
fn a_client_that_returns_is_told_where_its_job_is() {
    let sessions = handle(Config::default());
    sessions.set_current("a", Some("5"));
    let connection = sessions.connect(Some("a"), "t").unwrap();
    assert_eq!(waiting(&connection.outbox), ["status", "executing"]);
    sessions.set_current("a", None);
    let again = sessions.connect(Some("a"), "t").unwrap();
    assert_eq!(waiting(&again.outbox), ["status"]);
}

#[test]
fn a_client_that_connects_after_posting_misses_nothing_but_progress() {
    let sessions = handle(Config::default());
    sessions.send("late", event("execution_start"));
    sessions.send("late", Message::progress("p", "progress", Utf8Bytes::from_static("{}")));
    sessions.send("late", Message::terminal(Utf8Bytes::from_static(r#"{"type":"executing"}"#)));
    let late = sessions.connect(Some("late"), "t").unwrap();
    assert_eq!(waiting(&late.outbox), ["status", "execution_start", "executing"]);

    sessions.send("never", event("execution_start"));
    sessions.0.table().absent.forget(Duration::ZERO);
    assert_eq!(waiting(&sessions.connect(Some("never"), "t").unwrap().outbox), ["status"]);
}

#[test]
fn the_absent_cannot_fill_the_memory() {
    let sessions = handle(Config::default());
    for i in 0..5_000 {
        sessions.send(&i.to_string(), event("x"));
        sessions.send("0", event("x"));
    }
    sessions.send("0", Message::ordinary(Utf8Bytes::from("x".repeat(1 << 20))));
    assert_eq!(waiting(&sessions.connect(Some("0"), "t").unwrap().outbox).len(), 65);
    assert_eq!(waiting(&sessions.connect(Some("4999"), "t").unwrap().outbox).len(), 1);
}

#[test]
fn a_reader_that_keeps_up_gets_every_message() {
    let sessions = handle(Config::default());
    let connection = sessions.connect(Some("a"), "t").unwrap();
    waiting(&connection.outbox);
    for _ in 0..20 {
        sessions
            .send("a", Message::progress("p", "progress", Utf8Bytes::from_static(r#"{"type":"progress"}"#)));
        sessions.send("a", preview(1, "3", 10));
    }
    assert_eq!(waiting(&connection.outbox).len(), 40);
}

#[test]
fn a_slow_reader_loses_old_previews_and_progress_but_nothing_else() {
    let sessions = handle(Config { queue_messages: 64, ..Config::default() });
    let connection = sessions.connect(Some("a"), "t").unwrap();
    for i in 0..1_000 {
        sessions
            .send("a", Message::progress("p", "progress", Utf8Bytes::from_static(r#"{"type":"progress"}"#)));
        sessions.send("a", preview(1, "3", 10_000));
        if i % 50 == 0 {
            sessions.send("a", event("executed"));
        }
        sessions.broadcast_status(i);
    }
    sessions.send("a", Message::terminal(Utf8Bytes::from_static(r#"{"type":"execution_success"}"#)));
    let messages = waiting(&connection.outbox);
    assert_eq!(messages.iter().filter(|m| *m == "executed").count(), 20);
    assert_eq!(messages.last().unwrap(), "execution_success");
    assert!(messages.len() <= 64, "{}", messages.len());
}

#[test]
fn results_sent_as_images_are_kept_whatever_the_previews_do() {
    let sessions = handle(Config { queue_bytes: 1 << 20, ..Config::default() });
    let connection = sessions.connect(Some("a"), "t").unwrap();
    for _ in 0..4 {
        sessions.send("a", preview(2, "3", 1 << 20));
        sessions.send("a", preview(1, "3", 400 << 10));
    }
    let messages = waiting(&connection.outbox);
    assert_eq!(messages.iter().filter(|m| *m == "<ordinary>").count(), 4);
}

#[tokio::test]
async fn a_reader_that_never_reads_is_cut_off_with_the_end_in_its_outbox() {
    let sessions = handle(Config { queue_messages: 64, ..Config::default() });
    let connection = sessions.connect(Some("a"), "t").unwrap();
    sessions.send("a", Message::terminal(Utf8Bytes::from_static(r#"{"type":"execution_success"}"#)));
    assert!(connection.outbox.overflowed().now_or_never().is_none());
    for _ in 0..100 {
        sessions.send("a", event("executed"));
    }
    connection.outbox.overflowed().await;
    assert_eq!(waiting(&connection.outbox), ["execution_success"]);
    assert_eq!(connection.outbox.take(&mut Vec::new()).await, Err(Closed::Slow));
}

#[test]
fn one_message_beyond_all_limits_is_delivered_alone() {
    let sessions = handle(Config { queue_bytes: 100, ..Config::default() });
    let connection = sessions.connect(Some("a"), "t").unwrap();
    waiting(&connection.outbox);
    sessions.send("a", Message::ordinary_binary(Bytes::from(vec![0; 1_000])));
    assert_eq!(waiting(&connection.outbox), ["<ordinary>"]);
}

#[tokio::test]
async fn shutdown_delivers_what_waits_and_refuses_new_sockets() {
    let sessions = handle(Config { sockets: 1, ..Config::default() });
    let connection = sessions.connect(Some("a"), "t").unwrap();
    assert_eq!(sessions.connect(Some("b"), "t").unwrap_err(), ConnectError::Full(1));
    sessions.close();
    assert_eq!(waiting(&connection.outbox), ["status"]);
    assert_eq!(connection.outbox.take(&mut Vec::new()).await, Err(Closed::Shutdown));
    drop(connection);
    assert_eq!(sessions.connect(Some("b"), "t").unwrap_err(), ConnectError::Closing);
}

#[tokio::test]
async fn silence_is_broken_by_a_status() {
    let (service, sessions) = Service::new(Config { status_ms: 1, ..Config::default() });
    let connection = sessions.connect(Some("a"), "t").unwrap();
    waiting(&connection.outbox);
    let statuses = async {
        for _ in 0..2 {
            let mut messages = Vec::new();
            connection.outbox.take(&mut messages).await.unwrap();
            assert!(messages.iter().all(|message| matches!(message.payload, Payload::Text(_))));
        }
    };
    tokio::select! {
        () = service.run() => panic!("the service ended"),
        () = statuses => {}
    }
}
