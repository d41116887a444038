//! The frames are ComfyUI 0.8.0's, as seen on the wire.

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::model::id::InstanceId;

const ID: &str = "11401d5e-02d8-4256-80db-a0ca739673f2";

fn event(value: Value) -> Event {
    match Frame::text(Utf8Bytes::from(value.to_string())) {
        Some(Frame::Event(event)) => event,
        other => panic!("{other:?}"),
    }
}

fn value(text: &Utf8Bytes) -> Value {
    serde_json::from_str(text.as_str()).unwrap()
}

#[test]
fn events_are_read_as_far_as_routing_needs() {
    let cases = [
        (
            json!({"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 3}}, "sid": "aaaa"}}),
            Kind::Status { remaining: 3 },
            None,
        ),
        (
            json!({"type": "execution_cached", "data": {"nodes": ["1", "2"], "prompt_id": ID, "timestamp": 1}}),
            Kind::ExecutionCached { nodes: vec!["1".into(), "2".into()] },
            Some(ID),
        ),
        (
            json!({"type": "executing", "data": {"node": "5.0.0.2", "display_node": "5", "prompt_id": ID}}),
            Kind::Executing { node: Some("5.0.0.2".into()), display_node: Some("5".into()) },
            Some(ID),
        ),
        (
            json!({"type": "executing", "data": {"node": null, "prompt_id": ID}}),
            Kind::Executing { node: None, display_node: None },
            Some(ID),
        ),
        (
            json!({"type": "progress", "data": {"value": 3, "max": 20, "prompt_id": ID, "node": "3"}}),
            Kind::Progress { value: 3.0, max: 20.0, node: Some("3".into()) },
            Some(ID),
        ),
        (
            json!({"type": "execution_success", "data": {"prompt_id": ID, "timestamp": 1}}),
            Kind::ExecutionSuccess,
            Some(ID),
        ),
        (
            json!({"type": "crystools.monitor", "data": {"cpu": 1}}),
            Kind::Other("crystools.monitor".into()),
            None,
        ),
        (json!({"type": "odd", "data": [1, 2]}), Kind::Other("odd".into()), None),
        (json!({"type": "bare"}), Kind::Other("bare".into()), None),
    ];
    for (text, kind, id) in cases {
        let event = event(text);
        assert_eq!((event.kind, event.prompt_id.as_deref()), (kind, id));
    }
}

#[test]
fn the_prompt_id_is_replaced_wherever_it_stands_as_a_string() {
    let state = event(json!({"type": "progress_state", "data": {"prompt_id": ID, "nodes": {
        "1": {"value": 1.0, "max": 1.0, "state": "finished", "node_id": "1", "prompt_id": ID, "display_node_id": "1"},
        "2": {"value": 0.0, "max": 1.0, "state": "running", "node_id": "2", "prompt_id": ID, "display_node_id": ID.to_owned() + "x"},
    }}}));
    assert_eq!(state.nodes_finished(), 1);
    let renamed = value(&state.renamed(&Renaming::new(ID, "my \"own\" id\n")));
    assert_eq!(renamed["data"]["prompt_id"], "my \"own\" id\n");
    assert_eq!(renamed["data"]["nodes"]["2"]["prompt_id"], "my \"own\" id\n");
    assert_eq!(renamed["data"]["nodes"]["2"]["display_node_id"], ID.to_owned() + "x");
    let same = state.renamed(&Renaming::new("another", "id"));
    assert_eq!(same.as_ptr(), state.raw().as_ptr(), "what does not change is not copied");
}

#[test]
fn executed_names_its_instance() {
    let executed = event(json!({"type": "executed", "data": {"node": "3", "display_node": "3",
        "output": {"images": [{"filename": "t_00001_.png", "subfolder": "", "type": "output"}]}, "prompt_id": ID}}));
    let (text, files) = executed.tagged(&Renaming::new(ID, "mine"), &InstanceId::from("gpu0"));
    let text = value(&text);
    assert_eq!(text["data"]["output"]["images"][0]["subfolder"], "~gpu0");
    assert_eq!(text["data"]["prompt_id"], "mine");
    assert_eq!(files[0].filename, "t_00001_.png");
    let nothing = event(json!({"type": "executed", "data": {"node": "3", "output": null, "prompt_id": ID}}));
    assert_eq!(nothing.tagged(&Renaming::new(ID, "mine"), &InstanceId::from("gpu0")).1, []);
}

#[test]
fn errors_tell_memory_and_blocks_from_the_rest() {
    let error = |kind: &str, message: &str| match event(
        json!({"type": "execution_error", "data": {"prompt_id": ID, "node_id": 7, "node_type": "K",
            "exception_type": kind, "exception_message": message}}),
    )
    .kind
    {
        Kind::ExecutionError(data) => data,
        other => panic!("{other:?}"),
    };
    assert!(error("torch.OutOfMemoryError", "x").is_out_of_memory());
    assert!(error("RuntimeError", "CUDA out of memory. Tried").is_out_of_memory());
    assert!(!error("ValueError", "no").is_out_of_memory());
    assert!(error("ExecutionBlocked", "Execution Blocked: x").is_block());
    assert_eq!(error("E", &"x".repeat(10_000)).exception_message.len(), 4096);
    assert_eq!(error("E", "").node_id, "7");
}

#[test]
fn hostile_texts_are_no_events() {
    let deep = format!(r#"{{"type":"x","data":{}"#, "[".repeat(100_000));
    let closed = format!(r#"{{"type":"x","data":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    for text in
        ["", "null", "[]", r#"["status",{}]"#, "{}", r#"{"type":5}"#, r#"{"type":"x""#, &deep, &closed]
    {
        assert!(Frame::text(Utf8Bytes::from(text.to_owned())).is_none(), "{}", &text[..text.len().min(20)]);
    }
    let wide = event(json!({"type": "x", "data": vec![json!([]); 10_000]}));
    assert_eq!(wide.kind, Kind::Other("x".into()), "many brackets are no depth");
    let odd = event(json!({"type": "executing", "data": {"node": {"a": 1}, "prompt_id": ["x"]}}));
    assert_eq!(odd.prompt_id, None);
}

#[test]
fn what_python_writes_and_json_is_not_is_read_and_non_numbers_are_not_passed_on() {
    let read = |text: &'static str| match Frame::text(Utf8Bytes::from_static(text)) {
        Some(Frame::Event(event)) => (event.kind.clone(), event.prompt_id.clone(), event.raw().to_string()),
        other => panic!("{text}: {other:?}"),
    };
    let progress = |value, max| Kind::Progress { value, max, node: None };
    let (kind, _, raw) = read(r#"{"type":"progress","data":{"value":NaN,"max":1}}"#);
    assert_eq!(
        (kind, raw.as_str()),
        (progress(0.0, 1.0), r#"{"type":"progress","data":{"value":null,"max":1}}"#)
    );
    // Half a character: in what is skipped, and in what is looked at.
    let skipped = r#"{"type":"progress","data":{"value":1,"max":2,"x":{"\ud800":"\udc00"}}}"#;
    assert_eq!(read(skipped), (progress(1.0, 2.0), None, skipped.to_owned()));
    let wanted = r#"{"type":"executed","data":{"node":"a\ud800","prompt_id":"p"}}"#;
    let executed = Kind::Executed { node: "a\u{fffd}".into() };
    assert_eq!(read(wanted), (executed, Some("p".into()), wanted.to_owned()));
}

#[test]
fn previews_are_given_in_the_form_a_socket_asked_for() {
    let metadata = json!({"node_id": "3", "prompt_id": ID, "display_node_id": "3", "parent_node_id": null,
        "real_node_id": "3", "image_type": "image/png"})
    .to_string();
    let Frame::Preview(upstream) = Frame::binary(image_with_metadata(metadata.as_bytes(), b"PNG")) else {
        panic!()
    };
    assert_eq!(upstream.prompt_id.as_deref(), Some(ID));
    let mine = upstream.for_client(&Renaming::new(ID, "mine"));
    let frame = |with_metadata| [mine.head(with_metadata), mine.image().clone()].concat();
    assert_eq!(frame(false), b"\0\0\0\x01\0\0\0\x02PNG");
    let Frame::Preview(again) = Frame::binary(frame(true).into()) else { panic!() };
    assert_eq!(again.prompt_id.as_deref(), Some("mine"));
    assert_eq!(&again.image()[..], b"PNG");
    let told: Value = serde_json::from_slice(&mine.head(true)[8..]).unwrap();
    assert_eq!((&told["real_node_id"], &told["prompt_id"]), (&json!("3"), &json!("mine")));
}

#[test]
fn a_preview_without_metadata_stays_one() {
    let sent = Bytes::from_static(b"\0\0\0\x01\0\0\0\x07JPG");
    let Frame::Preview(plain) = Frame::binary(sent.clone()) else { panic!() };
    let mine = plain.for_client(&Renaming::new(ID, "mine"));
    for with_metadata in [true, false] {
        assert_eq!([mine.head(with_metadata), mine.image().clone()].concat(), sent);
    }
}

#[test]
fn broken_lengths_stay_raw() {
    let huge = [&[0, 0, 0, 4][..], &[0xff; 4], b"{}"].concat();
    let text_huge = [&[0, 0, 0, 3][..], &[0xff; 4], b"1"].concat();
    for bytes in [
        &b""[..],
        b"\0\0\0",
        b"\0\0\0\x01\0",
        b"\0\0\0\x04\0\0\0\x09{}",
        b"\0\0\0\x03\0\0\0\x01\xff",
        b"\0\0\0\x09x",
        b"\0\0\0\x04\0\0\0\x02[]",
        &huge,
        &text_huge,
    ] {
        assert!(matches!(Frame::binary(Bytes::copy_from_slice(bytes)), Frame::Unknown(_)), "{bytes:?}");
    }
    let Frame::Text(text) = Frame::binary(Bytes::from_static(b"\0\0\0\x03\0\0\0\x0212hello")) else {
        panic!()
    };
    assert_eq!(text.node_id, "12");
}

#[test]
fn what_the_router_says_itself_has_comfyuis_shape() {
    assert_eq!(
        value(&status(0, Some("aaaa"))),
        json!({"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "aaaa"}})
    );
    assert_eq!(
        value(&executing_done(ID)),
        json!({"type": "executing", "data": {"node": null, "prompt_id": ID}})
    );
    let error = value(&JobError::new("", "gpu0 died", "").event(ID, 5));
    for member in [
        "prompt_id",
        "node_id",
        "node_type",
        "executed",
        "exception_message",
        "exception_type",
        "traceback",
        "current_inputs",
        "current_outputs",
        "timestamp",
    ] {
        assert!(error["data"].get(member).is_some(), "{member}");
    }
}
