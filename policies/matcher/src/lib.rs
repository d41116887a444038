//! A fixture for tests: places a window of the queue at once, each job on the first seat offered that has room, or
//! misbehaves as its settings say: `{"do": "duplicate"}`.

use comfy_router_policy::{
    Job, Lifecycle, Offer, Pair, Placement, PlacementDecision, Seat, clock, settings, workflow,
};
use serde::Deserialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Deed {
    #[default]
    Match,
    /// Leaves all jobs out.
    Nobody,
    /// A job that is not there.
    Unknown,
    /// The same pair twice.
    Duplicate,
    /// A hundred thousand pairs.
    LongList,
    /// More jobs on a seat than it has room for.
    Crowd,
    Trap,
    /// Says how many node classes it was shown of each job.
    Classes,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Matcher {
    r#do: Deed,
    /// The clock at which it begins to misbehave.
    from_ms: f64,
}

comfy_router_policy::export!(Matcher: lifecycle, placement);

impl Lifecycle for Matcher {
    fn configure(json: &str) -> Result<Self, String> {
        settings(json)
    }
}

impl Placement for Matcher {
    fn place(&mut self, jobs: &[Job], seats: &[Seat], offers: &[Offer]) -> PlacementDecision {
        let deed = if clock::now_ms() < self.from_ms { Deed::Match } else { self.r#do };
        let good = matched(seats, offers);
        let pairs = match deed {
            Deed::Nobody => Vec::new(),
            Deed::Unknown => vec![Pair { job: jobs.len() as u32, seat: 0 }],
            Deed::Duplicate => good.iter().chain(&good).copied().collect(),
            Deed::LongList => vec![Pair { job: 0, seat: 0 }; 100_000],
            Deed::Crowd => crowd(seats, offers),
            #[cfg(target_arch = "wasm32")]
            Deed::Trap => core::arch::wasm32::unreachable(),
            _ => good,
        };
        let reason = match deed {
            Deed::Classes => classes(jobs),
            _ => format!("{} of {} jobs on {} seats", pairs.len(), jobs.len(), seats.len()),
        };
        PlacementDecision { pairs, hold_ms: u32::MAX, reason }
    }
}

fn matched(seats: &[Seat], offers: &[Offer]) -> Vec<Pair> {
    let mut free: Vec<u32> = seats.iter().map(|seat| seat.free_slots).collect();
    let mut pairs: Vec<Pair> = Vec::new();
    for offer in offers {
        let placed = pairs.iter().any(|pair| pair.job == offer.job);
        let left = &mut free[offer.seat as usize];
        if !placed && *left > 0 {
            *left -= 1;
            pairs.push(Pair { job: offer.job, seat: offer.seat });
        }
    }
    pairs
}

/// Every job that could run there on the first seat with room.
fn crowd(seats: &[Seat], offers: &[Offer]) -> Vec<Pair> {
    let free = |offer: &&Offer| seats[offer.seat as usize].free_slots > 0;
    let Some(first) = offers.iter().find(free).map(|offer| offer.seat) else { return Vec::new() };
    let there = offers.iter().filter(|offer| offer.seat == first);
    there.map(|offer| Pair { job: offer.job, seat: first }).collect()
}

fn classes(jobs: &[Job]) -> String {
    let counts: Vec<String> =
        jobs.iter().map(|job| workflow::node_classes(job.handle).len().to_string()).collect();
    counts.join(",")
}
