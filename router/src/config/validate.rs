//! From what was written to what is meant: names, addresses, paths and keys resolved; ranges and combinations checked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::instance::{Instance, is_safe_name};
use super::launch::Launch;
use super::mistake::Mistake;
use super::routes::Route;
use super::sections::{ApiKey, Secret};
use super::sources::{KeyPath, Merged, Sources, Step};
use super::written::{Written, WrittenInstance};
use super::{Config, DEFAULT_ADMIN, DEFAULT_LISTEN};
use crate::model::policy::{Interface, Shipped};

pub(super) fn meant(
    written: Written,
    state_dir: Option<PathBuf>,
    sources: &Sources,
    merged: &Merged,
    mistakes: &mut Vec<Mistake>,
) -> Config {
    let mut check = Check { merged, mistakes };
    let instances = check.instances(written.instance);
    let mut config = Config {
        listen: check.address("listen", written.listen.as_deref(), DEFAULT_LISTEN),
        admin: check.address("admin", written.admin.as_deref(), DEFAULT_ADMIN),
        admin_key: written.admin_key,
        discover: written.discover,
        launch: written.launch,
        fleet: written.fleet,
        ledger: written.ledger,
        policy: written.policy,
        telemetry: written.telemetry,
        limits: written.limits,
        timeouts: written.timeouts,
        front: written.front,
        outputs: written.outputs,
        log: written.log,
        routes: check.routes(written.route),
        instances,
    };
    check.paths(&mut config, state_dir);
    check.keys(&mut config.front.api_keys, sources);
    check.launch(&config.launch);
    check.exposure(&config);
    check.outputs(&config);
    check.ranges(&config);
    check.timeouts(&config);
    config
}

struct Check<'a> {
    merged: &'a Merged,
    mistakes: &'a mut Vec<Mistake>,
}

impl Check<'_> {
    fn wrong(&mut self, path: &KeyPath, what: impl Into<String>, help: &str) {
        let origin = self.merged.origin(path);
        let mistake = Mistake::new(origin, path.to_string(), what);
        self.mistakes.push(if help.is_empty() { mistake } else { mistake.help(help) });
    }

    fn address(&mut self, key: &str, text: Option<&str>, default: SocketAddr) -> SocketAddr {
        let Some(text) = text else { return default };
        let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        numeric.as_deref().unwrap_or(text).parse().unwrap_or_else(|_| {
            let what = format!("`{text}` is not an address and a port");
            self.wrong(
                &KeyPath::keys(&[key]),
                what,
                "write it as 127.0.0.1:7188, or 0.0.0.0:7188 for every interface",
            );
            default
        })
    }

    fn instances(&mut self, written: Vec<WrittenInstance>) -> Vec<Instance> {
        let meant: Vec<_> =
            written.into_iter().enumerate().filter_map(|(index, one)| self.instance(index, one)).collect();
        let mut seen = HashMap::new();
        for (index, instance) in &meant {
            let at = |key: &str| {
                KeyPath::keys(&["instance"]).then(Step::Index(*index)).then(Step::Key(key.into()))
            };
            if let Some(first) = seen.insert(instance.name.to_string(), *index) {
                let what = format!("`{}` is also the name of instance[{first}]", instance.name);
                self.wrong(&at("name"), what, "give each instance a name of its own");
            }
            if let Some(first) = seen.insert(instance.url.to_string(), *index) {
                let what = format!("{} is also the url of instance[{first}]", instance.url);
                self.wrong(
                    &at("url"),
                    what,
                    "list each ComfyUI once; `slots` lets it run more than one prompt",
                );
            }
        }
        meant.into_iter().map(|(_, instance)| instance).collect()
    }

    fn instance(&mut self, index: usize, written: WrittenInstance) -> Option<(usize, Instance)> {
        let path = KeyPath::keys(&["instance"]).then(Step::Index(index));
        let at = |key: &str| path.then(Step::Key(key.into()));
        for (key, value, range) in [("slots", written.slots, 1..=64), ("ahead", written.ahead, 0..=64)] {
            if value.is_some_and(|value| !range.contains(&value)) {
                self.wrong(&at(key), format!("must be {} to {}", range.start(), range.end()), "");
            }
        }
        let bad_name = written.name.as_deref().filter(|name| !is_safe_name(name));
        if let Some(name) = bad_name {
            let what = format!("`{}` is no usable name", name.escape_debug());
            self.wrong(&at("name"), what, "use 1 to 64 letters, digits, dots, dashes and underscores");
        }
        let Some(url) = written.url else {
            let told = self.mistakes.iter().any(|mistake| mistake.path == at("url").to_string());
            if !told {
                self.wrong(&path, "has no `url`", "add one, such as url = \"http://127.0.0.1:8188\"");
            }
            return None;
        };
        let mut instance = Instance::at(url);
        if let Some(name) = written.name.filter(|name| is_safe_name(name)) {
            instance.name = name.as_str().into();
        }
        instance.labels = written.labels;
        instance.gpu = written.gpu;
        instance.slots = written.slots.unwrap_or(instance.slots);
        instance.ahead = written.ahead.unwrap_or(instance.ahead);
        instance.restart = written.restart.unwrap_or_default();
        if instance.restart.first().is_some_and(|program| program.trim().is_empty()) {
            let help =
                "write a program and its arguments, such as [\"systemctl\", \"restart\", \"comfyui@0\"]";
            self.wrong(&at("restart"), "names no program", help);
        }
        Some((index, instance))
    }

    fn paths(&mut self, config: &mut Config, state_dir: Option<PathBuf>) {
        let dir = KeyPath::keys(&["ledger", "dir"]);
        match (config.ledger.dir.as_os_str().is_empty(), state_dir) {
            (false, _) => config.ledger.dir = self.merged.beside_file(&config.ledger.dir, &dir),
            (true, Some(state_dir)) => config.ledger.dir = state_dir,
            (true, None) => {
                self.wrong(
                    &dir,
                    "there is no home directory to keep jobs in",
                    "set --state-dir or ledger.dir",
                );
            }
        }
        if let Some(cwd) = &mut config.launch.cwd {
            let key = KeyPath::keys(&["launch", "cwd"]);
            let meant = self.merged.beside_file(cwd, &key);
            *cwd = std::path::absolute(&meant).unwrap_or(meant);
            if !cwd.is_dir() {
                self.wrong(&key, format!("{} is not a folder", cwd.display()), "");
            }
        }
        self.hook_files(config);
        if let Some(dir) = &mut config.policy.record.dir {
            *dir = self.merged.beside_file(dir, &KeyPath::keys(&["policy", "record", "dir"]));
        }
        if let Some(file) = &config.policy.file {
            let key = KeyPath::keys(&["policy", "file"]);
            let file = self.merged.beside_file(file, &key);
            if !file.is_file() {
                let what = format!("{} is not a file", file.display());
                self.wrong(&key, what, "build the policy first, or leave the key out to use the shipped one");
            }
            config.policy.file = Some(file);
        }
    }

    fn routes(&mut self, routes: Vec<Route>) -> Vec<Route> {
        for (index, route) in routes.iter().enumerate() {
            let at = KeyPath::keys(&["route"]).then(Step::Index(index)).then(Step::Key("prefix".into()));
            if let Some(help) = route.flaw() {
                self.wrong(&at, format!("`{}` is no usable prefix", route.prefix.escape_debug()), help);
            } else if let Some(first) = routes[..index].iter().position(|one| one.prefix == route.prefix) {
                self.wrong(&at, format!("`{}` is also the prefix of route[{first}]", route.prefix), "");
            }
        }
        routes
    }

    fn hook_files(&mut self, config: &mut Config) {
        let mut settings: HashMap<PathBuf, serde_json::Map<String, serde_json::Value>> = HashMap::new();
        for (interface, hook) in &mut config.policy.hooks {
            let key = KeyPath::keys(&["policy", "hooks", interface]);
            if Interface::named(interface).is_none() {
                self.wrong(
                    &key,
                    "is no interface of a policy",
                    &format!("there are {}", Interface::ALL.map(Interface::as_str).join(", ")),
                );
                continue;
            }
            if hook.file().as_os_str().is_empty() {
                self.wrong(&key, "has no `file`", "name a component or a shipped policy, such as \"guard\"");
                continue;
            }
            if !is_shipped(hook.file()) {
                let file = self.merged.beside_file(hook.file(), &key);
                if !file.is_file() {
                    let what = format!("{} is neither a file nor a shipped policy", file.display());
                    self.wrong(
                        &key,
                        what,
                        &format!(
                            "build it first, or use one of {}",
                            Shipped::ALL.map(Shipped::name).join(", ")
                        ),
                    );
                }
                *hook.file_mut() = file;
            }
            let its = hook.settings();
            let known = settings.entry(hook.file().clone()).or_insert_with(|| its.clone());
            if *known != its {
                let what = format!("{} has other settings for another interface", hook.file().display());
                self.wrong(
                    &key,
                    what,
                    "interfaces with the same file share one component: give each the same settings",
                );
            }
        }
    }

    fn keys(&mut self, keys: &mut [ApiKey], sources: &Sources) {
        let mut names = HashMap::new();
        for (index, key) in keys.iter_mut().enumerate() {
            let path = KeyPath::keys(&["front", "api_keys"]).then(Step::Index(index));
            if !is_safe_name(&key.name) {
                let help = "it is the tenant's name: 1 to 64 letters, digits, dots, dashes and underscores";
                self.wrong(&path, "has no usable `name`", help);
            } else if let Some(first) = names.insert(key.name.clone(), index) {
                self.wrong(&path, format!("`{}` is also the name of front.api_keys[{first}]", key.name), "");
            }
            match self.reveal(&path, key, sources) {
                Ok(secret) => {
                    self.usable(&path, &secret);
                    key.key = secret;
                }
                Err(what) => self.wrong(&path, what, "give exactly one of `key`, `key_file` and `key_env`"),
            }
        }
    }

    /// Whoever has the key can show it, and nobody guesses it.
    fn usable(&mut self, path: &KeyPath, key: &Secret) {
        let key = key.reveal();
        let help = "make one with: openssl rand -hex 32";
        if key.len() < MIN_KEY {
            self.wrong(path, format!("the key is shorter than {MIN_KEY} characters"), help);
        }
        if key.trim() != key || !key.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            self.wrong(path, "the key has characters that no header can carry", help);
        }
    }

    fn reveal(&self, path: &KeyPath, key: &ApiKey, sources: &Sources) -> Result<Secret, String> {
        match (key.key.is_empty(), &key.key_file, &key.key_env) {
            (false, None, None) => Ok(key.key.clone()),
            (true, Some(file), None) => {
                let file = self.merged.beside_file(file, path);
                let text = std::fs::read_to_string(&file);
                let text = text.map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
                Ok(Secret::new(text.trim()))
            }
            (true, None, Some(name)) => {
                let value = sources.variable(name);
                value.map(Secret::new).ok_or_else(|| format!("the variable {name} is not set"))
            }
            (true, None, None) => Err("has no key".into()),
            _ => Err("has more than one key".into()),
        }
    }

    /// ComfyUI's API runs what it is sent: reachable from elsewhere, it needs a key.
    fn exposure(&mut self, config: &Config) {
        if !config.listen.ip().is_loopback() && config.front.api_keys.is_empty() {
            let what =
                format!("{} can be reached from other machines, and there is no API key", config.listen);
            let help = "set COMFY_ROUTER_API_KEY or add a [[front.api_keys]] with `name` and `key`, \
                        or use a loopback address such as 127.0.0.1";
            self.wrong(&KeyPath::keys(&["listen"]), what, help);
        }
        // Whoever gives orders there runs code of his own: a client's key does not do.
        if !config.admin.ip().is_loopback() && config.admin_key.is_empty() {
            let what =
                format!("{} can be reached from other machines, and there is no admin key", config.admin);
            let help =
                "set COMFY_ROUTER_ADMIN_KEY or `admin_key`, or use a loopback address such as 127.0.0.1";
            self.wrong(&KeyPath::keys(&["admin"]), what, help);
        }
        if !config.admin_key.is_empty() {
            self.usable(&KeyPath::keys(&["admin_key"]), &config.admin_key);
        }
        if config.listen == config.admin && config.listen.port() != 0 {
            self.wrong(&KeyPath::keys(&["admin"]), "is the same address as `listen`", "use another port");
        }
    }

    fn launch(&mut self, launch: &Launch) {
        for (key, what, help) in launch.flaws() {
            self.wrong(&KeyPath::keys(&["launch", key]), what, help);
        }
    }

    fn outputs(&mut self, config: &Config) {
        if config.outputs.keep && config.outputs.shared {
            let help = "a folder that all instances share outlives each of them: leave outputs.keep out";
            self.wrong(&KeyPath::keys(&["outputs", "keep"]), "is of no use with outputs.shared", help);
        }
    }

    fn ranges(&mut self, config: &Config) {
        const HOUR_MS: u64 = 3_600_000;
        let (fleet, limits, policy) = (&config.fleet, &config.limits, &config.policy.limits);
        let (canary, record, launch) = (&config.policy.canary, &config.policy.record, &config.launch);
        let rows: [(&str, &str, u64, u64, u64); 58] = [
            ("discover", "timeout_ms", config.discover.timeout_ms, 10, 60_000),
            ("launch", "per_gpu", launch.per_gpu.map_or(1, u64::from), 1, 64),
            ("launch", "port", launch.port.into(), 1, u64::from(u16::MAX)),
            ("launch", "stop_s", launch.stop_s, 0, 3_600),
            ("fleet", "poll_ms", fleet.poll_ms, 50, HOUR_MS),
            ("fleet", "connect_timeout_ms", fleet.connect_timeout_ms, 1, HOUR_MS),
            ("fleet", "health_timeout_ms", fleet.health_timeout_ms, 1, HOUR_MS),
            ("fleet", "failures", fleet.failures.into(), 1, 1_000),
            ("fleet", "ping_ms", fleet.ping_ms, 10, HOUR_MS),
            ("fleet", "silence_ms", fleet.silence_ms, fleet.ping_ms.saturating_add(1), 2 * HOUR_MS),
            ("fleet", "submit_timeout_ms", fleet.submit_timeout_ms, 1, HOUR_MS),
            ("fleet", "idle_connections", fleet.idle_connections as u64, 0, 10_000),
            ("fleet", "inspect_ms", fleet.inspect_ms, 50, HOUR_MS),
            ("fleet", "breaker_failures", fleet.breaker_failures.into(), 1, 1_000),
            ("fleet", "breaker_window_s", fleet.breaker_window_s, 1, 3_600),
            ("fleet", "quarantine_s", fleet.quarantine_s, 1, 3_600),
            ("fleet", "restart_after_s", fleet.restart_after_s, 1, 86_400),
            ("fleet", "restart_pause_s", fleet.restart_pause_s, 10, 86_400),
            ("policy.limits", "deadline_ms", policy.deadline_ms, 1, 10_000),
            ("policy.limits", "memory_mib", policy.memory_mib.into(), 1, 4_096),
            ("policy.limits", "host_calls", policy.host_calls.into(), 1, 10_000_000),
            ("policy.limits", "failures", policy.failures.into(), 1, 1_000),
            ("policy.limits", "compile_s", policy.compile_s, 1, 3_600),
            ("policy", "window", config.policy.window.into(), 1, 512),
            ("policy.canary", "attempts", canary.attempts.into(), 1, 1_000_000),
            ("policy.canary", "failures_percent", canary.failures_percent.into(), 0, 100),
            ("policy.canary", "wait_percent", canary.wait_percent.into(), 0, 100_000),
            ("policy.canary", "wait_ms", canary.wait_ms.into(), 0, HOUR_MS),
            ("policy.record", "ring_kib", record.ring_kib.into(), 0, 4 << 20),
            ("policy.record", "file_mib", record.file_mib.into(), 1, 1 << 20),
            ("policy.record", "files", record.files.into(), 1, 1_000_000),
            ("policy.state", "keys", config.policy.state.keys.into(), 1, 1_000_000),
            ("policy.state", "kib", config.policy.state.kib.into(), 1, 1 << 20),
            ("ledger", "history", u64::from(config.ledger.history), 1, 10_000_000),
            ("ledger", "decisions", u64::from(config.ledger.decisions), 1, 100_000_000),
            ("ledger", "idempotency_s", config.ledger.idempotency_s, 1, 366 * 86_400),
            ("ledger", "idempotency_keys", u64::from(config.ledger.idempotency_keys), 1, 10_000_000),
            ("ledger", "max_file_mib", config.ledger.max_file_mib.map_or(1, u64::from), 1, 16 << 20),
            ("telemetry", "sample_ms", config.telemetry.sample_ms, 20, HOUR_MS),
            ("limits", "queue_jobs", limits.queue_jobs as u64, 1, 10_000_000),
            ("limits", "tenant_jobs", limits.tenant_jobs as u64, 1, 10_000_000),
            ("limits", "queue_memory_bytes", limits.queue_memory_bytes as u64, 0, 1 << 40),
            ("limits", "attempts", limits.attempts.into(), 1, 1_000),
            ("timeouts", "interrupt_s", config.timeouts.interrupt_s, 1, 86_400),
            ("limits", "prompt_bytes", limits.prompt_bytes as u64, 1 << 10, 1 << 30),
            ("limits", "upload_bytes", limits.upload_bytes, 1 << 10, 1 << 40),
            ("limits", "body_bytes", limits.body_bytes as u64, 1 << 10, 1 << 30),
            ("limits", "header_bytes", limits.header_bytes as u64, 8 << 10, 1 << 20),
            ("limits", "headers", limits.headers as u64, 16, 10_000),
            ("limits", "header_timeout_ms", limits.header_timeout_ms, 1, HOUR_MS),
            ("limits", "idle_timeout_ms", limits.idle_timeout_ms, 1, HOUR_MS),
            ("limits", "connections", limits.connections as u64, 1, 1_000_000),
            ("limits", "ws_message_bytes", limits.ws_message_bytes as u64, 1 << 10, 1 << 30),
            ("limits", "ws_queue_messages", limits.ws_queue_messages as u64, 8, 1_000_000),
            ("limits", "ws_queue_bytes", limits.ws_queue_bytes as u64, 64 << 10, 1 << 40),
            ("limits", "asset_bytes", limits.asset_bytes, 1 << 20, 1 << 50),
            ("outputs", "bytes", config.outputs.bytes, 1 << 20, 1 << 50),
            ("outputs", "age_s", config.outputs.age_s, 0, 100 * 366 * 86_400),
        ];
        for (section, key, value, least, most) in rows {
            if !(least..=most).contains(&value) {
                let keys: Vec<&str> = section.split('.').chain([key]).collect();
                self.wrong(&KeyPath::keys(&keys), format!("{value} is not within {least} to {most}"), "");
            }
        }
    }

    fn timeouts(&mut self, config: &Config) {
        let t = &config.timeouts;
        let rows = [
            ("queue", t.queue_s, t.queue_max_s),
            ("run", t.run_s, t.run_max_s),
            ("stall", t.stall_s, t.stall_max_s),
        ];
        for (name, default, most) in rows {
            // 0 is no limit, so as a default it is the greatest of all; a maximum then still bounds the policy's answer.
            if most != 0 && default > most {
                let what = format!("{default} is more than timeouts.{name}_max_s, which is {most}");
                self.wrong(&KeyPath::keys(&["timeouts", &format!("{name}_s")]), what, "");
            }
            for (key, value) in [(format!("{name}_s"), default), (format!("{name}_max_s"), most)] {
                if value > MAX_TIMEOUT_S {
                    let what = format!("{value} is more than {MAX_TIMEOUT_S}");
                    self.wrong(&KeyPath::keys(&["timeouts", &key]), what, "use 0 for no limit");
                }
            }
        }
    }
}

/// A policy's limits are milliseconds in 32 bits.
const MAX_TIMEOUT_S: u64 = u32::MAX as u64 / 1_000;
const MIN_KEY: usize = 16;

/// A bare name of these is a policy that comes with the router.
fn is_shipped(file: &std::path::Path) -> bool {
    file.to_str().is_some_and(|name| Shipped::named(name).is_some())
}
