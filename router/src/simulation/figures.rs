//! How a day went, in figures.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::scene::Weights;
use crate::model::job::JobClass;

/// Points of a curve over the day.
pub(super) const POINTS: usize = 240;

/// How one job fared.
#[derive(Debug, Clone)]
pub(super) struct Fate {
    pub(super) tenant: Arc<str>,
    pub(super) class: JobClass,
    pub(super) how: How,
    /// Until its first attempt.
    pub(super) wait_ms: u64,
    /// All attempts together, with loading.
    pub(super) ran_ms: u64,
    /// Attempts that had to load a model.
    pub(super) loads: u32,
    pub(super) load_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Done,
    Failed,
    /// A limit on its waiting, running or silence was passed.
    Late,
    /// Its owner stopped it.
    Stopped,
    Refused,
    /// It still waited or ran when the simulation ended.
    Open,
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Spread {
    pub mean: f64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassFigures {
    pub class: JobClass,
    pub jobs: u64,
    pub wait_s: Spread,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TenantFigures {
    pub tenant: Arc<str>,
    pub jobs: u64,
    /// Of all run time, 0 to 1: to be held against the tenant's weight.
    pub share: f64,
    /// 1 where none is given.
    pub weight: f64,
    /// Of the time its jobs were there, the part in which they ran, 0 to 1.
    pub served: f64,
    pub wait_s: Spread,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    pub jobs: u64,
    pub done: u64,
    pub failed: u64,
    /// Jobs that a limit ended.
    pub missed_deadlines: u64,
    pub stopped: u64,
    pub refused: u64,
    /// Jobs that had not ended.
    pub open: u64,
    /// From arrival to the first attempt, of those that had one.
    pub wait_s: Spread,
    /// From arrival to the end, of those that were done.
    pub response_s: Spread,
    /// Attempts that had to load a model, and the time that took.
    pub model_loads: u64,
    pub model_load_s: f64,
    /// Jain's index over what part of its time each tenant was served: 1 is all alike, 1/n is one tenant of n.
    pub fairness: f64,
    /// Jain's index over run time by weight: 1 is what the weights say. None without weights. Tenants that want less than they
    /// are due make it less than 1.
    pub fairness_by_weight: Option<f64>,
    pub classes: Vec<ClassFigures>,
    /// The first fifty by number of jobs.
    pub tenants: Vec<TenantFigures>,
    /// Mean number of waiting jobs in each of equal parts of the day.
    pub queue: Vec<f64>,
    /// Waits in seconds at equal steps from the shortest to the longest: the whole distribution.
    pub waits_s: Vec<f64>,
}

const TENANTS: usize = 50;

impl Figures {
    pub(super) fn of(fates: &[Fate], queue: Vec<f64>, weights: &Weights) -> Self {
        let count = |how: How| fates.iter().filter(|fate| fate.how == how).count() as u64;
        let ran = |fate: &&Fate| fate.how != How::Refused && (fate.ran_ms > 0 || fate.how == How::Done);
        let waits = sorted(fates.iter().filter(ran).map(|fate| fate.wait_ms));
        let tenants = tenants(fates, weights);
        Self {
            jobs: fates.len() as u64,
            done: count(How::Done),
            failed: count(How::Failed),
            missed_deadlines: count(How::Late),
            stopped: count(How::Stopped),
            refused: count(How::Refused),
            open: count(How::Open),
            wait_s: spread(&waits),
            response_s: spread(&sorted(
                fates.iter().filter(|fate| fate.how == How::Done).map(|fate| fate.wait_ms + fate.ran_ms),
            )),
            model_loads: fates.iter().map(|fate| u64::from(fate.loads)).sum(),
            model_load_s: seconds(fates.iter().map(|fate| fate.load_ms).sum()),
            fairness: jain(tenants.iter().map(|tenant| tenant.served)),
            fairness_by_weight: (!weights.none())
                .then(|| jain(tenants.iter().map(|tenant| tenant.share / tenant.weight))),
            classes: classes(fates),
            tenants: tenants.into_iter().take(TENANTS).collect(),
            queue,
            waits_s: curve(&waits),
        }
    }
}

fn classes(fates: &[Fate]) -> Vec<ClassFigures> {
    let figures = |class: JobClass| {
        let waits = sorted(fates.iter().filter(|fate| fate.class == class).map(|fate| fate.wait_ms));
        ClassFigures { class, jobs: waits.len() as u64, wait_s: spread(&waits) }
    };
    JobClass::ALL.into_iter().map(figures).filter(|figures| figures.jobs > 0).collect()
}

/// The one with the most jobs first.
fn tenants(fates: &[Fate], weights: &Weights) -> Vec<TenantFigures> {
    let mut by_name: BTreeMap<&Arc<str>, Vec<&Fate>> = BTreeMap::new();
    for fate in fates.iter().filter(|fate| fate.how != How::Refused) {
        by_name.entry(&fate.tenant).or_default().push(fate);
    }
    let all: u64 = fates.iter().map(|fate| fate.ran_ms).sum();
    let figures = |(tenant, its): (&Arc<str>, Vec<&Fate>)| {
        let (ran, waited) =
            its.iter().fold((0, 0), |(ran, waited), fate| (ran + fate.ran_ms, waited + fate.wait_ms));
        TenantFigures {
            tenant: tenant.clone(),
            jobs: its.len() as u64,
            share: ran as f64 / all.max(1) as f64,
            weight: weights.of_tenant(tenant),
            served: ran as f64 / (ran + waited).max(1) as f64,
            wait_s: spread(&sorted(its.iter().map(|fate| fate.wait_ms))),
        }
    };
    let mut tenants: Vec<TenantFigures> = by_name.into_iter().map(figures).collect();
    tenants.sort_by(|one, other| other.jobs.cmp(&one.jobs).then_with(|| one.tenant.cmp(&other.tenant)));
    tenants
}

/// The square of the sum over n times the sum of the squares.
fn jain(values: impl Iterator<Item = f64>) -> f64 {
    let (n, sum, squares) = values
        .fold((0.0, 0.0, 0.0), |(n, sum, squares), value| (n + 1.0, sum + value, squares + value * value));
    if squares == 0.0 { 1.0 } else { sum * sum / (n * squares) }
}

fn sorted(values: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values
}

fn spread(sorted: &[u64]) -> Spread {
    let Some(last) = sorted.last() else { return Spread::default() };
    let at = |share: f64| seconds(sorted[((sorted.len() - 1) as f64 * share).round() as usize]);
    let mean = seconds(sorted.iter().sum()) / sorted.len() as f64;
    Spread { mean, p50: at(0.5), p95: at(0.95), p99: at(0.99), max: seconds(*last) }
}

fn curve(sorted: &[u64]) -> Vec<f64> {
    const STEPS: usize = 200;
    if sorted.is_empty() {
        return Vec::new();
    }
    (0..=STEPS).map(|step| seconds(sorted[(sorted.len() - 1) * step / STEPS])).collect()
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

/// The mean of a quantity that holds from one moment to the next, in equal parts of a time.
#[derive(Debug)]
pub(super) struct Curve {
    from_ms: u64,
    part_ms: u64,
    areas: Vec<f64>,
    last: (u64, f64),
}

impl Curve {
    pub(super) fn new(from_ms: u64, to_ms: u64) -> Self {
        let part_ms = (to_ms.saturating_sub(from_ms) / POINTS as u64).max(1);
        Self { from_ms, part_ms, areas: vec![0.0; POINTS], last: (from_ms, 0.0) }
    }

    /// From `at` on it is `value`.
    pub(super) fn set(&mut self, at_ms: u64, value: f64) {
        let (mut from, held) = self.last;
        let end = self.from_ms + self.part_ms * POINTS as u64;
        let until = at_ms.min(end);
        while from < until {
            let part = ((from - self.from_ms) / self.part_ms) as usize;
            let to = until.min(self.from_ms + (part as u64 + 1) * self.part_ms);
            self.areas[part] += held * (to - from) as f64;
            from = to;
        }
        self.last = (at_ms.max(self.last.0), value);
    }

    pub(super) fn means(mut self) -> Vec<f64> {
        self.set(self.from_ms + self.part_ms * POINTS as u64, 0.0);
        self.areas.iter().map(|area| area / self.part_ms as f64).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(tenant: &str, wait_ms: u64, ran_ms: u64) -> Fate {
        let (class, how) = (JobClass::Standard, How::Done);
        Fate { tenant: tenant.into(), class, how, wait_ms, ran_ms, loads: 1, load_ms: 500 }
    }

    #[test]
    fn fairness_is_one_for_equals_and_the_share_of_one_for_one() {
        assert_eq!(jain([0.5, 0.5, 0.5].into_iter()), 1.0);
        assert_eq!(jain([1.0, 0.0, 0.0, 0.0].into_iter()), 0.25);
        assert_eq!(jain([].into_iter()), 1.0);
    }

    #[test]
    fn figures_are_of_what_ran() {
        let mut fates: Vec<Fate> = (1..=100).map(|n| fate("a", n * 1_000, 1_000)).collect();
        fates.push(fate("b", 0, 1_000));
        fates.push(Fate { how: How::Refused, ran_ms: 0, loads: 0, load_ms: 0, ..fate("c", 0, 0) });
        fates.push(Fate { how: How::Late, ran_ms: 0, loads: 0, load_ms: 0, ..fate("a", 9_000, 0) });
        let figures = Figures::of(&fates, Vec::new(), &Weights::default());
        assert_eq!((figures.jobs, figures.done, figures.refused, figures.missed_deadlines), (103, 101, 1, 1));
        assert_eq!((figures.wait_s.p50, figures.wait_s.p95, figures.wait_s.max), (50.0, 95.0, 100.0));
        assert_eq!((figures.model_loads, figures.model_load_s), (101, 50.5));
        let names: Vec<&str> = figures.tenants.iter().map(|tenant| &*tenant.tenant).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!((figures.tenants[1].served, figures.fairness_by_weight), (1.0, None));
        assert!(figures.fairness < 0.6, "one tenant waits and one does not: {}", figures.fairness);
        assert_eq!(figures.waits_s.first().zip(figures.waits_s.last()), Some((&0.0, &100.0)));
    }

    #[test]
    fn what_a_tenant_is_due_is_held_against_what_it_got() {
        let fates = [fate("a", 0, 2_000), fate("b", 0, 1_000)];
        let by_weight = |settings: serde_json::Value| {
            let weights = Weights::of(settings.as_object().expect("an object"));
            Figures::of(&fates, Vec::new(), &weights).fairness_by_weight.expect("there are weights")
        };
        assert!((by_weight(serde_json::json!({"tenants": {"a": 2}})) - 1.0).abs() < 1e-9);
        assert!(by_weight(serde_json::json!({"tenants": {"b": 2}})) < 0.8);
    }

    #[test]
    fn a_curve_is_the_mean_of_each_part() {
        let mut curve = Curve::new(0, 240_000);
        curve.set(500, 4.0);
        curve.set(1_500, 0.0);
        curve.set(239_000, 2.0);
        let means = curve.means();
        assert_eq!((means[0], means[1], means[2], means[239]), (2.0, 2.0, 0.0, 2.0));
    }
}
