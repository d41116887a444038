//! `policy ...`: what an author needs, from a new project to a policy that serves.

mod develop;
mod project;

use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use super::arguments::{
    PolicyBench, PolicyBindings, PolicyComponent, PolicyFile, PolicyNew, PolicyReplay, PolicyTest, PolicyWit,
};
use super::{plain_lines, print};
use crate::config::{Config, Sources};
use crate::policy::tools;
use crate::{app, simulation};
use project::Project;

pub(super) use develop::develop;

type Settings = serde_json::Map<String, serde_json::Value>;

pub(super) fn check(arguments: &PolicyFile) -> anyhow::Result<()> {
    let subject = Subject::of(arguments)?;
    let report = tools::check(&subject.component, &subject.settings)?;
    show(&report, arguments.json)?;
    anyhow::ensure!(report.passed(), "{} would not serve", subject.component.display());
    Ok(())
}

pub(super) fn conform(arguments: &PolicyFile) -> anyhow::Result<()> {
    let subject = Subject::of(arguments)?;
    let report = tools::conform(&subject.component, &subject.settings)?;
    show(&report, arguments.json)?;
    anyhow::ensure!(report.conforms(), "{} does not conform", subject.component.display());
    Ok(())
}

pub(super) fn bench(arguments: &PolicyBench) -> anyhow::Result<()> {
    let subject = Subject::of(&arguments.policy)?;
    let count = !arguments.no_fuel;
    let sizes: Vec<usize> = arguments.candidates.iter().copied().map(usize::from).collect();
    let table = tools::bench(&subject.component, &subject.settings, &sizes, count)?;
    show(&table, arguments.policy.json)
}

pub(super) fn test(arguments: &PolicyTest) -> anyhow::Result<()> {
    let subject = Subject::of(&arguments.policy)?;
    let cases = match arguments.cases.as_slice() {
        [] => subject.cases.clone().context("name the cases with --cases, or in policy.toml")?,
        named => named.to_vec(),
    };
    let options = tools::Options { update: arguments.update, filter: arguments.filter.as_deref() };
    let tested = tools::test(&subject.component, &subject.settings, &cases, &options)?;
    show(&tested, arguments.policy.json)?;
    anyhow::ensure!(tested.passed(), "{} did not decide as its cases say", subject.component.display());
    Ok(())
}

pub(super) fn replay(arguments: &PolicyReplay) -> anyhow::Result<()> {
    let (scene, settings) = scene(arguments)?;
    let [first, rest @ ..] = arguments.policies.as_slice() else { anyhow::bail!("--policy is missing") };
    anyhow::ensure!(rest.len() <= 1, "two policies can be compared, not {}", arguments.policies.len());
    let second = rest.first().map(|component| tools::Player { component, settings: &settings });
    let first = tools::Player { component: first, settings: &settings };
    let report = simulation::Report::within(scene, &arguments.logs, &first, second.as_ref())?;
    // First what needs no file: it took a while to find out.
    show(&report, arguments.json)?;
    if let Some(page) = &arguments.html {
        std::fs::write(page, report.page()).with_context(|| format!("cannot write {}", page.display()))?;
    }
    Ok(())
}

/// What the simulation is told of the router that made the recording, and the settings of the policies.
fn scene(arguments: &PolicyReplay) -> anyhow::Result<(simulation::Scene, Settings)> {
    let given = arguments.settings.as_deref().map(settings).transpose()?;
    let (mut scene, configured) = match &arguments.config {
        None => (simulation::Scene::default(), Settings::new()),
        Some(file) => {
            let config = Config::load(Sources::of_process(Some(file.clone()), Vec::new()))?;
            (app::scene(&config), config.policy.settings)
        }
    };
    let settings = given.unwrap_or(configured);
    scene.weights = simulation::Weights::of(&settings);
    Ok((scene, settings))
}

/// A component, with what its project says of it.
struct Subject {
    component: std::path::PathBuf,
    settings: Settings,
    cases: Option<Vec<std::path::PathBuf>>,
}

impl Subject {
    /// The file that is named, or that of the project in the folder that is named, or else in this folder.
    fn of(arguments: &PolicyFile) -> anyhow::Result<Self> {
        let named = arguments.file.as_deref().unwrap_or(Path::new("."));
        let given = arguments.settings.as_deref().map(settings).transpose()?;
        if !named.is_dir() {
            return Ok(Self {
                component: named.to_owned(),
                settings: given.unwrap_or_default(),
                cases: None,
            });
        }
        let project = Project::read(named)?;
        let cases = project.cases.is_some().then(|| vec![project.cases()]);
        let settings = given.unwrap_or_else(|| project.settings.clone());
        Ok(Self { component: project.component(), settings, cases })
    }
}

fn settings(json: &str) -> anyhow::Result<Settings> {
    serde_json::from_str(json).context("--settings is not a JSON object")
}

fn show(what: &(impl std::fmt::Display + Serialize), json: bool) -> anyhow::Result<()> {
    match json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(what)?)),
        false => print(&format!("{}\n", plain_lines(what.to_string().trim_end()))),
    }
    Ok(())
}

pub(super) fn new(arguments: &PolicyNew) -> anyhow::Result<()> {
    let PolicyNew { name, language, folder } = arguments;
    let folder = folder.clone().unwrap_or_else(|| name.into());
    comfy_router_policy_kit::project::create(name, *language, &folder)?;
    print(&format!(
        "{} is a policy in {language}: README.md says how to build it\n\n    cd {0} && make test && make check\n\n",
        folder.display()
    ));
    Ok(())
}

pub(super) fn bindings(arguments: &PolicyBindings) -> anyhow::Result<()> {
    let PolicyBindings { language, wit, world, out } = arguments;
    comfy_router_policy_kit::bindings::write(*language, wit, world.as_deref(), out)
}

pub(super) fn wit(arguments: &PolicyWit) -> anyhow::Result<()> {
    comfy_router_policy_kit::wit::write(&arguments.folder)
}

pub(super) fn component(arguments: &PolicyComponent) -> anyhow::Result<()> {
    let PolicyComponent { module, out, wit, world, adapters } = arguments;
    let adapters: Vec<(String, &Path)> =
        adapters.iter().map(|adapter| (adapter.name.clone(), adapter.path.as_path())).collect();
    let world = wit.as_deref().map(|wit| (wit, world.as_deref()));
    let recipe = comfy_router_policy_kit::component::Recipe { world, adapters: &adapters };
    let bytes = comfy_router_policy_kit::component::component(module, &recipe)?;
    // Renamed into place: a router that watches the file never sees half of it.
    let part = out.with_extension("wasm.part");
    std::fs::write(&part, bytes).with_context(|| format!("cannot write {}", part.display()))?;
    std::fs::rename(&part, out).with_context(|| format!("cannot write {}", out.display()))
}
