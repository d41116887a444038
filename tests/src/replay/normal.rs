//! Takes out of what was heard what differs between two plays of one server.

use serde_json::{Map, Value, json};

/// Members whose values are times, amounts of memory, versions of what a server runs on, or texts of its files' paths.
const ANY: [&str; 17] = [
    "timestamp",
    "create_time",
    "execution_start_time",
    "execution_end_time",
    "execution_duration",
    "ram_total",
    "ram_free",
    "vram_total",
    "vram_free",
    "torch_vram_total",
    "torch_vram_free",
    "python_version",
    "pytorch_version",
    "argv",
    "modified",
    "created",
    "current_outputs",
];

/// Members that Python writes in the order of a set.
const SETS: [&str; 3] = ["executed", "dependent_outputs", "nodes"];

pub(super) fn value(value: &mut Value) {
    match value {
        Value::Object(members) => object(members),
        Value::Array(items) => items.iter_mut().for_each(self::value),
        Value::String(text) => *text = file_name(text),
        _ => {}
    }
}

fn object(members: &mut Map<String, Value>) {
    for (name, member) in members.iter_mut() {
        self::value(member);
        if ANY.contains(&name.as_str()) {
            *member = json!("*");
        } else if name == "exception_message"
            && let Value::String(text) = member
        {
            *text = without_folders(text);
        } else if name == "traceback" {
            let told = member.as_array().is_some_and(|lines| !lines.is_empty());
            *member = json!(if told { "some" } else { "none" });
        } else if SETS.contains(&name.as_str())
            && let Value::Array(items) = member
        {
            items.sort_by_key(ToString::to_string);
        } else if name == "errors"
            && let Value::Array(items) = member
        {
            items.sort_by_key(|error| error["extra_info"]["input_name"].to_string());
        } else if name == "prompt"
            && let Value::Array(item) = member
        {
            queue_item(item);
        } else if let ("queue_running" | "queue_pending", Value::Array(items)) = (name.as_str(), member) {
            // A raw heap in ComfyUI: only its first is sure to be the next.
            items.iter_mut().filter_map(Value::as_array_mut).for_each(|item| queue_item(item));
            items.sort_by(|a, b| {
                let number = |item: &Value| item[0].as_f64().unwrap_or_default();
                number(a).total_cmp(&number(b))
            });
        }
    }
}

/// `[number, id, prompt, extra_data, outputs]`; the outputs are a set.
fn queue_item(item: &mut [Value]) {
    if let Some(Value::Array(outputs)) = item.get_mut(4) {
        outputs.sort_by_key(ToString::to_string);
    }
}

/// Paths as their last part: every server has folders of its own.
fn without_folders(text: &str) -> String {
    let short = |part: &str| match part.starts_with('/') {
        true => part.rsplit('/').next().unwrap_or_default().to_owned(),
        false => part.to_owned(),
    };
    text.split('\'').map(short).collect::<Vec<_>>().join("'")
}

/// `t_00012_.png` and the random letters of temporary files.
fn file_name(text: &str) -> String {
    let Some((stem, ending)) = text.rsplit_once("_.") else { return text.to_owned() };
    let Some((prefix, count)) = stem.rsplit_once('_') else { return text.to_owned() };
    if count.len() != 5 || !count.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.to_owned();
    }
    let prefix = match prefix.rsplit_once("_temp_") {
        Some((before, _)) => format!("{before}_temp_*"),
        None => prefix.to_owned(),
    };
    format!("{prefix}_#_.{ending}")
}

/// The events of one job that was interrupted: how far it had come is chance.
pub(super) fn cut_short(events: &mut Vec<Value>) {
    events
        .retain(|event| !matches!(event["type"].as_str(), Some("progress_state" | "progress" | "executed")));
    events.retain(|event| event["type"] != "executing" || event["data"]["node"].is_null());
    events.iter_mut().for_each(where_interrupted);
}

/// How far a job had come, in an event or in a history entry.
pub(super) fn where_interrupted(value: &mut Value) {
    match value {
        // What runs when a client connects: no more than its node is said, and which one is chance.
        Value::Object(members) if members.len() == 1 && members.contains_key("node") => {
            members.insert("node".to_owned(), json!("*"));
        }
        Value::Object(members) => {
            let interrupted = members.contains_key("executed") && !members.contains_key("exception_type");
            for (name, member) in members.iter_mut() {
                match name.as_str() {
                    "executed" | "node_id" | "node_type" if interrupted => *member = json!("*"),
                    _ => where_interrupted(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(where_interrupted),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_numbers_go_and_names_stay() {
        assert_eq!(file_name("t_00012_.png"), "t_#_.png");
        assert_eq!(file_name("ComfyUI_temp_abcde_00001_.png"), "ComfyUI_temp_*_#_.png");
        assert_eq!(file_name("photo_2024_.png"), "photo_2024_.png");
        assert_eq!(without_folders("cannot identify '/a/b/c.png'\n"), "cannot identify 'c.png'\n");
    }

    #[test]
    fn sets_are_sorted_and_times_are_masked() {
        let mut given = json!({"executed": ["2", "1"], "timestamp": 5, "prompt": [1, "id", {}, {}, ["9", "3"]],
            "traceback": ["x"], "keep": 1});
        value(&mut given);
        let wanted = json!({"executed": ["1", "2"], "timestamp": "*", "prompt": [1, "id", {}, {}, ["3", "9"]],
            "traceback": "some", "keep": 1});
        assert_eq!(given, wanted);
    }
}
