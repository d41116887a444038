//! A day that nobody recorded, for benchmarks and tests: tenants of different appetite, eight models of which one fits a GPU at
//! a time, quiet nights and a busy noon. The same for the same seed.

use std::sync::Arc;

use super::trace::{Arrival, Station, Trace};
use crate::model::id::InstanceId;
use crate::model::job::{Body, JobClass, ModelRef, Needs};
use crate::model::view::Capabilities;
use crate::scheduler::input::EndKind;

/// 2026-01-01, so that a recording of it looks like one of today.
const FROM_MS: u64 = 1_767_225_600_000;
const MODELS: u64 = 8;
const LOAD_MS: u32 = 8_000;
const CLASSES: [&str; 6] =
    ["CLIPTextEncode", "CheckpointLoaderSimple", "EmptyLatentImage", "KSampler", "SaveImage", "VAEDecode"];

#[derive(Debug, Clone, Copy)]
pub struct Imagined {
    pub jobs: usize,
    pub instances: usize,
    pub hours: u64,
    /// Of the fleet's time, loading left out, that the jobs take.
    pub load: f64,
    pub seed: u64,
}

pub fn imagined(day: Imagined) -> Trace {
    let mut random = Random(day.seed);
    let to_ms = FROM_MS + day.hours * 3_600_000;
    let mean_ms = day.load * (day.instances as u64 * day.hours * 3_600_000) as f64 / day.jobs.max(1) as f64;
    let mut at: Vec<u64> = (0..day.jobs).map(|_| moment(&mut random, day.hours)).collect();
    at.sort_unstable();
    let mut trace = Trace { from_ms: FROM_MS, to_ms, ..Trace::default() };
    trace.stations = (0..day.instances).map(station).collect();
    trace.arrivals = at.into_iter().map(|at| arrival(&mut random, FROM_MS + at, mean_ms)).collect();
    trace.learnt.conclude(day.instances);
    (0..MODELS).for_each(|n| trace.learnt.loads_in(model(n), LOAD_MS));
    trace
}

/// Three times as many come at noon as at midnight.
fn moment(random: &mut Random, hours: u64) -> u64 {
    loop {
        let share = random.share();
        if random.share() < 0.25 + 0.75 * (share * std::f64::consts::PI).sin() {
            return (share * (hours * 3_600_000) as f64) as u64;
        }
    }
}

fn station(n: usize) -> Station {
    let files = (0..MODELS).map(|n| model(n).name).collect();
    let can = Capabilities {
        classes: CLASSES.map(str::to_owned).into(),
        models: [("checkpoints".to_owned(), files)].into(),
    };
    Station { name: InstanceId::from(format!("gpu{n}").as_str()), labels: Arc::default(), slots: 1, can }
}

fn model(n: u64) -> ModelRef {
    ModelRef { folder: "checkpoints".into(), name: format!("model{n}.safetensors") }
}

fn arrival(random: &mut Random, at_ms: u64, mean_ms: f64) -> Arrival {
    // The first tenant wants as much as the others together; the first models are the common ones.
    let tenant = if random.share() < 0.5 { 0 } else { 1 + random.below(5) };
    let class = match random.below(10) {
        0..3 => JobClass::Interactive,
        3..8 => JobClass::Standard,
        _ => JobClass::Batch,
    };
    let chosen = (random.share() * random.share() * MODELS as f64) as u64;
    let steps = [10, 20, 30, 50][random.below(4) as usize];
    let shape = chosen * 64 + u64::from(steps);
    // By steps, around the mean of them, and a tenth more or less.
    let run_ms = mean_ms * f64::from(steps) / 27.5 * (0.9 + 0.2 * random.share());
    let needs = Needs {
        classes: CLASSES.map(str::to_owned).into(),
        models: vec![model(chosen)],
        nodes: CLASSES.len() as u32,
        images: 1,
        steps: Some(steps),
        megapixels: Some(1.0),
        signature: shape,
        ..Needs::default()
    };
    let body =
        Body { prompt: "{}".into(), extra_data: "{}".into(), outputs: vec!["9".into()], ..Body::default() };
    Arrival {
        at_ms,
        tenant: format!("tenant{tenant}").into(),
        client: format!("client{tenant}-{}", random.below(3)).into(),
        class,
        number: None,
        front: false,
        needs: Arc::new(needs),
        body: Arc::new(body),
        run_ms: Some(run_ms as u32),
        end: if random.below(100) == 0 { EndKind::NodeError } else { EndKind::Success },
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}
