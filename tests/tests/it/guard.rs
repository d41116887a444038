//! The shipped `guard`, beside another policy, on readings of emulated cards.

use comfy_router_tests::{Client, Fleet, Router, Serve, eventually, kinds, plain};
use comfyui_emulator::{Config, GpuOverrides, GpuSpec};
use serde_json::Value;

async fn guarded(count: u32, settings: &str) -> (Fleet, Router) {
    let config = |index| Config { gpu: Some(GpuSpec::new(index)), ..Config::default() };
    let fleet = Fleet::with((0..count).map(config)).await;
    let serve =
        Serve::over(fleet.instances()).patient().set("telemetry.emulated=true").set("telemetry.sample_ms=50");
    let hook = format!("policy.hooks.housekeeping={{file=\"guard\", settings={{{settings}}}}}");
    let router = serve.set(&hook).start().await;
    (fleet, router)
}

fn heat(fleet: &Fleet, at: usize, temperature_c: u32) {
    fleet
        .control(at)
        .override_gpu(GpuOverrides { temperature_c: Some(temperature_c), ..GpuOverrides::default() });
}

async fn instance(router: &Router, at: usize) -> Value {
    router.admin().get_json("/api/fleet").await["instances"][at].clone()
}

async fn drains(router: &Router, at: usize, wanted: bool) {
    eventually(&format!("instance {at} drains: {wanted}"), || async {
        (instance(router, at).await["draining"] == wanted).then_some(())
    })
    .await;
}

async fn runs_on(router: &Router, client: &Client, colour: u32) -> String {
    let id = client.post(&plain(colour)).await;
    let said = client.end_of(&id).await;
    assert!(kinds(&said).contains(&"execution_success".to_owned()), "{:?}", kinds(&said));
    let attempts = router.job(&id).await["attempts"].clone();
    attempts[0]["instance"].as_str().expect("an instance").to_owned()
}

#[tokio::test]
async fn a_hot_instance_is_spared_until_it_has_cooled() {
    let (fleet, router) = guarded(2, "drain_at_c=80, resume_at_c=70").await;
    let client = Client::connect(&router, "c").await;
    let status = router.admin().get_json("/api/policy").await;
    assert_eq!(status["serving"]["name"], "model-affinity", "the policy itself is another");
    assert_eq!(
        (&status["lanes"][1]["lane"], &status["lanes"][1]["serving"]["name"]),
        (&"housekeeping".into(), &"guard".into())
    );

    heat(&fleet, 0, 81);
    heat(&fleet, 1, 60);
    drains(&router, 0, true).await;
    assert_eq!(instance(&router, 1).await["draining"], false);
    for colour in 0..4 {
        assert_eq!(runs_on(&router, &client, colour).await, "i1");
    }
    let orders = router.admin().get_json("/api/decisions?limit=50").await;
    let tick = orders["decisions"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|d| d["hook"] == "tick")
        .expect("an order");
    assert_eq!((&tick["said"], &tick["version"]["name"]), (&"drain i0".into(), &"guard".into()), "{tick}");

    // Between the two limits nothing changes; the reading is seen before that is said.
    heat(&fleet, 0, 75);
    eventually("75 degrees are known", || async {
        (instance(&router, 0).await["gpu"]["temperature_c"] == 75.0).then_some(())
    })
    .await;
    assert_eq!(instance(&router, 0).await["draining"], true);
    heat(&fleet, 0, 70);
    drains(&router, 0, false).await;
    eventually("both figures of the policy's own", || async {
        let of = |name: &str| format!("policy=\"guard\",name=\"{name}\"");
        let drained = router.metric("comfy_router_policy_gauge", &of("drained")).await;
        let drains = router.metric("comfy_router_policy_counter_total", &of("drains")).await;
        (drained == 0.0 && drains == 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_an_operator_drained_stays_drained() {
    let (fleet, router) = guarded(2, "drain_at_c=80, resume_at_c=70").await;
    heat(&fleet, 0, 40);
    heat(&fleet, 1, 95);
    router.admin().post("/api/fleet/i0/drain", &Value::Null).await.ok();
    drains(&router, 1, true).await;
    heat(&fleet, 1, 40);
    drains(&router, 1, false).await;
    assert_eq!(instance(&router, 0).await["draining"], true);
}

#[tokio::test]
async fn a_restart_knows_what_was_drained_and_begins_with_a_fresh_reading() {
    let (fleet, mut router) = guarded(1, "drain_at_c=80, resume_at_c=70").await;
    heat(&fleet, 0, 95);
    drains(&router, 0, true).await;
    let held = router.admin().get_json("/api/policy/state/guard").await;
    assert!(held["entries"]["drained/i0"].is_object(), "{held}");
    router.stop().await;
    router.start_again().await;
    drains(&router, 0, true).await;
    heat(&fleet, 0, 40);
    drains(&router, 0, false).await;
}

#[tokio::test]
async fn settings_of_its_own_are_refused_by_its_own_words_and_it_serves_once_they_are_right() {
    let (_fleet, router) = guarded(1, "drain_at_c=60, resume_at_c=70").await;
    let status = router.admin().get_json("/api/policy").await;
    assert_eq!(status["refused"]["message"], "it refuses its settings: resume_at_c must be below drain_at_c");
    assert!(status["lanes"][1]["newest"].is_null() && status["lanes"][0]["newest"].is_object(), "{status}");
    let arguments =
        ["policy", "settings", r#"{"drain_at_c": 90, "resume_at_c": 70}"#, "--hook", "housekeeping"];
    let base = router.admin().base().to_owned();
    let corrected = tokio::task::spawn_blocking(move || {
        comfy_router_tests::run(&[&arguments[..], &["--admin", &base]].concat())
    });
    let corrected = corrected.await.expect("it runs");
    assert_eq!(corrected.code, Some(0), "{}", corrected.err);
    let status = router.admin().get_json("/api/policy").await;
    assert_eq!(status["lanes"][1]["serving"]["name"], "guard", "{status}");
    assert!(status["refused"].is_null(), "what was refused is past: {status}");
}
