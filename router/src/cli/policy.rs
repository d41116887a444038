//! `policy check` and `policy bench`.

use anyhow::Context;
use serde::Serialize;

use super::arguments::{PolicyBench, PolicyFile};
use super::print;
use crate::policy::tools;

type Settings = serde_json::Map<String, serde_json::Value>;

pub(super) fn check(arguments: &PolicyFile) -> anyhow::Result<()> {
    let report = tools::check(&arguments.file, &settings(arguments)?)?;
    show(&report, arguments.json)?;
    anyhow::ensure!(report.passed(), "{} would not serve", arguments.file.display());
    Ok(())
}

pub(super) fn conform(arguments: &PolicyFile) -> anyhow::Result<()> {
    let report = tools::conform(&arguments.file, &settings(arguments)?)?;
    show(&report, arguments.json)?;
    anyhow::ensure!(report.conforms(), "{} does not conform", arguments.file.display());
    Ok(())
}

pub(super) fn bench(arguments: &PolicyBench) -> anyhow::Result<()> {
    let policy = &arguments.policy;
    let table = tools::bench(&policy.file, &settings(policy)?, &arguments.candidates)?;
    show(&table, policy.json)
}

fn settings(arguments: &PolicyFile) -> anyhow::Result<Settings> {
    serde_json::from_str(&arguments.settings).context("--settings is not a JSON object")
}

fn show(what: &(impl std::fmt::Display + Serialize), json: bool) -> anyhow::Result<()> {
    match json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(what)?)),
        false => print(&what.to_string()),
    }
    Ok(())
}
