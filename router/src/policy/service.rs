//! The policy thread.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use tokio::sync::watch;

use super::config::Config;
use super::error::{LoadError, StartError};
use super::handle::{Ask, Handle, micros};
use super::record;
use super::status::PolicyStatus;
use crate::clock::Clock;

#[derive(Debug)]
pub(crate) enum Command {
    Ask(Ask),
}

/// Starts the policy's threads.
pub fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Handle, StartError> {
    let problems = config.problems();
    if !problems.is_empty() {
        return Err(StartError::Config(problems));
    }
    let config = Arc::new(config);
    let (asks, commands) = sync_channel(1024);
    let (loads, requests) = sync_channel::<super::loader::Command>(4);
    let (_serving, serving) = watch::channel(record::builtin_version());
    let (_status, status) = watch::channel(PolicyStatus::builtin(clock.now().wall));
    let own = config.clone();
    std::thread::Builder::new()
        .name("policy".to_owned())
        .spawn(move || serve(&commands, &own))
        .map_err(|source| StartError::Thread { name: "policy", source })?;
    std::thread::Builder::new()
        .name("policy-load".to_owned())
        .spawn(move || {
            while let Ok(super::loader::Command::Load(request)) = requests.recv() {
                let _ = request.reply.send(Err(LoadError::Busy));
            }
        })
        .map_err(|source| StartError::Thread { name: "policy-load", source })?;
    Ok(Handle { asks, loads, config, serving, status })
}

fn serve(commands: &Receiver<Command>, config: &Config) {
    while let Ok(Command::Ask(Ask { consultation, reply })) = commands.recv() {
        let started = Instant::now();
        let version = record::builtin_version();
        let decided = record::natively(&consultation, config, &version, None, micros(started.elapsed()));
        let _ = reply.send(decided);
    }
}
