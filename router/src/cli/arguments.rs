//! The arguments, their help and what they mean as configuration.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use comfy_router_policy_kit::Language;

use crate::config::{Setting, Sources};
use crate::demo;

/// One ComfyUI in front of many: a durable queue, the unchanged ComfyUI API, and a WebAssembly policy that decides
/// what runs where.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Serve the instances that are configured, or those found on local ports 8188-8199
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Serve),
    /// Show it at work: four emulated instances on two emulated GPUs, a mixed load, a policy swapped while jobs run
    Demo(Demo),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at the queue of a running router, cancel its jobs, move them
    #[command(after_help = JOBS_EXAMPLES)]
    Jobs(Jobs),
    /// Write, check, test and measure policies
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Why did this job run there, or why does it wait? What each hook saw, said and what came of it
    Explain(Explain),
    /// Print a completion script for a shell
    #[command(after_help = "Example: comfy-router completions bash > /etc/bash_completion.d/comfy-router")]
    Completions { shell: clap_complete::Shell },
}

const SERVE_EXAMPLES: &str = "\
Examples:
  comfy-router serve
      find instances on this machine, serve at http://127.0.0.1:7188
  comfy-router serve --instance gpu0=http://127.0.0.1:8188 --instance gpu1=http://127.0.0.1:8189
      two instances with names of their own
  comfy-router serve --config router.toml --policy my-policy.wasm
      a configuration file, and a policy that is replaced whenever its file changes
  comfy-router serve --check
      check configuration, instances and policy, then exit";

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    sources: SourceArguments,
    /// Check the configuration, the instances and the policy, print what was found, and exit
    #[arg(long)]
    pub(super) check: bool,
}

impl Serve {
    pub(super) fn sources(&self) -> Sources {
        self.sources.sources()
    }
}

/// Every value may also come from the configuration file or the environment; a flag wins over both.
#[derive(Debug, Args)]
pub(super) struct SourceArguments {
    /// Configuration file (TOML); also COMFY_ROUTER_CONFIG
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A ComfyUI instance, as URL or NAME=URL; may be repeated; without any, local ports are searched
    #[arg(long = "instance", short, value_name = "[NAME=]URL")]
    instances: Vec<String>,
    /// Where clients connect [default: 127.0.0.1:7188]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Where operators connect: metrics, health, jobs, policy [default: 127.0.0.1:7189]
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin: Option<String>,
    /// The policy: a WebAssembly component; a changed file takes over while jobs run [default: model-affinity, built in]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Directory for everything durable [default: comfy-router in the user's state directory]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// error, warn, info, debug, trace, or a filter such as `info,comfy_router::scheduler=debug`
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Any other key, such as `timeouts.run_s=600`; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

impl SourceArguments {
    pub(super) fn sources(&self) -> Sources {
        let mut flags = Vec::new();
        let mut text = |flag: &str, path: &str, value: Option<String>| {
            flags.extend(value.map(|value| Setting::text(flag, path, value)));
        };
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        text("--listen", "listen", self.listen.clone());
        text("--admin", "admin", self.admin.clone());
        text("--policy", "policy.file", path(&self.policy));
        text("--state-dir", "ledger.dir", path(&self.state_dir));
        text("--log", "log.level", self.log.clone());
        text("--log-format", "log.format", self.log_format.clone());
        if !self.instances.is_empty() {
            flags.push(Setting::instances("--instance", self.instances.iter().map(String::as_str)));
        }
        for setting in &self.settings {
            match Setting::parse("--set", setting) {
                Ok(setting) => flags.push(setting),
                Err(message) => {
                    use clap::CommandFactory;
                    Arguments::command().error(clap::error::ErrorKind::ValueValidation, message).exit();
                }
            }
        }
        Sources::of_process(self.config.clone(), flags)
    }
}

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Keep it up to click around, until Ctrl-C
    #[arg(long)]
    stay: bool,
    /// Prompts to send
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    prompts: u32,
    /// Where the demo's router serves; port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:7188", value_name = "ADDRESS:PORT")]
    listen: std::net::SocketAddr,
    /// Where its admin listener serves
    #[arg(long, default_value = "127.0.0.1:7189", value_name = "ADDRESS:PORT")]
    admin: std::net::SocketAddr,
}

impl Demo {
    pub(super) fn options(&self) -> demo::Options {
        demo::Options { stay: self.stay, prompts: self.prompts, listen: self.listen, admin: self.admin }
    }
}

const JOBS_EXAMPLES: &str = "\
Examples:
  comfy-router jobs list
      what runs, and what waits in the order in which it will run
  comfy-router jobs move PROMPT_ID --front
      before everything that waits; --back, or --normal for where its priority puts it
  comfy-router jobs set PROMPT_ID --class interactive
      another class or --number; the policy judges it anew
  comfy-router jobs set PROMPT_ID --priority 500
      a priority that no policy changes; --policy-priority gives it back to the policy";

#[derive(Debug, Args)]
pub(super) struct Jobs {
    /// The admin listener of the router
    #[arg(
        long,
        global = true,
        env = "COMFY_ROUTER_ADMIN",
        default_value = "127.0.0.1:7189",
        value_name = "ADDRESS:PORT"
    )]
    pub(super) admin: String,
    #[command(subcommand)]
    pub(super) command: JobsCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum JobsCommand {
    /// Show what runs and what waits, in order
    List {
        /// Of the waiting jobs, at most so many
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        limit: u32,
        /// Of the waiting jobs, leave out the first so many
        #[arg(long, default_value_t = 0)]
        offset: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take waiting jobs out of the queue, interrupt running ones
    Cancel {
        #[arg(required = true, value_name = "PROMPT_ID")]
        jobs: Vec<String>,
    },
    /// Put a waiting job before or behind all others
    #[command(group(clap::ArgGroup::new("where").required(true).args(["front", "back", "normal"])))]
    Move {
        #[arg(value_name = "PROMPT_ID")]
        job: String,
        #[arg(long)]
        front: bool,
        #[arg(long)]
        back: bool,
        /// Where its priority puts it
        #[arg(long)]
        normal: bool,
    },
    /// Give a waiting job another number, class or priority
    #[command(group(clap::ArgGroup::new("what").required(true).multiple(true)
        .args(["number", "class", "priority", "policy_priority"])))]
    Set {
        #[arg(value_name = "PROMPT_ID")]
        job: String,
        /// ComfyUI's number: lower runs earlier, as far as the policy follows it
        #[arg(long, allow_negative_numbers = true)]
        number: Option<f64>,
        #[arg(long, value_parser = ["interactive", "standard", "batch"])]
        class: Option<String>,
        /// In place of the policy's: higher runs earlier
        #[arg(long, allow_negative_numbers = true, conflicts_with = "policy_priority")]
        priority: Option<f64>,
        /// The policy's own priority again
        #[arg(long)]
        policy_priority: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the effective configuration as TOML, secrets hidden
    Show(SourceArguments),
}

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
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

/// Where a running router takes orders.
#[derive(Debug, Args)]
pub(super) struct Admin {
    /// Its admin listener
    #[arg(long, env = "COMFY_ROUTER_ADMIN", default_value = "127.0.0.1:7189", value_name = "ADDRESS:PORT")]
    pub(super) admin: String,
}

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// Its prompt id
    pub(super) job: String,
    #[command(flatten)]
    pub(super) admin: Admin,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct PolicyList {
    #[command(flatten)]
    pub(super) admin: Admin,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct PolicyLane {
    /// The component that serves this interface, such as housekeeping [default: the policy's own]
    #[arg(long, value_name = "INTERFACE")]
    pub(super) hook: Option<String>,
    #[command(flatten)]
    pub(super) admin: Admin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum SwapAs {
    Live,
    Shadow,
    Canary,
}

#[derive(Debug, Args)]
pub(super) struct PolicySwap {
    /// The component
    pub(super) file: PathBuf,
    /// What it is called: it remembers under this name [default: the file's, without its end]
    #[arg(long)]
    pub(super) name: Option<String>,
    /// live answers everything; a shadow is only compared; a canary is obeyed for a share of the jobs
    #[arg(long = "as", value_enum, default_value_t = SwapAs::Live, value_name = "PLACE")]
    pub(super) place: SwapAs,
    /// Its settings, as a JSON object [default: those that the one before has]
    #[arg(long, value_name = "JSON")]
    pub(super) settings: Option<String>,
    /// Share of the jobs for a canary, such as 0.1
    #[arg(long, required_if_eq("place", "canary"))]
    pub(super) share: Option<f64>,
    #[command(flatten)]
    pub(super) lane: PolicyLane,
}

#[derive(Debug, Args)]
pub(super) struct PolicyPromote {
    /// The beginning of a version's digest, as `policy list` shows it [default: the canary, or the shadow]
    pub(super) digest: Option<String>,
    #[command(flatten)]
    pub(super) lane: PolicyLane,
}

#[derive(Debug, Args)]
pub(super) struct PolicySettings {
    /// A JSON object
    pub(super) settings: String,
    #[command(flatten)]
    pub(super) lane: PolicyLane,
}

#[derive(Debug, Args)]
pub(super) struct PolicyNew {
    /// Lower-case letters, digits and hyphens; also what its state and metrics go by
    pub(super) name: String,
    /// rust, typescript, python, go or c
    #[arg(long = "lang", value_name = "LANGUAGE")]
    pub(super) language: Language,
    /// Where to write it [default: a new folder of its name]
    #[arg(long, value_name = "FOLDER")]
    pub(super) folder: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct PolicyFile {
    /// The component, or the folder of its project [default: the project in this folder]
    pub(super) file: Option<PathBuf>,
    /// Its settings, as a JSON object [default: those of policy.toml]
    #[arg(long, value_name = "JSON")]
    pub(super) settings: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct PolicyTest {
    #[command(flatten)]
    pub(super) policy: PolicyFile,
    /// A file of cases, or a folder of them; may be repeated [default: that of policy.toml]
    #[arg(long, value_name = "PATH")]
    pub(super) cases: Vec<PathBuf>,
    /// Write the decisions that differ into the cases
    #[arg(long)]
    pub(super) update: bool,
    /// Only cases whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub(super) filter: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct PolicyBench {
    #[command(flatten)]
    pub(super) policy: PolicyFile,
    /// Numbers of candidates to measure with
    #[arg(long, value_delimiter = ',', default_value = "1,4,16,64,256,512", value_name = "N,N,...")]
    pub(super) candidates: Vec<usize>,
    /// Count no instructions: counting compiles the component a second time
    #[arg(long)]
    pub(super) no_fuel: bool,
}

#[derive(Debug, Args)]
pub(super) struct PolicyReplay {
    /// A recording: a file of `policy.record.dir`, or what the admin listener gives; may be repeated, oldest first
    #[arg(long = "log", value_name = "FILE", required = true)]
    pub(super) logs: Vec<PathBuf>,
    /// The policy; a second one is what it is compared with, and without one that is the recording
    #[arg(long = "policy", value_name = "FILE", required = true)]
    pub(super) policies: Vec<PathBuf>,
    /// The settings of both, as a JSON object [default: those of --config, or none]
    #[arg(long, value_name = "JSON")]
    pub(super) settings: Option<String>,
    /// The configuration of the router that made the recording: settings, tenants' weights, limits and window
    #[arg(long, short, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Also write a page with plots; it needs nothing else
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct PolicyDev {
    /// The project
    #[arg(default_value = ".")]
    pub(super) folder: PathBuf,
    /// The admin listener of a running router, to swap what passed into
    #[arg(long, alias = "admin", value_name = "ADDRESS:PORT")]
    pub(super) router: Option<String>,
    /// One round, then exit
    #[arg(long)]
    pub(super) once: bool,
}

#[derive(Debug, Args)]
pub(super) struct PolicyBindings {
    /// typescript, go or c
    pub(super) language: Language,
    /// The folder of WIT, with its `deps`
    #[arg(long, default_value = "wit", value_name = "FOLDER")]
    pub(super) wit: PathBuf,
    /// The world in it, if there are several
    #[arg(long, value_name = "NAME")]
    pub(super) world: Option<String>,
    /// Where to write them
    #[arg(long, default_value = "gen", value_name = "FOLDER")]
    pub(super) out: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct PolicyWit {
    #[arg(default_value = "wit")]
    pub(super) folder: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct PolicyComponent {
    /// What the compiler wrote
    pub(super) module: PathBuf,
    /// Where the component goes
    #[arg(long, short, value_name = "FILE")]
    pub(super) out: PathBuf,
    /// The folder of WIT, for a module that does not carry its world (Go)
    #[arg(long, value_name = "FOLDER")]
    pub(super) wit: Option<PathBuf>,
    /// The world in it, if there are several
    #[arg(long, value_name = "NAME", requires = "wit")]
    pub(super) world: Option<String>,
    /// A module, binary or WAT, that answers the imports of that name; may be repeated
    #[arg(long = "adapter", value_name = "NAME=FILE")]
    pub(super) adapters: Vec<Adapter>,
}

#[derive(Debug, Clone)]
pub(super) struct Adapter {
    pub(super) name: String,
    pub(super) path: PathBuf,
}

impl std::str::FromStr for Adapter {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, path) = text.split_once('=').ok_or("NAME=FILE is expected")?;
        Ok(Self { name: name.to_owned(), path: path.into() })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn jobs_are_moved_to_one_place_and_set_to_something() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        for line in [
            "comfy-router jobs list --limit 5",
            "comfy-router jobs move a --front",
            "comfy-router jobs set a --number -5 --class batch",
            "comfy-router jobs --admin h:1 cancel a b",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
        for line in [
            "comfy-router jobs move a",
            "comfy-router jobs move a --front --back",
            "comfy-router jobs set a",
            "comfy-router jobs set a --priority 1 --policy-priority",
            "comfy-router jobs set a --class root",
            "comfy-router jobs cancel",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn flags_become_settings_under_their_own_names() {
        let line = [
            "comfy-router",
            "serve",
            "--instance",
            "a=http://h:1",
            "--listen",
            "127.0.0.1:0",
            "--set",
            "x.y=3",
        ];
        let Command::Serve(serve) = Arguments::parse_from(line).command else { panic!("serve") };
        let flags = serve.sources().flags;
        let seen: Vec<_> = flags.iter().map(|f| (f.flag.as_str(), f.path.as_str())).collect();
        assert_eq!(seen, [("--listen", "listen"), ("--instance", "instance"), ("--set", "x.y")]);
    }
}
