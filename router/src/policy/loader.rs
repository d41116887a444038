//! The loading thread: reads a component, has it compiled and checked aside, hands it to the policy thread, and watches
//! the files for the next one. A component that is refused changes nothing but the status.

mod begin;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::{oneshot, watch};

use super::breaker::Breaker;
use super::config::{Component, Config};
use super::error::LoadError;
use super::evidence::Evidence;
use super::gate;
use super::handle::{LoadRequest, Settings, SettingsRequest, Source};
use super::lane::{Gone, Slot};
use super::orders::{Configured, Orders};
use super::service::{self, Place};
use super::state::Spaces;
use super::status::{PolicyStatus, Refused, State, VersionRow};
use super::wasm::{Engine, Version};
use super::watch::Watched;
use crate::clock::Clock;
use crate::metrics;
use crate::model::decision::{Hook, PolicyVersion};

#[derive(Debug)]
pub(crate) enum Command {
    Load(LoadRequest),
    Settings(SettingsRequest),
    /// Versions changed by an operator's order: write it down.
    Orders {
        reply: oneshot::Sender<()>,
    },
    /// What is configured is to serve again.
    Configured {
        lane: usize,
        reply: oneshot::Sender<Result<PolicyVersion, LoadError>>,
    },
    /// Something happened in the folder of a watched file.
    Changed,
}

/// What the loading thread knows of a lane.
pub(crate) struct Berth {
    pub name: Arc<str>,
    pub settings: Settings,
    pub watched: Option<Watched>,
    /// As it is loaded when the router starts.
    pub source: Option<Source>,
    pub configured: Configured,
}

/// What is to be put into a place.
pub(super) struct Tried {
    pub name: Arc<str>,
    pub origin: Arc<str>,
    /// A component of its own; else the one that serves, told something else.
    pub anew: bool,
}

impl Tried {
    fn component(&self) -> Option<&Arc<str>> {
        self.anew.then_some(&self.origin)
    }
}

pub(crate) struct Loader {
    pub config: Arc<Config>,
    pub clock: Arc<dyn Clock>,
    pub engine: Engine,
    pub spaces: Spaces,
    pub berths: Vec<Berth>,
    pub service: SyncSender<service::Command>,
    pub status: watch::Sender<PolicyStatus>,
    /// A compilation that was given up on still runs; there is never more than one.
    pub compiling: Arc<AtomicBool>,
    pub orders: Orders,
    /// What the policy thread does without from now on.
    pub gone: Receiver<Vec<Gone>>,
}

impl Loader {
    /// Serves requests and file changes until every handle is gone. The channel does not tell, because the watchers
    /// hold senders of it too.
    pub(crate) fn run(mut self, commands: &Receiver<Command>, handles: &Weak<()>) {
        let poll = Duration::from_millis(self.config.poll_ms);
        while handles.strong_count() > 0 {
            let command = commands.recv_timeout(poll);
            drop(self.gone.try_iter().collect::<Vec<_>>());
            match command {
                Ok(Command::Load(LoadRequest { lane, source, place, settings, reply })) => {
                    let loaded = self.load(lane, source, place, settings.as_ref());
                    // Live with settings of its own: the next file of this lane is told the same.
                    if let (Ok(_), Place::Live, Some(settings)) = (&loaded, place, settings) {
                        self.berths[lane].settings = settings;
                    }
                    self.note_orders();
                    let _ = reply.send(loaded);
                }
                Ok(Command::Settings(SettingsRequest { lane, settings, configured, reply })) => {
                    let settled = self.resettle(lane, settings.clone());
                    if configured && settled.is_ok() {
                        self.berths[lane].configured.settings = settings;
                    }
                    self.note_orders();
                    let _ = reply.send(settled);
                }
                Ok(Command::Orders { reply }) => {
                    self.note_orders();
                    let _ = reply.send(());
                }
                Ok(Command::Configured { lane, reply }) => {
                    let loaded = self.configured(lane);
                    self.note_orders();
                    let _ = reply.send(loaded);
                }
                Ok(Command::Changed) | Err(RecvTimeoutError::Timeout) => {
                    self.look();
                    // Canaries end by themselves too.
                    self.note_orders();
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look(&mut self) {
        for lane in 0..self.berths.len() {
            let changed = self.berths[lane].watched.as_mut().and_then(Watched::changed);
            if let Some(path) = changed {
                // Why it was refused is in the log and the status; there is nobody here to tell.
                let configured = self.berths[lane].read_again(&self.config);
                match self.load(lane, Source::File(path), Place::Live, None) {
                    Ok(_) => self.berths[lane].configured = configured,
                    // Of the file that says nothing: it is tried when the compilation before it has ended.
                    Err(LoadError::Busy) => {
                        self.berths[lane].watched.as_mut().into_iter().for_each(Watched::again);
                    }
                    Err(_) => {}
                }
            }
        }
    }

    /// Puts a component into its place or says why not. Without settings it gets those of its lane.
    pub(crate) fn load(
        &self,
        lane: usize,
        source: Source,
        place: Place,
        settings: Option<&Settings>,
    ) -> Result<PolicyVersion, LoadError> {
        let tried = Tried { name: source.name().into(), origin: source.origin(), anew: true };
        let settings = settings.unwrap_or(&self.berths[lane].settings);
        let version = self.component(source, settings).map(Arc::new);
        let placed = self.place(lane, &tried, version, place)?;
        self.taken(lane, &tried);
        Ok(placed)
    }

    /// The component that serves, with other settings; where none does, maybe because it refused those before, the one that
    /// is configured.
    fn resettle(&mut self, lane: usize, settings: Settings) -> Result<PolicyVersion, LoadError> {
        let (reply, live) = sync_channel(1);
        self.service.send(service::Command::Live { lane, reply }).map_err(|_| LoadError::Stopped)?;
        let live = live.recv().map_err(|_| LoadError::Stopped)?;
        let placed = match (live, self.berths[lane].source.clone()) {
            (Some((version, origin)), _) => {
                let tried = Tried { name: version.id.name.clone(), origin, anew: false };
                let changed = Arc::new(version.with_settings(&settings));
                let placed = self.place(lane, &tried, Ok(changed), Place::Live)?;
                self.taken(lane, &tried);
                placed
            }
            (None, Some(source)) => self.load(lane, source, Place::Live, Some(&settings))?,
            (None, None) => {
                return Err(LoadError::Settings("no component serves that could take them".to_owned()));
            }
        };
        // Only what was taken is given to the next file too.
        self.berths[lane].settings = settings;
        Ok(placed)
    }

    pub(super) fn place(
        &self,
        lane: usize,
        tried: &Tried,
        version: Result<Arc<Version>, LoadError>,
        place: Place,
    ) -> Result<PolicyVersion, LoadError> {
        let compiled = version.as_ref().ok().cloned();
        let placed = version.and_then(|version| {
            let slot = self.through_the_gate(version, tried.origin.clone())?;
            let id = slot.version.id.clone();
            let (placed, done) = sync_channel(1);
            let install = service::Command::Install { lane, slot: Box::new(slot), place, placed };
            self.service.send(install).map_err(|_| LoadError::Stopped)?;
            let gone = done.recv().map_err(|_| LoadError::Stopped)?;
            drop(gone);
            Ok(id)
        });
        if let Err(error) = &placed {
            self.refuse(lane, tried, compiled.as_deref(), error);
        }
        placed
    }

    /// What was shown as refused is no more, if it was this.
    fn taken(&self, lane: usize, tried: &Tried) {
        let lane = &self.berths[lane].name;
        self.status.send_modify(|status| status.take(lane, &tried.name, tried.component()));
    }

    fn refuse(&self, lane: usize, tried: &Tried, compiled: Option<&Version>, error: &LoadError) {
        let Tried { name, origin, .. } = tried;
        tracing::error!(policy = %name, reason = error.reason(), %error, "policy refused, the present one stays");
        metrics::policy_load_failed(error.reason());
        let (at, lane_name) = (self.clock.now().wall, self.berths[lane].name.clone());
        let refused = Refused {
            at,
            lane: lane_name.clone(),
            name: name.to_string(),
            origin: tried.component().cloned(),
            reason: error.reason(),
            message: error.to_string(),
        };
        self.status.send_modify(|status| status.refused = Some(refused));
        let row = VersionRow {
            lane: lane_name,
            version: compiled.map_or_else(
                || PolicyVersion { name: name.clone(), digest: "".into() },
                |version| version.id.clone(),
            ),
            state: State::Failed,
            origin: origin.clone(),
            at,
            hooks: compiled.map(|version| version.hooks().to_vec()).unwrap_or_default(),
            bytes: compiled.map(Version::bytes).unwrap_or_default(),
            reason: Some(format!("refused: {error}")),
        };
        let _ = self.service.send(service::Command::Refused(Box::new((lane, row))));
    }

    /// Compiled and linked.
    fn component(&self, source: Source, settings: &Settings) -> Result<Version, LoadError> {
        let name = source.name();
        let bytes = source.bytes(&self.config)?;
        let id = PolicyVersion { name: name.into(), digest: digest(&bytes).into() };
        if let Err(error) = self.orders.keep(&id.digest, &bytes) {
            tracing::warn!(policy = %id.name, %error, "the component cannot be kept: an order about it ends with this process");
        }
        self.compile(id, settings.clone(), bytes)
    }

    /// Tested, and with a guest that may serve.
    fn through_the_gate(&self, version: Arc<Version>, origin: Arc<str>) -> Result<Slot, LoadError> {
        let now_ms = self.clock.now().wall;
        if version.settings() != "{}" && !version.exports(Hook::Configure) {
            tracing::warn!(policy = %version.id.name, "the policy takes no settings, those given are ignored");
        }
        gate::pass(&version, &self.config.limits, &self.config.bounds, now_ms)?;
        let guest = version.guest(now_ms)?;
        let breaker = Breaker::new(self.config.breaker);
        Ok(Slot { version, guest: Some(guest), breaker, origin, at: now_ms, evidence: Evidence::default() })
    }

    /// On a thread of its own, because a compilation cannot be stopped, only left behind.
    pub(super) fn compile(
        &self,
        id: PolicyVersion,
        settings: Settings,
        bytes: Vec<u8>,
    ) -> Result<Version, LoadError> {
        if self.compiling.swap(true, Ordering::AcqRel) {
            return Err(LoadError::Busy);
        }
        let (engine, limits) = (self.engine.clone(), self.config.limits);
        let space = self.spaces.of(&id.name);
        let (done, compiled) = sync_channel(1);
        let compiling = Compiling(self.compiling.clone());
        let spawned = std::thread::Builder::new().name("policy-compile".to_owned()).spawn(move || {
            super::yielding::give_way();
            let version = Version::compile(&engine, &limits, id, &settings, space, &bytes);
            drop(compiling);
            let _ = done.send(version);
        });
        if let Err(error) = spawned {
            return Err(LoadError::Compile(format!("no thread for it: {error}")));
        }
        match compiled.recv_timeout(Duration::from_secs(limits.compile_s)) {
            Ok(version) => version,
            Err(RecvTimeoutError::Timeout) => Err(LoadError::CompileTimeout(limits.compile_s)),
            Err(RecvTimeoutError::Disconnected) => {
                Err(LoadError::Compile("the compiler panicked".to_owned()))
            }
        }
    }
}

/// A compilation runs; it is over however it ends, also by a panic long after it was given up on.
struct Compiling(Arc<AtomicBool>);

impl Drop for Compiling {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Source {
    /// The name a version goes by: the stem of its file.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(path) => path
                .file_stem()
                .map_or_else(|| "policy".to_owned(), |stem| stem.to_string_lossy().into_owned()),
            Self::Bytes { name, .. } => super::check::text(name, 64),
            Self::Shipped(shipped) => shipped.name().to_owned(),
        }
    }

    /// Told to the operator.
    pub(crate) fn origin(&self) -> Arc<str> {
        match self {
            Self::File(path) => path.display().to_string().into(),
            Self::Bytes { .. } => "upload".into(),
            Self::Shipped(_) => "shipped".into(),
        }
    }

    /// Read up to the limit and no further, whatever the file is.
    pub(crate) fn bytes(self, config: &Config) -> Result<Vec<u8>, LoadError> {
        let max = u64::from(config.limits.component_mib) * 1024 * 1024;
        let bytes = match self {
            Self::Bytes { bytes, .. } => bytes,
            Self::Shipped(shipped) => shipped.bytes().to_vec(),
            Self::File(path) => read(&path, max).map_err(|error| LoadError::Read {
                path: path.display().to_string(),
                message: error.to_string(),
            })?,
        };
        if bytes.len() as u64 > max {
            return Err(LoadError::TooLarge { max });
        }
        Ok(bytes)
    }
}

fn read(path: &Path, max: u64) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The first 12 hexadecimal digits of its SHA-256.
pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// By lane: what is loaded when the router starts.
pub(crate) fn first(config: &Config) -> Vec<Option<Source>> {
    let own = match (&config.file, config.builtin_only) {
        (_, true) => None,
        (Some(file), _) => Some(Source::File(file.clone())),
        (None, _) => Some(Source::Shipped(config.shipped)),
    };
    let extra = config.extra.iter().map(|extra| match &extra.component {
        Component::File(file) => Some(Source::File(file.clone())),
        Component::Shipped(shipped) => Some(Source::Shipped(*shipped)),
    });
    std::iter::once(own).chain(extra).collect()
}

/// By lane: its name, its settings, and the file that is watched.
pub(crate) fn berths(config: &Config, changed: &SyncSender<Command>) -> Vec<Berth> {
    let watched = |source: Option<Source>| match source {
        Some(Source::File(file)) if config.watch => Some(Watched::new(file, changed.clone())),
        _ => None,
    };
    let names = std::iter::once(("policy".into(), &config.settings))
        .chain(config.extra.iter().map(|extra| (extra.name().into(), &extra.settings)));
    let berth = |((name, settings), source): ((Arc<str>, &Settings), Option<Source>)| Berth {
        name,
        settings: settings.clone(),
        watched: watched(source.clone()),
        configured: Configured::of(source.as_ref(), settings, config),
        source,
    };
    names.zip(first(config)).map(berth).collect()
}
