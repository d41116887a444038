//! `serve --check`: would a start succeed, and would it be of use? Changes nothing.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::announce::print;
use super::parts;
use crate::config::Config;
use crate::processes::Planned;
use crate::{fleet, ledger, policy};

/// How long an instance may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks at everything before it judges, so that all that is wrong is said at once.
pub(super) async fn check(config: &Config) -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    let planned = parts::planned(config).unwrap_or_else(|error| {
        wrong.push(error.to_string());
        Vec::new()
    });
    planned.iter().for_each(|planned| print(&format!("would launch {planned}\n")));
    let (service, fleet) = fleet::Service::new(&config.fleet, &config.instances, "check");
    service.start(&());
    let _ = tokio::time::timeout(PATIENCE, fleet.looked()).await;
    let instances = fleet.instances();
    if !instances.is_empty() {
        print(&fleet::table(&instances));
    }
    let down: Vec<_> =
        instances.iter().filter(|info| !info.is_up()).map(|info| info.id.to_string()).collect();
    if !down.is_empty() {
        wrong.push(format!("not reachable: {}", down.join(", ")));
    }
    wrong.extend(policies_that_fail(config));
    let running = ledger::in_use(&ledger::Config::from(&config.ledger));
    if running {
        print("a router runs on this state directory; started again it would read this configuration\n");
    } else {
        let obstacle =
            |planned: &Planned| Some(format!("instance {}: {}", planned.instance.name, planned.obstacle()?));
        wrong.extend(planned.iter().filter_map(obstacle));
        wrong.extend(cannot_write(config.state_dir()));
        wrong.extend([config.listen, config.admin].into_iter().filter_map(cannot_listen));
    }
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n  "));
    print("everything is in order\n");
    Ok(())
}

/// Every component that is a file, the policy's own and those of single interfaces.
fn policies_that_fail(config: &Config) -> Vec<String> {
    let own = config.policy.file.iter().map(|file| (file.clone(), config.policy.settings.clone()));
    let hooks = config.policy.hooks.values().map(|hook| (hook.file().clone(), hook.settings()));
    let files = hooks.filter(|(file, _)| file.to_str().and_then(policy::Shipped::named).is_none());
    // Interfaces may share a file, and then its settings.
    let all: BTreeMap<PathBuf, policy::Settings> = files.chain(own).collect();
    all.iter().filter_map(|(file, settings)| policy_fails(file, settings)).collect()
}

fn policy_fails(file: &Path, settings: &policy::Settings) -> Option<String> {
    match policy::tools::check(file, settings) {
        Ok(report) => {
            print(&report.to_string());
            (!report.passed()).then(|| format!("the policy {} would not serve", file.display()))
        }
        Err(error) => Some(format!("the policy {}: {error}", file.display())),
    }
}

fn cannot_listen(address: SocketAddr) -> Option<String> {
    let error = TcpListener::bind(address).err()?;
    Some(format!("cannot listen on {address}: {error}"))
}

/// Of a directory that is not there yet, the nearest one above it must let it be made.
fn cannot_write(dir: &Path) -> Option<String> {
    let there = dir.ancestors().find(|dir| dir.exists() || dir.as_os_str().is_empty()).unwrap_or(dir);
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    let error = write_in(there).err()?;
    Some(format!("cannot write the state directory {}: {}: {error}", dir.display(), there.display()))
}

fn write_in(dir: &Path) -> io::Result<()> {
    let probe = dir.join(format!(".comfy-router-check-{}", std::process::id()));
    std::fs::write(&probe, b"?").and_then(|()| std::fs::remove_file(probe))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_to_be_made_needs_one_that_lets_it() {
        let here = tempfile::tempdir().unwrap();
        assert_eq!(cannot_write(&here.path().join("not/there/yet")), None);
        assert!(std::fs::read_dir(here.path()).unwrap().next().is_none(), "nothing was left behind");
        let file = here.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(cannot_write(&file.join("state")).is_some_and(|why| why.contains("state directory")));
    }

    #[test]
    fn an_address_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert!(cannot_listen(address).is_some_and(|why| why.contains(&address.to_string())));
        drop(taken);
        assert_eq!(cannot_listen(address), None);
    }
}
