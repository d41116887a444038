//! The command line. Each subcommand is a function here or in a file of its own; none holds logic that `serve` needs.

mod arguments;
mod jobs;
mod policy;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::config::{Config, Mistakes};
use crate::{app, demo};
use arguments::{Arguments, Command, ConfigCommand, PolicyCommand};

/// A wrong configuration or wrong arguments.
const USAGE: u8 = 2;

/// Reads the arguments, does what they say, and answers with the exit code: 0 done, 1 failed, 2 misused.
pub fn run() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve(serve) => with_config(serve.sources(), |config| app::serve(config, serve.check)),
        Command::Demo(demo) => finish(demo::run(&demo.options())),
        Command::Config(ConfigCommand::Show(sources)) => with_config(sources.sources(), |config| {
            print(&config.show());
            Ok(())
        }),
        Command::Jobs(jobs) => finish(jobs::run(&jobs)),
        Command::Policy(PolicyCommand::Check(check)) => finish(policy::check(&check)),
        Command::Policy(PolicyCommand::Bench(bench)) => finish(policy::bench(&bench)),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "comfy-router", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}

fn with_config(sources: crate::config::Sources, go: impl FnOnce(Config) -> anyhow::Result<()>) -> ExitCode {
    match Config::load(sources) {
        Ok(config) => finish(go(config)),
        Err(mistakes) => misconfigured(&mistakes),
    }
}

fn misconfigured(mistakes: &Mistakes) -> ExitCode {
    complain(&mistakes.to_string());
    ExitCode::from(USAGE)
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// A reader that has gone, such as `head`, is no failure.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
}
