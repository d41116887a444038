//! `/api/jobs`: the list with its filters and pages, and one job in detail.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{history, json, python};
use crate::model::event::History;
use crate::model::job::{Job, JobOutcome};

/// What the query of `GET /api/jobs` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobsQuery {
    pub statuses: Vec<Status>,
    pub workflow_id: Option<String>,
    pub by_duration: bool,
    pub ascending: bool,
    pub limit: Option<usize>,
    pub offset: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Pending,
    InProgress,
    Completed,
    Failed,
    /// Later than 0.8.0, whose 400 for it leaves newer frontends with an empty history.
    Cancelled,
}

const STATUSES: [(&str, Status); 5] = [
    ("pending", Status::Pending),
    ("in_progress", Status::InProgress),
    ("completed", Status::Completed),
    ("failed", Status::Failed),
    ("cancelled", Status::Cancelled),
];

impl Status {
    pub fn of(outcome: JobOutcome) -> Self {
        match outcome {
            JobOutcome::Success => Self::Completed,
            JobOutcome::Interrupted | JobOutcome::Cancelled => Self::Cancelled,
            JobOutcome::Error | JobOutcome::TimedOut | JobOutcome::Lost | JobOutcome::Unknown => Self::Failed,
        }
    }

    pub fn as_str(self) -> &'static str {
        STATUSES.iter().find(|(_, status)| *status == self).map_or("", |(name, _)| name)
    }
}

impl JobsQuery {
    /// The error is the text of ComfyUI's 400.
    pub fn parse(query: &[(String, String)]) -> Result<Self, String> {
        let get = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let integer = |name: &str| {
            let read = |text| python::int_of(text).ok_or_else(|| format!("{name} must be an integer"));
            get(name).map(read).transpose()
        };
        let statuses = statuses(get("status").unwrap_or_default())?;
        let by_duration = match get("sort_by").map(str::to_lowercase).as_deref() {
            None | Some("created_at") => false,
            Some("execution_duration") => true,
            _ => return Err("sort_by must be 'created_at' or 'execution_duration'".to_owned()),
        };
        let ascending = match get("sort_order").map(str::to_lowercase).as_deref() {
            None | Some("desc") => false,
            Some("asc") => true,
            _ => return Err("sort_order must be 'asc' or 'desc'".to_owned()),
        };
        let limit = match integer("limit")? {
            Some(limit) if limit <= 0 => return Err("limit must be a positive integer".to_owned()),
            limit => limit.map(|limit| limit as usize),
        };
        let offset = integer("offset")?.unwrap_or(0).max(0) as usize;
        let workflow_id = get("workflow_id").filter(|id| !id.is_empty()).map(str::to_owned);
        Ok(Self { statuses, workflow_id, by_duration, ascending, limit, offset })
    }

    /// Does any status asked for belong to jobs that are over?
    pub fn wants_history(&self) -> bool {
        self.statuses.iter().any(|status| !matches!(status, Status::Pending | Status::InProgress))
    }

    pub fn wants_queue(&self) -> bool {
        self.statuses.iter().any(|status| matches!(status, Status::Pending | Status::InProgress))
    }

    /// The items of the page that is asked for, and how many there are in all. Equals stay in the order given, in
    /// either direction, as in Python.
    pub fn page<T>(&self, keys: Vec<Key<'_, T>>) -> (Vec<T>, usize) {
        let mut keys: Vec<Key<'_, T>> = keys.into_iter().filter(|key| self.admits(key)).collect();
        let rank = |key: &Key<'_, T>| if self.by_duration { key.duration() } else { i128::from(key.created) };
        match self.ascending {
            true => keys.sort_by_key(rank),
            false => keys.sort_by_key(|key| std::cmp::Reverse(rank(key))),
        }
        let total = keys.len();
        let page = keys.into_iter().skip(self.offset).take(self.limit.unwrap_or(usize::MAX));
        (page.map(|key| key.item).collect(), total)
    }

    fn admits<T>(&self, key: &Key<'_, T>) -> bool {
        self.statuses.contains(&key.status)
            && self.workflow_id.as_ref().is_none_or(|wanted| key.workflow_id == Some(wanted))
    }

    /// The answer with these jobs on its page.
    pub fn answer(&self, jobs: Vec<Value>, total: usize) -> Value {
        let has_more = self.offset.saturating_add(jobs.len()) < total;
        json!({
            "jobs": jobs,
            "pagination": {"offset": self.offset, "limit": self.limit, "total": total, "has_more": has_more},
        })
    }
}

/// What a list goes by, of one job.
#[derive(Debug, Clone)]
pub struct Key<'a, T> {
    pub status: Status,
    pub created: u64,
    /// When it began and was done, by its messages.
    pub times: (Option<u64>, Option<u64>),
    pub workflow_id: Option<&'a str>,
    pub item: T,
}

impl<T> Key<'_, T> {
    fn duration(&self) -> i128 {
        match self.times {
            (Some(began), Some(done)) if began > 0 && done > 0 => i128::from(done) - i128::from(began),
            _ => 0,
        }
    }
}

/// None named: all. Only commas: none at all, as in ComfyUI.
fn statuses(list: &str) -> Result<Vec<Status>, String> {
    if list.is_empty() {
        return Ok(STATUSES.iter().map(|(_, status)| *status).collect());
    }
    let names: Vec<String> =
        list.split(',').map(|name| name.trim().to_lowercase()).filter(|name| !name.is_empty()).collect();
    let find = |name: &String| STATUSES.iter().find(|(known, _)| known == name).map(|(_, status)| *status);
    let unknown: Vec<&str> = names.iter().filter(|name| find(name).is_none()).map(String::as_str).collect();
    if unknown.is_empty() {
        return Ok(names.iter().filter_map(find).collect());
    }
    let valid: Vec<&str> = STATUSES.iter().map(|(name, _)| *name).collect();
    let unknown = unknown.join(", ");
    let unknown = super::errors::clip(&unknown, 200);
    Err(format!("Invalid status value(s): {unknown}. Valid values: {}", valid.join(", ")))
}

/// `extra_pnginfo.workflow.id`, where it is a text. Whatever shape a client gave these, it is no error.
pub fn workflow_id(extra_data: &str) -> Option<String> {
    /// Of an id that is kept.
    const MAX: usize = 256;
    let member =
        |raw: &RawValue, name: &str| json::members(raw).ok()?.get(name).copied().map(ToOwned::to_owned);
    let extra: &RawValue = serde_json::from_str(extra_data).ok()?;
    let workflow = member(&member(extra, "extra_pnginfo")?, "workflow")?;
    let id: String = serde_json::from_str(member(&workflow, "id")?.get()).ok()?;
    (id.len() <= MAX).then_some(id)
}

/// When an instance began and when it was done, from a history's `status`.
pub fn times(status: &str) -> (Option<u64>, Option<u64>) {
    let status = value(status);
    let messages = status.get("messages").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let at = |names: &[&str]| {
        let named =
            |message: &&Value| message.get(0).and_then(Value::as_str).is_some_and(|n| names.contains(&n));
        messages.iter().rev().find(named)?.get(1)?.get("timestamp")?.as_u64()
    };
    (at(&["execution_start"]), at(&["execution_success", "execution_error", "execution_interrupted"]))
}

/// A job and where it stands.
#[derive(Debug, Clone)]
pub struct Listed<'a> {
    pub job: &'a Job,
    pub state: State<'a>,
}

#[derive(Debug, Clone)]
pub enum State<'a> {
    Pending,
    InProgress,
    Ended { outcome: JobOutcome, history: &'a History },
}

impl Listed<'_> {
    pub fn status(&self) -> Status {
        match &self.state {
            State::Pending => Status::Pending,
            State::InProgress => Status::InProgress,
            State::Ended { outcome, .. } => Status::of(*outcome),
        }
    }

    fn times(&self) -> (Option<u64>, Option<u64>) {
        match &self.state {
            State::Ended { history, .. } => times(&history.status),
            _ => (None, None),
        }
    }

    /// The job as the list shows it; members without a value are left out.
    pub fn object(&self) -> Map<String, Value> {
        let job = self.job;
        let mut object = Map::new();
        object.insert("id".into(), Value::from(job.prompt_id.as_str()));
        object.insert("status".into(), Value::from(self.status().as_str()));
        object.insert("priority".into(), value(&history::number(job.number)));
        object.insert("create_time".into(), Value::from(job.accepted_at));
        let (start, end) = self.times();
        object.insert("execution_start_time".into(), start.into());
        object.insert("execution_end_time".into(), end.into());
        let outputs = match &self.state {
            State::Ended { history, .. } => {
                object.insert("execution_error".into(), execution_error(history));
                value(&history.outputs)
            }
            _ => Value::Null,
        };
        let (count, preview) = summary(&outputs);
        object.insert("outputs_count".into(), count.into());
        object.insert("preview_output".into(), preview.into());
        object.insert("workflow_id".into(), job.body.workflow_id.as_deref().into());
        object.retain(|_, value| !value.is_null());
        object
    }

    /// The answer of `GET /api/jobs/{id}`. `workflow` is there before the end too, as in later versions: newer
    /// frontends open a waiting job's graph from it.
    pub fn detail(&self) -> Value {
        let mut object = self.object();
        if let State::Ended { history, .. } = &self.state {
            object.insert("outputs".into(), value(&history.outputs));
            object.insert("execution_status".into(), value(&history.status));
        }
        let workflow = json!({"prompt": value(&self.job.body.prompt), "extra_data": value(&history::extra_data(self.job))});
        object.insert("workflow".into(), workflow);
        Value::Object(object)
    }
}

fn value(text: &str) -> Value {
    json::parse(text.as_bytes()).unwrap_or_else(|_| json!({}))
}

fn execution_error(history: &History) -> Value {
    let status = value(&history.status);
    let messages = status.get("messages").and_then(Value::as_array).into_iter().flatten();
    let mut errors =
        messages.filter(|message| message.get(0).and_then(Value::as_str) == Some("execution_error"));
    errors.next().and_then(|message| message.get(1)).cloned().unwrap_or_default()
}

/// How many outputs, and the one to show: an `output` file if there is one, else any that can be shown.
fn summary(outputs: &Value) -> (usize, Option<Value>) {
    let mut count = 0;
    let mut shown: Option<Value> = None;
    for (node, output) in outputs.as_object().into_iter().flatten() {
        for (media, items) in output.as_object().into_iter().flatten() {
            if media == "animated" {
                continue;
            }
            for item in items.as_array().into_iter().flatten().filter_map(Value::as_object) {
                count += 1;
                let kind = |item: &Value| item.get("type").and_then(Value::as_str) == Some("output");
                let better = shown.as_ref().is_none_or(|shown| !kind(shown))
                    && (shown.is_none() || item.get("type").and_then(Value::as_str) == Some("output"));
                if better && previewable(media, item) {
                    let mut item = item.clone();
                    item.insert("nodeId".into(), Value::from(node.as_str()));
                    item.insert("mediaType".into(), Value::from(media.as_str()));
                    shown = Some(Value::Object(item));
                }
            }
        }
    }
    (count, shown)
}

fn previewable(media: &str, item: &Map<String, Value>) -> bool {
    let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default().to_lowercase();
    let (format, name) = (text("format"), text("filename"));
    matches!(media, "images" | "video" | "audio")
        || ["video/", "audio/"].iter().any(|start| format.starts_with(start))
        || [".obj", ".fbx", ".gltf", ".glb"].iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::super::history::tests::{job, success};
    use super::*;
    use crate::model::job::Number;

    fn query(pairs: &[(&str, &str)]) -> Result<JobsQuery, String> {
        JobsQuery::parse(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>())
    }

    /// The object ComfyUI 0.8.0 gave for this history.
    #[test]
    fn an_ended_job_is_what_comfyui_shows() {
        let job = job("b3", Number::Counted(2), r#"{"extra_pnginfo": {"workflow": {"id": "w1"}}}"#);
        let history = success();
        let listed =
            Listed { job: &job, state: State::Ended { outcome: JobOutcome::Success, history: &history } };
        assert_eq!(
            Value::Object(listed.object()),
            json!({"id": "b3", "status": "completed", "priority": 2, "create_time": 1_795_329_855_569_u64,
                "execution_start_time": 1_795_329_855_574_u64, "execution_end_time": 1_795_329_855_735_u64, "outputs_count": 1,
                "preview_output": {"filename": "t_00002_.png", "subfolder": "", "type": "output", "nodeId": "3", "mediaType": "images"},
                "workflow_id": "w1"})
        );
        let detail = listed.detail();
        assert_eq!(detail["execution_status"]["completed"], true);
        assert_eq!(detail["workflow"]["extra_data"]["client_id"], "bbbb");
        assert_eq!(times(&history.status), (Some(1_795_329_855_574), Some(1_795_329_855_735)));
    }

    fn key(item: u32, status: Status, created: u64, took: Option<u64>) -> Key<'static, u32> {
        let times = (took.map(|_| 1_000), took.map(|took| 1_000 + took));
        Key { status, created, times, workflow_id: (item == 3).then_some("w3"), item }
    }

    #[test]
    fn pages_filters_and_order() {
        let all = || {
            vec![
                key(0, Status::InProgress, 10, None),
                key(3, Status::Pending, 13, None),
                key(4, Status::Pending, 14, None),
                key(1, Status::Cancelled, 11, Some(7)),
                key(2, Status::Failed, 12, Some(30)),
            ]
        };
        let page = |pairs: &[(&str, &str)]| query(pairs).unwrap().page(all());
        assert_eq!(page(&[]), (vec![4, 3, 2, 1, 0], 5));
        let open = [("status", "pending,in_progress"), ("sort_order", "asc"), ("limit", "2")];
        assert_eq!(page(&open), (vec![0, 3], 3));
        assert_eq!(
            query(&open).unwrap().answer(vec![json!(0), json!(3)], 3)["pagination"],
            json!({"offset": 0, "limit": 2, "total": 3, "has_more": true})
        );
        assert_eq!(page(&[("status", "completed,failed,cancelled")]), (vec![2, 1], 2));
        assert_eq!(page(&[("status", " Failed ,CANCELLED")]), (vec![2, 1], 2));
        assert_eq!(page(&[("status", ",")]), (vec![], 0), "no status is none");
        assert_eq!(page(&[("offset", "4")]), (vec![0], 5));
        assert_eq!(page(&[("offset", "9")]), (vec![], 5));
        assert_eq!(page(&[("limit", &"9".repeat(30))]).0.len(), 5);
        assert_eq!(page(&[("workflow_id", "w3")]), (vec![3], 1));
        assert_eq!(page(&[("sort_by", "execution_duration")]).0, [2, 1, 0, 3, 4], "equals as they were");
        assert_eq!(page(&[("sort_by", "Execution_Duration"), ("sort_order", "ASC")]).0, [0, 3, 4, 1, 2]);
    }

    #[test]
    fn ids_of_workflows_are_texts_of_a_bounded_length() {
        let of = |extra: &str| workflow_id(extra);
        assert_eq!(
            of(r#"{"extra_pnginfo": {"workflow": {"nodes": [1], "id": "w\u0031"}}}"#),
            Some("w1".into())
        );
        for odd in [
            "",
            "broken",
            "{}",
            r#"{"extra_pnginfo": null}"#,
            r#"{"extra_pnginfo": {"workflow": null}}"#,
            r#"{"extra_pnginfo": [1]}"#,
            r#"{"extra_pnginfo": {"workflow": {"id": 5}}}"#,
            &format!(r#"{{"extra_pnginfo": {{"workflow": {{"id": "{}"}}}}}}"#, "x".repeat(300)),
        ] {
            assert_eq!(of(odd), None, "{odd}");
        }
    }

    #[test]
    fn wrong_queries_get_comfyuis_words() {
        let error = |pairs: &[(&str, &str)]| query(pairs).unwrap_err();
        assert_eq!(
            error(&[("status", "done")]),
            "Invalid status value(s): done. Valid values: pending, in_progress, completed, failed, cancelled"
        );
        assert_eq!(error(&[("limit", "0")]), "limit must be a positive integer");
        assert_eq!(error(&[("limit", "x")]), "limit must be an integer");
        assert_eq!(error(&[("offset", "1.5")]), "offset must be an integer");
        assert_eq!(query(&[("offset", "99999999999999999999")]).unwrap().offset, i64::MAX as usize);
        assert_eq!(error(&[("sort_by", "x")]), "sort_by must be 'created_at' or 'execution_duration'");
        assert_eq!(error(&[("sort_order", "x")]), "sort_order must be 'asc' or 'desc'");
        assert_eq!(query(&[("offset", "-5")]).unwrap().offset, 0);
    }

    #[test]
    fn odd_workflows_and_outputs_are_no_error() {
        let history = History {
            outputs: r#"{"1": {"images": "x", "text": ["a"]}, "2": null}"#.into(),
            ..History::default()
        };
        for extra in [
            r#"{"extra_pnginfo": null}"#,
            r#"{"extra_pnginfo": {"workflow": null}}"#,
            r#"{"extra_pnginfo": [1]}"#,
            "broken",
        ] {
            let job = job("x", Number::Given(0.5), extra);
            let listed =
                Listed { job: &job, state: State::Ended { outcome: JobOutcome::Error, history: &history } };
            assert_eq!(listed.object()["outputs_count"], 0);
            assert!(listed.detail().get("workflow_id").is_none());
        }
    }
}
