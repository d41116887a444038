//! `policy test`: cases as files. A view goes in, and the decision that comes out is compared with the one written there.
//!
//! Every case has a guest and a `state` of its own; its steps are asked of that guest one after the other, so that memory can
//! be tested. Answers are checked as in service. Deadlines are not: a test must not depend on what else the machine does.

mod ask;
mod expect;
mod file;
mod layout;
mod overlay;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::{Opened, Settings, ToolError, explain, open_with, say};
use crate::policy::check::Check;
use crate::policy::config::{Config, GuestLimits};
use crate::policy::error::LoadError;
use crate::policy::gate;
use crate::policy::wasm::{Guest, Version};
use ask::World;
use file::{Case, File, Step};

/// Wall time of one call: whoever needs more hangs.
const CALL_MS: u64 = 2_000;

/// What to run, and whether to write down what came out.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// Writes each answer that differs, or that nobody expected anything of, into its file.
    pub update: bool,
    /// Only cases whose name contains this.
    pub filter: Option<&'a str>,
}

#[derive(Debug, Default, Serialize)]
pub struct Tested {
    pub files: usize,
    pub passed: usize,
    pub failed: Vec<Failed>,
    /// Files that `update` changed.
    pub updated: Vec<PathBuf>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Failed {
    pub file: PathBuf,
    pub case: String,
    /// Counted from 1.
    pub step: usize,
    pub problem: Problem,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// Another answer.
    Differs { at: String, expected: Value, got: Value },
    /// The file expects nothing yet.
    Unexpected { got: Value },
    /// It could not even be asked, or did not answer.
    Failed(String),
}

impl Tested {
    pub fn passed(&self) -> bool {
        self.failed.is_empty()
    }
}

/// Runs every case of `paths`, files or folders of `*.json`.
pub fn test(
    component: &Path,
    settings: &Settings,
    paths: &[PathBuf],
    options: &Options<'_>,
) -> Result<Tested, ToolError> {
    let limits = GuestLimits { call_ms: CALL_MS, configure_ms: CALL_MS, ..GuestLimits::default() };
    let opened = open_with(component, Config { settings: settings.clone(), limits, ..Config::default() })?;
    let version = opened.version()?;
    let (mut tested, mut cases) = (Tested::default(), 0);
    for path in files(paths)? {
        let mut file = File::read(&path)?;
        cases += file.cases.iter().filter(|case| options.runs(case)).count();
        tested.files += 1;
        let run = Run { opened: &opened, version: &version, options, path: &path };
        let changed = run.file(&mut file, &mut tested);
        if changed {
            file.write(&path)?;
            tested.updated.push(path);
        }
    }
    // A mistyped filter must not pass for success.
    match options.filter {
        Some(filter) if cases == 0 => Err(ToolError::NoSuchCase(filter.to_owned())),
        None if cases == 0 => Err(no_cases(paths)),
        _ => Ok(tested),
    }
}

fn no_cases(paths: &[PathBuf]) -> ToolError {
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    ToolError::NoCases(names.join(", "))
}

impl Options<'_> {
    fn runs(&self, case: &Case) -> bool {
        self.filter.is_none_or(|part| case.name.contains(part))
    }
}

fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ToolError> {
    let mut found = Vec::new();
    for path in paths {
        if path.is_file() {
            found.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).map_err(|error| ToolError::file(path, &error))?;
        let mut inside: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .collect();
        inside.sort();
        found.extend(inside);
    }
    if found.is_empty() { Err(no_cases(paths)) } else { Ok(found) }
}

struct Run<'a> {
    opened: &'a Opened,
    version: &'a Version,
    options: &'a Options<'a>,
    path: &'a Path,
}

impl Run<'_> {
    /// True when an expectation was written.
    fn file(&self, file: &mut File, tested: &mut Tested) -> bool {
        let mut changed = false;
        let shared = file.shared.clone();
        for case in &mut file.cases {
            if !self.options.runs(case) {
                continue;
            }
            let before = tested.failed.len();
            match case.refused.clone() {
                Some(expected) => self.refusal(case, &shared, &expected, tested),
                None => changed |= self.case(case, &shared, tested),
            }
            tested.passed += usize::from(tested.failed.len() == before);
        }
        changed
    }

    fn fail(&self, case: &Case, step: usize, problem: Problem) -> Failed {
        Failed { file: self.path.to_owned(), case: case.name.clone(), step: step + 1, problem }
    }

    /// A fresh guest with the settings of the project, the file and the case, the later ones winning.
    fn guest(&self, case: &Case, shared: &file::Shared) -> Result<Guest, LoadError> {
        let mut settings = self.opened.config.settings.clone();
        settings.extend(shared.settings.clone());
        settings.extend(case.shared.settings.clone());
        let settings = Value::Object(settings).to_string();
        self.version.trial_with(&settings, World::of(shared, &case.shared).now_ms())
    }

    fn refusal(&self, case: &Case, shared: &file::Shared, expected: &str, tested: &mut Tested) {
        let problem = match self.guest(case, shared) {
            Ok(_) => Problem::Failed(format!("its settings were taken, and {expected:?} was expected")),
            Err(LoadError::Settings(said)) if said.contains(expected) => return,
            Err(error) => Problem::Failed(format!("{error}, and {expected:?} was expected")),
        };
        tested.failed.push(self.fail(case, 0, problem));
    }

    fn case(&self, case: &mut Case, shared: &file::Shared, tested: &mut Tested) -> bool {
        let mut guest = match self.guest(case, shared) {
            Ok(guest) => guest,
            Err(error) => {
                tested.failed.push(self.fail(case, 0, Problem::Failed(error.to_string())));
                return false;
            }
        };
        let mut world = World::of(shared, &case.shared);
        let (mut changed, mut problems) = (false, Vec::new());
        for (n, step) in case.steps.iter_mut().enumerate() {
            match self.step(&mut guest, &mut world, step) {
                Ok(got) => match judged(step, got) {
                    None => {}
                    Some((got, _)) if self.options.update => {
                        step.expect = Some(got);
                        changed = true;
                    }
                    Some((_, problem)) => problems.push((n, problem)),
                },
                Err(message) => {
                    problems.push((n, Problem::Failed(message)));
                    // The guest may be dead, and what follows depends on this step anyway.
                    break;
                }
            }
        }
        tested.failed.extend(problems.into_iter().map(|(n, problem)| self.fail(case, n, problem)));
        changed
    }

    fn step(&self, guest: &mut Guest, world: &mut World, step: &Step) -> Result<Value, String> {
        let (hook, asked) = world.ask(step)?;
        if !self.version.exports(hook) {
            return Err(format!("{} is not exported", hook.as_str()));
        }
        let limits = &self.opened.config.limits;
        let check = Check { limits, bounds: &self.opened.config.bounds };
        let said = gate::put_hook(guest, &check, hook, &asked).map_err(|error| {
            let (reason, message) = (error.reason.as_str(), error.message);
            format!("{} failed with {reason}: {message}{}", hook.as_str(), explain::answer(hook, &message))
        })?;
        guest.keep();
        Ok(say::answer(&said))
    }
}

fn judged(step: &Step, got: Value) -> Option<(Value, Problem)> {
    match &step.expect {
        None => Some((got.clone(), Problem::Unexpected { got })),
        Some(expected) => {
            let at = expect::difference(expected, &got)?;
            Some((got.clone(), Problem::Differs { at, expected: expected.clone(), got }))
        }
    }
}

impl fmt::Display for Tested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failed in &self.failed {
            let Failed { file, case, step, problem } = failed;
            writeln!(f, "{}: {case}, step {step}", file.display())?;
            match problem {
                Problem::Differs { at, expected, got } => {
                    writeln!(f, "    differs at {at}\n    expected {expected}\n    got      {got}")?;
                }
                Problem::Unexpected { got } => {
                    writeln!(f, "    expects nothing yet (--update writes it down)\n    got      {got}")?;
                }
                Problem::Failed(message) => writeln!(f, "    {message}")?,
            }
        }
        for path in &self.updated {
            writeln!(f, "updated {}", path.display())?;
        }
        let (files, passed, failed) = (self.files, self.passed, self.failed.len());
        let s = if files == 1 { "" } else { "s" };
        writeln!(f, "{passed} cases of {files} file{s} passed, {failed} steps failed")
    }
}
