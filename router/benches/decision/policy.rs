//! The question alone: from the asking task to the policy thread and back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use comfy_router::model::decision::{Answer, Consultation, Question, Route};
use comfy_router::model::id::InstanceId;
use comfy_router::model::job::JobClass;
use comfy_router::model::view::{Candidate, Context, GpuView, InstanceTexts, JobTexts, JobView};
use comfy_router::policy::{Handle, Shipped};

use super::{INSTANCES, QUEUE};

const ROUNDS: u32 = 100;
/// Between two questions that are not asked back to back.
pub(crate) const PAUSE: Duration = Duration::from_micros(500);

/// Times of whole questions and of their part in the guest.
pub(crate) async fn measure(handle: &Handle, shipped: Shipped) -> (Vec<Duration>, Vec<Duration>) {
    let context = context();
    let candidates: Vec<Candidate> = (0..INSTANCES).map(candidate).collect();
    let (mut total, mut guest) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        for n in 0..QUEUE {
            let question = Question::Route { job: job(n), candidates: candidates.clone() };
            let asked = Consultation { job: None, seed: n.into(), context: context.clone(), question };
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
    (total, guest)
}

/// Times of one round of whole questions, whichever version answers.
pub(crate) async fn ask_all(handle: &Handle) -> Vec<Duration> {
    let context = context();
    let candidates: Vec<Candidate> = (0..INSTANCES).map(candidate).collect();
    let mut total = Vec::new();
    for n in 0..QUEUE * 20 {
        let question = Question::Route { job: job(n % QUEUE), candidates: candidates.clone() };
        let asked = Consultation { job: None, seed: n.into(), context: context.clone(), question };
        let started = Instant::now();
        let decided = handle.decide(asked).await;
        total.push(started.elapsed());
        assert_eq!(decided.records[0].fallback, None, "a policy answered");
        // As jobs come: not back to back.
        tokio::time::sleep(PAUSE).await;
    }
    total
}

fn context() -> Context {
    let instance = |n: u32| InstanceTexts {
        devices: Arc::default(),
        name: InstanceId::from(format!("gpu{n}").as_str()),
        labels: Arc::default(),
        resident: Arc::default(),
        can: Arc::default(),
    };
    Context {
        now_ms: 1_700_000_000_000,
        fleet: Arc::new((0..INSTANCES).map(instance).collect()),
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
