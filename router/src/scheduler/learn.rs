//! What past attempts teach: how long a graph of a known shape runs, how long a model takes to load.
//!
//! Averages are exponential with weight 0.3 for the newest: a fleet's speed changes with drivers and neighbours, so old
//! samples should fade within about ten. Both tables are bounded; the least recently taught goes first.

use std::collections::HashMap;

use crate::model::job::{ModelRef, Needs};

const NEWEST_WEIGHT: f32 = 0.3;
const SHAPES_KEPT: usize = 4096;
const MODELS_KEPT: usize = 4096;

#[derive(Debug, Clone, Copy)]
struct Average {
    ms: f32,
    taught: u64,
}

#[derive(Debug, Default)]
pub(super) struct Learned {
    /// By signature and instance; the fleet's average under `None`.
    runs: HashMap<(u64, Option<u32>), Average>,
    loads: HashMap<ModelRef, Average>,
    /// Of all loads known: what a model never seen is expected to take.
    mean_load: Option<f32>,
    lessons: u64,
}

/// What is expected of one job, looked up once for all instances.
#[derive(Debug)]
pub(super) struct Outlook<'a> {
    needs: &'a Needs,
    learned: &'a Learned,
    /// Of each of its models.
    loads: Vec<Option<f32>>,
    /// Anywhere.
    run_ms: Option<u32>,
}

impl Outlook<'_> {
    pub(super) fn signature(&self) -> u64 {
        self.needs.signature
    }

    /// How long it runs on this instance, as far as that is known.
    pub(super) fn run_ms(&self, instance: u32) -> Option<u32> {
        // What is known of one instance is known of all together.
        let all = self.run_ms?;
        let own = self.learned.runs.get(&(self.needs.signature, Some(instance)));
        Some(own.map_or(all, |average| average.ms as u32))
    }

    /// How many of its models are resident, and how long the others take to load.
    pub(super) fn loading(&self, is_resident: impl Fn(&ModelRef) -> bool) -> (u32, Option<u32>) {
        let (mut resident, mut sum) = (0, Some(0.0));
        for (model, load) in self.needs.models.iter().zip(&self.loads) {
            if is_resident(model) {
                resident += 1;
            } else {
                sum = sum.zip(*load).map(|(sum, load)| sum + load);
            }
        }
        (resident, sum.map(|ms| ms as u32))
    }
}

impl Learned {
    /// An attempt ran to its end: `run_ms` without loading, `load_ms` for the models that were not resident.
    pub(super) fn teach(
        &mut self,
        needs: &Needs,
        instance: u32,
        run_ms: u32,
        load_ms: u32,
        loaded: &[ModelRef],
    ) {
        self.lessons += 1;
        for at in [None, Some(instance)] {
            blend(&mut self.runs, (needs.signature, at), run_ms as f32, self.lessons);
        }
        for model in loaded {
            blend(&mut self.loads, model.clone(), load_ms as f32 / loaded.len() as f32, self.lessons);
        }
        forget_oldest(&mut self.runs, SHAPES_KEPT);
        forget_oldest(&mut self.loads, MODELS_KEPT);
        if !loaded.is_empty() {
            self.mean_load = mean(&self.loads);
        }
    }

    pub(super) fn outlook<'a>(&'a self, needs: &'a Needs) -> Outlook<'a> {
        let load = |model| self.loads.get(model).map(|average| average.ms).or(self.mean_load);
        let loads = needs.models.iter().map(load).collect();
        Outlook { needs, learned: self, loads, run_ms: self.run_ms(needs.signature, None) }
    }

    pub(super) fn run_ms(&self, signature: u64, instance: Option<u32>) -> Option<u32> {
        let found = self.runs.get(&(signature, instance)).or_else(|| self.runs.get(&(signature, None)));
        found.map(|average| average.ms as u32)
    }
}

/// None of none.
fn mean(loads: &HashMap<ModelRef, Average>) -> Option<f32> {
    let n = loads.len();
    // Summed so wide that no digit is lost, in whatever order the table gives them.
    (n > 0).then(|| (loads.values().map(|a| f64::from(a.ms)).sum::<f64>() / n as f64) as f32)
}

fn blend<K: std::hash::Hash + Eq>(table: &mut HashMap<K, Average>, key: K, ms: f32, lesson: u64) {
    let entry = table.entry(key).or_insert(Average { ms, taught: lesson });
    entry.ms += (ms - entry.ms) * NEWEST_WEIGHT;
    entry.taught = lesson;
}

/// Drop the older half when the table is over its bound: rare, so that a lesson stays cheap.
fn forget_oldest<K: std::hash::Hash + Eq>(table: &mut HashMap<K, Average>, keep: usize) {
    if table.len() <= keep {
        return;
    }
    let mut lessons: Vec<u64> = table.values().map(|a| a.taught).collect();
    lessons.sort_unstable();
    let median = lessons[lessons.len() / 2];
    table.retain(|_, average| average.taught >= median);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(signature: u64) -> Needs {
        Needs { signature, ..Needs::default() }
    }

    fn model(name: &str) -> ModelRef {
        ModelRef { folder: "checkpoints".into(), name: name.into() }
    }

    #[test]
    fn an_instance_of_its_own_speed_is_known_by_it_and_others_by_the_fleet() {
        let mut learned = Learned::default();
        let on = |learned: &Learned, instance| learned.outlook(&needs(7)).run_ms(instance);
        assert_eq!(on(&learned, 0), None);
        learned.teach(&needs(7), 0, 1000, 0, &[]);
        learned.teach(&needs(7), 1, 3000, 0, &[]);
        assert_eq!([0, 1, 2].map(|instance| on(&learned, instance)), [Some(1000), Some(3000), Some(1600)]);
    }

    #[test]
    fn an_unknown_model_is_expected_to_load_like_the_known_ones() {
        let mut learned = Learned::default();
        let load = |learned: &Learned, names: &[&str], resident: &str| {
            let models = names.iter().map(|name| model(name)).collect();
            let needs = Needs { models, ..Needs::default() };
            learned.outlook(&needs).loading(|model| model.name == resident)
        };
        assert_eq!(load(&learned, &["a"], ""), (0, None));
        assert_eq!(load(&learned, &["a"], "a"), (1, Some(0)), "what is resident need not be known");
        learned.teach(&needs(1), 0, 10, 4000, &[model("a")]);
        assert_eq!(load(&learned, &["a"], ""), (0, Some(4000)));
        assert_eq!(load(&learned, &["b"], ""), (0, Some(4000)));
        assert_eq!(load(&learned, &["a", "b", "c"], "b"), (1, Some(8000)));
        assert_eq!(load(&learned, &[], ""), (0, Some(0)));
    }

    #[test]
    fn the_tables_stay_bounded() {
        let mut learned = Learned::default();
        for signature in 0..3 * SHAPES_KEPT as u64 {
            learned.teach(&needs(signature), 0, 10, 0, &[]);
        }
        assert!(learned.runs.len() <= SHAPES_KEPT);
        assert!(learned.run_ms(3 * SHAPES_KEPT as u64 - 1, None).is_some());
    }
}
