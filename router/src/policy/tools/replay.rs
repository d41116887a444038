//! `policy replay`: recorded decisions are made again, by one policy or two, and compared: with each other, or with what was
//! decided in service.

mod desk;
mod log;
mod report;
mod seat;

pub use desk::Desk;
pub use log::Recorded;
use report::Decision;
pub(crate) use report::{Difference, SHOWN, shown};
pub use report::{HookTally, Replayed};

use std::path::{Path, PathBuf};

use super::{Settings, ToolError, say};
use crate::model::decision::{Consultation, Hook};
use seat::{Answered, Heard, Seat};

/// A policy with the settings it is replayed with.
#[derive(Debug, Clone, Copy)]
pub struct Player<'a> {
    pub component: &'a Path,
    pub settings: &'a Settings,
}

/// Puts every question of the logs to `first`, and to `second` if there is one. Without, the recording is what is compared
/// with. `each` is shown every line.
///
/// A guest begins as it does after a restart, with nothing in `state`; a recording that does not begin there too may differ
/// until both remember the same.
pub fn replay(
    logs: &[PathBuf],
    first: &Player<'_>,
    second: Option<&Player<'_>>,
    mut each: impl FnMut(&Recorded),
) -> Result<Replayed, ToolError> {
    let mut first = Seat::new(first)?;
    let mut second = second.map(Seat::new).transpose()?;
    let against = second.as_ref().map(|seat| seat.opened.id.clone());
    let mut replayed = Replayed::new(first.opened.id.clone(), against);
    log::read(logs, |recorded| {
        compare(&mut replayed, recorded, &mut first, second.as_mut());
        each(recorded);
    })?;
    Ok(replayed)
}

/// Only reads the logs.
pub fn recorded(logs: &[PathBuf], each: impl FnMut(&Recorded)) -> Result<(), ToolError> {
    log::read(logs, each)
}

fn compare(replayed: &mut Replayed, recorded: &Recorded, first: &mut Seat, second: Option<&mut Seat>) {
    let Recorded { line, asked, said } = recorded;
    let one = decisions(first, asked);
    let other: Vec<(Hook, Decision)> = match second {
        Some(second) => decisions(second, asked),
        None => said.iter().map(|saying| (saying.hook, Decision::recorded(saying))).collect(),
    };
    for (hook, decision) in &one {
        let counterpart = other.iter().find(|(other, _)| other == hook).map(|(_, decision)| decision);
        replayed.note(*line, asked.context.now_ms, *hook, decision, counterpart);
    }
}

fn decisions(seat: &mut Seat, asked: &Consultation) -> Vec<(Hook, Decision)> {
    let decision = |Heard { hook, answer, took_us }: Heard| {
        let decision = match answer {
            Answered::NotExported(said) => Decision::not_exported(said),
            Answered::Failed(failure) => Decision::failed(failure, took_us),
            Answered::Said(said) => {
                let (text, reason) = say::line(&said, asked);
                Decision::made(text, reason, say::answer(&said), took_us)
            }
        };
        (hook, decision)
    };
    seat.hear(asked).into_iter().map(decision).collect()
}
