//! The one place for metric names.

use std::time::Duration;

use crate::model::decision::{Fallback, Hook, PolicyVersion};

/// One policy call. `fallback` says why the built-in stood in for it, if it did.
pub fn decision(hook: Hook, version: &PolicyVersion, fallback: Option<Fallback>, took: Duration) {
    let _ = (hook, version, fallback, took);
}

/// `version` serves from now on; the one before no longer does.
pub fn policy_serves(version: &PolicyVersion) {
    let _ = version;
}

/// A policy file was refused.
pub fn policy_load_failed(reason: &'static str) {
    let _ = reason;
}
