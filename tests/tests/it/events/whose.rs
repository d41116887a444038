//! Each event goes to whom it concerns, and to nobody else.

use comfy_router_tests::{
    Client, Fleet, Http, Message, Serve, Socket, eventually, kinds, measured, plain, streamed, within,
};
use comfyui_emulator::Audience;
use serde_json::{Value, json};

use super::{of_jobs, one, over, until_end};

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
async fn jobs_from_elsewhere_are_load_and_nobodys() {
    let (fleet, router) = over(2).await;
    fleet.hold();
    // Somebody else's, straight to the instances: with a client id of a client of ours, and without one.
    let direct = Http::new(&fleet.url(0));
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
