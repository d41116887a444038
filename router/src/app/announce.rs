//! What `serve` tells the one who started it.

use std::io::Write;

use crate::config::Discover;
use crate::fleet;

use super::Router;

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

pub(super) fn nothing_found(discover: &Discover) -> String {
    format!(
        "no ComfyUI answers on ports {}-{} of {}\n  start one, or name it: comfy-router serve --instance http://HOST:PORT",
        discover.ports.first,
        discover.ports.last,
        discover.hosts.join(", ")
    )
}

/// A reader that has gone is no failure.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
