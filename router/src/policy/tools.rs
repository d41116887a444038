//! For authors: what `policy check`, `policy test` and `policy bench` find out about a component. The same engine, limits, gate and
//! calls as in service, so that the two cannot drift apart.

mod bench;
mod cases;
mod check;
mod conform;
mod explain;
mod replay;
mod say;

pub use bench::{Bench, BenchRow, bench};
pub use cases::{Options, Tested, test};
pub use check::{Report, check};
pub use conform::{Broken, Conformance, conform};
pub use replay::{Desk, HookTally, Player, Recorded, Replayed, recorded, replay};
pub(crate) use replay::{Difference, SHOWN, shown};

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::config::Config;
use super::error::LoadError;
use super::handle::Source;
use super::loader;
use super::state::Space;
use super::wasm::{Engine, Version};
use crate::model::decision::PolicyVersion;

/// A component's settings: a JSON object.
pub type Settings = serde_json::Map<String, serde_json::Value>;

/// The file is not one that could be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    #[error(transparent)]
    Start(#[from] super::error::StartError),
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Which one it is matters where there are two.
    #[error("{path}: {error}")]
    Refused { path: PathBuf, error: LoadError },
    #[error("{hook} failed with {reason} at {candidates} candidates: {message}")]
    Call { hook: &'static str, reason: &'static str, candidates: usize, message: String },
    #[error("{path}: {message}")]
    File { path: PathBuf, message: String },
    #[error("{path}: {message}")]
    Case { path: PathBuf, message: String },
    #[error("{path}, line {line}: {message}")]
    Log { path: PathBuf, line: usize, message: String },
    #[error("there are no cases (*.json) in {0}")]
    NoCases(String),
    #[error("no case has {0:?} in its name")]
    NoSuchCase(String),
}

impl ToolError {
    fn file(path: &Path, error: &std::io::Error) -> Self {
        Self::File { path: path.to_owned(), message: error.to_string() }
    }
}

/// Where compiled code is kept from one run of the command line to the next.
static COMPILED: OnceLock<PathBuf> = OnceLock::new();

/// From now on a component that was compiled once is not compiled again by this process, nor by the next one that says so. The
/// folder must be the user's own: what lies there is run.
pub fn keep_compiled_in(folder: PathBuf) {
    // Said twice, the first word holds.
    let _ = COMPILED.set(folder);
}

struct Opened {
    path: PathBuf,
    engine: Engine,
    config: Config,
    id: PolicyVersion,
    bytes: Vec<u8>,
}

fn open(path: &Path, settings: &Settings) -> Result<Opened, ToolError> {
    open_with(path, Config { settings: settings.clone(), ..Config::default() })
}

fn open_with(path: &Path, config: Config) -> Result<Opened, ToolError> {
    let engine = Engine::new(&config.limits)?.cached_in(COMPILED.get().map(PathBuf::as_path));
    let source = Source::File(path.to_owned());
    let name = source.name().into();
    let bytes = source.bytes(&config)?;
    let id = PolicyVersion { name, digest: loader::digest(&bytes).into() };
    Ok(Opened { path: path.to_owned(), engine, config, id, bytes })
}

impl Opened {
    /// As a tool needs it that goes no further without.
    fn version(&self) -> Result<Version, ToolError> {
        self.compile().map_err(|error| self.refused(error))
    }

    fn refused(&self, error: LoadError) -> ToolError {
        ToolError::Refused { path: self.path.clone(), error }
    }

    fn compile(&self) -> Result<Version, LoadError> {
        self.compile_for(&self.engine)
    }

    fn compile_for(&self, engine: &Engine) -> Result<Version, LoadError> {
        let (limits, settings) = (&self.config.limits, &self.config.settings);
        Version::compile(engine, limits, self.id.clone(), settings, Space::default(), &self.bytes)
    }
}
