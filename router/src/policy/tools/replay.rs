//! `policy replay`: recorded decisions are made again, by one policy or two, and compared: with each other, or with what was
//! decided in service.

mod report;

use report::Decision;
pub use report::Replayed;

use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{Opened, Settings, ToolError, open_with};
use crate::model::decision::{Admission, Consultation, Hook};
use crate::policy::check::Check;
use crate::policy::config::{Config, GuestLimits};
use crate::policy::gate::{self, Said};
use crate::policy::handle;
use crate::policy::recording::{Reader, Saying};
use crate::policy::wasm::{Guest, Version};

use super::say;

/// Wall time of one call: a replay on a busy machine decides as service on an idle one.
const CALL_MS: u64 = 2_000;

/// A policy with the settings it is replayed with.
#[derive(Debug)]
pub struct Player<'a> {
    pub component: &'a Path,
    pub settings: &'a Settings,
}

/// Puts every question of the logs to `first`, and to `second` if there is one. Without, the recording is what is compared with.
///
/// A guest begins as it does after a restart, with nothing in `state`; a recording that does not begin there too may differ
/// until both remember the same.
pub fn replay(
    logs: &[PathBuf],
    first: &Player<'_>,
    second: Option<&Player<'_>>,
) -> Result<Replayed, ToolError> {
    let first_opened = opened(first)?;
    let second_opened = second.map(opened).transpose()?;
    let mut first = Seat::new(&first_opened)?;
    let mut second = second_opened.as_ref().map(Seat::new).transpose()?;
    let against = second.as_ref().map(|seat| seat.opened.id.clone());
    let mut replayed = Replayed::new(first_opened.id.clone(), against);
    for path in logs {
        let file = std::fs::File::open(path).map_err(|error| ToolError::file(path, &error))?;
        let mut reader = Reader::default();
        for (n, line) in std::io::BufReader::new(file).lines().enumerate() {
            let line = line.map_err(|error| ToolError::file(path, &error))?;
            let (asked, said) = reader.read(&line).map_err(|error| ToolError::Log {
                path: path.clone(),
                line: n + 1,
                message: error.to_string(),
            })?;
            compare(&mut replayed, n + 1, &asked, &said, &mut first, second.as_mut());
        }
    }
    Ok(replayed)
}

fn opened(player: &Player<'_>) -> Result<Opened, ToolError> {
    let limits = GuestLimits { call_ms: CALL_MS, configure_ms: CALL_MS, ..GuestLimits::default() };
    open_with(player.component, Config { settings: player.settings.clone(), limits, ..Config::default() })
}

/// A guest that answers one question after the other.
struct Seat<'a> {
    opened: &'a Opened,
    version: Version,
    guest: Option<Guest>,
}

impl<'a> Seat<'a> {
    fn new(opened: &'a Opened) -> Result<Self, ToolError> {
        Ok(Self { opened, version: opened.compile()?, guest: None })
    }

    /// What each hook of the question says, as service would ask them.
    fn decide(&mut self, asked: &Consultation) -> Vec<(Hook, Decision)> {
        let mut decisions = Vec::new();
        for &hook in handle::hooks(&asked.question) {
            if !self.version.exports(hook) {
                decisions.push((hook, Decision::not_exported()));
                continue;
            }
            let (decision, refused) = self.ask(hook, asked);
            decisions.push((hook, decision));
            if refused {
                break;
            }
        }
        decisions
    }

    /// The decision, and whether it refuses the job, after which nothing more is asked about it.
    fn ask(&mut self, hook: Hook, asked: &Consultation) -> (Decision, bool) {
        if self.guest.is_none() {
            self.guest = self.version.trial(asked.context.now_ms).ok();
        }
        let Some(guest) = &mut self.guest else {
            return (Decision::failed("a guest could not be made".to_owned(), 0), false);
        };
        let check = Check { limits: &self.opened.config.limits, bounds: &self.opened.config.bounds };
        let started = Instant::now();
        let said = gate::put_hook(guest, &check, hook, asked);
        let took_us = started.elapsed().as_micros().try_into().unwrap_or(u32::MAX);
        match said {
            Ok(said) => {
                guest.keep();
                let refused = matches!(said, Said::Admission(Admission::Reject { .. }));
                let (text, reason) = say::line(&said, asked);
                (Decision::made(text, reason, say::answer(&said), took_us), refused)
            }
            Err(error) => {
                if error.dead {
                    self.guest = None;
                }
                (Decision::failed(format!("{}: {}", error.reason.as_str(), error.message), took_us), false)
            }
        }
    }
}

fn compare(
    replayed: &mut Replayed,
    line: usize,
    asked: &Consultation,
    recorded: &[Saying],
    first: &mut Seat<'_>,
    second: Option<&mut Seat<'_>>,
) {
    let one = first.decide(asked);
    let other: Vec<(Hook, Decision)> = match second {
        Some(second) => second.decide(asked),
        None => recorded.iter().map(|saying| (saying.hook, Decision::recorded(saying))).collect(),
    };
    for (hook, decision) in &one {
        let counterpart = other.iter().find(|(other, _)| other == hook).map(|(_, decision)| decision);
        replayed.note(line, asked.context.now_ms, *hook, decision, counterpart);
    }
}
