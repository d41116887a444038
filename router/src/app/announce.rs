//! What `serve` tells the one who started it, and the signals it listens to.

use std::io::Write;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, Discover};
use crate::fleet;
use crate::policy;
use crate::tasks;

use super::Router;

/// How long `--check` waits for an instance.
const CHECK_PATIENCE: Duration = Duration::from_secs(10);

/// The table of instances and the addresses.
pub(super) fn ready(router: &Router) {
    let text = format!(
        "{}\ncomfy-router serves http://{}\nadmin at http://{}\npolicy {}\n",
        fleet::table(&router.fleet.instances()).trim_end(),
        router.listen_addr(),
        router.admin_addr(),
        named(&router.policy.version()),
    );
    print(&text);
}

fn named(version: &crate::model::decision::PolicyVersion) -> String {
    match version.digest.is_empty() {
        true => version.name.to_string(),
        false => format!("{}@{}", version.name, version.digest),
    }
}

/// Configuration is right if this is reached: are the instances there, would the policy serve?
pub(super) async fn check(config: &Config) -> anyhow::Result<()> {
    let (fleet, _events) = fleet::start(&config.fleet, &config.instances);
    let _ = tokio::time::timeout(CHECK_PATIENCE, fleet.looked()).await;
    let instances = fleet.instances();
    print(&fleet::table(&instances));
    let down: Vec<_> =
        instances.iter().filter(|info| !info.is_up()).map(|info| info.id.to_string()).collect();
    if let Some(file) = &config.policy.file {
        let report = policy::tools::check(file, &config.policy.settings)?;
        print(&report.to_string());
        anyhow::ensure!(report.passed(), "the policy {} would not serve", file.display());
    }
    anyhow::ensure!(down.is_empty(), "not reachable: {}", down.join(", "));
    print("everything is in order\n");
    Ok(())
}

pub(super) fn nothing_found(discover: &Discover) -> String {
    format!(
        "no ComfyUI answers on ports {}-{} of {}\n  start one, or name it: comfy-router serve --instance http://HOST:PORT",
        discover.ports.first,
        discover.ports.last,
        discover.hosts.join(", ")
    )
}

/// Says why it is time to stop; until then, SIGHUP reads the configuration again.
pub(super) async fn until_stopped(mut reload: impl AsyncFnMut()) -> &'static str {
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
    else {
        return "signals cannot be listened to";
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => return "terminated",
            _ = interrupt.recv() => return "interrupted",
            failed = tasks::fatal() => return failed,
            _ = hangup.recv() => reload().await,
        }
    }
}

/// A reader that has gone is no failure.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
