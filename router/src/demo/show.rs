//! From what is known to the live picture, and to plain lines where there is no terminal.

use std::time::Duration;

use super::board::{Board, Entry, State};
use super::instances;
use super::picture::{CardRow, DecisionRow, Event, InstanceRow, Picture, Runs, clock};
use super::watch::{self, Watch};
use crate::model::decision::{DecisionRecord, Fallback};

pub(super) fn picture(
    address: &str,
    elapsed: Duration,
    board: &Board,
    watch: &Watch,
    events: &[Event],
) -> Picture {
    Picture {
        address: address.to_owned(),
        elapsed,
        policy: watch::named(&watch.policy.serving),
        counts: board.counts(),
        instances: watch.instances.iter().map(|instance| instance_row(instance, board)).collect(),
        cards: watch.devices.iter().map(|device| card_row(device, watch)).collect(),
        decisions: watch.decisions.iter().map(|record| decision_row(record, board)).collect(),
        events: events.to_vec(),
    }
}

fn instance_row(instance: &watch::Instance, board: &Board) -> InstanceRow {
    let entry = instance.running.first().and_then(|job| board.by_job(*job));
    let runs = entry.map(|entry| Runs {
        label: entry.label(),
        doing: match entry.state {
            State::Running(doing) => Some(doing),
            _ => None,
        },
    });
    let stem = |name: &str| name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_owned();
    let reason = || instance.reason.clone().unwrap_or_else(|| instance.state.clone());
    InstanceRow {
        name: instance.name.to_string(),
        version: instance.version.as_deref().unwrap_or("?").to_owned(),
        card: instances::card_of(&instance.name),
        down: (instance.state != "up").then(reason),
        free_slots: instance.free_slots,
        runs,
        resident: instance.resident_models.iter().map(|model| stem(&model.name)).collect(),
    }
}

fn card_row(device: &watch::Device, watch: &Watch) -> CardRow {
    let index = device.index.unwrap_or_default();
    let reads = watch.instances.iter().find(|instance| instances::card_of(&instance.name) == Some(index));
    CardRow {
        index,
        utilization: device.utilization_percent,
        used_bytes: device.memory_used_bytes,
        total_bytes: device.memory_total_bytes,
        temperature_c: device.temperature_c,
        power_mw: device.power_mw,
        power_limit_mw: device.power_limit_mw,
        age: reads.and_then(watch::Instance::reading_age),
    }
}

fn decision_row(record: &DecisionRecord, board: &Board) -> DecisionRow {
    let entry = record.job.and_then(|job| board.by_job(job));
    DecisionRow {
        age: watch::since(record.at),
        hook: record.hook.as_str(),
        job: entry.map(Entry::label).unwrap_or_default(),
        said: record.said.clone(),
        reason: record.reason.clone(),
        policy: watch::named(&record.version),
        took_us: record.took_us,
        fallback: record.fallback.map(Fallback::as_str),
    }
}

/// One line for a log or a pipe.
pub(super) fn status(picture: &Picture) -> String {
    let counts = &picture.counts;
    let mut text = format!(
        "{}  {} queued, {} running, {} of {} done, {} failed",
        clock(picture.elapsed),
        counts.queued,
        counts.running,
        counts.done,
        counts.planned,
        counts.failed,
    );
    for card in &picture.cards {
        let percent = card.utilization.map_or("?".to_owned(), |percent| format!("{percent:.0}"));
        text.push_str(&format!("  GPU {} {percent}%", card.index));
    }
    if let Some(last) = picture.decisions.iter().find(|row| !row.job.is_empty()) {
        text.push_str(&format!("  last: {} -> {}", last.job, last.said));
        if !last.reason.is_empty() {
            text.push_str(&format!(" ({})", last.reason));
        }
    }
    text
}

pub(super) fn event(event: &Event) -> String {
    format!("{}  {}", clock(event.at), event.text)
}

#[cfg(test)]
mod tests {
    use super::super::board::Counts;
    use super::*;

    #[test]
    fn a_status_line_says_the_essentials() {
        let row = DecisionRow {
            job: "ann sdxl".into(),
            said: "gpu0-a".into(),
            reason: "models are there".into(),
            ..DecisionRow::default()
        };
        let picture = Picture {
            elapsed: Duration::from_secs(9),
            counts: Counts { planned: 9, queued: 1, running: 2, done: 3, ..Counts::default() },
            cards: vec![CardRow { utilization: Some(97.6), ..CardRow::default() }],
            decisions: vec![row],
            ..Picture::default()
        };
        assert_eq!(
            status(&picture),
            "0:09  1 queued, 2 running, 3 of 9 done, 0 failed  GPU 0 98%  last: ann sdxl -> gpu0-a (models are there)"
        );
    }
}
