//! What each client hears: its own jobs' events, in its form, wherever and whenever it listens.

use comfy_router_tests::{
    Client, Fleet, Message, Router, Serve, Socket, colour_of, complete, diffusion, eventually, kinds,
    measured, plain, streamed, within,
};
use comfyui_emulator::{Audience, Each, Fault};
use serde_json::{Value, json};

async fn one() -> (Fleet, Router) {
    over(1).await
}

async fn over(instances: usize) -> (Fleet, Router) {
    let fleet = Fleet::of(instances).await;
    let router = Serve::over(fleet.instances()).start().await;
    (fleet, router)
}

/// Everything up to the end of this prompt.
async fn until_end(socket: &mut Socket, prompt_id: &str) -> Vec<Message> {
    let mut heard = Vec::new();
    within("the end of the prompt", async {
        loop {
            let message = socket.next().await;
            assert!(!matches!(message, Message::Closed(_)), "closed after {:?}", kinds(&heard));
            let over = message.ends(prompt_id);
            heard.push(message);
            if over {
                break;
            }
        }
    })
    .await;
    heard
}

/// The next `count` messages, whatever else is silent.
async fn next(socket: &mut Socket, count: usize) -> Vec<Message> {
    let mut heard = Vec::new();
    within("messages", async {
        while heard.len() < count {
            heard.push(socket.next().await);
        }
    })
    .await;
    heard
}

/// So many besides the queue's length, which is told at any time.
async fn next_own(socket: &mut Socket, count: usize) -> Vec<Message> {
    let mut heard = Vec::new();
    while heard.len() < count {
        heard.extend(next(socket, 1).await.into_iter().filter(|message| message.kind() != "status"));
    }
    heard
}

/// Without the queue's length, which is told at any time.
fn of_jobs(heard: &[Message]) -> Vec<String> {
    kinds(heard).into_iter().filter(|kind| kind != "status").collect()
}

/// Up to the router's answer to the flags.
async fn until_flags(socket: &mut Socket) -> Vec<Message> {
    let mut heard = Vec::new();
    within("feature flags", async {
        loop {
            heard.push(socket.next().await);
            if heard.last().is_some_and(|message| message.kind() == "feature_flags") {
                return;
            }
        }
    })
    .await;
    heard
}

#[tokio::test]
async fn images_that_are_results_all_arrive_in_the_form_the_socket_asked_for() {
    let (_fleet, router) = over(2).await;
    for (sid, flags, kind) in
        [("plain", None, 1), ("flagged", Some(true), 4), ("both", None, 1), ("b", Some(true), 4)]
    {
        let client = Client::silent(&router, sid);
        let mut socket = client.socket().await;
        if let Some(flag) = flags {
            let said = json!({"type": "feature_flags", "data": {"supports_preview_metadata": flag}});
            socket.send(&said.to_string()).await;
            until_flags(&mut socket).await;
        }
        let id = client.post(&streamed(0x12_34_56, 40)).await;
        let heard = until_end(&mut socket, &id).await;
        let images: Vec<&Message> = heard.iter().filter(|m| matches!(m, Message::Binary(..))).collect();
        assert_eq!(images.len(), 40, "{sid}: {:?}", kinds(&heard));
        for image in images {
            let Message::Binary(form, bytes) = image else { panic!("just filtered") };
            assert_eq!(*form, kind, "{sid}");
            // Type 1: the format, 2 for PNG. Type 4: a length and so much JSON.
            let number = u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"));
            let image = if kind == 1 { 4 } else { 4 + number as usize };
            assert_eq!(colour_of(&bytes[image..]), 0x12_34_56);
            let about: Value = serde_json::from_slice(&bytes[4..image]).unwrap_or_default();
            assert!(if kind == 1 { number == 2 } else { about["prompt_id"] == *id }, "{about}");
        }
        // Type 1 after the `progress` of its step, type 4 before it, wherever that was not superseded by a later one.
        let of_job = of_jobs(&heard);
        let step = |pair: &[String]| match kind {
            1 => pair[0] == "progress" && pair[1] == "binary 1",
            _ => pair[0] == "binary 4" && pair[1] == "progress",
        };
        assert!(of_job.windows(2).any(step), "{sid}: {of_job:?}");
        let last_image = heard.iter().rposition(|m| matches!(m, Message::Binary(..)));
        let success = heard.iter().position(|m| m.kind() == "execution_success");
        assert!(last_image < success, "before the end: {:?}", kinds(&heard));
    }
}

#[tokio::test]
async fn only_the_first_json_object_can_be_the_feature_flags() {
    let (_fleet, router) = one().await;
    let yes = r#"{"type": "feature_flags", "data": {"supports_preview_metadata": true}}"#;
    let no = r#"{"type": "feature_flags", "data": {"supports_preview_metadata": "true"}}"#;
    let cases: [(&str, &[&str], bool, u32); 4] = [
        ("a", &["no JSON", "7", "[]", yes], true, 4),
        ("b", &[r#"{"type": "hello"}"#, yes], false, 1),
        ("c", &[no, yes], true, 1),
        ("d", &[], false, 1),
    ];
    for (sid, says, answered, form) in cases {
        let client = Client::silent(&router, sid);
        let mut socket = client.socket().await;
        for said in says {
            socket.send(said).await;
        }
        // What is posted on another connection may overtake what was said on this one.
        let mut heard = if answered { until_flags(&mut socket).await } else { Vec::new() };
        let id = client.post(&streamed(1, 1)).await;
        heard.extend(until_end(&mut socket, &id).await);
        let replies = heard.iter().filter(|message| message.kind() == "feature_flags");
        assert_eq!(replies.count(), usize::from(answered), "{sid}: {:?}", kinds(&heard));
        assert!(heard.iter().any(|m| m.kind() == format!("binary {form}")), "{sid}: {:?}", kinds(&heard));
    }
}

#[tokio::test]
async fn progress_text_is_told_to_the_owner_alone() {
    let (fleet, router) = over(2).await;
    fleet.hold();
    let clients = [Client::connect(&router, "ann").await, Client::connect(&router, "bob").await];
    let mut jobs = Vec::new();
    for client in &clients {
        jobs.push(client.post(&measured(0x10 + jobs.len() as u32)).await);
    }
    // One on each release, at the same time.
    fleet.held(0).await;
    fleet.held(1).await;
    fleet.open();
    for (client, job) in clients.iter().zip(&jobs) {
        client.end_of(job).await;
    }
    for client in &clients {
        client.all_done().await;
        let texts: Vec<Message> =
            client.record().into_iter().filter(|message| message.kind() == "binary 3").collect();
        let [Message::Binary(_, text)] = &texts[..] else { panic!("one text: {texts:?}") };
        assert_eq!(&text[..5], b"\0\0\0\x013", "node 3: {text:?}");
    }
}

#[tokio::test]
async fn what_custom_nodes_say_reaches_whom_it_concerns() {
    let (fleet, router) = one().await;
    fleet.hold();
    let ann = Client::connect(&router, "ann").await;
    let bob = Client::connect(&router, "bob").await;
    let id = ann.post_as("anns job", &plain(1)).await;
    fleet.held(0).await;
    let instance = fleet.control(0);
    let upstream = instance.executions()[0].prompt_id.clone();
    instance.say(Audience::Everybody, "of.a.node", &json!({"node": "1", "text": "hm"}));
    instance.say(Audience::Owner, "of.a.job", &json!({"prompt_id": upstream, "eta": 5}));
    instance.say_bytes(Audience::Owner, b"\0\0\x03\xe8own kind".to_vec());
    instance.say(Audience::Everybody, "of.nothing", &json!({"cpu": 5}));
    for client in [&ann, &bob] {
        let heard = client.hears("a broadcast", |message| message.kind() == "of.nothing").await;
        assert_eq!(heard.data(), &json!({"cpu": 5}));
    }
    let kinds = kinds(&ann.record());
    assert!(
        kinds.contains(&"of.a.node".to_owned()) && kinds.contains(&"binary 1000".to_owned()),
        "{kinds:?}"
    );
    let of_job = ann.hears("the job's", |message| message.kind() == "of.a.job").await;
    assert_eq!(of_job.data(), &json!({"prompt_id": id, "eta": 5}));
    assert_eq!(of_jobs(&bob.record()), ["feature_flags", "of.nothing"]);
    fleet.open();
    ann.end_of(&id).await;
}

#[tokio::test]
async fn log_lines_go_to_those_who_asked_for_them() {
    let (fleet, router) = one().await;
    let ann = Client::connect(&router, "ann").await;
    let bob = Client::connect(&router, "bob").await;
    // The router's own socket to the instance is up.
    ann.end_of(&ann.post(&plain(1)).await).await;
    let wants = async |sid: &str, enabled: bool| {
        let body = json!({"clientId": sid, "enabled": enabled}).to_string();
        let path = "/internal/logs/subscribe";
        assert_eq!(router.http().send(hyper::Method::PATCH, path, body).await.status, 200);
    };
    wants("ann", true).await;
    fleet.control(0).log("for ann");
    let line = ann.hears("a log line", |message| message.kind() == "logs").await;
    assert_eq!(line.data()["entries"][0]["m"], "for ann");
    wants("bob", true).await;
    wants("ann", false).await;
    fleet.control(0).log("for bob");
    let line = bob.hears("a log line", |message| message.kind() == "logs").await;
    assert_eq!(line.data()["entries"][0]["m"], "for bob");
    assert_eq!(ann.record().iter().filter(|message| message.kind() == "logs").count(), 1);

    // Whoever is away when there is something to log is struck off.
    let (control, before) = (fleet.control(0), fleet.control(0).connections());
    control.inject(Fault::DropSockets);
    eventually("the router is back", || {
        control.log("for nobody");
        std::future::ready((control.connections() > before).then_some(()))
    })
    .await;
    eventually("bob's line", || {
        control.log("again");
        let again = |message: &Message| message.data()["entries"][0]["m"] == "again";
        std::future::ready(bob.record().iter().any(again).then_some(()))
    })
    .await;
}

fn is_line(message: &Message, line: &str) -> bool {
    message.kind() == "logs" && message.data()["entries"][0]["m"] == line
}

/// Has an instance log a line until the client has heard it.
async fn hears_line(fleet: &Fleet, at: usize, client: &Client, line: &str) {
    let (control, before) = (fleet.control(at), client.record().len());
    eventually(line, || {
        control.log(line);
        let heard = client.record()[before..].iter().any(|message| is_line(message, line));
        std::future::ready(heard.then_some(()))
    })
    .await;
}

/// The page shows the log of the home instance, whichever that is.
#[tokio::test]
async fn log_lines_follow_when_another_instance_becomes_the_home() {
    let (mut fleet, router) = over(2).await;
    let ann = Client::connect(&router, "ann").await;
    let body = json!({ "clientId": "ann", "enabled": true }).to_string();
    let path = "/internal/logs/subscribe";
    assert_eq!(router.http().send(hyper::Method::PATCH, path, body).await.status, 200);
    hears_line(&fleet, 0, &ann, "of the first").await;
    fleet.crash(0).await;
    hears_line(&fleet, 1, &ann, "of the second").await;
    fleet.restart(0).await;
    hears_line(&fleet, 0, &ann, "of the first again").await;
    eventually("the second is asked no more", async || {
        let before = ann.record().len();
        fleet.control(1).log("of the second");
        hears_line(&fleet, 0, &ann, "after it").await;
        let silent = !ann.record()[before..].iter().any(|message| is_line(message, "of the second"));
        silent.then_some(())
    })
    .await;
}

#[tokio::test]
async fn silence_is_broken_by_a_status() {
    let (_fleet, router) = one().await;
    let mut socket = Client::silent(&router, "patient").socket().await;
    let heard = next(&mut socket, 3).await;
    assert_eq!(kinds(&heard), ["status", "status", "status"]);
    let sids: Vec<bool> = heard.iter().map(|status| status.data()["sid"].is_string()).collect();
    assert_eq!(sids, [true, false, false], "only the first says whose it is");
}

/// Posted, at its second sampler step, and everything until there has come through the router.
async fn sampling(fleet: &Fleet, router: &Router, client: &Client) -> String {
    let witness = Client::connect(router, "witness").await;
    let id = client.post(&diffusion("sd15.safetensors", 7, 4)).await;
    within("the first step", fleet.control(0).wait_held(1)).await;
    fleet.control(0).release(1);
    within("the second step", fleet.control(0).wait_held(1)).await;
    fleet.control(0).say(Audience::Everybody, "marker", &json!({}));
    witness.hears("the marker", |message| message.kind() == "marker").await;
    id
}

/// What a client is told that comes while a job is at its second step.
fn present(heard: &[Message], id: &str) {
    let kinds = kinds(heard);
    assert_eq!(kinds[..2], ["execution_start", "execution_cached"], "{kinds:?}");
    let at = heard.iter().rfind(|message| message.kind() == "executing").expect("the node it is at");
    assert_eq!((&at.data()["node"], &at.data()["prompt_id"]), (&json!("5"), &json!(id)));
    let bar = heard.iter().find(|message| message.kind() == "progress").expect("how far it is");
    assert_eq!((&bar.data()["value"], &bar.data()["max"]), (&json!(1), &json!(4)));
    let state = heard.iter().find(|message| message.kind() == "progress_state").expect("how far all are");
    assert_eq!(state.data()["nodes"]["1"]["state"], "finished");
    assert!(heard.iter().any(|message| message.kind() == "binary 1"), "the newest preview: {kinds:?}");
    for kind in ["executing", "progress", "progress_state", "binary 1"] {
        assert_eq!(kinds.iter().filter(|seen| *seen == kind).count(), 1, "once: {kinds:?}");
    }
}

#[tokio::test]
async fn a_client_that_connects_in_mid_run_is_told_where_its_job_is_and_goes_on() {
    let (fleet, router) = one().await;
    fleet.control(0).hold(Each::Step);
    let client = Client::silent(&router, "late");
    let id = sampling(&fleet, &router, &client).await;
    let mut socket = client.socket().await;
    present(&next_own(&mut socket, 6).await, &id);
    fleet.open();
    let rest = until_end(&mut socket, &id).await;
    assert_eq!(of_jobs(&rest).iter().filter(|kind| *kind == "progress").count(), 3, "{:?}", kinds(&rest));
    assert!(kinds(&rest).contains(&"execution_success".to_owned()));
}

#[tokio::test]
async fn a_page_that_is_reloaded_in_mid_run_is_told_where_its_job_is_and_goes_on() {
    let (fleet, router) = one().await;
    fleet.control(0).hold(Each::Step);
    let client = Client::silent(&router, "page");
    let before = client.socket().await;
    let id = sampling(&fleet, &router, &client).await;
    before.close().await;
    let mut after = client.socket().await;
    present(&next_own(&mut after, 6).await, &id);
    fleet.open();
    until_end(&mut after, &id).await;
    // It has heard the end, and need not be told again.
    after.close().await;
    let mut again = client.socket().await;
    assert_eq!(kinds(&next(&mut again, 2).await), ["status", "status"]);
}

#[tokio::test]
async fn a_client_that_returns_while_its_old_connection_half_lives_misses_nothing() {
    let (fleet, router) = one().await;
    let client = Client::silent(&router, "mobile");
    // Its owner is gone; nobody has noticed, and the end of its job was sent there.
    let half = client.socket().await;
    let first = client.post(&plain(1)).await;
    client.history_when_ended(&first).await;
    client.all_done().await;

    let mut new = client.socket().await;
    let heard = until_end(&mut new, &first).await;
    assert!(kinds(&heard).contains(&"executed".to_owned()), "{:?}", kinds(&heard));

    // The end of the old connection takes nothing from the new one.
    fleet.hold();
    let second = client.post(&plain(2)).await;
    fleet.held(0).await;
    drop(half);
    eventually("the old connection is gone", async || {
        (router.metric("comfy_router_ws_clients", "").await == 1.0).then_some(())
    })
    .await;
    fleet.open();
    let heard = until_end(&mut new, &second).await;
    let own: Vec<Message> = heard.into_iter().filter(|message| message.is_of(&second)).collect();
    assert_eq!(complete(&own, &plain(2)), Ok(()));
}

#[tokio::test]
async fn of_two_tabs_the_newer_hears_of_the_job_and_the_older_takes_over() {
    let (fleet, router) = one().await;
    fleet.hold();
    let client = Client::silent(&router, "twice");
    let mut older = client.socket().await;
    let id = client.post(&plain(7)).await;
    fleet.held(0).await;
    let mut newer = client.socket().await;
    fleet.open();
    let heard = until_end(&mut newer, &id).await;
    let own: Vec<Message> = heard.into_iter().filter(|message| message.is_of(&id)).collect();
    let whole: Vec<Message> =
        own.iter().filter(|message| message.kind() != "progress_state").cloned().collect();
    assert_eq!(complete(&whole, &plain(7)), Ok(()));

    fleet.hold();
    let second = client.post(&plain(8)).await;
    fleet.held(0).await;
    newer.close().await;
    fleet.open();
    let heard = until_end(&mut older, &second).await;
    let success = heard.iter().filter(|message| message.kind() == "execution_success");
    let of: Vec<&Value> = success.map(|message| &message.data()["prompt_id"]).collect();
    assert_eq!(of, [&json!(id), &json!(second)], "it is told what it missed, too");
}

#[tokio::test]
async fn tenants_with_the_same_client_id_hear_their_own_jobs() {
    let fleet = Fleet::of(1).await;
    let keys =
        r#"front.api_keys=[{name="ann",key="the-key-of-ann-0123"},{name="bob",key="the-key-of-bob-0123"}]"#;
    let router = Serve::over(fleet.instances()).set(keys).start().await;
    let http = router.http();
    assert!(Socket::open(router.url(), "/ws?clientId=same").await.is_err(), "without a key");
    let mut ann =
        Socket::open(router.url(), "/ws?clientId=same&token=the-key-of-ann-0123").await.expect("ann");
    let mut bob =
        Socket::open(router.url(), "/ws?clientId=same&token=the-key-of-bob-0123").await.expect("bob");
    for socket in [&mut ann, &mut bob] {
        assert_eq!(within("a greeting", socket.next()).await.data()["sid"], "same");
    }
    let post = async |key: &str, id: &str| {
        let body = json!({"prompt": plain(3), "client_id": "same", "prompt_id": id}).to_string();
        let key = format!("Bearer {key}");
        let answer = http.try_send(hyper::Method::POST, "/prompt", &[("authorization", &key)], body).await;
        answer.expect("an answer").ok();
    };
    // Bob came last. A table by client id alone would tell him of both.
    post("the-key-of-ann-0123", "anns").await;
    post("the-key-of-bob-0123", "bobs").await;
    for (socket, own, other) in [(&mut ann, "anns", "bobs"), (&mut bob, "bobs", "anns")] {
        let heard = until_end(socket, own).await;
        assert!(!heard.iter().any(|message| message.is_of(other)), "{own}: {heard:?}");
    }
}

#[tokio::test]
async fn a_slow_reader_delays_nobody_loses_previews_first_and_hears_the_end() {
    let fleet = Fleet::of(2).await;
    let router = Serve::over(fleet.instances())
        .set("limits.ws_queue_messages=64")
        .set("limits.ws_queue_bytes=262144")
        .start()
        .await;
    const STEPS: u32 = 3_000;
    let slow = Client::silent(&router, "slow");
    let mut narrow =
        Socket::open_narrow(router.url(), "/ws?clientId=slow").await.expect("the router takes a websocket");
    let mut graph = diffusion("sd15.safetensors", 7, STEPS);
    graph["4"]["inputs"]["width"] = json!(512);
    graph["4"]["inputs"]["height"] = json!(512);
    let long = slow.post(&graph).await;

    // The other's jobs come and go while nothing is read.
    let quick = Client::connect(&router, "quick").await;
    for colour in 0..5 {
        let id = quick.post(&plain(colour)).await;
        assert_eq!(complete(&quick.end_of(&id).await, &plain(colour)), Ok(()));
    }
    slow.history_when_ended(&long).await;
    let dropped = async |kind: &str| {
        router.metric("comfy_router_client_frames_dropped_total", &format!("kind=\"{kind}\"")).await
    };
    assert!(dropped("preview").await > 0.0, "drops are counted");
    assert_eq!(dropped("terminal").await + dropped("ordinary").await, 0.0);

    let heard = until_end(&mut narrow, &long).await;
    let count = |kind: &str| heard.iter().filter(|message| message.kind() == kind).count();
    assert!(count("binary 1") < STEPS as usize, "previews gave way");
    assert!(count("progress_state") < 2 * STEPS as usize, "progress gave way");
    let told: Vec<Message> = heard.iter().filter(|message| message.is_of(&long)).cloned().collect();
    assert_eq!(complete(&told, &graph), Ok(()));
    let bars = heard.iter().filter(|message| message.kind() == "progress");
    let last = bars.map(|bar| bar.data()["value"].as_u64().unwrap_or_default()).collect::<Vec<_>>();
    assert!(last.is_sorted(), "what is left is in order");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_hears_of_the_end_when_it_returns() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).set("limits.ws_queue_messages=16").start().await;
    fleet.hold();
    let client = Client::silent(&router, "deaf");
    let mut narrow =
        Socket::open_narrow(router.url(), "/ws?clientId=deaf").await.expect("the router takes a websocket");
    let id = client.post(&plain(1)).await;
    fleet.held(0).await;
    let news = json!({"text": "x".repeat(64 << 10)});
    eventually("the client is given up", async || {
        for _ in 0..20 {
            fleet.control(0).say(Audience::Everybody, "news", &news);
        }
        let dropped = "comfy_router_client_frames_dropped_total";
        (router.metric(dropped, "kind=\"ordinary\"").await > 0.0).then_some(())
    })
    .await;
    let closed = within("the close", async {
        loop {
            if let Message::Closed(code) = narrow.next().await {
                return code;
            }
        }
    });
    assert_eq!(closed.await, Some(1013));
    fleet.open();
    client.history_when_ended(&id).await;
    let heard = until_end(&mut client.socket().await, &id).await;
    assert!(kinds(&heard).contains(&"execution_success".to_owned()));
    assert_eq!(router.metric("comfy_router_client_closed_total", "reason=\"slow\"").await, 1.0);
}

#[tokio::test]
async fn jobs_from_elsewhere_are_load_and_nobodys() {
    let (fleet, router) = over(2).await;
    fleet.hold();
    // Somebody else's, straight to the instances: with a client id of a client of ours, and without one.
    let direct = comfy_router_tests::Http::new(&fleet.url(0));
    for body in [
        json!({"prompt": streamed(1, 1), "client_id": "ann", "prompt_id": "theirs"}),
        json!({"prompt": measured(2)}),
    ] {
        direct.post("/prompt", &body).await.ok();
    }
    fleet.held(0).await;
    let foreign = |fleet: &Value| {
        let seen = &fleet["instances"][0]["foreign"];
        (seen["running"].as_u64(), seen["pending"].as_u64())
    };
    eventually("the router sees them", async || {
        let fleet = router.admin().get_json("/api/fleet").await;
        (foreign(&fleet) == (Some(1), Some(1))).then_some(())
    })
    .await;

    let ann = Client::connect(&router, "ann").await;
    let first = ann.post(&plain(3)).await;
    fleet.held(1).await;
    let second = ann.post(&plain(4)).await;
    assert_eq!(ann.remaining().await, 2, "the router's own queue is counted");
    assert_eq!(ann.queue().await, (vec![first.clone()], vec![second.clone()]));
    fleet.control(0).open();
    fleet.control(0).wait_ended(2).await;
    fleet.open();
    for id in [&first, &second] {
        ann.end_of(id).await;
    }
    let heard = ann.record();
    let stranger = |message: &&Message| {
        let own = [&first, &second].iter().any(|id| message.is_of(id));
        !own && !["status", "feature_flags"].contains(&message.kind().as_str())
    };
    assert_eq!(heard.iter().find(stranger), None, "nothing of theirs is told");
    let counts = heard.iter().filter_map(|m| m.data()["status"]["exec_info"]["queue_remaining"].as_u64());
    assert!(counts.max() <= Some(2), "{heard:?}");
    assert_eq!(fleet.control(0).executions()[0].prompt_id, "theirs");
}
