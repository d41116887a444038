//! The loading thread: reads a component, has it compiled and checked aside, hands it to the policy thread, and watches
//! the file for the next one. A component that is refused changes nothing but the status.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::breaker::Breaker;
use super::config::Config;
use super::error::LoadError;
use super::gate;
use super::handle::{LoadRequest, Source};
use super::service::{self, Slot};
use super::state::Spaces;
use super::status::PolicyStatus;
use super::wasm::{Engine, Version};
use super::watch::Watched;
use crate::clock::Clock;
use crate::metrics;
use crate::model::decision::PolicyVersion;

#[derive(Debug)]
pub(crate) enum Command {
    Load(LoadRequest),
    /// Something happened in the folder of the watched file.
    Changed,
}

pub(crate) struct Loader {
    pub config: Arc<Config>,
    pub clock: Arc<dyn Clock>,
    pub engine: Engine,
    pub spaces: Spaces,
    pub service: SyncSender<service::Command>,
    pub status: watch::Sender<PolicyStatus>,
    /// A compilation that was given up on still runs; there is never more than one.
    pub compiling: Arc<AtomicBool>,
}

impl Loader {
    /// Serves load requests and file changes until every handle is gone. The channel does not tell, because the watcher
    /// holds a sender of it too.
    pub(crate) fn run(self, commands: &Receiver<Command>, mut watched: Option<Watched>, handles: &Weak<()>) {
        let poll = Duration::from_millis(self.config.poll_ms);
        while handles.strong_count() > 0 {
            match commands.recv_timeout(poll) {
                Ok(Command::Load(LoadRequest { source, reply })) => {
                    let _ = reply.send(self.load(source));
                }
                Ok(Command::Changed) | Err(RecvTimeoutError::Timeout) => self.look(&mut watched),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look(&self, watched: &mut Option<Watched>) {
        let Some(watched) = watched else { return };
        if let Some(path) = watched.changed() {
            // Why it was refused is in the log and the status; there is nobody here to tell.
            let _ = self.load(Source::File(path));
        }
    }

    /// Puts a component into service or says why not.
    pub(crate) fn load(&self, source: Source) -> Result<PolicyVersion, LoadError> {
        let name = source.name();
        let installed = self.prepare(source).and_then(|slot| {
            let id = slot.version.id.clone();
            let (serves, served) = sync_channel(1);
            let install = service::Command::Install(Box::new(slot), serves);
            self.service.send(install).map_err(|_| LoadError::Stopped)?;
            served.recv().map_err(|_| LoadError::Stopped)?;
            Ok(id)
        });
        if let Err(error) = &installed {
            tracing::error!(policy = %name, reason = error.reason(), %error, "policy refused, the present one stays");
            metrics::policy_load_failed(error.reason());
            let at = self.clock.now().wall;
            self.status.send_modify(|status| status.refuse(at, name, error));
        }
        installed
    }

    fn prepare(&self, source: Source) -> Result<Slot, LoadError> {
        let name = source.name();
        let bytes = source.bytes(&self.config)?;
        let id = PolicyVersion { name: name.into(), digest: digest(&bytes).into() };
        let now_ms = self.clock.now().wall;
        let version = self.compile(id, bytes)?;
        if !self.config.settings.is_empty() && !version.exports(crate::model::decision::Hook::Configure) {
            tracing::warn!(policy = %version.id.name, "the policy takes no settings, policy.settings is ignored");
        }
        gate::pass(&version, &self.config.limits, &self.config.bounds, now_ms)?;
        let guest = version.guest(now_ms)?;
        Ok(Slot { version, guest: Some(guest), breaker: Breaker::new(self.config.breaker) })
    }

    /// On a thread of its own, because a compilation cannot be stopped, only left behind.
    fn compile(&self, id: PolicyVersion, bytes: Vec<u8>) -> Result<Arc<Version>, LoadError> {
        if self.compiling.swap(true, Ordering::AcqRel) {
            return Err(LoadError::Busy);
        }
        let (engine, limits, settings) =
            (self.engine.clone(), self.config.limits, self.config.settings_json());
        let space = self.spaces.of(&id.name);
        let (done, compiled) = sync_channel(1);
        let compiling = self.compiling.clone();
        let spawned = std::thread::Builder::new().name("policy-compile".to_owned()).spawn(move || {
            let version = Version::compile(&engine, &limits, id, settings, space, &bytes);
            compiling.store(false, Ordering::Release);
            let _ = done.send(version);
        });
        if let Err(error) = spawned {
            self.compiling.store(false, Ordering::Release);
            return Err(LoadError::Compile(format!("no thread for it: {error}")));
        }
        match compiled.recv_timeout(Duration::from_secs(limits.compile_s)) {
            Ok(version) => version.map(Arc::new),
            Err(RecvTimeoutError::Timeout) => Err(LoadError::CompileTimeout(limits.compile_s)),
            Err(RecvTimeoutError::Disconnected) => {
                self.compiling.store(false, Ordering::Release);
                Err(LoadError::Compile("the compiler panicked".to_owned()))
            }
        }
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
        }
    }

    /// Read up to the limit and no further, whatever the file is.
    pub(crate) fn bytes(self, config: &Config) -> Result<Vec<u8>, LoadError> {
        let max = u64::from(config.limits.component_mib) * 1024 * 1024;
        let bytes = match self {
            Self::Bytes { bytes, .. } => bytes,
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

/// What is loaded when the router starts.
pub(crate) fn first(config: &Config) -> Option<Source> {
    if config.builtin_only {
        return None;
    }
    Some(config.file.clone().map_or_else(|| super::shipped::source(config.shipped), Source::File))
}

/// The file to watch, if there is one.
pub(crate) fn watched_file(config: &Config) -> Option<PathBuf> {
    config.file.clone().filter(|_| config.watch && !config.builtin_only)
}
