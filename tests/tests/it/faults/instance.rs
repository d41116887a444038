//! The process of an instance dies, hangs, stops or comes back with nothing.

use comfy_router_tests::{Books, InstanceProcesses, eventually};
use comfyui_emulator::{Config, Each, Moment};

use super::*;

/// The accepted jobs, by the ledger and by what the instances counted.
async fn audited(mut router: Router, fleet: &Fleet, accepted: &[String]) -> Books {
    router.stop().await;
    let books = Books::read(&router.state_dir());
    books.everything_is_over(accepted);
    books.nothing_ran_unrecorded(&Run::of(fleet));
    books
}

#[tokio::test]
async fn an_instance_that_crashes_in_the_middle_of_a_job_loses_it_to_the_other() {
    let (fleet, router, client) = two().await;
    let (id, at) = held_job(&fleet, &client, 0xc4a5).await;
    fleet.control(at).inject(Fault::Crash { at: Moment::AfterNodes(1) });
    fleet.open();
    succeeds(&client, &id, 0xc4a5).await;
    let books = audited(router, &fleet, std::slice::from_ref(&id)).await;
    assert_eq!(books.attempts_ended(&id), ["crash", "success"]);
    assert_eq!(fleet.started(), 2);
}

#[tokio::test]
async fn a_job_whose_end_was_told_before_the_crash_is_not_run_again() {
    for at in [Moment::Succeeded, Moment::Ended] {
        let (fleet, router, client) = two().await;
        fleet.controls().for_each(|control| control.inject(Fault::Crash { at }));
        let id = client.post(&plain(0x0e)).await;
        let said = client.end_of(&id).await;
        assert!(kinds(&said).contains(&"execution_success".to_owned()), "{at:?}: {:?}", kinds(&said));
        assert_eq!(client.history(&id).await["outputs"]["2"]["images"].as_array().map(Vec::len), Some(1));
        let books = audited(router, &fleet, std::slice::from_ref(&id)).await;
        assert_eq!((books.attempts_ended(&id), fleet.started()), (vec!["success"], 1), "{at:?}");
    }
}

#[tokio::test]
async fn a_job_that_only_showed_its_picture_before_the_crash_runs_again_and_that_is_recorded() {
    let (fleet, router, client) = two().await;
    let (id, at) = held_job(&fleet, &client, 0x5e).await;
    fleet.control(at).inject(Fault::Crash { at: Moment::Executed });
    fleet.open();
    succeeds(&client, &id, 0x5e).await;
    let books = audited(router, &fleet, std::slice::from_ref(&id)).await;
    assert_eq!((books.attempts_ended(&id), fleet.started()), (vec!["crash", "success"], 2));
}

#[tokio::test]
async fn a_prompt_whose_fate_is_unknown_says_so_and_is_run_elsewhere() {
    for at in [Moment::PostReceived, Moment::PostAccepted] {
        let (fleet, router, client) = two().await;
        fleet.control(0).inject(Fault::Crash { at });
        fleet.control(1).hold(Each::Execution);
        let other = client.post(&plain(0x07)).await;
        let id = client.post(&plain(0x08)).await;
        router.instances_down(1).await;
        fleet.open();
        succeeds(&client, &other, 0x07).await;
        succeeds(&client, &id, 0x08).await;
        let books = audited(router, &fleet, &[id.clone(), other.clone()]).await;
        let ends = [books.attempts_ended(&id), books.attempts_ended(&other)];
        assert!(ends.contains(&vec!["unknown", "success"]), "{at:?}: {ends:?}");
    }
}

#[tokio::test]
async fn a_prompt_whose_answer_was_lost_is_found_and_not_sent_again() {
    let (fleet, router, client) = two().await;
    for control in fleet.controls() {
        control.inject(Fault::BreakAnswers { path: "/prompt".into(), count: 1 });
    }
    let id = client.post(&plain(0xf0)).await;
    succeeds(&client, &id, 0xf0).await;
    let books = audited(router, &fleet, std::slice::from_ref(&id)).await;
    assert_eq!((books.attempts_ended(&id), fleet.started()), (vec!["success"], 1));
}

/// A router that notices quickly.
fn quick(instances: Vec<String>) -> Serve {
    ["poll_ms=100", "health_timeout_ms=500", "failures=1", "ping_ms=100", "silence_ms=400", "inspect_ms=200"]
        .iter()
        .fold(Serve::over(instances), |serve, setting| serve.set(&format!("fleet.{setting}")))
}

#[tokio::test]
async fn a_stopped_process_loses_its_job_and_its_late_result_is_nobodys() {
    let mut instances = InstanceProcesses::of(2).await;
    for at in 0..2 {
        instances.get(at).hold().await;
    }
    let mut router = quick(instances.instances()).start().await;
    let client = Client::connect(&router, "c").await;
    let id = client.post(&plain(0x5709)).await;
    let at = instances.held_anywhere().await;
    instances.get(1 - at).open().await;
    instances.get(at).stop();
    succeeds(&client, &id, 0x5709).await;
    instances.get(at).go_on();
    instances.get(at).open().await;
    router.instances_up(2).await;
    eventually("what it still ran is over", || async {
        let shown = router.admin().get_json("/api/fleet").await;
        (shown["instances"][at]["given_up"] == 0).then_some(())
    })
    .await;
    let second = client.post(&plain(0x570a)).await;
    succeeds(&client, &second, 0x570a).await;
    let ends = client.said_of(&id).iter().filter(|message| message.kind() == "execution_success").count();
    assert_eq!(ends, 1, "the client heard of one end");
    router.stop().await;
    let (books, runs) = (Books::read(&router.state_dir()), instances.runs());
    books.nothing_is_lost(&[id.clone(), second]);
    books.nothing_ran_unrecorded(&runs);
    assert_eq!((books.attempts_ended(&id), runs.len()), (vec!["crash", "success"], 3));
}

#[tokio::test]
async fn a_slow_instance_keeps_its_job_and_new_ones_go_elsewhere() {
    let (fleet, router, client) = two().await;
    let (slow, at) = held_job(&fleet, &client, 0x510).await;
    fleet.control(at).inject(Fault::Slow { factor: 1.0, extra_ms: 1_000 });
    let others: Vec<u32> = (1..=3).collect();
    fleet.open();
    for colour in others {
        let id = client.post(&plain(colour)).await;
        succeeds(&client, &id, colour).await;
        assert_eq!(attempts(&router, &id).await[0]["instance"], format!("i{}", 1 - at));
    }
    succeeds(&client, &slow, 0x510).await;
    let books = audited(router, &fleet, std::slice::from_ref(&slow)).await;
    assert_eq!((books.attempts_ended(&slow), fleet.started()), (vec!["success"], 4));
}

#[tokio::test]
async fn a_worker_that_died_in_a_job_is_set_aside_until_another_process_answers() {
    let fleet = Fleet::of(2).await;
    let settings = ["timeouts.stall_s=1", "timeouts.interrupt_s=1", "fleet.inspect_ms=200"];
    let serve = settings.iter().fold(Serve::over(fleet.instances()), |serve, setting| serve.set(setting));
    let (mut fleet, router) = (fleet, serve.start().await);
    let client = Client::connect(&router, "c").await;
    let (id, at) = held_job(&fleet, &client, 0xdead).await;
    fleet.control(at).inject(Fault::WorkerDeath { at: Moment::Now });
    fleet.open();
    succeeds(&client, &id, 0xdead).await;
    let shown = router.instance_is(at, "quarantined").await;
    assert_eq!(shown["reason"], "it did not confirm an interrupt within 1 s");
    assert_eq!((&shown["given_up"], &shown["free_slots"]), (&json!(1), &json!(0)));
    let label = format!("i{at}");
    eventually("the metric says so", || async {
        (router.metric("comfy_router_instance_quarantined", &label).await == 1.0).then_some(())
    })
    .await;
    for colour in 1..=3 {
        let id = client.post(&plain(colour)).await;
        succeeds(&client, &id, colour).await;
        assert_eq!(attempts(&router, &id).await[0]["instance"], format!("i{}", 1 - at));
    }
    fleet.restart(at).await;
    router.instances_up(1).await;
    fleet.hold();
    let both = [client.post(&plain(0x11)).await, client.post(&plain(0x12)).await];
    fleet.held(at).await;
    fleet.open();
    for id in &both {
        client.end_of(id).await;
    }
    router.instance_is(at, "up").await;
    let books = audited(router, &fleet, &both).await;
    assert_eq!(books.attempts_ended(&id), ["timed_out", "success"]);
}

#[tokio::test]
async fn a_worker_that_takes_no_prompts_is_found_out_and_the_prompt_moves_on() {
    let fleet = Fleet::of(2).await;
    let router = Serve::over(fleet.instances()).set("fleet.inspect_ms=200").start().await;
    let client = Client::connect(&router, "c").await;
    fleet.control(0).inject(Fault::WorkerDeath { at: Moment::Now });
    let first = client.post(&plain(0x21)).await;
    succeeds(&client, &first, 0x21).await;
    let second = client.post(&plain(0x22)).await;
    succeeds(&client, &second, 0x22).await;
    let shown = router.instance_is(0, "quarantined").await;
    assert_eq!(shown["reason"], "its worker takes no prompts");
    let books = audited(router, &fleet, &[first.clone(), second.clone()]).await;
    let ends = [books.attempts_ended(&first), books.attempts_ended(&second)];
    assert!(ends.contains(&vec!["lost", "success"]), "{ends:?}");
    assert_eq!(fleet.executions()[0].len(), 0, "it ran nothing");
}

#[tokio::test]
async fn a_supervised_instance_that_keeps_an_attempt_is_restarted_by_its_command() {
    let mut fleet = Fleet::with([Config::default()]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (file, mark) = (folder.path().join("router.toml"), folder.path().join("restarted"));
    let command = format!("echo $COMFY_INSTANCE >> {}", mark.display());
    let text = format!(
        "[[instance]]\nname = 'i0'\nurl = '{}'\nrestart = ['sh', '-c', '{command}']\n\
         [fleet]\nrestart_after_s = 1\nrestart_pause_s = 10\ninspect_ms = 200\n[timeouts]\ninterrupt_s = 1\n",
        fleet.url(0)
    );
    std::fs::write(&file, text).expect("is written");
    let router = Serve::configured(&file, 1).start().await;
    let client = Client::connect(&router, "c").await;
    let (id, _) = held_job(&fleet, &client, 0x33).await;
    fleet.control(0).inject(Fault::Hang { at: Moment::Now });
    client.http.post("/interrupt", &json!({ "prompt_id": id })).await.ok();
    client.end_of(&id).await;
    let restarted = eventually("the command has run", || {
        std::future::ready(std::fs::read_to_string(&mark).ok().filter(|text| !text.is_empty()))
    });
    assert_eq!(restarted.await, "i0\n");
    eventually("the metric says so", || async {
        (router.metric("comfy_router_instance_restarts_total", "done").await == 1.0).then_some(())
    })
    .await;
    fleet.control(0).inject(Fault::Thaw);
    fleet.open();
    fleet.restart(0).await;
    let next = client.post(&plain(0x34)).await;
    succeeds(&client, &next, 0x34).await;
    router.instance_is(0, "up").await;
    let answer = router.admin().post("/api/fleet/i0/restart", &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}
