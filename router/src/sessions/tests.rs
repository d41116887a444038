use bytes::Bytes;
use futures_util::FutureExt;
use serde_json::Value;

use super::*;
use crate::comfy::frame::{Frame, Utf8Bytes, image_with_metadata};

mod latecomers;

fn handle(config: Config) -> Handle {
    Service::new(config).1
}

fn text(kind: &str) -> Utf8Bytes {
    Utf8Bytes::from(format!("{{\"type\":{kind:?}}}"))
}

fn event(kind: &str) -> Message {
    Message::ordinary(text(kind))
}

fn progress(kind: &'static str) -> Message {
    Message::progress(&"p".into(), kind, text(kind))
}

fn end(kind: &str) -> Message {
    Message::terminal(text(kind))
}

impl Handle {
    /// Of the job `p`, to this sid of the tenant `t`.
    fn tell(&self, sid: &str, message: Message) {
        self.tell_of(sid, "p", message);
    }

    fn tell_of(&self, sid: &str, job: &str, message: Message) {
        self.send(&self.client("t", sid).unwrap(), &job.into(), message);
    }
}

fn preview(format: u32, node: &str, size: usize) -> Message {
    let metadata = serde_json::json!({"node_id": node, "prompt_id": "p", "image_type": if format == 2 { "image/png" } else { "image/jpeg" }});
    match Frame::binary(image_with_metadata(metadata.to_string().as_bytes(), &vec![7; size])) {
        Frame::Preview(preview) => Message::preview(&"p".into(), preview),
        other => panic!("{other:?}"),
    }
}

/// What waits, as the types of events; binary messages as their class.
fn waiting(outbox: &Outbox) -> Vec<String> {
    let mut messages = Vec::new();
    while let Some(Ok(())) = outbox.take(&mut messages).now_or_never() {}
    let show = |message: &Message| match &message.payload {
        Payload::Text(text) => {
            serde_json::from_str::<Value>(text.as_str()).unwrap()["type"].as_str().unwrap().to_owned()
        }
        Payload::Binary(_) | Payload::Preview(_) => format!("<{}>", message.class.frame_kind().as_str()),
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
    sessions.tell("a", event("execution_start"));
    sessions.broadcast_status(1);
    assert_eq!(waiting(&a.outbox), ["status", "execution_start", "status"]);
    assert_eq!(waiting(&b.outbox), ["status", "status"]);
}

#[test]
fn tenants_with_keys_have_client_ids_of_their_own() {
    let sessions = handle(Config { apart: true, ..Config::default() });
    let ann = sessions.connect(Some("a"), "ann").unwrap();
    let bob = sessions.connect(Some("a"), "bob").unwrap();
    assert_eq!((ann.sid.as_str(), bob.sid.as_str()), ("a", "a"));
    sessions.send(&sessions.client("ann", "a").unwrap(), &"p".into(), event("executed"));
    assert_eq!(waiting(&ann.outbox), ["status", "executed"]);
    assert_eq!(waiting(&bob.outbox), ["status"]);
    assert_ne!(sessions.client("a", "bc"), sessions.client("ab", "c"));

    // Without keys a tenant is a header, which browsers' websockets do not send.
    let sessions = handle(Config::default());
    let page = sessions.connect(Some("a"), "default").unwrap();
    sessions.send(&sessions.client("ann", "a").unwrap(), &"p".into(), event("executed"));
    assert_eq!(waiting(&page.outbox), ["status", "executed"]);
}

#[test]
fn an_impossible_sid_is_replaced() {
    let sessions = handle(Config::default());
    let long = "x".repeat(MAX_SID + 1);
    for sid in ["", &long] {
        assert_eq!(sessions.connect(Some(sid), "me").unwrap().sid.len(), 32);
        assert_eq!(sessions.client("me", sid), None);
    }
}

#[test]
fn log_lines_go_to_those_who_asked() {
    let sessions = handle(Config::default());
    let (a, b) = (sessions.connect(Some("a"), "t").unwrap(), sessions.connect(Some("b"), "t").unwrap());
    assert!(!sessions.subscribe_logs("t", "nobody", true));
    assert!(sessions.subscribe_logs("t", "a", true));
    sessions.send_logs(&Message::passing(text("logs")));
    assert_eq!((waiting(&a.outbox).len(), waiting(&b.outbox).len()), (2, 1));
    assert!(sessions.subscribe_logs("t", "b", true));
    drop(a);
    assert!(!sessions.subscribe_logs("t", "b", false), "whoever has gone wants none");
}

#[test]
fn a_reader_that_keeps_up_gets_every_message() {
    let sessions = handle(Config::default());
    let connection = sessions.connect(Some("a"), "t").unwrap();
    waiting(&connection.outbox);
    for _ in 0..20 {
        sessions.tell("a", progress("progress"));
        sessions.tell("a", preview(1, "3", 10));
    }
    assert_eq!(waiting(&connection.outbox).len(), 40);
}

#[test]
fn a_slow_reader_loses_old_previews_and_progress_but_nothing_else() {
    let sessions = handle(Config { queue_messages: 64, ..Config::default() });
    let connection = sessions.connect(Some("a"), "t").unwrap();
    for i in 0..1_000 {
        sessions.tell("a", progress("progress"));
        sessions.tell("a", preview(1, "3", 10_000));
        if i % 50 == 0 {
            sessions.tell("a", event("executed"));
        }
        sessions.broadcast_status(i);
    }
    sessions.tell("a", end("execution_success"));
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
        sessions.tell("a", preview(2, "3", 1 << 20));
        sessions.tell("a", preview(1, "3", 400 << 10));
    }
    let messages = waiting(&connection.outbox);
    assert_eq!(messages.iter().filter(|m| *m == "<ordinary>").count(), 4);
}

#[tokio::test]
async fn a_reader_that_never_reads_is_cut_off_with_the_end_in_its_outbox() {
    let sessions = handle(Config { queue_messages: 64, ..Config::default() });
    let connection = sessions.connect(Some("a"), "t").unwrap();
    sessions.tell("a", end("execution_success"));
    assert!(connection.outbox.overflowed().now_or_never().is_none());
    for _ in 0..100 {
        sessions.tell("a", event("executed"));
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
    sessions.tell("a", Message::ordinary_binary(Bytes::from(vec![0; 1_000])));
    assert_eq!(waiting(&connection.outbox), ["<ordinary>"]);
}

#[test]
fn what_waits_is_taken_in_parts_so_that_the_rest_can_still_give_way() {
    let sessions = handle(Config::default());
    let connection = sessions.connect(Some("a"), "t").unwrap();
    for _ in 0..4 {
        sessions.tell("a", preview(1, "3", 60 << 10));
    }
    let mut part = Vec::new();
    connection.outbox.take(&mut part).now_or_never().unwrap().unwrap();
    assert_eq!(part.len(), 3, "the status and two previews");
    for _ in 0..70 {
        sessions.tell("a", event("executed"));
    }
    sessions.tell("a", preview(1, "3", 60 << 10));
    let rest = waiting(&connection.outbox);
    assert_eq!(rest.iter().filter(|kind| *kind == "<preview>").count(), 1);
    assert_eq!(rest.len(), 71);
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

/// What went over it, and how far the next message gets.
#[derive(Debug)]
struct Wire(Mutex<(Vec<&'static str>, Sent)>);

impl Line for Wire {
    fn send(&self, message: &Message) -> Sent {
        let mut wire = self.0.lock().unwrap();
        if wire.1 != Sent::No {
            wire.0.push(message.class.frame_kind().as_str());
        }
        wire.1
    }
}

#[test]
fn what_can_be_superseded_goes_over_the_line_while_the_reader_waits() {
    let sessions = handle(Config::default());
    let connection = sessions.connect(Some("a"), "t").unwrap();
    let wire = Arc::new(Wire(Mutex::new((Vec::new(), Sent::Whole))));
    let sent = || std::mem::take(&mut wire.0.lock().unwrap().0);
    connection.outbox.open(wire.clone());

    sessions.tell("a", progress("progress"));
    assert_eq!(sent(), [""; 0], "the greeting waits");
    assert_eq!(waiting(&connection.outbox), ["status", "progress"]);

    sessions.tell("a", progress("progress"));
    sessions.tell("a", preview(1, "3", 10));
    assert_eq!(sent(), ["progress", "preview"]);
    sessions.tell("a", event("executed"));
    sessions.tell("a", progress("progress"));
    sessions.broadcast_status(1);
    assert_eq!(sent(), [""; 0], "nothing overtakes what waits");
    let mut taken = Vec::new();
    connection.outbox.take(&mut taken).now_or_never().unwrap().unwrap();
    sessions.tell("a", progress("progress"));
    assert_eq!((taken.len(), sent()), (3, vec![]), "nor what is being sent");
    assert_eq!(waiting(&connection.outbox), ["progress"]);

    wire.0.lock().unwrap().1 = Sent::No;
    sessions.tell("a", progress("progress"));
    assert_eq!(waiting(&connection.outbox), ["progress"]);

    connection.outbox.shut();
    sessions.tell("a", progress("progress"));
    assert_eq!((sent(), waiting(&connection.outbox)), (vec![], vec!["progress".to_owned()]));
}

#[test]
fn the_reader_is_called_to_send_the_rest_of_what_the_line_began() {
    let sessions = handle(Config::default());
    let connection = sessions.connect(Some("a"), "t").unwrap();
    waiting(&connection.outbox);
    let wire = Arc::new(Wire(Mutex::new((Vec::new(), Sent::Begun))));
    connection.outbox.open(wire.clone());
    let mut taken = Vec::new();
    let mut take = Box::pin(connection.outbox.take(&mut taken));
    assert!((&mut take).now_or_never().is_none());
    sessions.tell("a", preview(1, "3", 10));
    sessions.tell("a", preview(1, "3", 10));
    assert_eq!(wire.0.lock().unwrap().0, ["preview"], "the rest goes first");
    assert_eq!(take.now_or_never(), Some(Ok(())));
    assert_eq!(taken.len(), 1);
    assert!(connection.outbox.take(&mut taken).now_or_never().is_none());
    sessions.tell("a", preview(1, "3", 10));
    assert_eq!(connection.outbox.take(&mut taken).now_or_never(), Some(Ok(())));
    assert_eq!(taken.len(), 1, "all that there is to send was begun");
}
