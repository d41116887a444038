//! The arguments, their help and what they mean as configuration.

mod policy;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

use crate::config::{Setting, Sources};
use crate::demo;

pub(super) use policy::{
    PolicyBench, PolicyBindings, PolicyCommand, PolicyComponent, PolicyDev, PolicyFile, PolicyLane,
    PolicyList, PolicyNew, PolicyPromote, PolicyReplay, PolicySettings, PolicySwap, PolicyTest, PolicyWit,
    SwapAs,
};

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
    // A configuration is text: a path that is none would name another file or folder there.
    /// The policy: a WebAssembly component; a changed file takes over while jobs run [default: model-affinity, built in]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    policy: Option<String>,
    /// Directory for everything durable [default: comfy-router in the user's state directory]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    state_dir: Option<String>,
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
        text("--listen", "listen", self.listen.clone());
        text("--admin", "admin", self.admin.clone());
        text("--policy", "policy.file", self.policy.clone());
        text("--state-dir", "ledger.dir", self.state_dir.clone());
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
    /// The admin listener of the router; the key it may want is read from COMFY_ROUTER_ADMIN_KEY
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
        #[arg(long, allow_negative_numbers = true, value_parser = finite)]
        number: Option<f64>,
        #[arg(long, value_parser = ["interactive", "standard", "batch"])]
        class: Option<String>,
        /// In place of the policy's: higher runs earlier
        #[arg(long, allow_negative_numbers = true, value_parser = finite, conflicts_with = "policy_priority")]
        priority: Option<f64>,
        /// The policy's own priority again
        #[arg(long)]
        policy_priority: bool,
    },
}

/// JSON has no other numbers: they would be sent as `null`, which means something else.
fn finite(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "it is no number".to_owned())?;
    if number.is_finite() { Ok(number) } else { Err("it is not finite".to_owned()) }
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the effective configuration as TOML, secrets hidden
    Show(SourceArguments),
}

/// Where a running router takes orders.
#[derive(Debug, Args)]
pub(super) struct Admin {
    /// Its admin listener; the key it may want is read from COMFY_ROUTER_ADMIN_KEY
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
            "comfy-router jobs set a --number x",
            "comfy-router jobs set a --priority nan",
            "comfy-router jobs set a --priority -inf",
            "comfy-router jobs cancel",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn candidates_are_as_many_as_a_policy_may_be_shown() {
        let parse = |list: &str| {
            let line = ["comfy-router", "policy", "bench", "a.wasm", "--candidates", list];
            Arguments::try_parse_from(line)
        };
        assert!(parse("1,1024").is_ok());
        for list in ["0", "1025", "4,100000000", "x"] {
            assert!(parse(list).is_err(), "{list}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_path_that_is_no_text_is_refused_where_it_would_become_another() {
        use std::os::unix::ffi::OsStringExt as _;
        let path = std::ffi::OsString::from_vec(b"/srv/\xff".to_vec());
        for flag in ["--policy", "--state-dir"] {
            let line = ["comfy-router".into(), "serve".into(), flag.into(), path.clone()];
            assert!(Arguments::try_parse_from(line).is_err(), "{flag}");
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
