//! The command line. Each subcommand is a function here or in a file of its own; none holds logic that `serve` needs.

mod arguments;
mod explain;
mod jobs;
mod operator;
mod policy;
mod versions;

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use clap::{CommandFactory, Parser};

use crate::config::{Config, Mistakes};
use crate::{app, demo};
use arguments::{Arguments, Command, ConfigCommand, PolicyCommand};

/// What was asked for could not be done.
const FAILED: i32 = 1;
/// A wrong configuration or wrong arguments.
const USAGE: u8 = 2;

/// Reads the arguments, does what they say, and answers with the exit code: 0 done, 1 failed, 2 misused.
pub fn run() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve(serve) => with_config(serve.sources(), |config| {
            app::serve(config, serve.check, || Config::load(serve.sources()))
        }),
        Command::Demo(demo) => finish(demo::run(&demo.options())),
        Command::Config(ConfigCommand::Show(sources)) => with_config(sources.sources(), |config| {
            print(&config.show());
            Ok(())
        }),
        Command::Policy(command) => finish(policy_command(&command)),
        Command::Jobs(jobs) => finish(jobs::run(&jobs)),
        Command::Explain(job) => finish(explain::run(&job)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "comfy-router", &mut script);
            print(&String::from_utf8_lossy(&script));
            ExitCode::SUCCESS
        }
    }
}

fn policy_command(command: &PolicyCommand) -> anyhow::Result<()> {
    if let Some(folder) = cache() {
        crate::policy::tools::keep_compiled_in(folder);
    }
    match command {
        PolicyCommand::New(new) => policy::new(new),
        PolicyCommand::Check(check) => policy::check(check),
        PolicyCommand::Test(test) => policy::test(test),
        PolicyCommand::Bench(bench) => policy::bench(bench),
        PolicyCommand::Conform(policy) => policy::conform(policy),
        PolicyCommand::List(list) => versions::list(list),
        PolicyCommand::Swap(swap) => versions::swap(swap),
        PolicyCommand::Rollback(lane) => versions::roll_back(lane),
        PolicyCommand::Promote(promote) => versions::promote(promote),
        PolicyCommand::Withdraw(lane) => versions::withdraw(lane),
        PolicyCommand::Unpin(lane) => versions::unpin(lane),
        PolicyCommand::Settings(settings) => versions::settings(settings),
        PolicyCommand::Replay(replay) => policy::replay(replay),
        PolicyCommand::Dev(dev) => policy::develop(dev),
        PolicyCommand::Bindings(bindings) => policy::bindings(bindings),
        PolicyCommand::Component(component) => policy::component(component),
        PolicyCommand::Wit(wit) => policy::wit(wit),
    }
}

/// `comfy-router` in the user's cache directory, as the XDG base directory specification places it.
fn cache() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("comfy-router"))
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

/// A reader that has gone, such as `head`, is no failure. Output that cannot be kept, on a full disk for instance, is one,
/// and the end of the process: half of a report must not pass for all of it.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if let Err(error) = printed
        && error.kind() != ErrorKind::BrokenPipe
    {
        complain(&format!("error: cannot write to standard output: {error}"));
        std::process::exit(FAILED);
    }
}

/// What clients and instances call things, for a terminal: control characters would be obeyed by it.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The same of several lines.
fn plain_lines(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

/// Of a wall time in milliseconds, in UTC: hours, minutes and seconds.
fn time_of_day(ms: u64) -> String {
    let s = ms / 1_000;
    format!("{:02}:{:02}:{:02}", s / 3_600 % 24, s / 60 % 60, s % 60)
}

/// The same with its day, for what may be of another one.
fn day_and_time(ms: u64) -> String {
    // The last second of the year 9999: later ones have no such date.
    const LATEST_S: u64 = 253_402_300_799;
    let at = UNIX_EPOCH + Duration::from_secs((ms / 1_000).min(LATEST_S));
    httpdate::fmt_http_date(at)[5..25].to_owned()
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", plain_lines(text.trim_end()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_utc_and_none_is_too_late() {
        assert_eq!(time_of_day(3_661_999), "01:01:01");
        assert_eq!(day_and_time(1_700_000_000_999), "14 Nov 2023 22:13:20");
        assert_eq!(day_and_time(u64::MAX), "31 Dec 9999 23:59:59");
    }
}
