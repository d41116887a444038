//! `policy dev`: builds, checks and tests again whenever a file of the project changes, and hands what passed to a running
//! router.

use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::Context;
use hyper::Method;
use notify::{EventKind, RecursiveMode, Watcher};

use super::super::arguments::PolicyDev;
use super::super::operator::{order, query};
use super::super::print;
use super::project::Project;
use crate::policy::tools;

/// An editor writes several files at once; the build waits until it is quiet for this long.
const QUIET: Duration = Duration::from_millis(150);

/// Folders that tools write to.
const GENERATED: [&str; 5] = ["build", "gen", "node_modules", "target", "__pycache__"];

pub(in super::super) fn develop(arguments: &PolicyDev) -> anyhow::Result<()> {
    let folder = arguments
        .folder
        .canonicalize()
        .with_context(|| format!("no folder {}", arguments.folder.display()))?;
    let (tell, changes) = channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let _ = tell.send(event);
    })?;
    watch(&mut watcher, &folder)?;
    loop {
        let done = round(&folder, arguments);
        if arguments.once {
            return done;
        }
        if let Err(error) = done {
            print(&format!("    {error:#}\n"));
        }
        print("waiting for a change\n\n");
        wait(&folder, &changes)?;
    }
}

/// The project's folder, and that of its cases where that is elsewhere.
fn watch(watcher: &mut impl Watcher, folder: &Path) -> anyhow::Result<()> {
    watcher.watch(folder, RecursiveMode::Recursive)?;
    let cases = Project::read(folder)?.cases();
    if let Ok(cases) = cases.canonicalize()
        && !cases.starts_with(folder)
    {
        watcher.watch(&cases, RecursiveMode::Recursive)?;
    }
    Ok(())
}

/// Until something of the author's has changed, and nothing more for a moment.
fn wait(folder: &Path, changes: &Receiver<notify::Result<notify::Event>>) -> anyhow::Result<()> {
    let mut changed = false;
    loop {
        let event = match changed {
            false => changes.recv().context("the watcher has stopped")?,
            true => match changes.recv_timeout(QUIET) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the watcher has stopped"),
            },
        };
        changed |= event.is_ok_and(|event| is_change(folder, &event));
    }
}

fn is_change(folder: &Path, event: &notify::Event) -> bool {
    let written = matches!(event.kind, EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_));
    written && event.paths.iter().any(|path| is_source(folder, path))
}

/// Written by the author, as far as can be told.
fn is_source(folder: &Path, path: &Path) -> bool {
    let inside = path.strip_prefix(folder).unwrap_or(path);
    let hidden = |name: &str| name.starts_with('.') || name.ends_with('~') || GENERATED.contains(&name);
    let names: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
    let made =
        inside.extension().is_some_and(|end| end == "wasm" || end == "part" || end == "lock" || end == "swp");
    // Outside of the folder are only cases, below folders of any name.
    let hidden = if path.starts_with(folder) { names.iter().any(|name| hidden(name)) } else { false };
    !hidden && !made && !names.is_empty()
}

/// Builds, checks, tests and, if all that went well, hands over.
fn round(folder: &Path, arguments: &PolicyDev) -> anyhow::Result<()> {
    let project = Project::read(folder)?;
    build(&project)?;
    let component = project.component();
    let report = tools::check(&component, &project.settings)?;
    if let Some(refused) = &report.refused {
        anyhow::bail!("refused: {refused}");
    }
    print(&format!("checked: {} {}\n", report.version.name, report.version.digest));
    if project.cases.is_some() {
        let tested =
            tools::test(&component, &project.settings, &[project.cases()], &tools::Options::default())?;
        print(&tested.to_string());
        anyhow::ensure!(tested.passed(), "not handed over, because cases failed");
    }
    match &arguments.router {
        Some(router) => swap(router, &component),
        None => Ok(()),
    }
}

fn build(project: &Project) -> anyhow::Result<()> {
    print(&format!("$ {}\n", project.build));
    let status = Command::new("sh")
        .args(["-c", &project.build])
        .current_dir(&project.folder)
        .status()
        .with_context(|| format!("cannot run {:?}", project.build))?;
    anyhow::ensure!(status.success(), "the build failed: {status}");
    Ok(())
}

/// Hands the component to a running router, under the name it would have as a file.
fn swap(router: &str, component: &Path) -> anyhow::Result<()> {
    let bytes = std::fs::read(component).with_context(|| format!("cannot read {}", component.display()))?;
    let name = component.file_stem().map(|stem| stem.to_string_lossy());
    let query = query(&[("name", name.as_deref()), ("as", Some("live"))]);
    let done = order(router, Method::POST, &format!("/api/policy/versions{query}"), bytes)?;
    let text = |key: &str| done["version"][key].as_str().unwrap_or_default();
    print(&format!("swapped into {router}: {} {}\n", text("name"), text("digest")));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tools_write_is_no_change() {
        let folder = Path::new("/p");
        for (path, source) in [
            ("/p/src/lib.rs", true),
            ("/p/wit/world.wit", true),
            ("/cases/build/a.json", true),
            ("/p/build/x.o", false),
            ("/p/node_modules/a/b.js", false),
            ("/p/.tools/bin/go", false),
            ("/p/a.wasm", false),
            ("/p/a.wasm.part", false),
            ("/p/src/.lib.rs.swp", false),
            ("/p", false),
        ] {
            assert_eq!(is_source(folder, Path::new(path)), source, "{path}");
        }
    }
}
