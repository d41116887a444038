//! A policy that answers one question after the other on the caller's thread, as it would in service.

use std::time::Instant;

use super::Player;
use crate::model::decision::{Admission, Consultation, Hook};
use crate::policy::check::Check;
use crate::policy::config::{Config, GuestLimits};
use crate::policy::gate::{self, Said};
use crate::policy::handle::{hooks, micros};
use crate::policy::tools::{Opened, ToolError, open_with};
use crate::policy::wasm::{Guest, Version};
use crate::policy::{native, record};

/// Wall time of one call: a replay on a busy machine decides as service on an idle one.
const CALL_MS: u64 = 2_000;

/// The clock of a guest that is asked nothing.
const FIRST_MS: u64 = 1_700_000_000_000;

pub(super) struct Seat {
    pub(super) opened: Opened,
    pub(super) version: Version,
    guest: Option<Guest>,
}

/// What came of asking one hook.
pub(super) struct Heard {
    pub(super) hook: Hook,
    pub(super) answer: Answered,
    pub(super) took_us: u32,
}

pub(super) enum Answered {
    Said(Said),
    /// What the built-in says, in one line.
    NotExported(String),
    Failed(String),
}

impl Seat {
    pub(super) fn new(player: &Player<'_>) -> Result<Self, ToolError> {
        let limits = GuestLimits { call_ms: CALL_MS, configure_ms: CALL_MS, ..GuestLimits::default() };
        let settings = player.settings.clone();
        let opened = open_with(player.component, Config { settings, limits, ..Config::default() })?;
        let version = opened.version()?;
        // One that refuses its settings would fail at every question.
        version.trial(FIRST_MS).map_err(|error| opened.refused(error))?;
        Ok(Self { opened, version, guest: None })
    }

    /// What each hook of the question says, as service would ask them. After a refusal nothing more is asked about a job.
    pub(super) fn hear(&mut self, asked: &Consultation) -> Vec<Heard> {
        let mut heard = Vec::with_capacity(3);
        for &hook in hooks(&asked.question) {
            if !self.version.exports(hook) {
                let answer = Answered::NotExported(natively(hook, asked, &self.opened.config));
                heard.push(Heard { hook, answer, took_us: 0 });
                continue;
            }
            let started = Instant::now();
            let answer = self.ask(hook, asked);
            let refused = matches!(answer, Answered::Said(Said::Admission(Admission::Reject { .. })));
            heard.push(Heard { hook, answer, took_us: micros(started.elapsed()) });
            if refused {
                break;
            }
        }
        heard
    }

    fn ask(&mut self, hook: Hook, asked: &Consultation) -> Answered {
        let guest = match self.guest.take().map_or_else(|| self.version.trial(asked.context.now_ms), Ok) {
            Ok(guest) => self.guest.insert(guest),
            Err(error) => return Answered::Failed(error.to_string()),
        };
        let check = Check { limits: &self.opened.config.limits, bounds: &self.opened.config.bounds };
        match gate::put_hook(guest, &check, hook, asked) {
            Ok(said) => {
                guest.keep();
                Answered::Said(said)
            }
            Err(error) => {
                if error.dead {
                    self.guest = None;
                }
                Answered::Failed(format!("{}: {}", error.reason.as_str(), error.message))
            }
        }
    }
}

fn natively(hook: Hook, asked: &Consultation, config: &Config) -> String {
    let answer = native::answer(&asked.question, config);
    let sayings = record::sayings(&answer, &asked.question, &asked.context);
    sayings.into_iter().find(|(its, ..)| *its == hook).map(|(_, said, _)| said).unwrap_or_default()
}
