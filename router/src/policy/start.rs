//! Starts the policy's threads and ties them together.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;

use tokio::sync::watch;

use super::config::Config;
use super::error::StartError;
use super::handle::Handle;
use super::lane::Lane;
use super::loader::{self, Loader};
use super::orders::Orders;
use super::record::builtin_version;
use super::recording::Recorder;
use super::service::Service;
use super::state::Spaces;
use super::status::PolicyStatus;
use super::wasm::Engine;
use crate::clock::Clock;
use crate::model::decision::Hook;
use crate::tasks::{self, OnError};

/// Questions on their way to the policy thread. With more, the built-in answers at once.
const QUESTIONS: usize = 1_024;

/// Displaced guests on their way to the loading thread, a change of version each.
const GONE: usize = 4;

/// Host stack of a thread that runs guests, on top of the guest's own.
pub(crate) const HOST_STACK: usize = 2 * 1024 * 1024;

/// Starts the policy host and puts the configured components into service, which takes as long as compiling them does.
///
/// A component that is refused is no error here: the built-in answers, the reason is in [`Handle::status`], and the file
/// stays watched. A restart must not turn a broken policy file into an outage.
pub fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Handle, StartError> {
    let problems = config.problems();
    if !problems.is_empty() {
        return Err(StartError::Config(problems));
    }
    let config = Arc::new(config);
    let engine = Engine::new(&config.limits)?.cached_in(config.dir.as_deref());
    let (asks, questions) = sync_channel(QUESTIONS);
    let (loads, requests) = sync_channel(16);
    let (gone, displaced) = sync_channel(GONE);
    let (serving, serving_seen) = watch::channel(builtin_version());
    let (status, status_seen) = watch::channel(PolicyStatus::builtin(clock.now().wall));
    let spaces = remembered(&config);
    let recorder = Recorder::start(&config.record)
        .map_err(|source| StartError::Thread { name: "policy-record", source })?;
    let places = Arc::new(AtomicBool::new(false));
    let berths = loader::berths(&config, &loads);
    let lanes: Arc<[Arc<str>]> = berths.iter().map(|berth| berth.name.clone()).collect();

    let service = Service {
        config: config.clone(),
        clock: clock.clone(),
        lanes: lanes.iter().map(|name| Lane::new(name.clone())).collect(),
        asked: asked(&config),
        places: places.clone(),
        serving,
        status: status.clone(),
        gone,
    };
    spawn("policy", &config, move || service.run(&questions))?;

    let orders = Orders::open(config.dir.as_deref());
    let mut loader = Loader {
        config: config.clone(),
        clock,
        engine,
        spaces: spaces.clone(),
        berths,
        service: asks.clone(),
        status,
        compiling: Arc::default(),
        orders,
        gone: displaced,
    };
    let alive = Arc::new(());
    let handles = Arc::downgrade(&alive);
    let (ready, loaded) = sync_channel::<()>(1);
    spawn("policy-load", &config, move || {
        loader.begin();
        let _ = ready.send(());
        loader.run(&requests, &handles);
    })?;
    let _ = loaded.recv();
    Ok(Handle {
        asks,
        loads,
        config,
        lanes,
        serving: serving_seen,
        status: status_seen,
        places,
        spaces,
        recorder,
        _alive: alive,
    })
}

/// By hook: the lane that is asked. What no component of its own serves is the policy's.
fn asked(config: &Config) -> [usize; Hook::ALL.len()] {
    let mut asked = [0; Hook::ALL.len()];
    for (lane, extra) in (1..).zip(&config.extra) {
        for hook in extra.interfaces.iter().flat_map(|interface| interface.hooks()) {
            asked[*hook as usize] = lane;
        }
    }
    asked
}

/// What policies remembered. Where that cannot be read they begin anew rather than not at all.
fn remembered(config: &Config) -> Spaces {
    let Some(dir) = &config.dir else { return Spaces::new(config.state) };
    let opened = std::fs::create_dir_all(dir)
        .map_err(|error| error.to_string())
        .and_then(|()| Spaces::open(config.state, &dir.join("state.db")));
    opened.unwrap_or_else(|error| {
        tracing::error!(dir = %dir.display(), %error, "what policies remember is lost with this process");
        Spaces::new(config.state)
    })
}

fn spawn(name: &'static str, config: &Config, run: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(HOST_STACK + config.limits.stack_kib as usize * 1024)
        .spawn(move || {
            if panic::catch_unwind(AssertUnwindSafe(run)).is_err() {
                tasks::failed(name, OnError::Log, "panicked: the built-in answers until the next start");
            }
        })
        .map(drop)
        .map_err(|source| StartError::Thread { name, source })
}
