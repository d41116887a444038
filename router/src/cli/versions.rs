//! `policy list`, `swap`, `rollback`, `promote`, `withdraw` and `settings`: the versions of a running router.

use std::fmt::Write as _;

use anyhow::Context;
use hyper::Method;
use serde_json::Value;

use super::arguments::{Admin, PolicyLane, PolicyList, PolicyPromote, PolicySettings, PolicySwap, SwapAs};
use super::operator::{self, ask, query};
use super::{day_and_time, plain, print, time_of_day};

pub(super) fn list(arguments: &PolicyList) -> anyhow::Result<()> {
    let status = ask(&arguments.admin.admin, Method::GET, "/api/policy", Vec::new())?;
    match arguments.json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(&status)?)),
        false => print(&table(&status)),
    }
    Ok(())
}

pub(super) fn swap(arguments: &PolicySwap) -> anyhow::Result<()> {
    let file = &arguments.file;
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let share = arguments.share.map(|share| share.to_string());
    let place = match arguments.place {
        SwapAs::Live => "live",
        SwapAs::Shadow => "shadow",
        SwapAs::Canary => "canary",
    };
    let query = query(&[
        ("lane", arguments.lane.hook.as_deref()),
        ("name", arguments.name.as_deref().or(stem.as_deref())),
        ("as", Some(place)),
        ("share", share.as_deref()),
        ("settings", arguments.settings.as_deref()),
    ]);
    let done = operator::order(
        &arguments.lane.admin.admin,
        Method::POST,
        &format!("/api/policy/versions{query}"),
        bytes,
    )?;
    say(place, &done);
    Ok(())
}

pub(super) fn roll_back(lane: &PolicyLane) -> anyhow::Result<()> {
    order(&lane.admin, &format!("rollback{}", query(&[("lane", lane.hook.as_deref())])), "live")
}

pub(super) fn promote(arguments: &PolicyPromote) -> anyhow::Result<()> {
    let query = query(&[("lane", arguments.lane.hook.as_deref()), ("digest", arguments.digest.as_deref())]);
    order(&arguments.lane.admin, &format!("promote{query}"), "live")
}

pub(super) fn withdraw(lane: &PolicyLane) -> anyhow::Result<()> {
    order(&lane.admin, &format!("withdraw{}", query(&[("lane", lane.hook.as_deref())])), "live")
}

pub(super) fn unpin(lane: &PolicyLane) -> anyhow::Result<()> {
    order(&lane.admin, &format!("unpin{}", query(&[("lane", lane.hook.as_deref())])), "live")
}

pub(super) fn settings(arguments: &PolicySettings) -> anyhow::Result<()> {
    let query = query(&[("lane", arguments.lane.hook.as_deref())]);
    let body = arguments.settings.clone().into_bytes();
    let done = operator::order(
        &arguments.lane.admin.admin,
        Method::PUT,
        &format!("/api/policy/settings{query}"),
        body,
    )?;
    say("live", &done);
    Ok(())
}

fn order(admin: &Admin, path: &str, state: &str) -> anyhow::Result<()> {
    let done = operator::order(&admin.admin, Method::POST, &format!("/api/policy/{path}"), Vec::new())?;
    say(state, &done);
    Ok(())
}

fn say(state: &str, done: &Value) {
    print(&format!("{state}: {}\n", version(&done["version"])));
}

fn version(version: &Value) -> String {
    let text = |key: &str| version[key].as_str().unwrap_or_default();
    match text("digest") {
        "" => plain(text("name")),
        digest => format!("{} {}", plain(text("name")), plain(digest)),
    }
}

fn table(status: &Value) -> String {
    let mut out =
        format!("{:<14} {:<10} {:<34} {:<20} origin\n", "component", "state", "version", "loaded (UTC)");
    for row in status["versions"].as_array().into_iter().flatten() {
        let text = |key: &str| plain(row[key].as_str().unwrap_or_default());
        let at = day_and_time(row["at"].as_u64().unwrap_or_default());
        let _ = writeln!(
            out,
            "{:<14} {:<10} {:<34} {at:<20} {}",
            text("lane"),
            text("state"),
            version(&row["version"]),
            text("origin")
        );
        if let Some(reason) = row["reason"].as_str() {
            let _ = writeln!(out, "{:<14} {}", "", plain(reason));
        }
    }
    for lane in status["lanes"].as_array().into_iter().flatten() {
        trials(&mut out, lane);
    }
    status["ordered"].as_array().into_iter().flatten().for_each(|order| ordered(&mut out, order));
    recording(&mut out, &status["record"]);
    out
}

/// What a restart would not find in the configuration.
fn ordered(out: &mut String, order: &Value) {
    let text = |key: &str| plain(order[key].as_str().unwrap_or_default());
    let at = day_and_time(order["at"].as_u64().unwrap_or_default());
    let configured = match text("configured") {
        none if none.is_empty() => "the built-in".to_owned(),
        name => name,
    };
    let _ = match order["serves"].as_str().map(plain) {
        Some(version) => writeln!(
            out,
            "\n{}: {version} serves since {at} UTC by an operator's order, not what is configured ({configured}), also after a restart; `policy unpin` ends that",
            text("lane")
        ),
        None => writeln!(out, "\n{}: on trial by an operator's order, also after a restart", text("lane")),
    };
}

/// Only what is wrong with it.
fn recording(out: &mut String, record: &Value) {
    if let Some(dropped) = record["dropped"].as_u64().filter(|dropped| *dropped > 0) {
        let _ = writeln!(
            out,
            "\nrecording: {} questions recorded, {dropped} came too fast and are not in it",
            record["recorded"]
        );
    }
    if let Some(why) = record["files_ended"].as_str().map(plain) {
        let _ = writeln!(out, "\nrecording: nothing is written to policy.record.dir any more: {why}");
    }
}

fn trials(out: &mut String, lane: &Value) {
    let name = plain(lane["lane"].as_str().unwrap_or_default());
    if let Some(canary) = lane.get("canary").filter(|canary| canary.is_object()) {
        let side = |side: &Value| {
            format!(
                "{} ended, {} failed, mean wait {:.0} ms",
                side["ended"],
                side["failed"],
                side["mean_wait_ms"].as_f64().unwrap_or_default()
            )
        };
        let share = canary["share"].as_f64().unwrap_or_default() * 100.0;
        let (its, others) = (side(&canary["canary"]), side(&canary["live"]));
        let _ = writeln!(out, "\ncanary of {name}, {share:.0} % of the jobs: {its}\n  the others: {others}");
    }
    if let Some(shadow) = lane.get("shadow").filter(|shadow| shadow.is_object()) {
        let _ = writeln!(
            out,
            "\nshadow of {name}: agreed in {} of {} answers, failed {}, left out {}; {} routes differ in a way that can be predicted, mean gain {:.0} ms",
            shadow["agreed"],
            shadow["asked"],
            shadow["failed"],
            shadow["dropped"],
            shadow["routes_compared"],
            shadow["predicted_gain_ms"].as_f64().unwrap_or_default()
        );
        for difference in shadow["differences"].as_array().into_iter().flatten().rev().take(10) {
            let text = |key: &str| plain(difference[key].as_str().unwrap_or_default());
            let at = time_of_day(difference["at"].as_u64().unwrap_or_default());
            let (hook, live, shadow) = (text("hook"), text("live"), text("shadow"));
            let _ = writeln!(out, "  {at} {hook:<11} {live}  |  {shadow}");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_and_trials_are_listed_with_what_an_operator_asks_first() {
        let version = |name: &str| json!({"name": name, "digest": "0123456789ab"});
        let row = |name: &str, state: &str, reason: Value| json!({"lane": "policy", "version": version(name), "state": state, "origin": "/etc/p.wasm", "at": 3_661_000, "reason": reason});
        let status = json!({
            "versions": [row("new", "live", Value::Null), row("odd", "failed", json!("refused: it is no component"))],
            "lanes": [{"lane": "policy", "canary": {"share": 0.1,
                "canary": {"ended": 3, "failed": 1, "mean_wait_ms": 20.4}, "live": {"ended": 30, "failed": 0, "mean_wait_ms": 10.0}},
                "shadow": {"agreed": 9, "asked": 10, "failed": 0, "dropped": 0, "routes_compared": 1, "predicted_gain_ms": 8490.0,
                "differences": [{"at": 3_661_000, "hook": "route", "live": "gpu0", "shadow": "gpu1"}]}}],
            "ordered": [{"lane": "policy", "at": 3_661_000, "configured": "/etc/p.wasm", "serves": "old 0123"}],
            "record": {"recorded": 90, "dropped": 7, "files_ended": "no space left"},
        });
        let shown = table(&status);
        for expected in [
            "new 0123456789ab",
            "01 Jan 1970 01:01:01 /etc/p.wasm",
            "refused: it is no component",
            "10 % of the jobs: 3 ended, 1 failed, mean wait 20 ms",
            "agreed in 9 of 10 answers",
            "mean gain 8490 ms",
            "01:01:01 route       gpu0  |  gpu1",
            "old 0123 serves since 01 Jan 1970 01:01:01 UTC by an operator's order, not what is configured (/etc/p.wasm)",
            "90 questions recorded, 7 came too fast",
            "any more: no space left",
        ] {
            assert!(shown.contains(expected), "{expected} in\n{shown}");
        }
    }
}
