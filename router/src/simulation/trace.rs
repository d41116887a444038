//! What a recording says about a day: who asked for what and when, on which instances, and how long it ran.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::figures::{Fate, How};
use super::learnt::{Learnt, Sample};
use super::scene::Scene;
use crate::model::decision::{AttemptReport, Consultation, Hook, Question, ResultKind};
use crate::model::id::{InstanceId, JobId};
use crate::model::job::{Body, JobClass, Needs};
use crate::model::view::{Candidate, Capabilities, Context, GpuView, JobView};
use crate::policy::tools::Recorded;
use crate::scheduler::input::EndKind;

/// What a recording says after this long is left out: no day, but a broken clock or a joke.
const LONGEST_MS: u64 = 31 * 86_400_000;

/// No clock is right that says more: the year is beyond 10 000.
const LATEST_MS: u64 = 1 << 48;

/// GPU figures of an instance are taken up at most this often.
const READING_MS: u64 = 10_000;

#[derive(Debug, Default)]
pub struct Trace {
    pub stations: Vec<Station>,
    /// In the order of their times.
    pub arrivals: Vec<Arrival>,
    pub readings: Vec<Reading>,
    pub learnt: Learnt,
    /// What the recording does not say.
    pub scene: Scene,
    pub from_ms: u64,
    /// The last line's time.
    pub to_ms: u64,
    /// How the jobs fared in service, as far as the recording has their ends, and how many waited when.
    pub(super) served: Vec<Fate>,
    pub(super) queue: Vec<(u64, u32)>,
}

/// An instance.
#[derive(Debug, Clone)]
pub struct Station {
    pub name: InstanceId,
    pub labels: Arc<HashMap<String, String>>,
    pub slots: u32,
    pub can: Capabilities,
}

#[derive(Debug, Clone)]
pub struct Arrival {
    pub at_ms: u64,
    pub tenant: Arc<str>,
    pub client: Arc<str>,
    pub class: JobClass,
    pub number: Option<f64>,
    pub front: bool,
    pub needs: Arc<Needs>,
    pub body: Arc<Body>,
    /// On an instance of common speed with its models loaded; none where the recording has no end of such a job.
    pub run_ms: Option<u32>,
    pub end: EndKind,
}

#[derive(Debug, Clone)]
pub struct Reading {
    pub at_ms: u64,
    pub station: usize,
    pub gpu: GpuView,
}

/// Takes up a recording line by line.
#[derive(Debug, Default)]
pub struct Gather {
    trace: Trace,
    by_name: HashMap<InstanceId, usize>,
    by_job: HashMap<JobId, usize>,
    /// Beside the arrivals: what is known of each one's way.
    ways: Vec<Way>,
    last_reading: BTreeMap<usize, u64>,
}

#[derive(Debug, Default)]
struct Way {
    refused: bool,
    /// When it was last asked where it should run: each station that was offered, with the models it lacked, a bit for each.
    offers: Vec<(usize, u64)>,
    /// Of the first attempt.
    wait_ms: Option<u32>,
    last: Option<(AttemptReport, usize)>,
    loads: u32,
    load_ms: u64,
    ran_ms: u64,
}

impl Gather {
    pub fn note(&mut self, recorded: &Recorded) {
        let asked = &recorded.asked;
        let now = asked.context.now_ms.min(LATEST_MS);
        if self.trace.from_ms == 0 {
            self.trace.from_ms = now;
        }
        self.trace.to_ms = self.trace.to_ms.max(now);
        self.trace.queue.push((now, asked.context.all.queued));
        match &asked.question {
            Question::Intake { job, .. } => {
                let refused = recorded.said(Hook::Admit).is_some_and(|said| said.starts_with("reject"));
                let row = self.arrival(asked, job, now);
                self.ways[row].refused = refused;
            }
            Question::Route { job, candidates } => self.offered(asked, job, candidates),
            Question::Tick { instances } => {
                for view in instances {
                    self.reading(&asked.context, view.instance, view.gpu);
                }
            }
            Question::Observe { outcomes } => {
                outcomes.iter().for_each(|outcome| self.outcome(&asked.context, outcome));
            }
            Question::Place { seats, .. } => {
                for seat in seats {
                    if let Some(station) = self.station(&asked.context, seat.instance) {
                        let known = &mut self.trace.stations[station];
                        known.slots = known.slots.max(seat.free_slots);
                    }
                    self.reading(&asked.context, seat.instance, seat.gpu);
                }
            }
            Question::Reassess { .. } | Question::OnTimeout { .. } | Question::OnFailure { .. } => {}
        }
    }

    /// The job's row; a new one if it was not heard of before.
    fn arrival(&mut self, asked: &Consultation, job: &JobView, at_ms: u64) -> usize {
        if let Some(row) = asked.job.and_then(|id| self.by_job.get(&id)) {
            return *row;
        }
        let name = |list: &[(Arc<str>, crate::model::view::Totals)], index: u32| {
            list.get(index as usize).map_or_else(|| format!("#{index}").into(), |(name, _)| name.clone())
        };
        let row = self.trace.arrivals.len();
        self.trace.arrivals.push(Arrival {
            at_ms,
            tenant: name(&asked.context.tenants, job.tenant),
            client: name(&asked.context.clients, job.client),
            class: job.class,
            number: job.number,
            front: job.front,
            needs: Arc::new(needs(job)),
            body: Arc::new(body(job)),
            run_ms: None,
            end: EndKind::Success,
        });
        self.ways.push(Way::default());
        if let Some(id) = asked.job {
            self.by_job.insert(id, row);
        }
        row
    }

    fn offered(&mut self, asked: &Consultation, job: &JobView, candidates: &[Candidate]) {
        // One whose arrival the recording no longer has came when it says it did.
        let came = asked.context.now_ms.min(LATEST_MS).saturating_sub(job.waited_ms.into());
        let row = self.arrival(asked, job, came);
        let mut offers = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let Some(station) = self.station(&asked.context, candidate.instance) else { continue };
            let needs = self.trace.arrivals[row].needs.clone();
            offers.push((station, lacking(&needs, &asked.context, candidate.instance)));
            self.trace.stations[station].learn(&needs, candidate.free_slots);
            self.reading(&asked.context, candidate.instance, candidate.gpu);
        }
        self.ways[row].offers = offers;
    }

    fn outcome(&mut self, context: &Context, report: &AttemptReport) {
        let Some(station) = self.station(context, report.instance) else { return };
        let Some(&row) = report.job.and_then(|id| self.by_job.get(&id)) else { return };
        let way = &mut self.ways[row];
        way.wait_ms = Some(way.wait_ms.map_or(report.wait_ms, |first| first.min(report.wait_ms)));
        way.load_ms += u64::from(report.load_ms);
        way.ran_ms += u64::from(report.run_ms);
        let cold = way.offers.iter().find(|(offered, _)| *offered == station).map_or(0, |(_, cold)| *cold);
        way.loads += u32::from(cold > 0);
        way.last = Some((report.clone(), station));
        if matches!(report.kind, ResultKind::Success | ResultKind::Error) {
            let needs = self.trace.arrivals[row].needs.clone();
            let run_ms = report.run_ms.saturating_sub(report.load_ms);
            self.trace.learnt.add(Sample { needs, station, run_ms, load_ms: report.load_ms, cold });
        }
    }

    fn station(&mut self, context: &Context, index: u32) -> Option<usize> {
        let texts = context.fleet.get(index as usize)?;
        if let Some(known) = self.by_name.get(&texts.name) {
            return Some(*known);
        }
        let (name, labels) = (texts.name.clone(), texts.labels.clone());
        self.by_name.insert(name.clone(), self.trace.stations.len());
        self.trace.stations.push(Station { name, labels, slots: 1, can: Capabilities::default() });
        Some(self.trace.stations.len() - 1)
    }

    fn reading(&mut self, context: &Context, index: u32, gpu: GpuView) {
        if gpu.reading_age_ms.is_none() {
            return;
        }
        let Some(station) = self.station(context, index) else { return };
        let at_ms = context.now_ms.min(LATEST_MS);
        let last = self.last_reading.entry(station).or_insert(0);
        if *last == 0 || at_ms.saturating_sub(*last) >= READING_MS {
            *last = at_ms;
            self.trace.readings.push(Reading { at_ms, station, gpu });
        }
    }

    pub fn trace(mut self) -> Trace {
        self.trace.learnt.conclude(self.trace.stations.len());
        let (from_ms, mut trace) = (self.trace.from_ms, self.trace);
        for (arrival, way) in trace.arrivals.iter_mut().zip(&self.ways) {
            arrival.at_ms = arrival.at_ms.max(from_ms);
            if let Some((report, station)) = &way.last {
                arrival.run_ms = trace.learnt.at_common_speed(report, *station);
                arrival.end = end(report.kind);
            }
            if let Some(fate) = way.fate(arrival) {
                trace.served.push(fate);
            }
        }
        let end = from_ms.saturating_add(LONGEST_MS);
        trace.to_ms = trace.to_ms.min(end);
        trace.arrivals.retain(|arrival| arrival.at_ms <= end);
        trace.readings.retain(|reading| reading.at_ms <= end);
        trace.arrivals.sort_by_key(|arrival| arrival.at_ms);
        trace.readings.sort_by_key(|reading| reading.at_ms);
        offer_to_all(&mut trace);
        trace
    }
}

impl Way {
    /// None while it had not ended.
    fn fate(&self, arrival: &Arrival) -> Option<Fate> {
        let how = match &self.last {
            Some((report, _)) => match report.kind {
                ResultKind::Success => How::Done,
                ResultKind::TimedOut => How::Late,
                ResultKind::Cancelled => How::Stopped,
                ResultKind::Error | ResultKind::Lost => How::Failed,
            },
            None if self.refused => How::Refused,
            None => return None,
        };
        Some(Fate {
            tenant: arrival.tenant.clone(),
            class: arrival.class,
            how,
            wait_ms: self.wait_ms.unwrap_or(0).into(),
            ran_ms: self.ran_ms,
            loads: self.loads,
            load_ms: self.load_ms,
        })
    }
}

impl Station {
    /// It was offered a job with these needs: so it has what they name.
    fn learn(&mut self, needs: &Needs, free_slots: u32) {
        self.slots = self.slots.max(free_slots);
        for class in &needs.classes {
            if !self.can.classes.contains(class) {
                self.can.classes.insert(class.clone());
            }
        }
        for model in &needs.models {
            let files = self.can.models.entry(model.folder.clone()).or_default();
            if !files.contains(&model.name) {
                files.insert(model.name.clone());
            }
        }
    }
}

/// What no instance was seen to be offered, any may run: the recording does not know better.
fn offer_to_all(trace: &mut Trace) {
    let (arrivals, stations) = (&trace.arrivals, &mut trace.stations);
    for arrival in arrivals {
        if !stations.iter().any(|station| station.can.meets(&arrival.needs)) {
            stations.iter_mut().for_each(|station| station.learn(&arrival.needs, 0));
        }
    }
}

/// A bit for each of the first models of the job that the instance was not believed to have loaded.
fn lacking(needs: &Needs, context: &Context, instance: u32) -> u64 {
    let Some(texts) = context.fleet.get(instance as usize) else { return 0 };
    let lacks = needs.models.iter().take(64).map(|model| !texts.resident.contains(model));
    lacks.enumerate().fold(0, |mask, (n, lacks)| mask | u64::from(lacks) << n)
}

fn end(kind: ResultKind) -> EndKind {
    match kind {
        ResultKind::Error => EndKind::NodeError,
        ResultKind::Cancelled => EndKind::Interrupted,
        // What went wrong was the instance's fault or the limit's, not the job's.
        ResultKind::Success | ResultKind::Lost | ResultKind::TimedOut => EndKind::Success,
    }
}

fn needs(job: &JobView) -> Needs {
    Needs {
        classes: job.texts.needs.classes.clone(),
        models: job.texts.needs.models.clone(),
        uploads: Vec::new(),
        nodes: job.nodes,
        images: job.images,
        steps: job.steps,
        megapixels: job.megapixels,
        signature: job.signature.into(),
    }
}

fn body(job: &JobView) -> Body {
    /// A graph has at most so many nodes that a list of names need not be longer.
    const OUTPUTS: u32 = 1_000;
    Body {
        prompt: "{}".to_owned(),
        extra_data: job.texts.body.extra_data.clone(),
        headers: job.texts.body.headers.clone(),
        outputs: (0..job.outputs.min(OUTPUTS)).map(|n| n.to_string()).collect(),
        input_kib: job.input_kib,
        ..Body::default()
    }
}
