//! `policy check`: would this component serve, and what does it say?

use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::{Settings, ToolError, explain, open, say};
use crate::model::decision::{Consultation, Fallback, Hook, PolicyVersion};
use crate::policy::check::Check;
use crate::policy::error::{LoadError, WIT_VERSION};
use crate::policy::wasm::{Description, Guest, Version};
use crate::policy::{gate, handle, sample};

/// A component of this size takes seconds to compile at every start.
const LARGE_BYTES: usize = 8 * 1024 * 1024;

/// A deadline missed so often in a row is not the machine's fault.
const PATIENCE: u32 = 20;

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub version: PolicyVersion,
    pub bytes: usize,
    /// The version of `comfy-router:policy` that the router has; what the component was built for is in its exports.
    pub wit: &'static str,
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    /// Hooks that will be asked.
    pub hooks: Vec<Hook>,
    /// What each of them said about one sample view.
    pub said: Vec<(Hook, String)>,
    /// Linear memory after the load gate.
    pub memory_bytes: usize,
    pub warnings: Vec<String>,
    /// Why it would not serve.
    pub refused: Option<String>,
}

impl Report {
    pub fn passed(&self) -> bool {
        self.refused.is_none()
    }
}

/// Does everything that loading does, and says what was found. Fails only when there is nothing to look at.
pub fn check(path: &Path, settings: &Settings) -> Result<Report, ToolError> {
    let opened = open(path, settings)?;
    let Description { imports, exports } = crate::policy::wasm::describe(&opened.engine, &opened.bytes)
        .map_err(|error| opened.refused(error))?;
    let mut report = Report {
        version: opened.id.clone(),
        bytes: opened.bytes.len(),
        wit: WIT_VERSION,
        imports,
        exports,
        hooks: Vec::new(),
        said: Vec::new(),
        memory_bytes: 0,
        warnings: Vec::new(),
        refused: None,
    };
    let (limits, bounds) = (&opened.config.limits, &opened.config.bounds);
    let outcome = opened.compile().and_then(|version| {
        report.hooks = version.hooks().to_vec();
        gate::pass(&version, limits, bounds, now_ms())?;
        dry_run(&version, &Check { limits, bounds }, &mut report)
    });
    report.refused = outcome.err().map(|error| explain::refusal(&error));
    report.warnings = warnings(&report, settings);
    Ok(report)
}

fn now_ms() -> u64 {
    use crate::clock::Clock as _;
    crate::clock::SystemClock::default().now().wall
}

fn dry_run(version: &Version, check: &Check<'_>, report: &mut Report) -> Result<(), LoadError> {
    let mut guest = version.trial(now_ms())?;
    for question in sample::questions(1, 4) {
        let asked = sample::ask(1, 4, question);
        for &hook in handle::hooks(&asked.question) {
            if version.exports(hook) && !report.said.iter().any(|(said, _)| *said == hook) {
                let said = patiently(version, &mut guest, |guest| hook_says(guest, check, hook, &asked))?;
                report.said.push((hook, said));
            }
        }
    }
    report.memory_bytes = guest.memory();
    Ok(())
}

/// Asks a fresh guest again after a missed deadline: the gate has judged how fast it is, and the machine may be busy.
fn patiently<T>(
    version: &Version,
    guest: &mut Guest,
    mut ask: impl FnMut(&mut Guest) -> Result<T, LoadError>,
) -> Result<T, LoadError> {
    let mut missed = 0;
    loop {
        match ask(guest) {
            Err(LoadError::Gate { reason, .. })
                if reason == Fallback::Deadline.as_str() && missed < PATIENCE =>
            {
                missed += 1;
                *guest = version.trial(now_ms())?;
            }
            answer => return answer,
        }
    }
}

fn hook_says(
    guest: &mut Guest,
    check: &Check<'_>,
    hook: Hook,
    asked: &Consultation,
) -> Result<String, LoadError> {
    let answer = gate::put_hook(guest, check, hook, asked).map_err(|e| LoadError::Gate {
        hook,
        reason: e.reason.as_str(),
        message: e.message,
    })?;
    let (said, reason) = say::line(&answer, asked);
    Ok(match (said.is_empty(), reason.is_empty()) {
        (true, _) => "ok".to_owned(),
        (false, true) => said,
        (false, false) => format!("{said} ({reason})"),
    })
}

fn warnings(report: &Report, settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    if report.bytes > LARGE_BYTES {
        warnings.push(format!("{} bytes take seconds to compile at every start", report.bytes));
    }
    if !settings.is_empty() && !report.hooks.is_empty() && !report.hooks.contains(&Hook::Configure) {
        warnings.push("it exports no lifecycle, so its settings are never looked at".to_owned());
    }
    for export in &report.exports {
        if !export.starts_with("comfy-router:policy/") {
            warnings.push(format!("its export {export} is never called"));
        }
    }
    warnings
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}: {} KiB", self.version.name, self.version.digest, self.bytes.div_ceil(1024))?;
        writeln!(f, "this router has comfy-router:policy@{}", self.wit)?;
        list(f, "exports", &self.exports)?;
        list(f, "imports", &self.imports)?;
        for (hook, said) in &self.said {
            writeln!(f, "  {:<12} {said}", hook.as_str())?;
        }
        if self.memory_bytes > 0 {
            writeln!(f, "memory: {} KiB", self.memory_bytes.div_ceil(1024))?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        match &self.refused {
            None => write!(f, "it may serve"),
            Some(reason) => write!(f, "refused: {reason}"),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, what: &str, names: &[String]) -> fmt::Result {
    let names: Vec<&str> = names.iter().map(|name| name.trim_start_matches("comfy-router:policy/")).collect();
    writeln!(f, "{what}: {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") })
}
