//! Lines of an instance's log, for the pages that show it.

use comfy_router_tests::{Client, Fleet, Message, eventually, plain};
use comfyui_emulator::Fault;
use serde_json::json;

use super::{one, over};

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
