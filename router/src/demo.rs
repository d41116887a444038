//! `comfy-router demo`: everything in one process, to be seen at work in a minute. Four emulated instances, the real
//! assembly of [`app`], clients that know nothing but the public API, an operator's view through the admin listener,
//! and a policy file that is replaced while jobs run.
//!
//! Owns the emulators, the load and what is shown. It never reaches into the router: what it shows, any client or operator
//! could see. It fails when a prompt was lost, ran twice, or came back with the wrong image. Called by `cli`.

mod audit;
mod board;
mod client;
mod http;
mod image;
mod instances;
mod line;
mod picture;
mod random;
mod scrape;
mod show;
mod stage;
mod summary;
mod swap;
mod terminal;
mod watch;
mod workload;

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context;

use crate::app;
use crate::config::{self, Config};
use crate::policy::Shipped;
use instances::Instances;
use line::{Line, Style};
use stage::{Interrupted, Outcome, Stage};
use summary::Summary;

/// Of the load: another one would do as well, but then no two runs would compare.
const SEED: u64 = 2;
const LOG: &str = "router.log";
/// In-process instances answer at once.
const LOOK_PATIENCE: Duration = Duration::from_secs(10);

/// What to show.
#[derive(Debug, Clone)]
pub struct Options {
    /// Keep it up after the load, until Ctrl-C.
    pub stay: bool,
    pub prompts: u32,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
}

/// Runs the whole demo.
///
/// # Errors
/// When it cannot start, is interrupted, or anything was lost or wrong.
pub fn run(options: &Options) -> anyhow::Result<()> {
    ensure_free(options)?;
    let dir =
        tempfile::Builder::new().prefix("comfy-router-demo-").tempdir().context("a temporary directory")?;
    log_to(&dir.path().join(LOG))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(demo(options, dir.path()));
    runtime.shutdown_timeout(Duration::from_secs(2));
    ended.map_err(|error| {
        if error.is::<Interrupted>() {
            return error;
        }
        let kept = dir.keep();
        error.context(format!("the demo failed; its ledger and {LOG} are kept in {}", kept.display()))
    })
}

/// Said before anything starts, of both addresses, with the way out.
fn ensure_free(options: &Options) -> anyhow::Result<()> {
    let taken = |(flag, address): (&str, SocketAddr)| {
        let error = TcpListener::bind(address).err()?;
        Some(format!("cannot listen on {address} ({flag}): {error}"))
    };
    let taken: Vec<String> =
        [("--listen", options.listen), ("--admin", options.admin)].into_iter().filter_map(taken).collect();
    anyhow::ensure!(
        taken.is_empty(),
        "{}\n  choose other addresses; port 0 takes any free one:\n  comfy-router demo --listen 127.0.0.1:0 --admin \
         127.0.0.1:0",
        taken.join("\n       ")
    );
    Ok(())
}

/// The router's own log would tear the picture apart; it goes to a file.
fn log_to(path: &Path) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let filter = tracing_subscriber::EnvFilter::new("info,comfyui_emulator=warn");
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Mutex::new(file));
    // Only a second start in one process fails, and the first one's file is as good.
    let _ = builder.try_init();
    Ok(())
}

async fn demo(options: &Options, dir: &Path) -> anyhow::Result<()> {
    let instances = Instances::start().await.context("the emulated instances could not start")?;
    let policy = dir.join("policy.wasm");
    std::fs::write(&policy, Shipped::ModelAffinity.bytes())?;
    let router = start(options, dir, &policy, &instances).await?;
    let (listen, admin) = (router.listen_addr(), router.admin_addr());
    let plan = workload::plan(options.prompts as usize, SEED);
    let outcome = Stage::new(listen, admin, &plan, policy.clone()).await?.run(plan).await?;
    let wrong = conclude(&outcome, &instances).await?;
    if options.stay {
        stay(listen, admin, &policy, &dir.join(LOG)).await;
    } else if wrong == 0 {
        go_on();
    }
    router.shutdown(std::future::pending()).await?;
    instances.stop().await;
    anyhow::ensure!(wrong == 0, "{wrong} things went wrong, see the summary above");
    Ok(())
}

async fn start(
    options: &Options,
    dir: &Path,
    policy: &Path,
    instances: &Instances,
) -> anyhow::Result<app::Router> {
    let config = Config {
        listen: options.listen,
        admin: options.admin,
        admin_key: config::Secret::default(),
        launch: config::Launch::default(),
        discover: config::Discover::default(),
        fleet: config::Fleet { poll_ms: 1_000, ..config::Fleet::default() },
        ledger: config::Ledger { dir: dir.join("state"), ..config::Ledger::default() },
        policy: config::Policy { file: Some(policy.to_owned()), ..config::Policy::default() },
        // The cards of this machine, if there are any, have no part in it.
        telemetry: config::Telemetry { nvml: false, emulated: true, sample_ms: 250 },
        limits: config::Limits::default(),
        timeouts: config::Timeouts::default(),
        front: config::Front::default(),
        outputs: config::Outputs::default(),
        routes: Vec::new(),
        log: config::Log::default(),
        instances: instances.configured(),
    };
    let router = app::Router::start(config).await?;
    router.looked(LOOK_PATIENCE).await;
    Ok(router)
}

/// Compares the accounts, prints the summary, and says how many things went wrong.
async fn conclude(outcome: &Outcome, instances: &Instances) -> anyhow::Result<usize> {
    let mut audit = audit::audit(&outcome.board, &outcome.watch, &instances.executions()).await?;
    audit.problems.extend(outcome.problems.iter().cloned());
    let metrics = outcome.watch.scrape().await?;
    let loads: Vec<(u32, u64)> =
        instances.cards().iter().map(|card| (card.index, card.model_loads)).collect();
    let summary = Summary {
        board: &outcome.board,
        audit: &audit,
        metrics: &metrics,
        cards: &outcome.watch.cards,
        loads: &loads,
        took: outcome.took,
    };
    terminal::print(&summary.lines(terminal::reading_width()));
    Ok(audit.problems.len())
}

fn go_on() {
    terminal::print(&[
        Line::new()
            .plain("go on: ")
            .add(Style::Bold, "comfy-router serve")
            .plain(" in front of your own ComfyUI (README, ten-minute tour)"),
        Line::new()
            .plain("       ")
            .add(Style::Bold, "comfy-router demo --stay")
            .plain(" to click around here"),
    ]);
}

async fn stay(listen: SocketAddr, admin: SocketAddr, policy: &Path, log: &Path) {
    let row = |name: &str, text: String| Line::new().cell(Style::Bold, name, 14).plain(text);
    terminal::print(&[
        Line::new().plain("still up, until Ctrl-C:"),
        row("ComfyUI API", format!("http://{listen}")),
        row("", format!("http://{listen}/queue")),
        row("", format!("http://{listen}/history?max_items=3")),
        row("operator", format!("http://{admin}/")),
        row("", format!("http://{admin}/metrics")),
        row("policy file", format!("{} (copy another .wasm over it)", policy.display())),
        row("log", log.display().to_string()),
    ]);
    stage::interrupted().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_ports_are_named_with_the_way_out() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let free = "127.0.0.1:0".parse().unwrap();
        let options = |listen, admin| Options { stay: false, prompts: 1, listen, admin };
        let error = ensure_free(&options(address, address)).unwrap_err().to_string();
        assert_eq!(error.matches(&address.to_string()).count(), 2, "{error}");
        assert!(error.contains("--listen 127.0.0.1:0 --admin 127.0.0.1:0"), "{error}");
        assert!(ensure_free(&options(free, free)).is_ok());
    }
}
