//! Instances that the router starts itself.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::instance::Gpu;
use super::sections::Secret;

/// What each of them is started with, and how many there are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Launch {
    /// Program and arguments. In each argument, and in the values of `env`, `{port}`, `{name}`, `{gpu}` and `{dir}`, a folder of
    /// its own in the state directory, are put in. Empty: the router starts no instances.
    pub command: Vec<String>,
    /// Where it is started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<PathBuf>,
    /// Variables besides the router's own and `CUDA_VISIBLE_DEVICES`.
    pub env: BTreeMap<String, Secret>,
    /// The GPUs, one after the other. Absent: all that the driver lists. Empty: one place without a GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Vec<Gpu>>,
    /// Instances on each GPU. Absent: 1, or with `vram_gib` as many as fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_gpu: Option<u32>,
    /// GPU memory that one instance needs, in GiB. A GPU is given no more of them than fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vram_gib: Option<f64>,
    /// Of the first; the others have those that follow.
    pub port: u16,
    /// They are left running when the router ends, and taken up again by the next.
    pub keep: bool,
    /// How long one may take to end before it is killed.
    pub stop_s: u64,
}

impl Default for Launch {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            cwd: None,
            env: BTreeMap::new(),
            gpus: None,
            per_gpu: None,
            vram_gib: None,
            port: 8188,
            keep: false,
            stop_s: 10,
        }
    }
}

impl Launch {
    pub fn is_off(&self) -> bool {
        self.command.is_empty()
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.command.iter().map(String::as_str).chain(self.env.values().map(Secret::reveal))
    }

    /// Why it cannot be meant so: the key, what is wrong with it, and what to do.
    pub(super) fn flaws(&self) -> Vec<(&'static str, &'static str, &'static str)> {
        const COMMAND: &str =
            "write a program and its arguments, such as [\"python\", \"main.py\", \"--port\", \"{port}\"]";
        let mut flaws = Vec::new();
        if self.is_off() {
            if *self != Self::default() {
                flaws.push(("command", "is missing", COMMAND));
            }
            return flaws;
        }
        if self.command[0].trim().is_empty() {
            flaws.push(("command", "names no program", COMMAND));
        }
        if !self.texts().any(|text| text.contains("{port}")) {
            let help = "add \"--port\", \"{port}\": each instance has a port of its own";
            flaws.push(("command", "does not say {port}", help));
        }
        if self.vram_gib.is_some_and(|gib| !(0.1..=4_096.0).contains(&gib)) {
            flaws.push(("vram_gib", "must be 0.1 to 4096", ""));
        }
        if self.vram_gib.is_some() && self.gpus.as_ref().is_some_and(Vec::is_empty) {
            flaws.push(("vram_gib", "is of no use without GPUs", "leave it or `gpus` out"));
        }
        flaws
    }
}
