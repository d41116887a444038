//! The world around the core: arrivals, instances that take the time the recording says, a policy, and no disk.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use super::figures::{Curve, Fate, Figures, How};
use super::trace::{Arrival, Trace};
use crate::clock::{Now, Tick};
use crate::model::decision::{Consultation, Hook};
use crate::model::event::History;
use crate::model::id::{InstanceId, JobId, UpstreamId};
use crate::model::job::{Attempt, Job, JobOutcome, Number, Requested};
use crate::policy::tools::Desk;
use crate::scheduler::config::CoreConfig;
use crate::scheduler::core::Core;
use crate::scheduler::input::{
    Action, Announcement, EndKind, Ending, Input, InstanceChange, InstanceSpec, Reply, Restored, Sighting,
};

/// Time between two looks at limits and held jobs while something could come of it, and else.
const BUSY_MS: u64 = 250;
const CALM_MS: u64 = 1_000;
/// A running job is heard of this often.
const PROGRESS_MS: u64 = 5_000;
/// After the last arrival: what has not ended then is counted as open.
const PATIENCE_MS: u64 = 86_400_000;

/// In the order in which they happen at the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Reading(usize),
    End(JobId, u32),
    Progress(JobId, u32),
    Arrive(usize),
    Tick,
}

/// An attempt that an instance runs.
struct Running {
    upstream: UpstreamId,
    started_ms: u64,
    load_ms: u32,
}

struct World<'a> {
    trace: &'a Trace,
    desk: &'a mut Desk,
    core: Core,
    now_ms: u64,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    running: BTreeMap<(JobId, u32), Running>,
    stations: HashMap<InstanceId, usize>,
    /// Beside the arrivals.
    fates: Vec<Fate>,
    rows: HashMap<JobId, usize>,
    waiting: u64,
    queue: Curve,
    /// A tick is among the events.
    ticking: bool,
}

/// The day of the trace, decided by the policy at the desk. The same figures each time.
///
/// # Errors
/// The desk's recording could not be written.
pub fn simulate(trace: &Trace, desk: &mut Desk) -> std::io::Result<Figures> {
    let mut world = World::new(trace, desk);
    world.open_up()?;
    // Without an instance nothing ever starts.
    let patience = if trace.stations.is_empty() { 0 } else { PATIENCE_MS };
    let end = trace.to_ms.saturating_add(patience);
    while let Some(Reverse((at, event))) = world.events.pop() {
        if at > end {
            break;
        }
        world.now_ms = at;
        world.happen(event)?;
    }
    let queue = world.queue.means();
    Ok(Figures::of(&world.fates, queue, &trace.scene.weights))
}

impl<'a> World<'a> {
    fn new(trace: &'a Trace, desk: &'a mut Desk) -> Self {
        let spec = |station: &super::Station| InstanceSpec {
            id: station.name.clone(),
            slots: station.slots,
            labels: station.labels.clone(),
            supervised: false,
        };
        // How many may wait is a matter of service: here everything recorded is to be decided about.
        let config = CoreConfig {
            max_queued: usize::MAX,
            max_queued_per_tenant: usize::MAX,
            text_bytes: usize::MAX,
            ..trace.scene.core.clone()
        };
        if let Some(builtin) = trace.scene.builtin {
            desk.answer_as(builtin);
        }
        let fleet = trace.stations.iter().map(spec).collect();
        let now = at(trace.from_ms, trace.from_ms);
        let mut core = Core::new(config, fleet, Restored::default(), now);
        core.places(desk.exports(Hook::Place));
        let arrivals = trace.arrivals.iter().enumerate();
        let readings = trace.readings.iter().enumerate();
        let events = arrivals
            .map(|(row, arrival)| Reverse((arrival.at_ms, Event::Arrive(row))))
            .chain(readings.map(|(row, reading)| Reverse((reading.at_ms, Event::Reading(row)))))
            .collect();
        let stations = trace.stations.iter().enumerate();
        Self {
            trace,
            desk,
            core,
            now_ms: trace.from_ms,
            events,
            running: BTreeMap::new(),
            stations: stations.map(|(index, station)| (station.name.clone(), index)).collect(),
            fates: trace.arrivals.iter().map(fate).collect(),
            rows: HashMap::new(),
            waiting: 0,
            queue: Curve::new(trace.from_ms, trace.to_ms),
            ticking: false,
        }
    }

    /// Every instance is there from the beginning to the end.
    fn open_up(&mut self) -> std::io::Result<()> {
        for (index, station) in self.trace.stations.iter().enumerate() {
            let can = Arc::new(station.can.clone());
            self.step(Input::Instance { index, change: InstanceChange::Up(can) })?;
            self.step(Input::Instance { index, change: InstanceChange::Linked(true) })?;
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> std::io::Result<()> {
        match event {
            Event::Arrive(row) => {
                let job = Box::new(job(&self.trace.arrivals[row], row));
                self.rows.insert(job.id, row);
                self.step(Input::Submit { request: row as u64, job })?;
            }
            Event::End(job, number) => self.end(job, number, None)?,
            Event::Progress(job, number) => self.progress(job, number)?,
            Event::Reading(row) => {
                let reading = &self.trace.readings[row];
                let age = reading.gpu.reading_age_ms.unwrap_or(0);
                let sampled = Tick(self.tick().0.saturating_sub(age.into()));
                self.step(Input::Readings(vec![(reading.station, reading.gpu, sampled)]))?;
            }
            Event::Tick => {
                self.ticking = false;
                self.step(Input::Tick)?;
            }
        }
        self.keep_ticking();
        Ok(())
    }

    /// While anything is open; a policy that keeps house is asked about an idle fleet too, as long as the day lasts.
    fn keep_ticking(&mut self) {
        let busy = self.waiting > 0;
        let open = busy || !self.running.is_empty();
        let idle_too = self.desk.exports(Hook::Tick) && self.now_ms < self.trace.to_ms;
        if !self.ticking && (open || idle_too) {
            self.ticking = true;
            let pause = if busy { BUSY_MS } else { CALM_MS };
            self.events.push(Reverse((self.now_ms + pause, Event::Tick)));
        }
    }

    fn tick(&self) -> Tick {
        at(self.trace.from_ms, self.now_ms).tick
    }

    /// One input and all that follows from it at once.
    fn step(&mut self, input: Input) -> std::io::Result<()> {
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for action in self.core.step(input, at(self.trace.from_ms, self.now_ms)) {
                match action {
                    Action::Consult { ticket, consultation } => {
                        let decided = self.decide(&consultation)?;
                        inputs.push_back(Input::Decided { ticket, decided });
                    }
                    Action::Commit { ticket, .. } => inputs.push_back(Input::Committed { ticket }),
                    Action::Dispatch { job, attempt } => inputs.push_back(self.dispatch(&job, &attempt)),
                    Action::Inspect { job, attempt } => {
                        let there = self.running.contains_key(&(job.id, attempt.number));
                        let sighting =
                            if there { Sighting::Present { stuck: false } } else { Sighting::Absent };
                        inputs.push_back(Input::Attempt { job: job.id, number: attempt.number, sighting });
                    }
                    Action::Interrupt { upstream, .. } => {
                        let found = self.running.iter().find(|(_, running)| running.upstream == upstream);
                        if let Some((&(job, number), _)) = found {
                            inputs.push_back(self.ended(job, number, Some(EndKind::Interrupted)));
                        }
                    }
                    Action::Reply { request, reply } => self.reply(request as usize, &reply),
                    Action::Announce(announcement) => self.announce(&announcement),
                    Action::Closed(closed) => {
                        self.running.remove(&(closed.job.id, closed.attempt.number));
                    }
                    // What an instance would be told has no consequence here but what the core believes already.
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn decide(&mut self, asked: &Consultation) -> std::io::Result<crate::model::decision::Decided> {
        self.desk.decide(asked)
    }

    fn dispatch(&mut self, job: &Job, attempt: &Attempt) -> Input {
        let station = self.stations[&attempt.instance];
        let resident = self.core.report().swap_remove(station).resident;
        let learnt = &self.trace.learnt;
        let cold = job.needs.models.iter().filter(|model| !resident.contains(model));
        let (loads, load_ms) =
            cold.fold((0, 0_u64), |(n, ms), model| (n + 1, ms + u64::from(learnt.load_ms(model))));
        let row = self.rows[&job.id];
        let arrival = &self.trace.arrivals[row];
        let run_ms = f64::from(arrival.run_ms.unwrap_or_else(|| learnt.run_ms(job.needs.signature)));
        let took = load_ms + (run_ms * learnt.pace(station)) as u64;
        let fate = &mut self.fates[row];
        fate.loads += u32::from(loads > 0);
        fate.load_ms += load_ms;
        if attempt.number == 1 {
            fate.wait_ms = self.now_ms.saturating_sub(arrival.at_ms);
            self.waits(-1);
        }
        let (upstream, load_ms) = (attempt.upstream_id, load_ms.min(u32::MAX.into()) as u32);
        let key = (job.id, attempt.number);
        self.running.insert(key, Running { upstream, started_ms: self.now_ms, load_ms });
        self.events.push(Reverse((self.now_ms + took.max(1), Event::End(key.0, key.1))));
        if took > PROGRESS_MS {
            self.events.push(Reverse((self.now_ms + PROGRESS_MS, Event::Progress(key.0, key.1))));
        }
        Input::Attempt { job: job.id, number: attempt.number, sighting: Sighting::Dispatched }
    }

    fn progress(&mut self, job: JobId, number: u32) -> std::io::Result<()> {
        if !self.running.contains_key(&(job, number)) {
            return Ok(());
        }
        self.events.push(Reverse((self.now_ms + PROGRESS_MS, Event::Progress(job, number))));
        let sighting = Sighting::Progress { nodes_done: 1, node_percent: None };
        self.step(Input::Attempt { job, number, sighting })
    }

    fn end(&mut self, job: JobId, number: u32, kind: Option<EndKind>) -> std::io::Result<()> {
        if !self.running.contains_key(&(job, number)) {
            return Ok(());
        }
        let input = self.ended(job, number, kind);
        self.step(input)
    }

    /// Without a kind it ends as in service.
    fn ended(&mut self, job: JobId, number: u32, kind: Option<EndKind>) -> Input {
        let row = self.rows[&job];
        let mut load_ms = 0;
        if let Some(running) = self.running.remove(&(job, number)) {
            self.fates[row].ran_ms += self.now_ms - running.started_ms;
            load_ms = running.load_ms;
        }
        let kind = kind.unwrap_or(self.trace.arrivals[row].end);
        let ending = Ending { kind, detail: String::new(), history: History::default(), load_ms };
        Input::Attempt { job, number, sighting: Sighting::Ended(ending) }
    }

    fn reply(&mut self, row: usize, reply: &Reply) {
        match reply {
            Reply::Accepted { .. } => self.waits(1),
            Reply::Refused(_) => self.fates[row].how = How::Refused,
            Reply::Done { .. } | Reply::Changed(_) | Reply::NotChanged(_) => {}
        }
    }

    fn announce(&mut self, announcement: &Announcement) {
        let row = self.rows[&announcement.job.id];
        if announcement.attempt.is_none() {
            // It ended in the queue.
            self.waits(-1);
            self.fates[row].wait_ms = self.now_ms.saturating_sub(self.trace.arrivals[row].at_ms);
        }
        self.fates[row].how = match announcement.outcome {
            JobOutcome::Success => How::Done,
            JobOutcome::TimedOut => How::Late,
            JobOutcome::Interrupted | JobOutcome::Cancelled => How::Stopped,
            JobOutcome::Error | JobOutcome::Lost | JobOutcome::Unknown => How::Failed,
        };
    }

    fn waits(&mut self, by: i64) {
        self.waiting = self.waiting.saturating_add_signed(by);
        self.queue.set(self.now_ms, self.waiting as f64);
    }
}

/// Ticks begin a day after zero, so that there is a tick for whatever was before.
fn at(from_ms: u64, now_ms: u64) -> Now {
    Now { tick: Tick(86_400_000 + now_ms.saturating_sub(from_ms)), wall: now_ms }
}

fn fate(arrival: &Arrival) -> Fate {
    Fate {
        tenant: arrival.tenant.clone(),
        class: arrival.class,
        how: How::Open,
        wait_ms: 0,
        ran_ms: 0,
        loads: 0,
        load_ms: 0,
    }
}

fn job(arrival: &Arrival, row: usize) -> Job {
    // Not minted: the same job has the same id each time.
    let id = JobId(Uuid::from_u128(row as u128 + 1));
    Job {
        id,
        prompt_id: id.to_string(),
        number: Number::Counted(0),
        client_id: Some(arrival.client.to_string()),
        tenant: arrival.tenant.to_string(),
        class: arrival.class,
        requested: Requested { number: arrival.number, front: arrival.front },
        accepted_at: arrival.at_ms,
        body: arrival.body.clone(),
        needs: arrival.needs.clone(),
        once: None,
    }
}
