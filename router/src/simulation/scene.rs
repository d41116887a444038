//! What a recording does not say of the router that made it: its limits, and what share each tenant is due.

use std::collections::BTreeMap;

use crate::policy::{Builtin, Settings};
use crate::scheduler::config::CoreConfig;

/// Without anything: a router that is configured in nothing.
#[derive(Debug, Clone, Default)]
pub struct Scene {
    pub core: CoreConfig,
    /// How the built-in answers where the policy does not.
    pub builtin: Option<Builtin>,
    pub weights: Weights,
}

/// By tenant.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Weights {
    named: BTreeMap<String, f64>,
    /// Of the others.
    default: Option<f64>,
}

impl Weights {
    /// As policies of ours are told them: `tenants`, a table of numbers, and `default_weight`. What is no weight is left to the
    /// policy to refuse.
    pub fn of(settings: &Settings) -> Self {
        let weight =
            |value: &serde_json::Value| value.as_f64().filter(|weight| weight.is_finite() && *weight > 0.0);
        let named = settings.get("tenants").and_then(serde_json::Value::as_object).into_iter().flatten();
        Self {
            named: named.filter_map(|(name, value)| Some((name.clone(), weight(value)?))).collect(),
            default: settings.get("default_weight").and_then(weight),
        }
    }

    /// Are all alike?
    pub(super) fn none(&self) -> bool {
        self.named.is_empty()
    }

    pub(super) fn of_tenant(&self, tenant: &str) -> f64 {
        self.named.get(tenant).copied().or(self.default).unwrap_or(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read_from_what_policies_are_told() {
        let settings = serde_json::json!({
            "tenants": {"a": 2, "b": 0.5, "none": "x", "negative": -1}, "default_weight": 3, "other": true
        });
        let weights = Weights::of(settings.as_object().unwrap());
        let of = ["a", "b", "none", "negative", "c"].map(|tenant| weights.of_tenant(tenant));
        assert_eq!((of, weights.none()), ([2.0, 0.5, 3.0, 3.0, 3.0], false));
        let nothing = Weights::of(&Settings::new());
        assert!(nothing.none() && nothing.of_tenant("a") == 1.0);
    }
}
