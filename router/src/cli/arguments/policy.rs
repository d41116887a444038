//! The arguments of `policy`: a component as a file, and the policy of a running router.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use comfy_router_policy_kit::Language;

use super::Admin;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PolicyCommand {
    /// Start a policy: a small project that builds with `make` and passes `check`
    #[command(after_help = "Example: comfy-router policy new night-shift --lang python")]
    New(PolicyNew),
    /// Would this component serve? Shows what it exports and imports, tries its settings and a call of each hook
    Check(PolicyFile),
    /// Does it decide as its cases say? A case is a view and the decision it should lead to
    Test(PolicyTest),
    /// How long does each hook take, how many instructions and how much memory, by the number of candidates?
    Bench(PolicyBench),
    /// Does it hold to the interface on views that are hostile? Bounds, determinism, an answer to everything
    Conform(PolicyFile),
    /// The versions a running router knows, with shadows and canaries
    List(PolicyList),
    /// Give a running router a component, as its policy, as a shadow, or as a canary
    Swap(PolicySwap),
    /// Return a running router to the last good version
    Rollback(PolicyLane),
    /// Let the canary, the shadow, or an earlier version answer everything
    Promote(PolicyPromote),
    /// Take canary and shadow away
    Withdraw(PolicyLane),
    /// Let what is configured serve again, now and after a restart
    Unpin(PolicyLane),
    /// Give the component that serves other settings
    Settings(PolicySettings),
    /// Make recorded decisions again, by one policy or two, and show where they differ
    #[command(after_help = "Example: curl -s 127.0.0.1:7189/api/policy/recording > day.jsonl
         comfy-router policy replay --log day.jsonl --policy new.wasm --policy old.wasm")]
    Replay(PolicyReplay),
    /// Build, check and test again whenever a file changes, and swap what passed into a running router
    Dev(PolicyDev),
    /// Generate a language's names for the interface; the projects' Makefiles call this
    Bindings(PolicyBindings),
    /// Make a component of the core module that a compiler wrote; the projects' Makefiles call this
    Component(PolicyComponent),
    /// Write this router's interface into the `deps` of a folder of WIT
    Wit(PolicyWit),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyList {
    #[command(flatten)]
    pub(in crate::cli) admin: Admin,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyLane {
    /// The component that serves this interface, such as housekeeping [default: the policy's own]
    #[arg(long, value_name = "INTERFACE")]
    pub(in crate::cli) hook: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) admin: Admin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum SwapAs {
    Live,
    Shadow,
    Canary,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicySwap {
    /// The component
    pub(in crate::cli) file: PathBuf,
    /// What it is called: it remembers under this name [default: the file's, without its end]
    #[arg(long)]
    pub(in crate::cli) name: Option<String>,
    /// live answers everything; a shadow is only compared; a canary is obeyed for a share of the jobs
    #[arg(long = "as", value_enum, default_value_t = SwapAs::Live, value_name = "PLACE")]
    pub(in crate::cli) place: SwapAs,
    /// Its settings, as a JSON object [default: those that the one before has]
    #[arg(long, value_name = "JSON")]
    pub(in crate::cli) settings: Option<String>,
    /// Share of the jobs for a canary, such as 0.1
    #[arg(long, required_if_eq("place", "canary"))]
    pub(in crate::cli) share: Option<f64>,
    #[command(flatten)]
    pub(in crate::cli) lane: PolicyLane,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyPromote {
    /// The beginning of a version's digest, as `policy list` shows it [default: the canary, or the shadow]
    pub(in crate::cli) digest: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) lane: PolicyLane,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicySettings {
    /// A JSON object
    pub(in crate::cli) settings: String,
    #[command(flatten)]
    pub(in crate::cli) lane: PolicyLane,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyNew {
    /// Lower-case letters, digits and hyphens; also what its state and metrics go by
    pub(in crate::cli) name: String,
    /// rust, typescript, python, go or c
    #[arg(long = "lang", value_name = "LANGUAGE")]
    pub(in crate::cli) language: Language,
    /// Where to write it [default: a new folder of its name]
    #[arg(long, value_name = "FOLDER")]
    pub(in crate::cli) folder: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyFile {
    /// The component, or the folder of its project [default: the project in this folder]
    pub(in crate::cli) file: Option<PathBuf>,
    /// Its settings, as a JSON object [default: those of policy.toml]
    #[arg(long, value_name = "JSON")]
    pub(in crate::cli) settings: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyTest {
    #[command(flatten)]
    pub(in crate::cli) policy: PolicyFile,
    /// A file of cases, or a folder of them; may be repeated [default: that of policy.toml]
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) cases: Vec<PathBuf>,
    /// Write the decisions that differ into the cases
    #[arg(long)]
    pub(in crate::cli) update: bool,
    /// Only cases whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) filter: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyBench {
    #[command(flatten)]
    pub(in crate::cli) policy: PolicyFile,
    /// Numbers of candidates to measure with, from 1 to 1024
    #[arg(long, value_delimiter = ',', default_value = "1,4,16,64,256,512", value_name = "N,N,...",
        value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub(in crate::cli) candidates: Vec<u16>,
    /// Count no instructions: counting compiles the component a second time
    #[arg(long)]
    pub(in crate::cli) no_fuel: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyReplay {
    /// A recording: a file of `policy.record.dir`, or what the admin listener gives; may be repeated, oldest first
    #[arg(long = "log", value_name = "FILE", required = true)]
    pub(in crate::cli) logs: Vec<PathBuf>,
    /// The policy; a second one is what it is compared with, and without one that is the recording
    #[arg(long = "policy", value_name = "FILE", required = true)]
    pub(in crate::cli) policies: Vec<PathBuf>,
    /// The settings of both, as a JSON object [default: those of --config, or none]
    #[arg(long, value_name = "JSON")]
    pub(in crate::cli) settings: Option<String>,
    /// The configuration of the router that made the recording: settings, tenants' weights, limits and window
    #[arg(long, short, value_name = "FILE")]
    pub(in crate::cli) config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    /// Also write a page with plots; it needs nothing else
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) html: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyDev {
    /// The project
    #[arg(default_value = ".")]
    pub(in crate::cli) folder: PathBuf,
    /// The admin listener of a running router, to swap what passed into; its key is read from COMFY_ROUTER_ADMIN_KEY
    #[arg(long, alias = "admin", value_name = "ADDRESS:PORT")]
    pub(in crate::cli) router: Option<String>,
    /// One round, then exit, with status 1 if it failed
    #[arg(long)]
    pub(in crate::cli) once: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyBindings {
    /// typescript, go or c
    pub(in crate::cli) language: Language,
    /// The folder of WIT, with its `deps`
    #[arg(long, default_value = "wit", value_name = "FOLDER")]
    pub(in crate::cli) wit: PathBuf,
    /// The world in it, if there are several
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) world: Option<String>,
    /// Where to write them
    #[arg(long, default_value = "gen", value_name = "FOLDER")]
    pub(in crate::cli) out: PathBuf,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyWit {
    #[arg(default_value = "wit")]
    pub(in crate::cli) folder: PathBuf,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyComponent {
    /// What the compiler wrote
    pub(in crate::cli) module: PathBuf,
    /// Where the component goes
    #[arg(long, short, value_name = "FILE")]
    pub(in crate::cli) out: PathBuf,
    /// The folder of WIT, for a module that does not carry its world (Go)
    #[arg(long, value_name = "FOLDER")]
    pub(in crate::cli) wit: Option<PathBuf>,
    /// The world in it, if there are several
    #[arg(long, value_name = "NAME", requires = "wit")]
    pub(in crate::cli) world: Option<String>,
    /// A module, binary or WAT, that answers the imports of that name; may be repeated
    #[arg(long = "adapter", value_name = "NAME=FILE")]
    pub(in crate::cli) adapters: Vec<Adapter>,
}

#[derive(Debug, Clone)]
pub(in crate::cli) struct Adapter {
    pub(in crate::cli) name: String,
    pub(in crate::cli) path: PathBuf,
}

impl std::str::FromStr for Adapter {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, path) = text.split_once('=').ok_or("NAME=FILE is expected")?;
        Ok(Self { name: name.to_owned(), path: path.into() })
    }
}
