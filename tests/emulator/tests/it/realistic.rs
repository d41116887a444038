//! Realistic mode: what a model load costs, what the card remembers, what two instances share.

use std::{sync::Arc, time::Instant};

use comfyui_emulator::{
    Config, Control, Costs, Emulator, Fault, GpuOverrides, GpuSpec, Host, Models, Timing,
};
use serde_json::json;

use crate::client::{Http, diffusion};

/// Slow enough that a busy test machine does not blur a cold load (0.7 s) into a warm one.
const SPEED: f64 = 50.0;

/// Two checkpoints, of which only one fits the card, and a page cache for both.
fn config(host: &Arc<Host>) -> Config {
    let models = Models::none().with("checkpoints", "a.safetensors", 6_000).with(
        "checkpoints",
        "b.safetensors",
        6_000,
    );
    Config {
        timing: Timing::Realistic { speed: SPEED },
        costs: Costs { step_s: 0.0, ..Costs::default() },
        gpu: Some(GpuSpec { memory_total_mib: 8_000, ..GpuSpec::new(0) }),
        models,
        host: Some(Arc::clone(host)),
        ..Config::default()
    }
}

/// Runs one prompt; modelled seconds that it took.
async fn run(http: &Http, control: &Control, checkpoint: &str, seed: u64) -> f64 {
    let before = control.executions().len();
    let start = Instant::now();
    http.prompt(&diffusion(checkpoint, seed, 1), None).await;
    control.wait_ended(before + 1).await;
    start.elapsed().as_secs_f64() * SPEED
}

#[tokio::test]
async fn loads_cost_what_the_memory_does_not_hold() {
    let host = Host::new(20_000);
    let emulator = Emulator::start(config(&host)).await.expect("starts");
    let (http, control) = (Http::new(&emulator.url()), emulator.control());
    let cold = run(&http, &control, "a.safetensors", 1).await;
    let resident = run(&http, &control, "a.safetensors", 2).await;
    run(&http, &control, "b.safetensors", 3).await;
    let warm = run(&http, &control, "a.safetensors", 4).await;
    assert!(cold >= 37.0, "{cold}");
    assert!(warm >= 3.1, "{warm}");
    assert!(resident < cold && warm < cold, "{resident} {warm} {cold}");
    let gpu = control.gpu().expect("a card");
    assert_eq!((gpu.model_loads, gpu.resident_models), (3, vec!["checkpoints/a.safetensors".to_owned()]));
    assert_eq!(host.cached_files(), ["checkpoints/b.safetensors", "checkpoints/a.safetensors"]);
    http.post("/free", &json!({ "unload_models": true })).await;
    while !control.gpu().expect("a card").resident_models.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn two_instances_share_card_and_page_cache() {
    let host = Host::new(20_000);
    let first = Emulator::start(config(&host)).await.expect("starts");
    let mut second = Emulator::start(config(&host)).await.expect("starts");
    let idle = first.control().gpu().expect("a card").memory_used_mib;
    run(&Http::new(&first.url()), &first.control(), "a.safetensors", 1).await;
    let used = second.control().gpu().expect("the same card").memory_used_mib;
    assert_eq!(used, idle + 6_000);
    let warm = run(&Http::new(&second.url()), &second.control(), "a.safetensors", 1).await;
    assert!(warm < 37.0, "the page cache is shared: {warm}");
    second.crash().await;
    let left = first.control().gpu().expect("a card");
    assert!(left.memory_used_mib < used, "{left:?}");
}

#[tokio::test]
async fn system_stats_tell_of_the_card() {
    let emulator = Emulator::start(config(&Host::new(20_000))).await.expect("starts");
    let http = Http::new(&emulator.url());
    run(&http, &emulator.control(), "a.safetensors", 1).await;
    let device = http.get("/system_stats").await.json()["devices"][0].clone();
    assert_eq!(device["name"], "cuda:0 NVIDIA Emulated : cudaMallocAsync");
    assert_eq!((&device["type"], &device["index"]), (&json!("cuda"), &json!(0)));
    let gpu = http.get("/emulator/gpu").await.json();
    let number = |value: &serde_json::Value| value.as_u64().expect("a number");
    let free_mib = number(&gpu["memory_total_mib"]) - number(&gpu["memory_used_mib"]);
    assert_eq!(number(&device["vram_free"]), free_mib << 20);
    assert_eq!(number(&device["vram_total"]), 8_000 << 20);
    assert_eq!(number(&device["torch_vram_total"]), 6_000 << 20);
}

#[tokio::test]
async fn readings_can_be_overridden() {
    let emulator = Emulator::start(config(&Host::new(20_000))).await.expect("starts");
    let http = Http::new(&emulator.url());
    let gpu =
        http.post("/emulator/gpu", &json!({ "temperature_c": 91, "throttle_reasons": 0x40 })).await.json();
    assert_eq!((&gpu["temperature_c"], &gpu["throttle_reasons"]), (&json!(91), &json!(0x40)));
    emulator.control().override_gpu(GpuOverrides::default());
    assert_eq!(emulator.control().gpu().expect("a card").throttle_reasons, 0);
    assert_eq!(http.post("/emulator/gpu", &json!({ "heat": 1 })).await.status, 400);
}

#[tokio::test]
async fn slowness_multiplies_time() {
    let emulator = Emulator::start(config(&Host::new(20_000))).await.expect("starts");
    let (http, control) = (Http::new(&emulator.url()), emulator.control());
    run(&http, &control, "a.safetensors", 1).await;
    control.inject(Fault::Slow { factor: 1.0, extra_ms: 20 });
    let slow = run(&http, &control, "a.safetensors", 2).await;
    assert!(slow >= 3.0 * 0.02 * SPEED, "{slow}");
}

#[tokio::test]
async fn a_full_card_is_out_of_memory() {
    let emulator = Emulator::start(config(&Host::new(20_000))).await.expect("starts");
    let (http, control) = (Http::new(&emulator.url()), emulator.control());
    control.override_gpu(GpuOverrides { memory_used_mib: Some(7_900), ..GpuOverrides::default() });
    let id = http.prompt(&diffusion("a.safetensors", 1, 1), None).await;
    control.wait_ended(1).await;
    let messages = http.history(&id).await["status"]["messages"].clone();
    assert_eq!(messages[2][1]["exception_type"], "torch.OutOfMemoryError");
    assert_eq!(messages[2][1]["node_type"], "CheckpointLoaderSimple");
}
