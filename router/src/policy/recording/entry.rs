//! One recorded decision as a line of JSON, and back.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::decision::{Consultation, DecisionRecord, Fallback, Hook, PolicyVersion, Question};
use crate::model::id::{InstanceId, JobId};
use crate::model::job::{Body, JobClass, ModelRef, Needs};
use crate::model::view::{Capabilities, Context, InstanceTexts, JobTexts, JobView, Totals, WaitingView};

/// Tenants recorded; the others have no name in a replay.
const TENANTS: usize = 64;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub at: u64,
    pub seed: u64,
    /// The job it is about; the first of a window.
    pub job: Option<JobId>,
    pub question: Question,
    /// Of each job in the question.
    pub texts: Vec<Texts>,
    /// Of each outcome in the question.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<Option<JobId>>,
    /// Only when it differs from that of the line before.
    pub fleet: Option<Vec<Seen>>,
    pub all: Totals,
    pub classes: [Totals; 3],
    pub tenants: Vec<(Arc<str>, Totals)>,
    /// By index.
    pub clients: Vec<(u32, Arc<str>, Totals)>,
    /// The head of the queue; only when it differs from that of the line before.
    pub waiting: Option<Vec<Row>>,
    pub said: Vec<Saying>,
}

/// A waiting job without the names of its members, which would be most of the line.
type Row = (u32, u32, JobClass, u32, u32, u32, Option<u32>);

fn row(view: &WaitingView) -> Row {
    let WaitingView { tenant, client, class, signature, models, waited_ms, run_ms } = *view;
    (tenant, client, class, signature, models, waited_ms, run_ms)
}

fn waiting(row: Row) -> WaitingView {
    let (tenant, client, class, signature, models, waited_ms, run_ms) = row;
    WaitingView { tenant, client, class, signature, models, waited_ms, run_ms }
}

/// What a hook said in service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Saying {
    pub hook: Hook,
    pub version: PolicyVersion,
    pub fallback: Option<Fallback>,
    pub said: String,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Texts {
    classes: Vec<String>,
    models: Vec<ModelRef>,
    extra_data: String,
    headers: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seen {
    name: InstanceId,
    labels: HashMap<String, String>,
    resident: Vec<ModelRef>,
}

fn jobs(question: &Question) -> Vec<&JobView> {
    match question {
        Question::Intake { job, .. }
        | Question::Reassess { job }
        | Question::Route { job, .. }
        | Question::OnTimeout { job, .. }
        | Question::OnFailure { job, .. } => vec![job],
        Question::Place { jobs, .. } => jobs.iter().collect(),
        Question::Tick { .. } | Question::Observe { .. } => Vec::new(),
    }
}

fn jobs_mut(question: &mut Question) -> Vec<&mut JobView> {
    match question {
        Question::Intake { job, .. }
        | Question::Reassess { job }
        | Question::Route { job, .. }
        | Question::OnTimeout { job, .. }
        | Question::OnFailure { job, .. } => vec![job],
        Question::Place { jobs, .. } => jobs.iter_mut().collect(),
        Question::Tick { .. } | Question::Observe { .. } => Vec::new(),
    }
}

/// Client indices that the question names.
fn clients(question: &Question) -> Vec<u32> {
    let mut named: Vec<u32> = jobs(question).iter().map(|job| job.client).collect();
    if let Question::Observe { outcomes } = question {
        named.extend(outcomes.iter().map(|outcome| outcome.client));
    }
    named.sort_unstable();
    named.dedup();
    named
}

impl Texts {
    fn of(job: &JobView) -> Self {
        let JobTexts { body, needs, .. } = &job.texts;
        let (classes, models) = (needs.classes.clone(), needs.models.clone());
        Self { classes, models, extra_data: body.extra_data.clone(), headers: body.headers.clone() }
    }

    fn behind(self) -> JobTexts {
        let body = Body { extra_data: self.extra_data, headers: self.headers, ..Body::default() };
        let needs = Needs { classes: self.classes, models: self.models, ..Needs::default() };
        JobTexts { job: None, body: Arc::new(body), needs: Arc::new(needs) }
    }
}

/// Writes lines that leave out what the line before said already.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    fleet: Arc<Vec<InstanceTexts>>,
    seen: Option<Vec<Seen>>,
    waiting: Option<Arc<Vec<WaitingView>>>,
}

impl Writer {
    pub(crate) fn line(&mut self, consultation: &Consultation, records: &[DecisionRecord]) -> String {
        let entry = self.entry(consultation, records);
        // What is unknown is left out: half of a view often is.
        serde_json::to_value(&entry).map_or_else(
            |_| String::new(),
            |mut value| {
                without_nulls(&mut value);
                value.to_string()
            },
        )
    }

    fn entry(&mut self, consultation: &Consultation, records: &[DecisionRecord]) -> Entry {
        let Consultation { seed, context, question, job } = consultation;
        let client = |index: u32| {
            let (name, totals) = context.clients.get(index as usize)?;
            Some((index, name.clone(), *totals))
        };
        let ended = match question {
            Question::Observe { outcomes } => outcomes.iter().map(|outcome| outcome.job).collect(),
            _ => Vec::new(),
        };
        Entry {
            at: context.now_ms,
            seed: *seed,
            job: *job,
            texts: jobs(question).into_iter().map(Texts::of).collect(),
            ended,
            fleet: self.fleet(context),
            all: context.all,
            classes: context.classes,
            tenants: context.tenants.iter().take(TENANTS).cloned().collect(),
            clients: clients(question).into_iter().filter_map(client).collect(),
            waiting: self.waiting(context),
            said: records.iter().map(Saying::of).collect(),
            question: question.clone(),
        }
    }

    fn fleet(&mut self, context: &Context) -> Option<Vec<Seen>> {
        // The same list again is the rule; comparing what is in it is not free.
        if self.seen.is_some() && Arc::ptr_eq(&self.fleet, &context.fleet) {
            return None;
        }
        self.fleet = context.fleet.clone();
        let fleet: Vec<Seen> = context.fleet.iter().map(Seen::of).collect();
        let changed = self.seen.as_ref() != Some(&fleet);
        changed.then(|| self.seen.insert(fleet).clone())
    }

    fn waiting(&mut self, context: &Context) -> Option<Vec<Row>> {
        let known = self.waiting.as_ref();
        if known.is_some_and(|known| Arc::ptr_eq(known, &context.waiting) || *known == context.waiting) {
            return None;
        }
        self.waiting = Some(context.waiting.clone());
        Some(context.waiting.iter().map(row).collect())
    }
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

impl Saying {
    fn of(record: &DecisionRecord) -> Self {
        Self {
            hook: record.hook,
            version: record.version.clone(),
            fallback: record.fallback,
            said: record.said.clone(),
            reason: record.reason.clone(),
        }
    }
}

impl Seen {
    fn of(texts: &InstanceTexts) -> Self {
        Self { name: texts.name.clone(), labels: (*texts.labels).clone(), resident: texts.resident.to_vec() }
    }

    fn texts(&self) -> InstanceTexts {
        InstanceTexts {
            name: self.name.clone(),
            labels: Arc::new(self.labels.clone()),
            resident: Arc::new(self.resident.clone()),
            can: Arc::new(Capabilities::default()),
            devices: Arc::default(),
        }
    }
}

/// Reads lines in their order.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    fleet: Arc<Vec<InstanceTexts>>,
    waiting: Arc<Vec<WaitingView>>,
}

impl Reader {
    /// The question as it was put, and what was said to it.
    pub(crate) fn read(&mut self, line: &str) -> Result<(Consultation, Vec<Saying>), serde_json::Error> {
        let entry: Entry = serde_json::from_str(line)?;
        if let Some(fleet) = &entry.fleet {
            self.fleet = Arc::new(fleet.iter().map(Seen::texts).collect());
        }
        if let Some(rows) = entry.waiting {
            self.waiting = Arc::new(rows.into_iter().map(waiting).collect());
        }
        let mut question = entry.question;
        if let Question::Observe { outcomes } = &mut question {
            outcomes.iter_mut().zip(entry.ended).for_each(|(outcome, job)| outcome.job = job);
        }
        for (job, texts) in jobs_mut(&mut question).into_iter().zip(entry.texts) {
            job.texts = texts.behind();
        }
        let context = Context {
            now_ms: entry.at,
            fleet: self.fleet.clone(),
            all: entry.all,
            tenants: Arc::new(entry.tenants),
            clients: Arc::new(by_index(entry.clients)),
            classes: entry.classes,
            waiting: self.waiting.clone(),
        };
        Ok((Consultation { job: entry.job, seed: entry.seed, context, question }, entry.said))
    }
}

/// Those in between have no name. An index beyond reason comes from no recording of ours.
fn by_index(clients: Vec<(u32, Arc<str>, Totals)>) -> Vec<(Arc<str>, Totals)> {
    const MOST: u32 = 1_000_000;
    let mut list: Vec<(Arc<str>, Totals)> = Vec::new();
    for (index, name, totals) in clients.into_iter().filter(|(index, ..)| *index < MOST) {
        let room = list.len().max(index as usize + 1);
        list.resize(room, ("".into(), Totals::default()));
        list[index as usize] = (name, totals);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample;

    #[test]
    fn every_question_is_read_as_it_was_written() {
        let (mut writer, mut reader) = (Writer::default(), Reader::default());
        for (n, question) in sample::questions(3, 5).into_iter().enumerate() {
            let asked = sample::ask(9, 5, question);
            let line = writer.line(&asked, &[]);
            assert_eq!(line.contains("\"fleet\""), n == 0, "the fleet is written once");
            let (read, _) = reader.read(&line).unwrap();
            assert_eq!(format!("{:?}", strip(read.question)), format!("{:?}", strip(asked.question)));
            assert_eq!((read.seed, read.context.now_ms), (9, asked.context.now_ms));
            assert_eq!(read.context.fleet.len(), 5);
        }
    }

    /// Of the texts only what is recorded.
    fn strip(mut question: Question) -> Question {
        for job in jobs_mut(&mut question) {
            job.texts = Texts::of(job).behind();
        }
        question
    }
}
