//! Label values, each from a set of bounded size.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use ::metrics::SharedString;

use crate::model::decision::PolicyVersion;
use crate::model::id::InstanceId;

/// The values one label may take: the first `max` distinct ones, then `other`.
struct Bound {
    max: usize,
    seen: RwLock<BTreeSet<Arc<str>>>,
}

impl Bound {
    const fn new(max: usize) -> Self {
        Self { max, seen: RwLock::new(BTreeSet::new()) }
    }

    fn label(&self, value: &Arc<str>) -> SharedString {
        if self.seen.read().unwrap_or_else(PoisonError::into_inner).contains(&**value) {
            return value.clone().into();
        }
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= self.max && !seen.contains(&**value) {
            return "other".into();
        }
        seen.insert(value.clone());
        value.clone().into()
    }
}

static INSTANCES: Bound = Bound::new(1024);
static GPUS: Bound = Bound::new(1024);
static POLICIES: Bound = Bound::new(64);
static OWNERS: Bound = Bound::new(64);
static FIGURES: Bound = Bound::new(512);

pub(super) fn instance_label(instance: &InstanceId) -> SharedString {
    INSTANCES.label(&instance.0)
}

/// The policy that keeps a figure, and what it calls it.
pub(super) fn figure_labels(policy: &Arc<str>, name: &Arc<str>) -> (SharedString, SharedString) {
    (OWNERS.label(policy), FIGURES.label(name))
}

pub(super) fn gpu_label(uuid: &Arc<str>) -> SharedString {
    GPUS.label(uuid)
}

/// `name@digest`, or the name alone where there is no digest.
pub(super) fn version_label(version: &PolicyVersion) -> SharedString {
    POLICIES.label(&version_text(version))
}

fn version_text(version: &PolicyVersion) -> Arc<str> {
    if version.digest.is_empty() {
        return version.name.clone();
    }
    format!("{}@{}", version.name, version.digest).into()
}

/// Status classes, at their [`status_index`].
pub(super) const STATUSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];

pub(super) fn status_index(status: u16) -> usize {
    match status {
        100..=599 => usize::from(status / 100),
        _ => 0,
    }
}

pub(super) fn flag(on: bool) -> f64 {
    f64::from(u8::from(on))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_beyond_its_bound_is_other() {
        let bound = Bound::new(2);
        let label = |value: &str| bound.label(&value.into()).to_string();
        assert_eq!([label("a"), label("b"), label("c"), label("a")], ["a", "b", "other", "a"]);
    }
}
