//! From bytes to a version that can make guests: compiled, its imports and exports checked, linked.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, InstancePre};

use super::bindings::exports::comfy_router::policy as hooks;
use super::engine::Engine;
use super::guest::Guest;
use super::host::{self, State};
use super::toolchain;
use crate::model::decision::{Hook, PolicyVersion};
use crate::policy::config::GuestLimits;
use crate::policy::error::{LoadError, WIT_VERSION};
use crate::policy::state::Space;

const PACKAGE: &str = "comfy-router:policy/";

/// A linked component with its settings. Guests are made of it, one after the other.
pub(crate) struct Version {
    pub(crate) id: PolicyVersion,
    pub(super) linked: Arc<Linked>,
    /// A JSON object.
    settings: String,
}

/// A component that could be linked.
pub(super) struct Linked {
    digest: Arc<str>,
    hooks: Vec<Hook>,
    bytes: u64,
    pub(super) engine: Engine,
    pub(super) limits: GuestLimits,
    pub(super) pre: InstancePre<State>,
    pub(super) indices: Indices,
    space: Space,
}

impl std::fmt::Debug for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Version")
            .field("id", &self.id)
            .field("hooks", &self.linked.hooks)
            .finish_non_exhaustive()
    }
}

type Settings = serde_json::Map<String, serde_json::Value>;

/// Which hooks are exported, and where.
pub(super) struct Indices {
    pub(super) lifecycle: Option<hooks::lifecycle::GuestIndices>,
    pub(super) admission: Option<hooks::admission::GuestIndices>,
    pub(super) priority: Option<hooks::priority::GuestIndices>,
    pub(super) timeouts: Option<hooks::timeouts::GuestIndices>,
    pub(super) routing: Option<hooks::routing::GuestIndices>,
    pub(super) placement: Option<hooks::placement::GuestIndices>,
    pub(super) recovery: Option<hooks::recovery::GuestIndices>,
    pub(super) housekeeping: Option<hooks::housekeeping::GuestIndices>,
    pub(super) feedback: Option<hooks::feedback::GuestIndices>,
}

/// What a component asks for and offers.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Description {
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
}

impl Version {
    /// Takes as long as compiling does: 100 ms for a Rust guest, 15 s for a Python one.
    pub(crate) fn compile(
        engine: &Engine,
        limits: &GuestLimits,
        id: PolicyVersion,
        settings: &Settings,
        space: Space,
        bytes: &[u8],
    ) -> Result<Self, LoadError> {
        let component = compile(engine, bytes)?;
        let description = describe_component(engine, &component);
        if let Some(import) = description.imports.iter().find(|name| name.starts_with("wasi:")) {
            return Err(LoadError::Wasi { import: import.clone(), advice: toolchain::advice(bytes) });
        }
        if let Some(import) = description.imports.iter().find(|name| !name.starts_with(PACKAGE)) {
            return Err(LoadError::UnknownImport(import.clone()));
        }
        let mut named = description.imports.iter().chain(&description.exports);
        if let Some(interface) = named.find(|name| is_newer(name)) {
            return Err(LoadError::Newer { interface: interface.clone() });
        }
        let linker = host::link(&engine.wasmtime).map_err(|e| LoadError::Link(line(&e)))?;
        let pre = linker.instantiate_pre(&component).map_err(|e| LoadError::Link(line(&e)))?;
        let indices = Indices::probe(&pre)?;
        let hooks = indices.hooks();
        if hooks.iter().all(|hook| *hook == Hook::Configure) {
            return Err(LoadError::NoHooks(listed(&description.exports)));
        }
        let (engine, limits, digest) = (engine.clone(), *limits, id.digest);
        let bytes = bytes.len() as u64;
        let linked = Linked { digest, hooks, bytes, engine, limits, pre, indices, space };
        Ok(Self::of(id.name, Arc::new(linked), settings))
    }

    fn of(name: Arc<str>, linked: Arc<Linked>, settings: &Settings) -> Self {
        let settings = serde_json::Value::Object(settings.clone()).to_string();
        let id = PolicyVersion { name, digest: with_settings(&linked.digest, &settings) };
        Self { id, linked, settings }
    }

    /// The same component, told something else. Another version: its decisions are not those of this one.
    pub(crate) fn with_settings(&self, settings: &Settings) -> Self {
        Self::of(self.id.name.clone(), self.linked.clone(), settings)
    }

    pub(crate) fn exports(&self, hook: Hook) -> bool {
        self.linked.hooks.contains(&hook)
    }

    pub(crate) fn hooks(&self) -> &[Hook] {
        &self.linked.hooks
    }

    /// Digest of the component alone, whatever it is told.
    pub(crate) fn component(&self) -> &str {
        &self.linked.digest
    }

    /// Size of the component.
    pub(crate) fn bytes(&self) -> u64 {
        self.linked.bytes
    }

    pub(crate) fn settings(&self) -> &str {
        &self.settings
    }

    /// A fresh guest, configured. `now_ms` is what its clock says meanwhile.
    pub(crate) fn guest(&self, now_ms: u64) -> Result<Guest, LoadError> {
        self.made(now_ms, self.linked.space.clone(), true, &self.settings)
    }

    /// A guest whose deeds have no consequence: what it remembers and measures is lost with it.
    pub(crate) fn trial(&self, now_ms: u64) -> Result<Guest, LoadError> {
        self.trial_with(&self.settings, now_ms)
    }

    /// As `trial`, with settings of its own.
    pub(crate) fn trial_with(&self, settings: &str, now_ms: u64) -> Result<Guest, LoadError> {
        self.made(now_ms, self.linked.space.fork(), false, settings)
    }

    fn made(&self, now_ms: u64, space: Space, live: bool, settings: &str) -> Result<Guest, LoadError> {
        let mut guest = Guest::instantiate(self, space, live)?;
        guest.configure(settings, Duration::from_millis(self.linked.limits.configure_ms), now_ms)?;
        Ok(guest)
    }
}

/// The component's digest, and what tells these settings from others.
fn with_settings(digest: &Arc<str>, settings: &str) -> Arc<str> {
    if settings == "{}" {
        return digest.clone();
    }
    let sum = Sha256::digest(settings.as_bytes());
    format!("{digest}-{:02x}{:02x}", sum[0], sum[1]).into()
}

/// An interface of ours in a version that this router does not know yet.
fn is_newer(interface: &str) -> bool {
    let version = |text: &str| semver::Version::parse(text).ok();
    interface
        .strip_prefix(PACKAGE)
        .and_then(|name| version(name.split_once('@')?.1))
        .is_some_and(|built_for| Some(built_for) > version(WIT_VERSION))
}

/// Imports and exports of any component, also of one that could not serve.
pub(crate) fn describe(engine: &Engine, bytes: &[u8]) -> Result<Description, LoadError> {
    Ok(describe_component(engine, &compile(engine, bytes)?))
}

fn compile(engine: &Engine, bytes: &[u8]) -> Result<Component, LoadError> {
    match bytes {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => return Err(LoadError::CoreModule),
        [0, b'a', b's', b'm', ..] => {}
        _ => return Err(LoadError::NotWasm),
    }
    engine.component(bytes).map_err(|error| LoadError::Compile(line(&error)))
}

fn describe_component(engine: &Engine, component: &Component) -> Description {
    let kind = component.component_type();
    let shown = |name: &str, item: &ComponentItem| match item {
        ComponentItem::ComponentFunc(_) => format!("{name} (a function of its own)"),
        _ => name.to_owned(),
    };
    let imports = kind.imports(&engine.wasmtime).map(|(name, item)| shown(name, &item.ty)).collect();
    let exports = kind.exports(&engine.wasmtime).map(|(name, item)| shown(name, &item.ty)).collect();
    Description { imports, exports }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The whole chain of causes on one line, without wasmtime's back-trace.
pub(super) fn line(error: &wasmtime::Error) -> String {
    let chain: Vec<String> = error
        .chain()
        .map(|cause| cause.to_string())
        .filter(|cause| !cause.starts_with("error while executing at wasm backtrace"))
        .collect();
    crate::policy::check::text(&chain.join(": "), 600)
}

macro_rules! probe {
    ($pre:expr, $($field:ident),*) => {
        Indices {$(
            $field: {
                let interface = concat!("comfy-router:policy/", stringify!($field), "@0.1.1");
                match $pre.component().get_export_index(None, interface) {
                    None => None,
                    Some(_) => Some(hooks::$field::GuestIndices::new($pre)
                        .map_err(|error| LoadError::Shape { interface, message: line(&error) })?),
                }
            },
        )*}
    };
}

impl Indices {
    /// wasmtime's bindings know no optional exports, so each interface is looked up by name.
    fn probe(pre: &InstancePre<State>) -> Result<Self, LoadError> {
        Ok(probe!(
            pre,
            lifecycle,
            admission,
            priority,
            timeouts,
            routing,
            placement,
            recovery,
            housekeeping,
            feedback
        ))
    }

    fn hooks(&self) -> Vec<Hook> {
        let exported = |hook: &Hook| match hook {
            Hook::Configure => self.lifecycle.is_some(),
            Hook::Admit => self.admission.is_some(),
            Hook::Prioritize => self.priority.is_some(),
            Hook::LimitsFor | Hook::OnTimeout => self.timeouts.is_some(),
            Hook::Route => self.routing.is_some(),
            Hook::Place => self.placement.is_some(),
            Hook::OnFailure => self.recovery.is_some(),
            Hook::Tick => self.housekeeping.is_some(),
            Hook::Observe => self.feedback.is_some(),
        };
        Hook::ALL.into_iter().filter(exported).collect()
    }
}
