//! Made-up views for the load gate, `policy check` and `policy bench`: from an empty corner to the largest fleet, with
//! every optional figure both known and unknown.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::model::decision::{
    AttemptReport, Cause, Consultation, Failure, Limit, Progress, Question, ResultKind,
};
use crate::model::id::InstanceId;
use crate::model::job::{Body, JobClass, ModelRef, Needs};
use crate::model::view::{
    Candidate, Capabilities, Context, DeviceText, GpuView, InstanceTexts, InstanceView, JobTexts, JobView,
    Load, Offer, Seat, Totals, WaitingView,
};

/// The largest fleet a policy must cope with before it may serve.
pub(crate) const LARGEST: usize = 64;

/// A text-to-image job with everything known.
pub(crate) fn job() -> JobView {
    let needs = Needs {
        classes: vec!["CheckpointLoaderSimple".into(), "KSampler".into(), "SaveImage".into()],
        models: vec![ModelRef { folder: "checkpoints".into(), name: "base.safetensors".into() }],
        nodes: 7,
        images: 1,
        steps: Some(20),
        megapixels: Some(1.0),
        signature: 0x5eed_0001,
        ..Needs::default()
    };
    let body = Body {
        prompt: r#"{"3":{"class_type":"KSampler","inputs":{"seed":1,"steps":20,"model":["4",0]}}}"#.into(),
        extra_data: r#"{"comfy_router":{"class":"standard"}}"#.into(),
        headers: vec![("x-team".into(), "blue".into())],
        ..Body::default()
    };
    JobView {
        tenant: 0,
        client: 0,
        class: JobClass::Standard,
        number: None,
        front: false,
        nodes: needs.nodes,
        outputs: 1,
        images: needs.images,
        steps: needs.steps,
        megapixels: needs.megapixels,
        work: needs.work(),
        signature: 0x5eed_0001,
        models: 1,
        input_kib: 0,
        attempt: 1,
        waited_ms: 250,
        run_ms: Some(15_000),
        texts: JobTexts { job: None, body: Arc::new(body), needs: Arc::new(needs) },
    }
}

/// A job of which nothing is known but that it exists.
fn unknown_job() -> JobView {
    let (steps, megapixels, work, run_ms) = (None, None, None, None);
    JobView { steps, megapixels, work, run_ms, nodes: 0, models: 0, texts: JobTexts::default(), ..job() }
}

/// A job variant for each number: classes, tenants, clients, `front` and `number` all differ.
pub(crate) fn job_of(n: u32) -> JobView {
    if n % 7 == 6 {
        return unknown_job();
    }
    let class = [JobClass::Interactive, JobClass::Standard, JobClass::Batch][n as usize % 3];
    let number = (n % 4 == 1).then(|| f64::from(n) - 8.0);
    JobView { tenant: n % 4, client: n % 8, class, number, front: n % 11 == 10, signature: n, ..job() }
}

fn gpu(n: u32) -> GpuView {
    if n % 5 == 4 {
        return GpuView::default();
    }
    GpuView {
        vram_free_mib: Some(2_000 + 500 * (n % 32)),
        vram_total_mib: Some(24_564),
        utilization_percent: Some((n * 13 % 101) as f32),
        temperature_c: Some(40.0 + (n % 45) as f32),
        slowdown_margin_c: Some(50.0 - (n % 60) as f32),
        power_mw: Some(150_000),
        power_limit_mw: Some(450_000),
        throttled: Some(n.is_multiple_of(17)),
        reading_age_ms: Some(n * 40),
    }
}

pub(crate) fn candidates(count: usize) -> Vec<Candidate> {
    (0..count as u32).map(candidate).collect()
}

fn candidate(n: u32) -> Candidate {
    let busy = n % 3 == 2;
    let warm = n % 4 == 1;
    Candidate {
        instance: n,
        free_slots: u32::from(!busy),
        running: u32::from(busy),
        pending: n % 2,
        models_resident: u32::from(warm),
        load_ms: (n % 6 != 5).then_some(if warm { 0 } else { 8_500 }),
        free_in_ms: (n % 6 != 5).then_some(if busy { 4_000 } else { 0 }),
        run_ms: (n % 6 != 5).then_some(15_000 + n * 10),
        gpu: gpu(n),
        failures: u32::from(n % 9 == 8),
        same_signature: n.is_multiple_of(10),
    }
}

/// Jobs of a window.
pub(crate) const WINDOW: u32 = 32;

/// A window of jobs over as many seats: every third seat is busy, every eighth combination is not offered.
pub(crate) fn window(jobs: u32, seats: usize) -> (Vec<JobView>, Vec<Seat>, Vec<Offer>) {
    let rows = candidates(seats);
    let seat = |c: &Candidate| Seat {
        instance: c.instance,
        free_slots: c.free_slots,
        free_in_ms: c.free_in_ms,
        running: c.running,
        pending: c.pending,
        gpu: c.gpu,
        failures: c.failures,
    };
    let offered = |job: u32, c: &Candidate| Offer {
        job,
        seat: c.instance,
        models_resident: c.models_resident,
        load_ms: c.load_ms,
        run_ms: c.run_ms,
        same_signature: c.same_signature,
    };
    let offers = (0..jobs)
        .flat_map(|job| rows.iter().map(move |c| (job, c)))
        .filter(|(job, c)| job + c.instance == 0 || (job + c.instance) % 5 != 0)
        .map(|(job, c)| offered(job, c));
    (jobs_of(jobs), rows.iter().map(seat).collect(), offers.collect())
}

fn jobs_of(count: u32) -> Vec<JobView> {
    (0..count).map(job_of).collect()
}

pub(crate) fn instances(count: usize) -> Vec<InstanceView> {
    (0..count as u32)
        .map(|n| InstanceView {
            instance: n,
            up: n % 8 != 7,
            draining: n % 16 == 15,
            running: n % 2,
            pending: n % 3,
            idle_ms: n.is_multiple_of(2).then_some(n * 10_000),
            models_resident: n % 4,
            gpu: gpu(n),
            failures: n % 3,
        })
        .collect()
}

pub(crate) fn context(instances: usize) -> Context {
    let model = ModelRef { folder: "checkpoints".into(), name: "base.safetensors".into() };
    let fleet = (0..instances).map(|n| InstanceTexts {
        name: InstanceId::from(format!("gpu{n}").as_str()),
        labels: Arc::new(HashMap::from([("zone".to_owned(), "a".to_owned())])),
        resident: Arc::new(if n % 4 == 1 { vec![model.clone()] } else { Vec::new() }),
        can: Arc::new(Capabilities {
            classes: job().texts.needs.classes.iter().cloned().collect(),
            models: HashMap::from([(model.folder.clone(), HashSet::from([model.name.clone()]))]),
        }),
        devices: Arc::new(vec![DeviceText {
            name: format!("cuda:{n} emulated"),
            kind: "cuda".to_owned(),
            vram_total_mib: Some(24_564),
        }]),
    });
    let totals = Totals { queued: 5, running: 1 };
    Context {
        now_ms: 1_700_000_000_000,
        fleet: Arc::new(fleet.collect()),
        all: Totals { queued: 20, running: 4 },
        tenants: Arc::new((0..4).map(|n| (format!("tenant{n}").into(), totals)).collect()),
        clients: Arc::new((0..8).map(|n| (format!("client{n}").into(), Totals::default())).collect()),
        classes: [
            Totals { queued: 4, running: 2 },
            Totals { queued: 6, running: 1 },
            Totals { queued: 10, running: 1 },
        ],
        waiting: Arc::new((0..20).map(waiting).collect()),
    }
}

fn waiting(n: u32) -> WaitingView {
    let job = job_of(n);
    WaitingView {
        tenant: job.tenant,
        client: job.client,
        class: job.class,
        signature: job.signature,
        models: job.models,
        waited_ms: 250 * n,
        run_ms: job.run_ms,
    }
}

pub(crate) fn ask(seed: u64, instances: usize, question: Question) -> Consultation {
    Consultation { job: None, seed, context: context(instances), question }
}

pub(crate) fn load() -> Load {
    Load {
        queued: 20,
        running: 4,
        instances: 8,
        free_slots: 3,
        tenant_queued: 5,
        tenant_running: 1,
        client_queued: 2,
    }
}

pub(crate) fn outcomes(count: usize) -> Vec<AttemptReport> {
    let kinds = [
        ResultKind::Success,
        ResultKind::Error,
        ResultKind::Cancelled,
        ResultKind::Lost,
        ResultKind::TimedOut,
    ];
    (0..count as u32)
        .map(|n| AttemptReport {
            job: None,
            tenant: n % 4,
            client: n % 8,
            signature: n,
            instance: n % 16,
            attempt: 1 + n % 2,
            kind: kinds[n as usize % kinds.len()],
            wait_ms: n * 100,
            run_ms: 15_000,
            predicted_ms: n.is_multiple_of(2).then_some(14_000),
            load_ms: n % 3 * 3_000,
        })
        .collect()
}

fn place(size: usize) -> Question {
    let (jobs, seats, offers) = window(WINDOW, size);
    Question::Place { jobs, seats, offers }
}

/// One question of each kind about job variant `n`, with `size` instances.
pub(crate) fn questions(n: u32, size: usize) -> Vec<Question> {
    (0..KINDS).map(|kind| question(kind, n, size)).collect()
}

/// Kinds of questions.
pub(crate) const KINDS: usize = 8;

/// One of them, by its place among [`questions`].
pub(crate) fn question(kind: usize, n: u32, size: usize) -> Question {
    let causes =
        [Cause::Crash, Cause::Lost, Cause::OutOfMemory, Cause::NodeError, Cause::Rejected, Cause::Dispatch];
    let limits = [Limit::Queue, Limit::Run, Limit::Stall];
    let failure = Failure {
        cause: causes[n as usize % causes.len()],
        instance: n % 16,
        attempt: 1 + n % 3,
        ran_ms: 900,
    };
    let progress = Progress {
        elapsed_ms: 60_000,
        silent_ms: 9_000,
        nodes_done: 3,
        node_percent: n.is_multiple_of(2).then_some(40.0),
    };
    match kind {
        0 => Question::Intake { job: job_of(n), load: load() },
        1 => Question::Reassess { job: job_of(n) },
        2 => Question::Route { job: job_of(n), candidates: candidates(size) },
        3 => Question::OnTimeout { job: job_of(n), limit: limits[n as usize % limits.len()], progress },
        4 => Question::OnFailure { job: job_of(n), failure },
        5 => Question::Tick { instances: instances(size) },
        6 => Question::Observe { outcomes: outcomes(size) },
        _ => place(size),
    }
}
