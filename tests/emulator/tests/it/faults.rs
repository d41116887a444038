//! Scripted faults, as a client sees them.

use comfyui_emulator::{Config, Each, Emulator, Fault, Moment, Outcome};
use hyper::Method;
use serde_json::json;
use tokio::net::TcpStream;

use crate::client::{Frame, Http, Socket, plain};

async fn start() -> (Emulator, Http) {
    let emulator = Emulator::start(Config::default()).await.expect("starts");
    let http = Http::new(&emulator.url());
    (emulator, http)
}

fn post_body() -> String {
    json!({ "prompt": plain(1, "f"), "client_id": "c" }).to_string()
}

#[tokio::test]
async fn a_crash_drops_connections_and_closes_the_port() {
    let (mut emulator, http) = start().await;
    let control = emulator.control();
    let mut socket = Socket::connect(&emulator.url(), "c").await;
    control.hold(Each::Execution);
    let id = http.prompt(&plain(1, "f"), Some("c")).await;
    control.wait_held(1).await;
    emulator.crash().await;
    while !matches!(socket.frame().await, Frame::Closed) {}
    assert!(TcpStream::connect(emulator.addr()).await.is_err());
    assert_eq!(control.executions()[0].outcome, Some(Outcome::Crashed));
    assert_eq!(control.gate().held, 0);

    emulator.restart().await;
    control.open();
    assert_eq!(http.history(&id).await, json!(null));
    assert_eq!(http.get("/prompt").await.json()["exec_info"]["queue_remaining"], 0);
    let answer = http.send(Method::POST, "/prompt", post_body()).await.json();
    assert_eq!(answer["number"], 0);
    let ran = control.wait_ended(2).await;
    assert_eq!((ran[1].life, ran[1].outcome), (2, Some(Outcome::Success)));
}

#[tokio::test]
async fn output_files_survive_a_restart_and_previews_do_not() {
    let (mut emulator, http) = start().await;
    let mut prompt = plain(5, "kept");
    prompt["3"] = json!({ "class_type": "PreviewImage", "inputs": { "images": ["1", 0] } });
    let id = http.prompt(&prompt, None).await;
    emulator.control().wait_ended(1).await;
    let outputs = http.history(&id).await["outputs"].clone();
    let temp = outputs["3"]["images"][0]["filename"].as_str().expect("a preview").to_owned();
    assert!(temp.starts_with("ComfyUI_temp_") && temp.ends_with("_00001_.png"), "{temp}");
    assert_eq!(http.get(&format!("/view?filename={temp}&type=temp")).await.status, 200);
    emulator.restart().await;
    assert_eq!(http.get(&format!("/view?filename={temp}&type=temp")).await.status, 404);
    assert_eq!(http.get("/view?filename=kept_00001_.png").await.status, 200);
}

#[tokio::test]
async fn a_crash_on_receipt_leaves_nothing_and_no_answer() {
    let (mut emulator, http) = start().await;
    emulator.control().inject(Fault::Crash { at: Moment::PostReceived });
    assert!(http.try_send(Method::POST, "/prompt", &[], post_body()).await.is_err());
    emulator.wait_down().await;
    assert!(emulator.control().executions().is_empty());
}

#[tokio::test]
async fn a_crash_after_acceptance_leaves_no_answer_but_perhaps_a_start() {
    let (mut emulator, http) = start().await;
    let control = emulator.control();
    control.inject(Fault::Crash { at: Moment::PostAccepted });
    control.hold(Each::Execution);
    assert!(http.try_send(Method::POST, "/prompt", &[], post_body()).await.is_err());
    emulator.wait_down().await;
    assert!(control.executions().iter().all(|execution| execution.outcome == Some(Outcome::Crashed)));
}

#[tokio::test]
async fn crashes_strike_at_their_node() {
    let (mut emulator, http) = start().await;
    let control = emulator.control();
    for (at, ran) in [(Moment::Started, 0), (Moment::AfterNodes(1), 1), (Moment::Executed, 2)] {
        control.inject(Fault::Crash { at });
        http.prompt(&plain(9, "n"), Some("c")).await;
        emulator.wait_down().await;
        let last = control.executions().pop().expect("an execution");
        assert_eq!((last.outcome, last.nodes_run.len()), (Some(Outcome::Crashed), ran), "{at:?}");
        emulator.restart().await;
    }
}

#[tokio::test]
async fn a_restart_by_itself_comes_back_empty() {
    let (emulator, http) = start().await;
    let control = emulator.control();
    control.inject(Fault::RestartEmpty { at: Moment::Executed, down_ms: 0 });
    let id = http.prompt(&plain(1, "r"), None).await;
    control.wait_ended(1).await;
    let answer = loop {
        if let Ok(answer) = http.try_send(Method::GET, "/emulator/state", &[], "").await {
            break answer;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(answer.json()["life"], 2);
    assert_eq!(http.history(&id).await, json!(null));
}

#[tokio::test]
async fn a_hung_worker_still_answers_http() {
    let (emulator, http) = start().await;
    let control = emulator.control();
    control.inject(Fault::Hang { at: Moment::Started });
    let id = http.prompt(&plain(1, "h"), None).await;
    control.wait_started(1).await;
    http.post("/interrupt", &json!({})).await;
    assert_eq!(http.get("/queue").await.json()["queue_running"][0][1], json!(id));
    assert_eq!(control.executions()[0].outcome, None);
    control.inject(Fault::Thaw);
    assert_eq!(control.wait_ended(1).await[0].outcome, Some(Outcome::Interrupted));
}

#[tokio::test]
async fn a_frozen_process_answers_nothing_until_it_thaws() {
    let (emulator, http) = start().await;
    let control = emulator.control();
    control.inject(Fault::Freeze { at: Moment::Now });
    let mut ask = std::pin::pin!(http.get("/prompt"));
    tokio::select! {
        biased;
        _ = &mut ask => panic!("a frozen process answered"),
        state = http.get("/emulator/state") => assert_eq!(state.status, 200),
    }
    control.inject(Fault::Thaw);
    assert_eq!(ask.await.status, 200);
}

#[tokio::test]
async fn a_frozen_process_is_replaced_by_one_that_is_not() {
    let (mut emulator, http) = start().await;
    emulator.control().inject(Fault::Freeze { at: Moment::Now });
    emulator.restart().await;
    assert_eq!(http.get("/prompt").await.status, 200);
}

#[tokio::test]
async fn a_dead_worker_is_a_zombie() {
    let (emulator, http) = start().await;
    let control = emulator.control();
    let mut prompt = plain(1, "z");
    prompt["9"] = json!({ "class_type": "ImageInvert" });
    let mut socket = Socket::connect(&emulator.url(), "z").await;
    let id = http.prompt(&prompt, Some("z")).await;
    socket.until("execution_start").await;
    http.prompt(&plain(2, "z"), Some("z")).await;
    http.post("/interrupt", &json!({})).await;
    let queue = http.get("/queue").await.json();
    assert_eq!(queue["queue_running"][0][1], json!(id));
    assert_eq!(queue["queue_pending"].as_array().expect("pending").len(), 1);
    assert_eq!(control.executions().len(), 1);
}

#[tokio::test]
async fn posts_fail_as_often_as_asked() {
    let (emulator, http) = start().await;
    emulator.control().inject(Fault::FailPosts { count: 2, status: 500 });
    for status in [500, 500, 200] {
        assert_eq!(http.send(Method::POST, "/prompt", post_body()).await.status, status);
    }
    assert_eq!(emulator.control().wait_ended(1).await.len(), 1);
}

#[tokio::test]
async fn delayed_answers_come_after_the_job() {
    let (emulator, http) = start().await;
    let control = emulator.control();
    control.inject(Fault::DelayPosts { count: 1, ms: 1_500 });
    let post = http.send(Method::POST, "/prompt", post_body());
    let ended = control.wait_ended(1);
    tokio::pin!(post);
    tokio::select! {
        _ = &mut post => panic!("the answer was not late"),
        ran = ended => assert_eq!(ran.len(), 1),
    }
    assert_eq!(post.await.status, 200);
}

#[tokio::test]
async fn sockets_can_drop_while_http_stays() {
    let (emulator, http) = start().await;
    let mut socket = Socket::connect(&emulator.url(), "d").await;
    socket.until("status").await;
    emulator.control().inject(Fault::DropSockets);
    assert!(matches!(socket.frame().await, Frame::Closed));
    assert_eq!(http.get("/prompt").await.status, 200);
    let mut again = Socket::connect(&emulator.url(), "d2").await;
    assert_eq!(again.event().await["type"], "status");
}

#[tokio::test]
async fn node_errors_can_be_scripted() {
    let (emulator, http) = start().await;
    let mut socket = Socket::connect(&emulator.url(), "e").await;
    emulator.control().inject(Fault::NodeError { message: "boom".into(), count: 1 });
    http.prompt(&plain(1, "e"), Some("e")).await;
    let data = socket.until("execution_error").await["data"].clone();
    assert_eq!(
        (&data["exception_message"], &data["exception_type"]),
        (&json!("boom\n"), &json!("RuntimeError"))
    );
}
