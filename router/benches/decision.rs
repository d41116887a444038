//! How long does one routing decision take, from the asking task to the policy thread and back, with 16 candidates and
//! a queue of 100 different jobs? The aim is a p50 under 50 us for the whole decision in a release build.
//!
//! Asserts that the shipped policy answered every question itself; a fallback would be faster and measure nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use comfy_router::clock::SystemClock;
use comfy_router::model::decision::{Answer, Consultation, Question, Route};
use comfy_router::model::id::InstanceId;
use comfy_router::model::job::JobClass;
use comfy_router::model::view::{Candidate, Context, GpuView, InstanceTexts, JobTexts, JobView};
use comfy_router::policy::{Config, GuestLimits, Handle, Shipped, start};

const CANDIDATES: u32 = 16;
const QUEUE: u32 = 100;
const ROUNDS: u32 = 100;

#[allow(clippy::print_stdout)]
fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    println!("one decision, {CANDIDATES} candidates, queue of {QUEUE}, microseconds");
    println!("{:<16} {:>8} {:>8} {:>8} {:>8}", "policy", "p50", "p99", "max", "in guest");
    for shipped in Shipped::ALL {
        // Patient, so that a busy machine gives a long time and not a fallback.
        let limits = GuestLimits { call_ms: 100, ..GuestLimits::default() };
        let config = Config { shipped, limits, ..Config::default() };
        let handle = start(config, Arc::new(SystemClock::default())).expect("the policy host starts");
        let (total, guest) = runtime.block_on(measure(&handle, shipped));
        let at = |took: &[Duration], share: f64| {
            took[((took.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e6
        };
        let (p50, p99, max) = (at(&total, 0.5), at(&total, 0.99), at(&total, 1.0));
        println!("{:<16} {p50:>8.1} {p99:>8.1} {max:>8.1} {:>8.1}", shipped.name(), at(&guest, 0.5));
    }
}

/// Times of whole decisions and of their part in the guest, both sorted.
async fn measure(handle: &Handle, shipped: Shipped) -> (Vec<Duration>, Vec<Duration>) {
    let context = context();
    let candidates: Vec<Candidate> = (0..CANDIDATES).map(candidate).collect();
    let (mut total, mut guest) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        for n in 0..QUEUE {
            let question = Question::Route { job: job(n), candidates: candidates.clone() };
            let asked = Consultation { seed: n.into(), context: context.clone(), question };
            let started = Instant::now();
            let decided = handle.decide(asked).await;
            let took = started.elapsed();
            let record = &decided.records[0];
            assert_eq!(&*record.version.name, shipped.name());
            assert_eq!(record.fallback, None, "the policy itself answered");
            let Answer::Route(decision) = &decided.answer else { panic!("a route is answered with a route") };
            assert!(matches!(decision.route, Route::Ranked(_) | Route::Hold { .. }));
            // The first round warms up.
            if round > 0 {
                total.push(took);
                guest.push(Duration::from_micros(record.took_us.into()));
            }
        }
    }
    assert_eq!(total.len() as u32, ROUNDS * QUEUE);
    total.sort_unstable();
    guest.sort_unstable();
    (total, guest)
}

fn context() -> Context {
    let instance = |n: u32| InstanceTexts {
        name: InstanceId::from(format!("gpu{n}").as_str()),
        labels: Arc::default(),
        resident: Arc::default(),
        can: Arc::default(),
    };
    Context {
        now_ms: 1_700_000_000_000,
        fleet: Arc::new((0..CANDIDATES).map(instance).collect()),
        ..Context::default()
    }
}

fn job(n: u32) -> JobView {
    JobView {
        tenant: n % 4,
        client: n % 8,
        class: JobClass::Standard,
        number: None,
        front: false,
        nodes: 7,
        outputs: 1,
        images: 1,
        steps: Some(20),
        megapixels: Some(1.0),
        work: Some(20.0),
        signature: n,
        models: 1 + n % 3,
        input_kib: 0,
        attempt: 1,
        waited_ms: n * 100,
        run_ms: Some(15_000),
        texts: JobTexts::default(),
    }
}

fn candidate(n: u32) -> Candidate {
    let busy = n % 4 == 3;
    Candidate {
        instance: n,
        free_slots: u32::from(!busy),
        running: u32::from(busy),
        pending: 0,
        models_resident: n % 4,
        load_ms: Some(if n % 4 == 3 { 0 } else { 8_500 }),
        free_in_ms: Some(if busy { 4_000 } else { 0 }),
        run_ms: Some(15_000),
        gpu: GpuView { vram_free_mib: Some(8_000 + n * 100), ..GpuView::default() },
        failures: 0,
        same_signature: false,
    }
}
