//! The configuration: a TOML file, environment variables and command-line flags become one validated [`Config`].
//!
//! Three steps. *As written*: every source is merged into one table, later sources winning ([`sources`]); each key is read by
//! itself, so that one wrong key does not hide the next. *As meant*: names are given, paths and key files are resolved.
//! *Validated*: ranges and combinations. All mistakes of all steps are shown at once, each with its key's path and the line,
//! variable or flag it came from.
//!
//! Owns no state and reads nothing after start. Floors above take the section they need.

pub mod instance;
pub mod launch;
pub mod mistake;
pub mod policy;
pub mod routes;
pub mod sections;
pub mod sources;
mod validate;
mod written;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::Serialize;

pub use instance::{Gpu, Instance, Url};
pub use launch::Launch;
pub use mistake::{Mistake, Mistakes, Origin};
pub use policy::{HookFile, HookTable, Policy, PolicyCanary, PolicyLimits, PolicyRecord, PolicyState};
pub use routes::{Route, RouteTo};
pub use sections::{
    ApiKey, Discover, Fleet, Front, Ledger, Limits, Log, LogFormat, Outputs, PortRange, Secret, Telemetry,
    Timeouts,
};
pub use sources::{Setting, Sources};

pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7188);
pub const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7189);

/// The effective configuration. Serialised, it is a valid file again, but for secrets, which show as `[hidden]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where operators connect: metrics, health, jobs, policy.
    pub admin: SocketAddr,
    /// What operators must show, if it is set: as `Authorization: Bearer`.
    #[serde(skip_serializing_if = "Secret::is_empty")]
    pub admin_key: Secret,
    pub discover: Discover,
    #[serde(skip_serializing_if = "Launch::is_off")]
    pub launch: Launch,
    pub fleet: Fleet,
    pub ledger: Ledger,
    pub policy: Policy,
    pub telemetry: Telemetry,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub front: Front,
    pub outputs: Outputs,
    pub log: Log,
    /// Where requests go whose paths are not ComfyUI's own.
    #[serde(rename = "route", skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Empty, and none is launched: instances are discovered.
    #[serde(rename = "instance")]
    pub instances: Vec<Instance>,
}

impl Config {
    /// Reads every source and checks the whole.
    ///
    /// # Errors
    /// Every mistake that was found, in the order of the keys' paths.
    pub fn load(sources: Sources) -> Result<Self, Mistakes> {
        let mut mistakes = Vec::new();
        let merged = sources.merge(&mut mistakes);
        let written = written::read(&merged, &mut mistakes);
        let state_dir = sources.default_state_dir();
        let config = validate::meant(written, state_dir, &sources, &merged, &mut mistakes);
        match mistakes.is_empty() {
            true => Ok(config),
            false => Err(Mistakes::sorted(mistakes)),
        }
    }

    /// The effective configuration as TOML, secrets hidden.
    pub fn show(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
    }

    /// The directory of everything durable.
    pub fn state_dir(&self) -> &PathBuf {
        &self.ledger.dir
    }
}

#[cfg(test)]
mod tests;
