//! The websocket to an instance breaks, falls silent, stutters.

use comfy_router_tests::eventually;

use super::*;

/// Waits until the router listens under another id than before; gives it.
async fn reconnected(control: &comfyui_emulator::Control, before: &[String]) -> String {
    eventually("the router is back", || {
        let new = control.sockets().into_iter().find(|sid| !before.contains(sid));
        std::future::ready(new)
    })
    .await
}

#[tokio::test]
async fn a_broken_socket_does_not_lose_the_end_of_a_job() {
    let (fleet, _router, client) = two().await;
    let (id, at) = held_job(&fleet, &client, 0x50c).await;
    let control = fleet.control(at);
    let before = control.sockets();
    control.inject(Fault::DropSockets);
    reconnected(&control, &before).await;
    fleet.open();
    succeeds(&client, &id, 0x50c).await;
    assert_eq!(fleet.started(), 1, "it was not started again");
}

#[tokio::test]
async fn a_socket_that_fell_silent_is_replaced_and_the_end_is_heard() {
    let fleet = Fleet::of(1).await;
    let serve = Serve::over(fleet.instances()).set("fleet.ping_ms=100").set("fleet.silence_ms=500");
    let router = serve.start().await;
    let client = Client::connect(&router, "c").await;
    let (id, at) = held_job(&fleet, &client, 0x511e).await;
    let control = fleet.control(at);
    let before = control.sockets();
    control.inject(Fault::MuteSockets);
    fleet.open();
    control.wait_ended(1).await;
    reconnected(&control, &before).await;
    let said = client.end_of(&id).await;
    assert!(kinds(&said).contains(&"execution_success".to_owned()), "{:?}", kinds(&said));
    assert_eq!(client.colour_made_by(&id).await, 0x511e);
    assert_eq!((fleet.started(), attempts(&router, &id).await.len()), (1, 1));
}

#[tokio::test]
async fn a_job_is_not_spent_on_an_instance_whose_socket_is_away() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    for round in 1..=10 {
        fleet.control(0).inject(Fault::DropSockets);
        let id = client.post(&plain(round)).await;
        succeeds(&client, &id, round).await;
        let attempts = attempts(&router, &id).await;
        assert!(attempts.len() <= 2, "{attempts:?}");
    }
}

#[tokio::test]
async fn repeated_and_late_events_do_not_change_an_end() {
    let (fleet, mut router, client) = two().await;
    for control in fleet.controls() {
        control.inject(Fault::EchoEvents { on: true });
    }
    let mut ids = Vec::new();
    for colour in 1..=6 {
        ids.push(client.post(&plain(colour)).await);
    }
    for id in &ids {
        client.end_of(id).await;
    }
    for (id, colour) in ids.iter().zip(1..) {
        let said = kinds(&client.said_of(id));
        for kind in ["execution_success", "execution_error"] {
            let count = said.iter().filter(|said| *said == kind).count();
            assert_eq!(count, usize::from(kind == "execution_success"), "{said:?}");
        }
        assert_eq!(said.last().map(String::as_str), Some("executing"), "nothing follows the end: {said:?}");
        assert_eq!(client.colour_made_by(id).await, colour);
        assert_eq!(attempts(&router, id).await.len(), 1);
    }
    assert_eq!(fleet.started(), ids.len());
    router.stop().await;
    comfy_router_tests::Books::read(&router.state_dir()).nothing_is_lost(&ids);
}
