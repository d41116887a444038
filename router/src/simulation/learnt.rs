//! How long things take, from the attempts of a recording: each shape of graph, each model's loading, each instance's speed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::decision::{AttemptReport, ResultKind};
use crate::model::job::{ModelRef, Needs};

/// Attempts of an instance before it is believed to be faster or slower than others.
const ENOUGH: usize = 5;
/// What a job takes that is like none in the recording, if that has no end of any job.
const UNKNOWN_MS: u32 = 1_000;

/// One attempt that ran to its end.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) needs: Arc<Needs>,
    pub(super) station: usize,
    /// Without loading.
    pub(super) run_ms: u32,
    pub(super) load_ms: u32,
    /// Which of its models had to be loaded, a bit for each.
    pub(super) cold: u64,
}

#[derive(Debug, Default)]
pub struct Learnt {
    samples: Vec<Sample>,
    /// By signature, at common speed.
    runs: BTreeMap<u64, u32>,
    any_run: Option<u32>,
    loads: BTreeMap<ModelRef, u32>,
    any_load: u32,
    /// By station: 2 takes twice as long as 1.
    pace: Vec<f64>,
}

impl Learnt {
    pub(super) fn add(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    /// For a made-up day: a model's loading time.
    pub(super) fn loads_in(&mut self, model: ModelRef, ms: u32) {
        self.loads.insert(model, ms);
    }

    /// Everything was added.
    pub(super) fn conclude(&mut self, stations: usize) {
        let samples = std::mem::take(&mut self.samples);
        self.pace = paces(&samples, stations);
        let mut runs: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for sample in &samples {
            let run = f64::from(sample.run_ms) / self.pace[sample.station];
            runs.entry(sample.needs.signature).or_default().push(run as u32);
        }
        self.any_run = median(&mut runs.values().flatten().copied().collect::<Vec<_>>());
        self.loads = loads(&samples);
        self.any_load = mean(&self.loads.values().copied().collect::<Vec<_>>());
        let middle = |mut all: Vec<u32>| median(&mut all).unwrap_or(0);
        self.runs = runs.into_iter().map(|(signature, all)| (signature, middle(all))).collect();
    }

    /// What the job of this attempt takes where others take 1; none if it did not run to its end.
    pub(super) fn at_common_speed(&self, report: &AttemptReport, station: usize) -> Option<u32> {
        let whole = matches!(
            report.kind,
            ResultKind::Success | ResultKind::Error | ResultKind::Cancelled | ResultKind::TimedOut
        );
        let run_ms = f64::from(report.run_ms.saturating_sub(report.load_ms));
        whole.then(|| (run_ms / self.pace(station)) as u32)
    }

    /// Of a job whose end is not known.
    pub(super) fn run_ms(&self, signature: u64) -> u32 {
        self.runs.get(&signature).copied().or(self.any_run).unwrap_or(UNKNOWN_MS)
    }

    pub(super) fn load_ms(&self, model: &ModelRef) -> u32 {
        self.loads.get(model).copied().unwrap_or(self.any_load)
    }

    pub(super) fn pace(&self, station: usize) -> f64 {
        self.pace.get(station).copied().unwrap_or(1.0)
    }
}

/// A model that was loaded alone took what was told; others share evenly, where nothing better is known. Means, so that the
/// sum of a day's loads comes out.
fn loads(samples: &[Sample]) -> BTreeMap<ModelRef, u32> {
    let mut alone: BTreeMap<&ModelRef, Vec<u32>> = BTreeMap::new();
    let mut shared: BTreeMap<&ModelRef, Vec<u32>> = BTreeMap::new();
    for sample in samples {
        let Some(each) = sample.load_ms.checked_div(sample.cold.count_ones()) else { continue };
        let into = if sample.cold.is_power_of_two() { &mut alone } else { &mut shared };
        let models = sample.needs.models.iter().take(64).enumerate();
        for (_, model) in models.filter(|(n, _)| sample.cold >> n & 1 == 1) {
            into.entry(model).or_default().push(each);
        }
    }
    shared.append(&mut alone);
    shared.into_iter().map(|(model, all)| (model.clone(), mean(&all))).collect()
}

fn mean(values: &[u32]) -> u32 {
    let sum: u64 = values.iter().map(|value| u64::from(*value)).sum();
    sum.checked_div(values.len() as u64).unwrap_or(0) as u32
}

/// The geometric mean of how much longer than its shape's mean an attempt takes there.
fn paces(samples: &[Sample], stations: usize) -> Vec<f64> {
    let mut means: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    for sample in samples {
        let mean = means.entry(sample.needs.signature).or_default();
        *mean = (mean.0 + f64::from(sample.run_ms), mean.1 + 1.0);
    }
    let mut sums = vec![(0.0, 0_usize); stations];
    for sample in samples {
        let (sum, count) = means[&sample.needs.signature];
        let mean = sum / count;
        if sample.run_ms > 0 && mean > 0.0 {
            let (logs, count) = &mut sums[sample.station];
            *logs += (f64::from(sample.run_ms) / mean).ln();
            *count += 1;
        }
    }
    let pace = |(logs, count): (f64, usize)| if count < ENOUGH { 1.0 } else { (logs / count as f64).exp() };
    sums.into_iter().map(pace).collect()
}

fn median(values: &mut [u32]) -> Option<u32> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(signature: u64, station: usize, run_ms: u32, load: (u32, u64)) -> Sample {
        let models = vec![ModelRef { folder: "checkpoints".into(), name: format!("{signature}") }];
        let needs = Arc::new(Needs { signature, models, ..Needs::default() });
        Sample { needs, station, run_ms, load_ms: load.0, cold: load.1 }
    }

    #[test]
    fn a_slow_instance_is_told_from_a_slow_job() {
        let mut learnt = Learnt::default();
        for _ in 0..10 {
            for (signature, ms) in [(1, 1_000), (2, 4_000)] {
                learnt.add(sample(signature, 0, ms, (0, 0)));
                learnt.add(sample(signature, 1, ms * 3, (600, 1)));
            }
        }
        learnt.conclude(3);
        let ratio = learnt.pace(1) / learnt.pace(0);
        assert!((ratio - 3.0).abs() < 1e-9, "{ratio}");
        assert_eq!(learnt.pace(2), 1.0, "nothing is known of it");
        let again = f64::from(learnt.run_ms(1)) * learnt.pace(1);
        assert!((again - 3_000.0).abs() < 5.0, "{again}");
        let known = sample(1, 0, 1, (0, 0)).needs.models[0].clone();
        assert_eq!(learnt.load_ms(&known), 600);
        let mut two = Sample { cold: 0b11, load_ms: 1_000, ..sample(1, 0, 1_000, (0, 0)) };
        let lora = ModelRef { folder: "loras".into(), name: "l".into() };
        Arc::make_mut(&mut two.needs).models.push(lora.clone());
        let alone = sample(1, 0, 1_000, (900, 1));
        let loads = loads(&[two, alone]);
        assert_eq!((loads[&known], loads[&lora]), (900, 500), "what was loaded alone is known better");
        assert!(learnt.run_ms(99) > 0, "a job unlike any other takes what others take");
    }
}
