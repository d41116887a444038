//! The shapes of `/queue` items and `/history` entries.
//!
//! Texts are put together, not parsed and written again: a prompt is tens of KiB and is stored as the JSON it was.

use super::json::quote;
use crate::model::event::History;
use crate::model::job::{Job, Number};

/// `[number, prompt_id, prompt, extra_data, outputs_to_execute]`
pub fn queue_item(job: &Job) -> String {
    let mut item = String::with_capacity(job.body.text_bytes() + 256);
    push_queue_item(&mut item, job);
    item
}

/// The same, at the end of a text.
pub fn push_queue_item(text: &mut String, job: &Job) {
    text.push('[');
    text.push_str(&number(job.number));
    text.push_str(", ");
    text.push_str(&quote(&job.prompt_id));
    text.push_str(", ");
    text.push_str(&job.body.prompt);
    text.push_str(", ");
    push_extra_data(text, job);
    text.push_str(", [");
    for (i, output) in job.body.outputs.iter().enumerate() {
        text.push_str(if i == 0 { "" } else { ", " });
        text.push_str(&quote(output));
    }
    text.push_str("]]");
}

/// `{prompt, outputs, status, meta}`
pub fn entry(job: &Job, history: &History) -> String {
    let or_empty = |text: &str| if text.is_empty() { "{}".to_owned() } else { text.to_owned() };
    let item = queue_item(job);
    format!(
        r#"{{"prompt": {item}, "outputs": {}, "status": {}, "meta": {}}}"#,
        or_empty(&history.outputs),
        or_empty(&history.status),
        or_empty(&history.meta)
    )
}

/// The member of `GET /history/{id}`'s object.
pub fn named_entry(job: &Job, history: &History) -> String {
    format!("{}: {}", quote(&job.prompt_id), entry(job, history))
}

/// A member of `GET /history`'s object. Its number counts ends: instances end jobs out of the order of the queue, and the
/// page (1.27, 1.35) takes no entry whose number is not above those it has.
pub fn listed_entry(job: &Job, ended_before: i64, history: &History) -> String {
    named_entry(&Job { number: Number::Counted(ended_before), ..job.clone() }, history)
}

/// The client's `extra_data` with what ComfyUI adds to it: whose it is and when it came.
pub fn extra_data(job: &Job) -> String {
    let mut text = String::with_capacity(job.body.extra_data.len() + 128);
    push_extra_data(&mut text, job);
    text
}

fn push_extra_data(text: &mut String, job: &Job) {
    let stored = job.body.extra_data.trim();
    let members = stored.strip_prefix('{').and_then(|s| s.strip_suffix('}')).unwrap_or_default().trim();
    text.push('{');
    text.push_str(members);
    let mut comma = if members.is_empty() { "" } else { ", " };
    if let Some(client) = &job.client_id {
        text.push_str(comma);
        text.push_str(r#""client_id": "#);
        text.push_str(&quote(client));
        comma = ", ";
    }
    text.push_str(comma);
    text.push_str(r#""create_time": "#);
    text.push_str(&job.accepted_at.to_string());
    text.push('}');
}

/// A counted number is an integer, a given one a float, as Python writes them.
pub fn number(number: Number) -> String {
    match number {
        Number::Counted(counted) => counted.to_string(),
        Number::Given(given) => serde_json::Value::from(given).to_string(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::model::id::JobId;
    use crate::model::job::{Body, JobClass, Needs, Requested};

    pub(crate) fn job(prompt_id: &str, number: Number, extra_data: &str) -> Job {
        Job {
            id: JobId::mint(),
            prompt_id: prompt_id.to_owned(),
            number,
            client_id: Some("bbbb".to_owned()),
            tenant: "default".to_owned(),
            class: JobClass::Standard,
            requested: Requested::default(),
            accepted_at: 1_795_329_855_569,
            body: Arc::new(Body {
                prompt: r#"{"3":{"class_type":"SaveImage","inputs":{}}}"#.to_owned(),
                extra_data: extra_data.to_owned(),
                workflow_id: crate::comfy::jobs::workflow_id(extra_data),
                outputs: vec!["3".to_owned()],
                ..Body::default()
            }),
            needs: Arc::new(Needs::default()),
            once: None,
        }
    }

    pub(crate) fn success() -> History {
        History {
            outputs:
                r#"{"3": {"images": [{"filename": "t_00002_.png", "subfolder": "", "type": "output"}]}}"#
                    .to_owned(),
            status: r#"{"status_str": "success", "completed": true, "messages": [
                ["execution_start", {"prompt_id": "b3", "timestamp": 1795329855574}],
                ["execution_cached", {"nodes": [], "prompt_id": "b3", "timestamp": 1795329855575}],
                ["execution_success", {"prompt_id": "b3", "timestamp": 1795329855735}]]}"#
                .to_owned(),
            meta: r#"{"3": {"node_id": "3", "display_node": "3", "parent_node": null, "real_node_id": "3"}}"#
                .to_owned(),
            ..History::default()
        }
    }

    #[test]
    fn an_item_is_what_comfyui_shows() {
        let job = job("b3", Number::Counted(2), r#"{"extra_pnginfo": {"workflow": {"id": "w1"}}}"#);
        let item: Value = serde_json::from_str(&queue_item(&job)).unwrap();
        assert_eq!(
            item,
            json!([2, "b3", {"3": {"class_type": "SaveImage", "inputs": {}}},
                {"extra_pnginfo": {"workflow": {"id": "w1"}}, "client_id": "bbbb", "create_time": 1_795_329_855_569_u64}, ["3"]])
        );
    }

    #[test]
    fn given_numbers_stay_floats() {
        assert_eq!(
            (number(Number::Given(-5.0)), number(Number::Counted(-17))),
            ("-5.0".into(), "-17".into())
        );
    }

    #[test]
    fn items_are_whole_json_even_when_parts_are_missing() {
        let mut bare = job("a \"quoted\" id", Number::Counted(0), "");
        bare.client_id = None;
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let named = format!("{{{}}}", named_entry(&bare, &success()));
        assert_eq!(value(&named)["a \"quoted\" id"]["status"]["status_str"], "success");
        assert_eq!(value(&entry(&bare, &History::default()))["outputs"], json!({}));
        assert_eq!(value(&queue_item(&bare))[3], json!({"create_time": 1_795_329_855_569_u64}));
    }
}
