//! The differences that are no faults. Each has a row in `docs/compatibility.md` under the same name, with its reason.

use serde_json::{Value, json};

use super::Entry;

/// One kind of difference: makes the two sides equal where it applies.
struct Known {
    key: &'static str,
    smooth: fn(&Entry, &mut Value, &mut Value),
}

const KNOWN: &[Known] = &[
    Known { key: "file-subfolders", smooth: |_, _, router| subfolders(router) },
    Known { key: "history-numbers", smooth: history_numbers },
    Known { key: "queue-numbers", smooth: |_, direct, router| each(direct, router, numbers) },
    Known { key: "tracebacks", smooth: |_, direct, router| each(direct, router, tracebacks) },
    Known { key: "instances-named", smooth: |_, _, router| instances(router) },
    Known { key: "bad-requests", smooth: bad_requests },
    Known { key: "nobody-elses-progress", smooth: strangers },
    Known { key: "newer-routes", smooth: newer_routes },
    Known { key: "cancelled-status", smooth: cancelled },
    Known { key: "waiting-workflows", smooth: waiting_workflows },
    Known { key: "credentials", smooth: |_, direct, _| credentials(direct) },
    Known { key: "create-time", smooth: |_, direct, router| each(direct, router, create_time) },
    Known { key: "other-pages", smooth: other_pages },
    Known { key: "devices", smooth: |_, direct, router| each(direct, router, devices) },
    Known { key: "worker-killers", smooth: worker_killers },
    Known { key: "no-programs", smooth: no_programs },
    Known { key: "present-state", smooth: present_state },
];

/// The names of all known differences.
pub fn keys() -> Vec<&'static str> {
    KNOWN.iter().map(|known| known.key).collect()
}

/// Which known differences explain that the router's entry is another; none if they do not explain all of it.
pub(super) fn explanation(direct: &Entry, router: Option<&Entry>) -> Option<Vec<&'static str>> {
    let (mut ours, mut theirs) =
        (direct.heard.clone(), router.map_or(Value::Null, |entry| entry.heard.clone()));
    let mut keys = Vec::new();
    for known in KNOWN {
        let before = (ours.clone(), theirs.clone());
        (known.smooth)(direct, &mut ours, &mut theirs);
        if before != (ours.clone(), theirs.clone()) {
            keys.push(known.key);
        }
        if ours == theirs {
            return Some(keys);
        }
    }
    None
}

fn each(direct: &mut Value, router: &mut Value, change: fn(&mut Value)) {
    change(direct);
    change(router);
}

/// Every value inside, and the value itself.
fn deep(value: &mut Value, change: &mut dyn FnMut(&mut Value)) {
    match value {
        Value::Object(members) => members.values_mut().for_each(|member| deep(member, change)),
        Value::Array(items) => items.iter_mut().for_each(|item| deep(item, change)),
        _ => {}
    }
    change(value);
}

/// `~name` or `~name/rest`
fn subfolders(value: &mut Value) {
    deep(value, &mut |value| {
        if let Some(Value::String(folder)) = value.get_mut("subfolder")
            && folder.starts_with('~')
        {
            *folder = folder.split_once('/').map_or_else(String::new, |(_, rest)| rest.to_owned());
        }
    });
}

/// The list of the history, not one entry.
fn history_numbers(entry: &Entry, direct: &mut Value, router: &mut Value) {
    if entry.what.contains("/history/") || !entry.what.contains("/history") {
        return;
    }
    each(direct, router, |value| {
        deep(value, &mut |value| {
            if let Value::Array(item) = value
                && item.len() == 5
                && item[1].is_string()
                && item[2].is_object()
            {
                item[0] = json!("*");
            }
        });
    });
}

/// Only whether it is an integer, and its sign.
fn numbers(value: &mut Value) {
    let shape = |number: &Value| match (number.is_f64(), number.as_f64()) {
        (_, None) => number.clone(),
        (true, Some(number)) => json!(format!("float {number}")),
        (false, Some(number)) => json!(if number < 0.0 { "in front" } else { "counted" }),
    };
    deep(value, &mut |value| match value {
        Value::Object(members) => {
            for name in ["number", "priority"] {
                if let Some(number) = members.get_mut(name) {
                    *number = shape(number);
                }
            }
        }
        // `[number, id, prompt, extra_data, outputs]`
        Value::Array(item) if item.len() == 5 && item[1].is_string() && item[2].is_object() => {
            item[0] = shape(&item[0]);
        }
        _ => {}
    });
}

fn tracebacks(value: &mut Value) {
    deep(value, &mut |value| {
        if let Some(lines) = value.get_mut("traceback") {
            *lines = json!("*");
        }
    });
}

fn instances(router: &mut Value) {
    if let Some(Value::Object(info)) = router.pointer_mut("/body/error/extra_info") {
        info.remove("instances");
        info.remove("reason");
    }
}

/// ComfyUI's 500 for what it cannot read is a 400 that says why.
fn bad_requests(entry: &Entry, direct: &mut Value, router: &mut Value) {
    let read = entry.what.contains("POST") || entry.what.contains("/history?");
    if read && direct["status"] == 500 && router["status"] == 400 {
        *direct = router.clone();
    }
}

/// A job without a client: ComfyUI tells everybody of its progress.
fn strangers(entry: &Entry, direct: &mut Value, router: &mut Value) {
    let of_nobody = entry.what.ends_with("hears of <unheard>");
    if of_nobody && router.is_null() {
        *direct = Value::Null;
    }
}

/// Routes that this version does not have yet and the router answers for every version.
fn newer_routes(entry: &Entry, direct: &mut Value, router: &mut Value) {
    let unknown = direct["status"] == 404 && direct["body"] == "";
    let cancels = entry.what.contains("POST") && direct["status"] == 405;
    if entry.what.contains("/api/jobs") && (unknown || cancels) {
        *direct = router.clone();
    }
}

/// The status that versions after 0.8.0 know.
fn cancelled(entry: &Entry, direct: &mut Value, router: &mut Value) {
    if !entry.what.contains("/api/jobs") {
        return;
    }
    let error = |side: &Value| side["body"]["error"].as_str().unwrap_or_default().to_owned();
    if error(direct).starts_with("Invalid status value(s): cancelled") && router["status"] == 200 {
        *direct = router.clone();
        return;
    }
    if let Some(text) = error(router).strip_suffix(", cancelled") {
        router["body"]["error"] = json!(text);
    }
    deep(router, &mut |value| {
        if value["status"] == "cancelled" {
            value["status"] = json!("failed");
        }
    });
}

/// Later versions show the graph of a job before its end too.
fn waiting_workflows(entry: &Entry, direct: &mut Value, router: &mut Value) {
    let open = |side: &Value| matches!(side["body"]["status"].as_str(), Some("pending" | "in_progress"));
    if entry.what.contains("/api/jobs/")
        && open(direct)
        && let Some(job) = router["body"].as_object_mut()
    {
        job.remove("workflow");
    }
}

/// 0.3.64 shows the credentials of jobs that wait or run.
fn credentials(direct: &mut Value) {
    deep(direct, &mut |value| {
        if let Value::Object(members) = value {
            members.remove("auth_token_comfy_org");
            members.remove("api_key_comfy_org");
        }
    });
}

fn create_time(value: &mut Value) {
    deep(value, &mut |value| {
        if let Value::Object(members) = value {
            members.remove("create_time");
        }
    });
}

/// Why a page of another site is refused.
fn other_pages(_: &Entry, direct: &mut Value, router: &mut Value) {
    if direct["status"] == 403 && router["status"] == 403 {
        *direct = router.clone();
    }
}

fn devices(value: &mut Value) {
    if let Some(Value::Array(devices)) = value.pointer_mut("/body/devices") {
        for device in devices.iter_mut().filter_map(Value::as_object_mut) {
            device.remove("instance");
            device.remove("index");
        }
    }
}

/// Files that a browser could run are downloads.
fn no_programs(entry: &Entry, direct: &mut Value, router: &mut Value) {
    let download =
        router["headers"]["content-disposition"].as_str().is_some_and(|how| how.starts_with("attachment"));
    if entry.what.contains("/view?") && download && direct["status"] == router["status"] {
        direct["headers"] = router["headers"].clone();
    }
}

fn worker_killers(_: &Entry, direct: &mut Value, router: &mut Value) {
    let refused =
        router["body"]["error"]["message"].as_str().is_some_and(|text| text.contains("missing the inputs"));
    if refused && direct["status"] == 200 {
        *direct = router.clone();
    }
}

/// A socket that connects in mid-run: ComfyUI names the node alone, the router tells where the job is.
fn present_state(entry: &Entry, direct: &mut Value, router: &mut Value) {
    if !entry.what.contains(" hears of ") {
        return;
    }
    let (Value::Array(direct), Value::Array(router)) = (direct, router) else { return };
    let bare = |event: &Value| event["type"] == "executing" && event["data"].get("prompt_id").is_none();
    if !router.iter().any(bare) {
        direct.retain(|event| !bare(event));
    }
    let told = router.first().is_some_and(|event| event["type"] == "execution_start");
    if told
        && direct.first().is_some_and(|event| event["type"] != "execution_start")
        && router.ends_with(direct)
    {
        router.clone_from(direct);
    }
}
