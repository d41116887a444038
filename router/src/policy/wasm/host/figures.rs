//! `metrics`: the policy's own figures. Names are fixed by `configure`, so that their number is bounded.

use std::sync::Arc;

use super::{Answer, State, wit};
use crate::metrics;

/// Figures of one policy.
const MOST: usize = 32;
const NAME_BYTES: usize = 64;

pub(super) struct Figures {
    policy: Arc<str>,
    live: bool,
    /// `configure` runs.
    open: bool,
    declared: Vec<(wit::metrics::Kind, Arc<str>)>,
}

impl Figures {
    pub(super) fn new(policy: Arc<str>, live: bool) -> Self {
        Self { policy, live, open: false, declared: Vec::new() }
    }

    pub(super) fn open(&mut self, open: bool) {
        self.open = open;
    }

    fn declare(&mut self, kind: wit::metrics::Kind, name: &str) -> Result<u32, String> {
        if !self.open {
            return Err("metrics are declared in configure".to_owned());
        }
        let usual = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || name.len() > NAME_BYTES || !name.chars().all(usual) {
            return Err("a name has 1 to 64 lower-case letters, digits and underscores".to_owned());
        }
        if self.declared.iter().any(|(_, known)| **known == *name) {
            return Err(format!("{name} is declared twice"));
        }
        if self.declared.len() == MOST {
            return Err(format!("a policy has at most {MOST} metrics"));
        }
        self.declared.push((kind, name.into()));
        Ok(self.declared.len() as u32 - 1)
    }

    fn found(&self, metric: u32) -> Option<(wit::metrics::Kind, &Arc<str>)> {
        self.declared.get(metric as usize).filter(|_| self.live).map(|(kind, name)| (*kind, name))
    }
}

impl wit::metrics::Host for State {
    fn declare(&mut self, kind: wit::metrics::Kind, name: String) -> Answer<Result<u32, String>> {
        self.spend()?;
        Ok(self.figures.declare(kind, &name))
    }

    fn add(&mut self, metric: u32, by: f64) -> Answer<()> {
        self.spend()?;
        let policy = &self.figures.policy;
        match self.figures.found(metric) {
            // Counted in whole numbers, as the exporter does.
            Some((wit::metrics::Kind::Counter, name)) if by >= 1.0 && by.is_finite() => {
                metrics::policy_counter(policy, name, by as u64);
            }
            Some((wit::metrics::Kind::Gauge, name)) if by.is_finite() => {
                metrics::policy_gauge_add(policy, name, by)
            }
            _ => {}
        }
        Ok(())
    }

    fn set(&mut self, metric: u32, value: f64) -> Answer<()> {
        self.spend()?;
        if let Some((wit::metrics::Kind::Gauge, name)) = self.figures.found(metric)
            && value.is_finite()
        {
            metrics::policy_gauge(&self.figures.policy, name, value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_declared_in_configure_once_each_and_are_few() {
        let mut figures = Figures::new("p".into(), true);
        assert!(figures.declare(wit::metrics::Kind::Gauge, "early").is_err());
        figures.open(true);
        for bad in ["", "Upper", "sp ace", "nul\0", &"x".repeat(65)] {
            assert!(figures.declare(wit::metrics::Kind::Gauge, bad).is_err(), "{bad:?}");
        }
        for n in 0..MOST {
            assert_eq!(figures.declare(wit::metrics::Kind::Counter, &format!("n{n}")), Ok(n as u32));
        }
        assert!(figures.declare(wit::metrics::Kind::Counter, "n0").unwrap_err().contains("twice"));
        assert!(figures.declare(wit::metrics::Kind::Counter, "more").unwrap_err().contains("at most"));
        assert!(figures.found(MOST as u32).is_none() && figures.found(0).is_some());
    }
}
