//! One attempt as its events tell it.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::clock::{Now, Tick};
use crate::comfy::frame::{ErrorData, Event, Kind, Renaming, Utf8Bytes};
use crate::model::event::OutputFile;
use crate::model::job::{Attempt, Job};
use crate::sessions::Client;

use super::Report;

/// Signs of life are reported at most this often.
const REPORT_EVERY_MS: u64 = 250;
/// Outputs remembered of one attempt, in bytes; an instance's own history has them all.
const MAX_EVIDENCE: usize = 1 << 20;

/// How the instance says an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    Success,
    Error(Box<ErrorData>),
    Interrupted,
}

/// What the events of an attempt prove, should its instance no longer be there to ask.
#[derive(Debug, Clone)]
pub struct Evidence {
    pub verdict: Verdict,
    /// Node id and the JSON text of its output, as the instance named the files.
    pub outputs: Vec<(String, String)>,
    pub files: Vec<OutputFile>,
    /// `[kind, data]` pairs as in a history entry, as JSON texts under the client's prompt id.
    pub messages: Vec<String>,
    /// Time spent in nodes that load models.
    pub load_ms: u32,
}

#[derive(Debug)]
pub(super) struct Running {
    /// Its prompt id at the instance.
    pub(super) key: Arc<str>,
    pub(super) job: Arc<Job>,
    /// Who hears of it; nobody, without a client id.
    pub(super) client: Option<Client>,
    /// The prompt id, as messages are kept under.
    pub(super) name: Arc<str>,
    /// From the instance's prompt id to the client's.
    pub(super) renaming: Renaming,
    pub(super) attempt: Attempt,
    pub(super) evidence: Evidence,
    /// The end as the instance sent it, until it may be told.
    pub(super) held: Option<Utf8Bytes>,
    loaders: HashSet<String>,
    node: Option<(String, Tick)>,
    nodes_done: u32,
    node_percent: Option<f32>,
    reported: Option<Tick>,
    kept: usize,
}

#[derive(Deserialize)]
struct WithData<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct WithOutput<'a> {
    #[serde(borrow)]
    output: Option<&'a RawValue>,
}

impl Verdict {
    /// None for an event that does not end its prompt; a blocked output does not.
    pub(super) fn of(event: &Event) -> Option<Self> {
        match &event.kind {
            Kind::ExecutionSuccess => Some(Self::Success),
            Kind::ExecutionInterrupted => Some(Self::Interrupted),
            Kind::ExecutionError(error) if !error.is_block() => Some(Self::Error(error.clone())),
            _ => None,
        }
    }
}

impl Running {
    pub(super) fn new(key: Arc<str>, job: Arc<Job>, client: Option<Client>, attempt: Attempt) -> Self {
        let loaders = if job.needs.models.is_empty() { HashSet::new() } else { loaders(&job.body.prompt) };
        Self {
            name: job.prompt_id.as_str().into(),
            renaming: Renaming::new(&key, &job.prompt_id),
            key,
            job,
            client,
            attempt,
            evidence: Evidence {
                verdict: Verdict::Interrupted,
                outputs: Vec::new(),
                files: Vec::new(),
                messages: Vec::new(),
                load_ms: 0,
            },
            held: None,
            loaders,
            node: None,
            nodes_done: 0,
            node_percent: None,
            reported: None,
            kept: 0,
        }
    }

    /// Remember what the event says.
    pub(super) fn note(&mut self, event: &Event, now: Now) {
        match &event.kind {
            Kind::Executing { node, .. } => self.enter(node.clone(), now.tick),
            Kind::Progress { value, max, .. } if *max > 0.0 => {
                self.node_percent = Some((value / max * 100.0).clamp(0.0, 100.0) as f32);
            }
            Kind::ProgressState => self.nodes_done = event.nodes_finished() as u32,
            Kind::Executed { node } => self.keep_output(node, event),
            Kind::ExecutionStart => self.keep_message("execution_start", event),
            Kind::ExecutionCached { .. } => self.keep_message("execution_cached", event),
            _ => {}
        }
    }

    fn enter(&mut self, node: Option<String>, now: Tick) {
        if let Some((left, since)) = self.node.take()
            && self.loaders.contains(&left)
        {
            self.evidence.load_ms = self.evidence.load_ms.saturating_add(now.since(since) as u32);
        }
        self.node = node.map(|node| (node, now));
        self.node_percent = None;
        self.reported = None;
    }

    fn keep_message(&mut self, kind: &str, event: &Event) {
        let text = event.renamed(&self.renaming);
        if let Ok(WithData { data }) = serde_json::from_str(text.as_str())
            && self.may_keep(data.get().len())
        {
            self.evidence.messages.push(format!("[\"{kind}\",{}]", data.get()));
        }
    }

    fn keep_output(&mut self, node: &str, event: &Event) {
        let output = serde_json::from_str::<WithData<'_>>(event.raw().as_str())
            .and_then(|with| serde_json::from_str::<WithOutput<'_>>(with.data.get()));
        if let Ok(WithOutput { output: Some(output) }) = output
            && output.get() != "null"
            && self.may_keep(output.get().len())
        {
            self.evidence.outputs.push((node.to_owned(), output.get().to_owned()));
        }
    }

    fn may_keep(&mut self, bytes: usize) -> bool {
        self.kept = self.kept.saturating_add(bytes);
        self.kept <= MAX_EVIDENCE
    }

    /// The event that ends the attempt: held back, and reported with all that is known.
    pub(super) fn over(&mut self, event: &Event, verdict: Verdict, now: Now) -> Report {
        self.enter(None, now.tick);
        let kind = match &verdict {
            Verdict::Success => "execution_success",
            Verdict::Error(_) => "execution_error",
            Verdict::Interrupted => "execution_interrupted",
        };
        self.keep_message(kind, event);
        self.held = Some(event.renamed(&self.renaming));
        self.evidence.verdict = verdict;
        let evidence = Box::new(self.evidence.clone());
        Report::Over { job: self.job.clone(), attempt: self.attempt.clone(), evidence }
    }

    /// A report, unless one was made a moment ago.
    pub(super) fn progress(&mut self, now: Now) -> Option<Report> {
        if self.reported.is_some_and(|at| now.tick.since(at) < REPORT_EVERY_MS) {
            return None;
        }
        self.reported = Some(now.tick);
        Some(Report::Progress {
            job: self.job.id,
            number: self.attempt.number,
            nodes_done: self.nodes_done,
            node_percent: self.node_percent,
        })
    }
}

/// Nodes whose class loads models, by ComfyUI's naming habit.
fn loaders(prompt: &str) -> HashSet<String> {
    #[derive(Deserialize)]
    struct Node<'a> {
        #[serde(borrow)]
        class_type: std::borrow::Cow<'a, str>,
    }
    let nodes: std::collections::HashMap<String, Node<'_>> = serde_json::from_str(prompt).unwrap_or_default();
    nodes.into_iter().filter(|(_, node)| node.class_type.contains("Loader")).map(|(id, _)| id).collect()
}
