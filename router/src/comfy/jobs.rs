//! `/api/jobs`: the list with its filters and pages, and one job in detail.

use serde_json::{Map, Value, json};

use super::history;
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
    pub fn as_str(self) -> &'static str {
        STATUSES.iter().find(|(_, status)| *status == self).map_or("", |(name, _)| name)
    }
}

impl JobsQuery {
    /// The error is the text of ComfyUI's 400.
    pub fn parse(query: &[(String, String)]) -> Result<Self, String> {
        let get = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let integer = |name: &str, text: &str| {
            text.trim().parse::<i64>().map_err(|_| format!("{name} must be an integer"))
        };
        let limit = match get("limit").map(|text| integer("limit", text)).transpose()? {
            Some(limit) if limit <= 0 => return Err("limit must be a positive integer".to_owned()),
            limit => limit.map(|limit| limit as usize),
        };
        let offset =
            get("offset").map(|text| integer("offset", text)).transpose()?.unwrap_or(0).max(0) as usize;
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
        Ok(Self {
            statuses: statuses(get("status").unwrap_or_default())?,
            workflow_id: get("workflow_id").filter(|id| !id.is_empty()).map(str::to_owned),
            by_duration,
            ascending,
            limit,
            offset,
        })
    }

    /// Does any status asked for belong to jobs that are over?
    pub fn wants_history(&self) -> bool {
        self.statuses.iter().any(|status| !matches!(status, Status::Pending | Status::InProgress))
    }

    pub fn wants_queue(&self) -> bool {
        self.statuses.iter().any(|status| matches!(status, Status::Pending | Status::InProgress))
    }
}

fn statuses(list: &str) -> Result<Vec<Status>, String> {
    let names: Vec<String> =
        list.split(',').map(|name| name.trim().to_lowercase()).filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Ok(STATUSES.iter().map(|(_, status)| *status).collect());
    }
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

/// The answer of `GET /api/jobs`.
pub fn list(query: &JobsQuery, jobs: Vec<Listed<'_>>) -> Value {
    let mut jobs: Vec<Listed<'_>> = jobs.into_iter().filter(|listed| query.admits(listed)).collect();
    if query.by_duration {
        jobs.sort_by_cached_key(|listed| (listed.duration(), listed.job.accepted_at));
    } else {
        jobs.sort_by_key(|listed| (listed.job.accepted_at, listed.job.id));
    }
    if !query.ascending {
        jobs.reverse();
    }
    let total = jobs.len();
    let page = jobs.iter().skip(query.offset).take(query.limit.unwrap_or(usize::MAX));
    let page: Vec<Value> = page.map(|listed| Value::Object(listed.object())).collect();
    let has_more = query.offset.saturating_add(page.len()) < total;
    json!({
        "jobs": page,
        "pagination": {"offset": query.offset, "limit": query.limit, "total": total, "has_more": has_more},
    })
}

impl JobsQuery {
    fn admits(&self, listed: &Listed<'_>) -> bool {
        self.statuses.contains(&listed.status())
            && self.workflow_id.as_ref().is_none_or(|wanted| listed.workflow_id().as_ref() == Some(wanted))
    }
}

impl Listed<'_> {
    pub fn status(&self) -> Status {
        match &self.state {
            State::Pending => Status::Pending,
            State::InProgress => Status::InProgress,
            State::Ended { outcome, .. } => match outcome {
                JobOutcome::Success => Status::Completed,
                JobOutcome::Interrupted | JobOutcome::Cancelled => Status::Cancelled,
                JobOutcome::Error | JobOutcome::TimedOut | JobOutcome::Lost | JobOutcome::Unknown => {
                    Status::Failed
                }
            },
        }
    }

    /// `extra_data.extra_pnginfo.workflow.id`. Whatever shape a client gave these, it is no error.
    fn workflow_id(&self) -> Option<String> {
        let extra: Value = serde_json::from_str(&self.job.body.extra_data).ok()?;
        extra.get("extra_pnginfo")?.get("workflow")?.get("id")?.as_str().map(str::to_owned)
    }

    /// `(start, end)` from the status messages.
    fn times(&self) -> (Option<u64>, Option<u64>) {
        let State::Ended { history, .. } = &self.state else { return (None, None) };
        let status = value(&history.status);
        let at = |names: &[&str]| {
            let messages = status.get("messages")?.as_array()?;
            let found = messages
                .iter()
                .find(|m| m.get(0).and_then(Value::as_str).is_some_and(|n| names.contains(&n)))?;
            found.get(1)?.get("timestamp")?.as_u64()
        };
        (at(&["execution_start"]), at(&["execution_success", "execution_error", "execution_interrupted"]))
    }

    fn duration(&self) -> u64 {
        let (start, end) = self.times();
        end.unwrap_or(0).saturating_sub(start.unwrap_or(0))
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
        object.insert("workflow_id".into(), self.workflow_id().into());
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
    serde_json::from_str(text).unwrap_or_else(|_| json!({}))
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
    }

    #[test]
    fn pages_filters_and_order() {
        let mut jobs: Vec<_> = (0..5).map(|i| job(&i.to_string(), Number::Counted(i), "{}")).collect();
        for (i, job) in jobs.iter_mut().enumerate() {
            job.accepted_at += i as u64;
        }
        let failed = History::default();
        let state = |i: usize| match i {
            0 => State::InProgress,
            1 => State::Ended { outcome: JobOutcome::Interrupted, history: &failed },
            2 => State::Ended { outcome: JobOutcome::Lost, history: &failed },
            _ => State::Pending,
        };
        let all =
            || jobs.iter().enumerate().map(|(i, job)| Listed { job, state: state(i) }).collect::<Vec<_>>();
        let ids = |value: &Value| {
            value["jobs"]
                .as_array()
                .unwrap()
                .iter()
                .map(|j| j["id"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let page = list(
            &query(&[("status", "pending,in_progress"), ("sort_order", "asc"), ("limit", "2")]).unwrap(),
            all(),
        );
        assert_eq!(ids(&page), ["0", "3"]);
        assert_eq!(
            page["jobs"][0],
            json!({"id": "0", "status": "in_progress", "priority": 0, "create_time": 1_795_329_855_569_u64, "outputs_count": 0})
        );
        assert_eq!(page["pagination"], json!({"offset": 0, "limit": 2, "total": 3, "has_more": true}));
        assert_eq!(
            ids(&list(&query(&[("status", "completed,failed,cancelled")]).unwrap(), all())),
            ["2", "1"]
        );
        assert_eq!(ids(&list(&query(&[("offset", "9")]).unwrap(), all())), [""; 0]);
        assert_eq!(ids(&list(&query(&[("workflow_id", "w9")]).unwrap(), all())), [""; 0]);
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
        assert_eq!(error(&[("offset", "99999999999999999999")]), "offset must be an integer");
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
