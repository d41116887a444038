//! From the configuration to what each part wants to know.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;

use crate::clock::Clock;
use crate::config::{Config, HookFile};
use crate::model::decision::Limits;
use crate::scheduler::config::{CoreConfig, QuarantineConfig};
use crate::scheduler::input::InstanceSpec;
use crate::simulation::{Scene, Weights};
use crate::{assets, ledger, policy, processes, sessions, telemetry};

pub(super) async fn ledger(config: &Config) -> anyhow::Result<(ledger::Service, ledger::Handle)> {
    let dir = config.state_dir().clone();
    let config = ledger::Config::from(&config.ledger);
    let open = move || {
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(ledger::Service::open(&config)?)
    };
    tokio::task::spawn_blocking(open).await?
}

pub(super) fn policy(config: &Config) -> policy::Config {
    let written = &config.policy;
    let limits = &written.limits;
    let mut policy = policy::Config {
        file: written.file.clone(),
        settings: written.settings.clone(),
        dir: Some(config.state_dir().join("policy")),
        ..policy::Config::default()
    };
    policy.extra = extra(&written.hooks);
    policy.state = policy::StateLimits { keys: written.state.keys, kib: written.state.kib };
    policy.limits.call_ms = limits.deadline_ms;
    policy.limits.memory_mib = limits.memory_mib;
    policy.limits.host_calls = limits.host_calls;
    policy.limits.compile_s = limits.compile_s;
    policy.canary = policy::CanaryLimits {
        attempts: written.canary.attempts,
        failures_percent: written.canary.failures_percent,
        wait_percent: written.canary.wait_percent,
        wait_ms: written.canary.wait_ms,
    };
    policy.record = policy::RecordConfig {
        ring_kib: written.record.ring_kib,
        dir: written.record.dir.clone(),
        file_mib: written.record.file_mib,
        files: written.record.files,
    };
    policy.breaker.failures = limits.failures;
    policy.builtin.attempts = config.limits.attempts;
    policy.builtin.limits = default_limits(config);
    policy
}

/// Interfaces with the same file share one component.
fn extra(hooks: &BTreeMap<String, HookFile>) -> Vec<policy::Extra> {
    let mut extra: Vec<policy::Extra> = Vec::new();
    for (name, hook) in hooks {
        let Ok(interface) = serde_json::from_value(serde_json::Value::String(name.clone())) else { continue };
        let component = component(hook.file());
        match extra.iter_mut().find(|known| known.component == component) {
            Some(known) => known.interfaces.push(interface),
            None => {
                let settings = hook.settings();
                extra.push(policy::Extra { interfaces: vec![interface], component, settings });
            }
        }
    }
    extra
}

/// The settings of each component, by the interface that names it; none is the policy's own.
pub(super) fn settings(config: &Config) -> BTreeMap<Option<String>, policy::Settings> {
    let own = (None, config.policy.settings.clone());
    let hooks = config.policy.hooks.iter().map(|(name, hook)| (Some(name.clone()), hook.settings()));
    std::iter::once(own).chain(hooks).collect()
}

/// A bare name of a policy that comes with the router means that one.
fn component(file: &Path) -> policy::Component {
    let shipped = file.to_str().and_then(policy::Shipped::named);
    shipped.map_or_else(|| policy::Component::File(file.to_owned()), policy::Component::Shipped)
}

pub(super) fn telemetry(
    config: &Config,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<(telemetry::Service, telemetry::Handle)> {
    let settings = telemetry::Config::from(&config.telemetry);
    let (service, handle) = telemetry::Service::start(&settings, clock)?;
    let target = |(index, instance): (u32, &crate::config::Instance)| telemetry::Target {
        instance: instance.name.clone(),
        index,
        url: instance.url.clone(),
        gpu: instance.gpu.clone(),
    };
    handle.set_targets((0..).zip(&config.instances).map(target).collect());
    Ok((service, handle))
}

/// The instances that the router is to start itself.
pub(super) fn planned(config: &Config) -> anyhow::Result<Vec<processes::Planned>> {
    let cards = || if config.telemetry.nvml { cards() } else { Err("telemetry.nvml is off".to_owned()) };
    let dir = processes_dir(config)?;
    let unset: Vec<_> = config.front.api_keys.iter().filter_map(|key| key.key_env.clone()).collect();
    let site = processes::Site { launch: &config.launch, dir: &dir, unset: &unset };
    let planned = processes::plan(site, cards)?;
    processes::apart(&planned, &config.instances, &[config.listen.port(), config.admin.port()])?;
    Ok(planned)
}

/// Absolute: they may be started elsewhere.
pub(super) fn processes_dir(config: &Config) -> std::io::Result<PathBuf> {
    std::path::absolute(config.state_dir().join("instances"))
}

fn cards() -> Result<Vec<processes::Card>, String> {
    let card = |device: telemetry::Device| {
        let (uuid, name) = (device.uuid.to_string(), device.name.to_string());
        Some(processes::Card { index: device.index?, uuid, name, memory_bytes: device.memory_total_bytes })
    };
    let devices = telemetry::gpus().map_err(|error| error.to_string())?;
    Ok(devices.into_iter().filter_map(card).collect())
}

pub(super) fn assets(config: &Config) -> assets::Config {
    let outputs = &config.outputs;
    let uploads = assets::Bounds {
        dir: config.state_dir().join("uploads"),
        max_bytes: config.limits.asset_bytes,
        max_age_ms: None,
    };
    let outputs = assets::Bounds {
        dir: config.state_dir().join("outputs"),
        max_bytes: outputs.bytes,
        max_age_ms: (outputs.age_s > 0).then(|| outputs.age_s.saturating_mul(1_000)),
    };
    assets::Config { uploads, outputs }
}

pub(super) fn sessions(config: &Config) -> sessions::Config {
    sessions::Config {
        sockets: config.limits.connections,
        queue_messages: config.limits.ws_queue_messages,
        queue_bytes: config.limits.ws_queue_bytes,
        apart: !config.front.api_keys.is_empty(),
        ..sessions::Config::default()
    }
}

pub(super) fn core(config: &Config) -> CoreConfig {
    let timeouts = &config.timeouts;
    CoreConfig {
        max_attempts: config.limits.attempts,
        interrupt_grace_ms: timeouts.interrupt_s.saturating_mul(1_000),
        max_queued: config.limits.queue_jobs,
        max_queued_per_tenant: config.limits.tenant_jobs,
        text_bytes: config.limits.queue_memory_bytes,
        window: config.policy.window as usize,
        max_limits: Limits {
            queue_ms: ms(timeouts.queue_max_s),
            run_ms: ms(timeouts.run_max_s),
            stall_ms: ms(timeouts.stall_max_s),
        },
        silence_ms: config.fleet.inspect_ms,
        quarantine: QuarantineConfig {
            failures: config.fleet.breaker_failures,
            window_ms: config.fleet.breaker_window_s.saturating_mul(1_000),
            pause_ms: config.fleet.quarantine_s.saturating_mul(1_000),
            restart_after_ms: config.fleet.restart_after_s.saturating_mul(1_000),
            restart_pause_ms: config.fleet.restart_pause_s.saturating_mul(1_000),
        },
        ..CoreConfig::default()
    }
}

/// What a simulation is told of the router that this configures.
pub(super) fn scene(config: &Config) -> Scene {
    Scene {
        core: core(config),
        builtin: Some(policy(config).builtin),
        weights: Weights::of(&config.policy.settings),
    }
}

pub(super) fn specs(config: &Config) -> Vec<InstanceSpec> {
    let spec = |instance: &crate::config::Instance| InstanceSpec {
        id: instance.name.clone(),
        slots: instance.slots + instance.ahead,
        labels: Arc::new(instance.labels.clone().into_iter().collect()),
        supervised: instance.is_supervised(),
    };
    config.instances.iter().map(spec).collect()
}

fn default_limits(config: &Config) -> Limits {
    let timeouts = &config.timeouts;
    Limits { queue_ms: ms(timeouts.queue_s), run_ms: ms(timeouts.run_s), stall_ms: ms(timeouts.stall_s) }
}

/// Seconds as written to milliseconds; 0 is no limit.
fn ms(seconds: u64) -> Option<u32> {
    (seconds > 0).then(|| u32::try_from(seconds.saturating_mul(1_000)).unwrap_or(u32::MAX))
}
