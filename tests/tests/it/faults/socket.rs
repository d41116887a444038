//! The websocket to an instance breaks, falls silent, stutters.

use std::time::{Duration, Instant};

use comfy_router_tests::{Message, complete, diffusion, eventually};
use comfyui_emulator::{Control, Each};

use super::*;

/// Waits until the router has had more websockets than so many before.
async fn reconnected(control: &Control, before: u64) {
    eventually("the router is back", || std::future::ready((control.connections() > before).then_some(())))
        .await;
}

/// The node that this says is at work.
fn node(message: &Message) -> Option<&str> {
    message.data()["node"].as_str().filter(|_| message.kind() == "executing")
}

/// A job that is held at its third node, of which its client knows.
async fn half_done(fleet: &Fleet, client: &Client, graph: &Value) -> String {
    let control = fleet.control(0);
    control.hold(Each::Node);
    let id = client.post(graph).await;
    control.wait_held(1).await;
    control.release(2);
    control.wait_held(1).await;
    let thirds = || client.said_of(&id).iter().filter_map(node).count() == 3;
    eventually("the third node", || std::future::ready(thirds().then_some(()))).await;
    id
}

#[tokio::test]
async fn a_broken_socket_does_not_lose_the_end_of_a_job() {
    let (fleet, _router, client) = two().await;
    let (id, at) = held_job(&fleet, &client, 0x50c).await;
    let control = fleet.control(at);
    let before = control.connections();
    control.inject(Fault::DropSockets);
    reconnected(&control, before).await;
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
    let before = control.connections();
    control.inject(Fault::MuteSockets);
    fleet.open();
    control.wait_ended(1).await;
    reconnected(&control, before).await;
    let said = client.end_of(&id).await;
    assert!(kinds(&said).contains(&"execution_success".to_owned()), "{:?}", kinds(&said));
    assert_eq!(client.colour_made_by(&id).await, 0x511e);
    assert_eq!((fleet.started(), attempts(&router, &id).await.len()), (1, 1));
}

#[tokio::test]
async fn a_job_whose_instance_has_no_socket_is_not_silent_while_its_queue_has_it() {
    const STALL: Duration = Duration::from_secs(1);
    let fleet = Fleet::of(1).await;
    let serve = Serve::over(fleet.instances()).set("timeouts.stall_s=1").set("timeouts.interrupt_s=1");
    let router = serve.start().await;
    let client = Client::connect(&router, "c").await;
    let (id, at) = held_job(&fleet, &client, 0xdeaf).await;
    let (control, since) = (fleet.control(at), Instant::now());
    control.inject(Fault::RefuseSockets { on: true });
    control.inject(Fault::DropSockets);
    eventually("thrice the limit", || std::future::ready((since.elapsed() > 3 * STALL).then_some(()))).await;
    assert_eq!(attempts(&router, &id).await[0]["outcome"], Value::Null, "it runs on");
    fleet.open();
    let history = client.history_when_ended(&id).await;
    assert_eq!(history["status"]["status_str"], "success", "{history}");
    control.inject(Fault::RefuseSockets { on: false });
    succeeds(&client, &id, 0xdeaf).await;
    assert_eq!((fleet.started(), attempts(&router, &id).await.len()), (1, 1));
}

#[tokio::test]
async fn a_client_hears_the_rest_of_its_job_after_the_socket_to_the_instance_was_lost() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    let graph = diffusion("sd15.safetensors", 1, 2);
    let id = half_done(&fleet, &client, &graph).await;
    for _ in 0..2 {
        let before = fleet.control(0).connections();
        fleet.control(0).inject(Fault::DropSockets);
        reconnected(&fleet.control(0), before).await;
    }
    fleet.open();
    complete(&client.end_of(&id).await, &graph).unwrap();
    assert_eq!(fleet.started(), 1);
}

#[tokio::test]
async fn a_client_hears_the_rest_of_its_job_after_the_router_was_restarted() {
    let fleet = Fleet::of(1).await;
    let mut router = Serve::over(fleet.instances()).start().await;
    let mut client = Client::connect(&router, "c").await;
    let graph = diffusion("sd15.safetensors", 1, 2);
    let id = half_done(&fleet, &client, &graph).await;
    let before = fleet.control(0).sockets();
    router.kill();
    router.start_again().await;
    client.reconnect().await;
    router.instances_serve(1).await;
    assert_eq!(fleet.control(0).sockets(), before, "it is back under its sid");
    fleet.open();
    complete(&client.end_of(&id).await, &graph).unwrap();
    assert_eq!((fleet.started(), attempts(&router, &id).await.len()), (1, 1));
}

#[tokio::test]
async fn a_socket_that_the_instance_forgot_is_found_out_and_opened_again() {
    let fleet = Fleet::of(1).await;
    let serve = Serve::over(fleet.instances()).set("fleet.poll_ms=100").set("fleet.inspect_ms=500");
    let router = serve.set("fleet.ping_ms=100").set("fleet.silence_ms=300").start().await;
    let client = Client::connect(&router, "c").await;
    router.instances_serve(1).await;
    let control = fleet.control(0);
    let before = control.connections();
    control.inject(Fault::MuteSockets);
    reconnected(&control, before).await;
    router.instances_serve(1).await;
    control.inject(Fault::EndMuteSockets);
    eventually("the sid is forgotten", || std::future::ready(control.sockets().is_empty().then_some(())))
        .await;
    // Jobs end meanwhile because the instance is asked about them; that nothing is heard of them gives the socket away.
    for colour in 1.. {
        let id = client.post(&plain(colour)).await;
        succeeds(&client, &id, colour).await;
        if control.connections() > before + 1 {
            break;
        }
    }
    router.instances_serve(1).await;
    let graph = diffusion("sd15.safetensors", 1, 2);
    let id = client.post(&graph).await;
    complete(&client.end_of(&id).await, &graph).unwrap();
}

#[tokio::test]
async fn routers_that_share_an_instance_hear_their_own_jobs_only() {
    let fleet = Fleet::of(1).await;
    let (one, other) =
        (Serve::over(fleet.instances()).start().await, Serve::over(fleet.instances()).start().await);
    let clients = [Client::connect(&one, "c").await, Client::connect(&other, "c").await];
    let graph = diffusion("sd15.safetensors", 1, 2);
    let ids = [clients[0].post(&graph).await, clients[1].post(&graph).await];
    for (client, id) in clients.iter().zip(&ids) {
        complete(&client.end_of(id).await, &graph).unwrap();
        let others = client
            .record()
            .into_iter()
            .filter(|said| said.data()["prompt_id"].is_string() && !said.is_of(id));
        assert_eq!(others.count(), 0);
    }
    assert_eq!(fleet.control(0).sockets().len(), 2, "each has a sid of its own");
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
