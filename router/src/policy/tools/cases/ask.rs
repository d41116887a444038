//! From a step to a question, with the world around it.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::file::{Shared, Step};
use super::overlay::{object, overlay, overlays};
use crate::model::decision::{
    AttemptReport, Cause, Consultation, Failure, Hook, Limit, Progress, Question, ResultKind,
};
use crate::model::id::InstanceId;
use crate::model::job::{Body, JobClass, ModelRef, Needs};
use crate::model::view::{
    Candidate, Capabilities, Context, InstanceTexts, InstanceView, JobTexts, JobView, Load, Offer, Seat,
    Totals,
};

/// When a case does not say: the evening of 14 November 2023, UTC.
const NOW_MS: u64 = 1_700_000_000_000;

/// Indices without a name have this many made-up ones.
const NAMELESS: usize = 64;

#[derive(Debug)]
pub(super) struct World {
    now_ms: u64,
    asked: u64,
    context: Context,
}

/// A tenant or client: its name, or that with how many jobs it has.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "a name is expected, or an object of `name`, `queued` and `running`")]
pub(super) enum Who {
    Name(String),
    Busy(Busy),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Busy {
    name: String,
    #[serde(default)]
    queued: u32,
    #[serde(default)]
    running: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Instance {
    name: String,
    #[serde(default)]
    labels: HashMap<String, String>,
    /// Models believed to be loaded, as `folder/file`.
    #[serde(default)]
    models: Vec<String>,
}

impl World {
    pub(super) fn of(shared: &Shared, case: &Shared) -> Self {
        let or = |case: &[Who], shared: &[Who]| who(if case.is_empty() { shared } else { case });
        let instances = if case.instances.is_empty() { &shared.instances } else { &case.instances };
        let now_ms = case.now_ms.or(shared.now_ms).unwrap_or(NOW_MS);
        let context = Context {
            now_ms,
            fleet: Arc::new(fleet(instances)),
            tenants: Arc::new(or(&case.tenants, &shared.tenants)),
            clients: Arc::new(or(&case.clients, &shared.clients)),
            ..Context::default()
        };
        Self { now_ms, asked: 0, context }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The hook and what it is asked, or what is wrong with the step.
    pub(super) fn ask(&mut self, step: &Step) -> Result<(Hook, Consultation), String> {
        self.now_ms = self.now_ms.saturating_add(step.after_ms);
        self.asked += 1;
        let (hook, question) = question(&step.hook, &step.view)?;
        let context = Context { now_ms: self.now_ms, ..self.context.clone() };
        Ok((hook, Consultation { job: None, seed: self.asked, context, question }))
    }
}

fn who(who: &[Who]) -> Vec<(Arc<str>, Totals)> {
    who.iter()
        .map(|who| match who {
            Who::Name(name) => (name.as_str().into(), Totals::default()),
            Who::Busy(Busy { name, queued, running }) => {
                (name.as_str().into(), Totals { queued: *queued, running: *running })
            }
        })
        .collect()
}

fn fleet(instances: &[Instance]) -> Vec<InstanceTexts> {
    let nameless = instances.len()..NAMELESS;
    let made_up =
        nameless.map(|n| Instance { name: format!("gpu{n}"), labels: HashMap::new(), models: Vec::new() });
    instances.iter().cloned().chain(made_up).map(texts).collect()
}

fn texts(instance: Instance) -> InstanceTexts {
    InstanceTexts {
        name: InstanceId::from(instance.name.as_str()),
        labels: Arc::new(instance.labels),
        resident: Arc::new(instance.models.iter().map(|file| model(file)).collect()),
        can: Arc::new(Capabilities::default()),
        devices: Arc::default(),
    }
}

/// `folder/file`, the file possibly in folders of its own.
fn model(file: &str) -> ModelRef {
    let (folder, name) = file.split_once('/').unwrap_or(("checkpoints", file));
    ModelRef { folder: folder.to_owned(), name: name.to_owned() }
}

/// What a step is asked, by its name in the WIT with underscores.
fn question(hook: &str, view: &Value) -> Result<(Hook, Question), String> {
    let in_hook = |message: String| format!("{hook}: {message}");
    let parts = |names: &[&str]| object(view, names).map_err(in_hook);
    let job = |view: &Map<String, Value>| job(view.get("job")).map_err(in_hook);
    match hook {
        "admit" => {
            let view = parts(&["job", "load"])?;
            let load = overlay(&Load::default(), view.get("load"), "load", "load").map_err(in_hook)?;
            Ok((Hook::Admit, Question::Intake { job: job(view)?, load }))
        }
        "prioritize" => Ok((Hook::Prioritize, Question::Reassess { job: job(parts(&["job"])?)? })),
        "limits_for" => Ok((Hook::LimitsFor, Question::Reassess { job: job(parts(&["job"])?)? })),
        "route" => {
            let view = parts(&["job", "candidates"])?;
            let candidates =
                overlays(candidate, view.get("candidates"), "candidate", "candidates").map_err(in_hook)?;
            Ok((Hook::Route, Question::Route { job: job(view)?, candidates }))
        }
        "place" => place(parts(&["jobs", "seats", "offers"])?).map_err(in_hook),
        "on_timeout" => {
            let view = parts(&["job", "which", "progress"])?;
            let limit: Limit = word(view, "which", "limit", Limit::Run).map_err(in_hook)?;
            let progress = overlay(&Progress::default(), view.get("progress"), "progress", "progress")
                .map_err(in_hook)?;
            Ok((Hook::OnTimeout, Question::OnTimeout { job: job(view)?, limit, progress }))
        }
        "on_failure" => {
            let view = parts(&["job", "failure"])?;
            let failure = Failure { cause: Cause::Crash, instance: 0, attempt: 1, ran_ms: 0 };
            let failure = overlay(&failure, view.get("failure"), "failure", "failure").map_err(in_hook)?;
            Ok((Hook::OnFailure, Question::OnFailure { job: job(view)?, failure }))
        }
        "tick" => {
            let view = parts(&["instances"])?;
            let instances =
                overlays(instance, view.get("instances"), "instance-state", "instances").map_err(in_hook)?;
            Ok((Hook::Tick, Question::Tick { instances }))
        }
        "observe" => {
            let view = parts(&["outcomes"])?;
            let outcomes =
                overlays(|_| outcome(), view.get("outcomes"), "outcome", "outcomes").map_err(in_hook)?;
            Ok((Hook::Observe, Question::Observe { outcomes }))
        }
        other => Err(format!(
            "there is no hook `{other}`: admit, prioritize, limits_for, route, place, on_timeout, on_failure, tick, observe"
        )),
    }
}

fn place(view: &Map<String, Value>) -> Result<(Hook, Question), String> {
    let jobs = match view.get("jobs") {
        None => Vec::new(),
        Some(Value::Array(jobs)) => jobs.iter().map(|given| job(Some(given))).collect::<Result<_, _>>()?,
        Some(_) => return Err("jobs: a list is expected".to_owned()),
    };
    let seats = overlays(
        |n| Seat { instance: n, free_slots: 1, free_in_ms: Some(0), ..Seat::default() },
        view.get("seats"),
        "seat",
        "seats",
    )?;
    let mut offers: Vec<Offer> = overlays(|_| Offer::default(), view.get("offers"), "offer", "offers")?;
    offers.sort_by_key(|offer| (offer.job, offer.seat));
    Ok((Hook::Place, Question::Place { jobs, seats, offers }))
}

fn word<T: serde::de::DeserializeOwned>(
    view: &Map<String, Value>,
    key: &str,
    item: &str,
    otherwise: T,
) -> Result<T, String> {
    let Some(value) = view.get(key) else { return Ok(otherwise) };
    serde_json::from_value(value.clone())
        .map_err(|error| format!("{key}: {error}{}", super::super::explain::at(item, None)))
}

/// What a case says about a job beyond the record: the texts behind the `workflow` functions.
#[derive(Debug, Default, Deserialize)]
struct Texts {
    #[serde(default)]
    extra_data: Map<String, Value>,
    #[serde(default)]
    headers: HashMap<String, String>,
    #[serde(default)]
    prompt: Map<String, Value>,
    /// As `folder/file`.
    #[serde(default)]
    model_files: Vec<String>,
}

const TEXTS: [&str; 4] = ["extra_data", "headers", "prompt", "model_files"];

fn job(given: Option<&Value>) -> Result<JobView, String> {
    let (mut numbers, mut texts) = (Map::new(), Map::new());
    match given {
        None => {}
        Some(Value::Object(given)) => {
            for (key, value) in given {
                let part = if TEXTS.contains(&key.as_str()) { &mut texts } else { &mut numbers };
                part.insert(key.clone(), value.clone());
            }
        }
        Some(_) => return Err("job: an object is expected".to_owned()),
    }
    let texts: Texts =
        serde_json::from_value(Value::Object(texts)).map_err(|error| format!("job: {error}"))?;
    let models = u32::try_from(texts.model_files.len()).unwrap_or(u32::MAX);
    let quiet = JobView { models, texts: texts.behind(), ..quiet_job() };
    let texts = quiet.texts.clone();
    let job = overlay(&quiet, Some(&Value::Object(numbers)), "job", "job")?;
    Ok(JobView { texts, ..job })
}

impl Texts {
    fn behind(&self) -> JobTexts {
        let mut classes: Vec<String> = self
            .prompt
            .values()
            .filter_map(|node| Some(node.get("class_type")?.as_str()?.to_owned()))
            .collect();
        classes.sort();
        classes.dedup();
        let body = Body {
            prompt: Value::Object(self.prompt.clone()).to_string(),
            extra_data: Value::Object(self.extra_data.clone()).to_string(),
            headers: self.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            ..Body::default()
        };
        let models = self.model_files.iter().map(|file| model(file)).collect();
        let needs = Needs { classes, models, ..Needs::default() };
        JobTexts { job: None, body: Arc::new(body), needs: Arc::new(needs) }
    }
}

/// A job of one image that has just come, and of which nothing else is known.
fn quiet_job() -> JobView {
    JobView {
        tenant: 0,
        client: 0,
        class: JobClass::Standard,
        number: None,
        front: false,
        nodes: 1,
        outputs: 1,
        images: 1,
        steps: None,
        megapixels: None,
        work: None,
        signature: 1,
        models: 0,
        input_kib: 0,
        attempt: 1,
        waited_ms: 0,
        run_ms: None,
        texts: JobTexts::default(),
    }
}

/// A free instance; its index is its row.
fn candidate(row: u32) -> Candidate {
    Candidate { instance: row, free_slots: 1, free_in_ms: Some(0), ..Candidate::default() }
}

fn instance(row: u32) -> InstanceView {
    InstanceView { instance: row, up: true, ..InstanceView::default() }
}

fn outcome() -> AttemptReport {
    AttemptReport {
        job: None,
        tenant: 0,
        client: 0,
        signature: 1,
        instance: 0,
        attempt: 1,
        kind: ResultKind::Success,
        wait_ms: 0,
        run_ms: 0,
        predicted_ms: None,
        load_ms: 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_given_is_quiet() {
        let (hook, question) =
            question("route", &json!({"candidates": [{}, {"temperature_c": 80.5}]})).unwrap();
        let Question::Route { job, candidates } = question else { panic!("route") };
        let texts = job.texts.clone();
        assert_eq!((hook, job), (Hook::Route, JobView { texts, ..quiet_job() }));
        assert_eq!(candidates[0], candidate(0));
        assert_eq!((candidates[1].instance, candidates[1].gpu.temperature_c), (1, Some(80.5)));
    }

    #[test]
    fn tenants_are_names_or_names_with_figures_and_a_typo_is_none() {
        let read = |value: Value| serde_json::from_value::<Who>(value);
        let known = [json!("ann"), json!({"name": "bob", "queued": 3})].map(|value| read(value).unwrap());
        let totals = |queued| Totals { queued, running: 0 };
        assert_eq!(who(&known), [("ann".into(), totals(0)), ("bob".into(), totals(3))]);
        for wrong in [json!(1), json!({"queued": 3}), json!({"name": "bob", "quued": 3})] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.starts_with("a name is expected, or an object of `name`"), "{error}");
        }
    }

    #[test]
    fn time_does_not_run_over() {
        let late = Shared { now_ms: Some(u64::MAX), ..Shared::default() };
        let mut world = World::of(&Shared::default(), &late);
        let step = Step { hook: "tick".to_owned(), view: json!({}), expect: None, after_ms: u64::MAX };
        let (_, asked) = world.ask(&step).unwrap();
        assert_eq!((world.now_ms(), asked.context.now_ms), (u64::MAX, u64::MAX));
    }

    #[test]
    fn the_texts_of_a_job_are_behind_it() {
        let given = json!({"job": {
            "class": "batch", "model_files": ["loras/a/b.safetensors"],
            "extra_data": {"note": 1}, "headers": {"x-team": "blue"},
            "prompt": {"1": {"class_type": "KSampler", "inputs": {}}}
        }});
        let (_, Question::Reassess { job }) = question("prioritize", &given).unwrap() else {
            panic!("reassess")
        };
        assert_eq!((job.class, job.models), (JobClass::Batch, 1));
        assert_eq!(
            job.texts.needs.models,
            [ModelRef { folder: "loras".into(), name: "a/b.safetensors".into() }]
        );
        assert_eq!(job.texts.needs.classes, ["KSampler"]);
        assert_eq!(job.texts.body.extra_data, r#"{"note":1}"#);
    }

    #[test]
    fn mistakes_name_hook_field_and_line() {
        for (hook, view, said) in [
            ("rout", json!({}), "there is no hook `rout`"),
            ("route", json!({"candidate": []}), "route: unknown `candidate`, expected job, candidates"),
            (
                "route",
                json!({"candidates": [{}, {"temprature_c": 1}]}),
                "candidates[1]: unknown field `temprature_c`",
            ),
            (
                "route",
                json!({"candidates": [{"free_slots": "x"}]}),
                "candidates[0].free_slots: invalid type: string",
            ),
            ("prioritize", json!({"job": {"class": "urgent"}}), "job.class: unknown variant `urgent`"),
            ("on_timeout", json!({"which": "sleep"}), "which: unknown variant `sleep`"),
            ("tick", json!([]), "tick: an object is expected"),
        ] {
            let error = question(hook, &view).unwrap_err();
            assert!(error.contains(said), "{error}");
            let places_it = !said.starts_with("there is no")
                && !said.contains("an object")
                && !said.contains("unknown `");
            assert_eq!(error.contains("wit/policy.wit:"), places_it, "{error}");
        }
    }
}
