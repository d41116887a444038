//! `explain`: why a job is where it is, for reading at night.

use std::fmt::Write as _;

use hyper::Method;
use serde_json::Value;

use super::arguments::Explain;
use super::operator::{ask, encoded};
use super::{day_and_time, plain, print, time_of_day};

pub(super) fn run(arguments: &Explain) -> anyhow::Result<()> {
    let path = format!("/api/jobs/{}/explain", encoded(&arguments.job));
    let job = ask(&arguments.admin.admin, Method::GET, &path, Vec::new())?;
    match arguments.json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(&job)?)),
        false => print(&page(&job)),
    }
    Ok(())
}

fn page(job: &Value) -> String {
    let mut out = String::new();
    let at = |key: &str| day_and_time(job[key].as_u64().unwrap_or_default());
    let _ = writeln!(
        out,
        "job {} of {}, {}: {}, accepted {}{} UTC",
        word(&job["prompt_id"]),
        word(&job["tenant"]),
        word(&job["class"]),
        state(&job["state"]),
        at("accepted_at"),
        if job["ended_at"].is_null() { String::new() } else { format!(", ended {}", at("ended_at")) },
    );
    now(&mut out, &job["now"]);
    for decision in job["decisions"].as_array().into_iter().flatten() {
        told(&mut out, decision);
    }
    for attempt in job["attempts"].as_array().into_iter().flatten() {
        attempted(&mut out, attempt);
    }
    out
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| plain(&value.to_string()), plain)
}

fn state(state: &Value) -> String {
    match state {
        Value::Object(map) => map
            .iter()
            .map(|(state, detail)| format!("{state} {}", word(detail)))
            .collect::<Vec<_>>()
            .join(", "),
        other => word(other),
    }
}

fn now(out: &mut String, now: &Value) {
    if now.is_null() {
        return;
    }
    if now["draining"] == true {
        let _ = writeln!(out, "the router is shutting down and starts nothing");
    }
    let waiting = &now["waiting"];
    if waiting.is_null() {
        return;
    }
    let number = |key: &str| waiting[key].as_f64().unwrap_or_default();
    match waiting["place"].as_i64().unwrap_or_default() {
        0 => {}
        place if place > 0 => out.push_str("an operator moved it to the front\n"),
        _ => out.push_str("an operator moved it to the back\n"),
    }
    let _ = writeln!(
        out,
        "now: {} before it, priority {:.1} ({} + {}/s), waiting {}{}",
        waiting["ahead"],
        number("priority"),
        waiting["score"],
        waiting["ageing_per_second"],
        span(number("waited_ms")),
        match (number("not_before_ms"), waiting["held"] == true) {
            (ms, true) if ms > 0.0 => format!(", held by the policy for another {}", span(ms)),
            (ms, false) if ms > 0.0 => format!(", tried again in {}", span(ms)),
            _ => String::new(),
        },
    );
    for instance in now["instances"].as_array().into_iter().flatten() {
        let verdict = match instance["excluded"].as_str() {
            Some(why) => plain(why),
            None if instance["free_slots"] != 0 => "free".to_owned(),
            None => match instance["free_in_ms"].as_f64() {
                Some(ms) => format!("busy, free in {}", span(ms)),
                None => "busy, nobody knows how long".to_owned(),
            },
        };
        let _ = writeln!(out, "  {:<16} {verdict}", word(&instance["instance"]));
    }
}

/// Milliseconds as a person says them.
fn span(ms: f64) -> String {
    match ms {
        ms if ms < 1_000.0 => format!("{ms:.0} ms"),
        ms if ms < 120_000.0 => format!("{:.1} s", ms / 1_000.0),
        ms => format!("{:.1} min", ms / 60_000.0),
    }
}

fn told(out: &mut String, decision: &Value) {
    let text = |key: &str| plain(decision[key].as_str().unwrap_or_default());
    let version = &decision["version"];
    let _ = write!(
        out,
        "\n{} {:<11} {}",
        time_of_day(decision["at"].as_u64().unwrap_or_default()),
        text("hook"),
        text("said")
    );
    if !text("reason").is_empty() {
        let _ = write!(out, " because: {}", text("reason"));
    }
    if !text("did").is_empty() {
        let _ = write!(out, " -> {}", text("did"));
    }
    let by = match (text("fallback").as_str(), word(&version["name"])) {
        ("", name) => format!("by {name} {}", word(&version["digest"])),
        ("not_exported", name) => format!("by the built-in: {name} leaves this to it"),
        (why, name) => format!("by the built-in, because {name} {} failed: {why}", word(&version["digest"])),
    };
    let _ = writeln!(out, "\n         {} in {} us", by.trim_end(), decision["took_us"]);
    seen(out, &decision["seen"]);
}

fn seen(out: &mut String, seen: &Value) {
    let list = |key: &str| seen[key].as_array().map(Vec::as_slice).unwrap_or_default();
    for candidate in list("candidates") {
        let _ = writeln!(out, "         saw {}", candidate_line(candidate));
    }
    for excluded in list("excluded") {
        let _ = writeln!(out, "         left out {:<12} {}", word(&excluded["name"]), word(&excluded["why"]));
    }
    for (key, what) in [("more_candidates", "candidates"), ("more_excluded", "left out")] {
        if let Some(more) = seen[key].as_u64() {
            let _ = writeln!(out, "         and {more} more {what}");
        }
    }
    let plain = seen.as_object().filter(|seen| !seen.contains_key("candidates"));
    if let Some(figures) = plain {
        let shown: Vec<String> = figures
            .iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(key, v)| format!("{key} {}", word(v)))
            .collect();
        let _ = writeln!(out, "         saw {}", shown.join(", "));
    }
}

fn candidate_line(candidate: &Value) -> String {
    let number = |key: &str| candidate[key].as_f64();
    let gpu = |key: &str| candidate["gpu"][key].as_f64();
    let mut said = vec![match (number("free_slots"), number("free_in_ms")) {
        (Some(slots), _) if slots > 0.0 => "free".to_owned(),
        (_, Some(ms)) => format!("free in {}", span(ms)),
        _ => "busy".to_owned(),
    }];
    said.push(format!("{} models there", candidate["models_resident"]));
    let mut known =
        |what: &str, value: Option<String>| said.extend(value.map(|value| format!("{what} {value}")));
    known("loads", number("load_ms").map(span));
    known("runs", number("run_ms").map(span));
    known("VRAM free", gpu("vram_free_mib").map(|mib| format!("{mib} MiB")));
    known("at", gpu("temperature_c").map(|c| format!("{c:.0} C")));
    known("reading", gpu("reading_age_ms").map(|ms| format!("{} old", span(ms))));
    known("failures", number("failures").filter(|n| *n > 0.0).map(|n| n.to_string()));
    format!("{:<12} {}", word(&candidate["name"]), said.join(", "))
}

fn attempted(out: &mut String, attempt: &Value) {
    let number = &attempt["number"];
    let started = time_of_day(attempt["started_at"].as_u64().unwrap_or_default());
    let end = match attempt["outcome"].as_str() {
        Some(outcome) => format!("{outcome} {}", word(&attempt["detail"])),
        None if !attempt["stop"].is_null() => format!("told to stop: {}", word(&attempt["stop"])),
        None => "runs".to_owned(),
    };
    let _ =
        writeln!(out, "\n{started} attempt {number} on {}: {}", word(&attempt["instance"]), end.trim_end());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_waiting_job_says_what_it_waits_for() {
        let job = json!({
            "prompt_id": "abc", "tenant": "ann", "class": "interactive", "state": "queued", "accepted_at": 3_661_000, "ended_at": null,
            "now": {"draining": false, "waiting": {"ahead": 2, "priority": 134.25, "score": 100.0, "ageing_per_second": 1.0,
                "waited_ms": 34_250, "not_before_ms": 1_500, "held": true, "held_ms": 9_000},
                "instances": [
                    {"instance": "gpu0", "excluded": null, "free_slots": 0, "free_in_ms": 4_000},
                    {"instance": "gpu1", "excluded": "no node class Foo", "free_slots": 1, "free_in_ms": 0},
                ]},
            "decisions": [{"at": 3_662_000, "hook": "route", "said": "hold 1500 ms", "reason": "models are elsewhere", "did": "held for 1500 ms",
                "fallback": null, "took_us": 7, "version": {"name": "model-affinity", "digest": "0123456789ab"},
                "seen": {"candidates": [{"name": "gpu0", "free_slots": 0, "free_in_ms": 4_000, "models_resident": 1, "load_ms": 0,
                    "run_ms": 15_000, "failures": 0, "gpu": {"vram_free_mib": 8_000, "temperature_c": 61.0, "reading_age_ms": 200}}],
                    "excluded": [{"name": "gpu1", "why": "no node class Foo"}]}}],
            "attempts": [],
        });
        let shown = page(&job);
        for expected in [
            "job abc of ann, interactive: queued, accepted 01 Jan 1970 01:01:01 UTC",
            "now: 2 before it, priority 134.2 (100.0 + 1.0/s), waiting 34.2 s, held by the policy for another 1.5 s",
            "gpu0             busy, free in 4.0 s",
            "gpu1             no node class Foo",
            "01:01:02 route       hold 1500 ms because: models are elsewhere -> held for 1500 ms",
            "by model-affinity 0123456789ab in 7 us",
            "saw gpu0         free in 4.0 s, 1 models there, loads 0 ms, runs 15.0 s, VRAM free 8000 MiB, at 61 C, reading 200 ms old",
            "left out gpu1         no node class Foo",
        ] {
            assert!(shown.contains(expected), "{expected:?} in\n{shown}");
        }
    }

    #[test]
    fn a_fallback_names_who_failed_and_how() {
        let decision = json!({"at": 0, "hook": "route", "said": "gpu0", "reason": "least loaded", "did": "dispatched to gpu0",
            "fallback": "deadline", "took_us": 5_400, "version": {"name": "slow", "digest": "ff"}});
        let mut out = String::new();
        told(&mut out, &decision);
        assert!(out.contains("by the built-in, because slow ff failed: deadline in 5400 us"), "{out}");
    }
}
