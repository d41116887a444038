//! The instances' processes: those that the router starts and keeps running, and the operator's own commands that restart the
//! others. Nothing else here starts or ends a process.
//!
//! Owns a folder for each process it starts, with its log and with what is needed to find it again: a router that was killed,
//! or that leaves them running, is followed by one that takes them up. Never decides that an instance is to be restarted,
//! and knows nothing of what runs there.

mod command;
mod keeper;
mod place;
mod plan;
mod process;
mod program;
mod system;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot, watch};

pub use keeper::ProcessStatus;
pub use plan::{Card, PlanError, Planned, Site, apart, plan};

use crate::config;
use crate::model::id::InstanceId;
use crate::tasks::{self, OnError};
use keeper::{Keeper, Order};

#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    #[error("there is no instance `{0}`")]
    NoSuchInstance(InstanceId),
    #[error("no `restart` command is configured for it")]
    Unsupervised,
    #[error("`{program}` did not end within {after:?}")]
    Timeout { program: String, after: Duration },
    #[error("`{program}` failed ({status}): {said}")]
    Failed { program: String, status: ExitStatus, said: String },
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("the router is shutting down")]
    Stopping,
}

#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("`{program}` cannot be started: {error}")]
    Program { program: String, error: io::Error },
    #[error("{} cannot be used: {error}", path.display())]
    Folder { path: PathBuf, error: io::Error },
    #[error("port {port} of 127.0.0.1 cannot be used: {error}; end what listens there, or set launch.port")]
    Port { port: u16, error: io::Error },
    #[error("its process {pid} does not end though it was killed")]
    Stuck { pid: u32 },
}

#[derive(Debug, thiserror::Error)]
#[error("instance {instance} cannot be launched: {error}")]
pub struct StartError {
    instance: InstanceId,
    error: SpawnError,
}

/// The processes that the router has started. Dropping it leaves them running.
#[derive(Debug)]
pub struct Service {
    keepers: Vec<mpsc::Sender<Order>>,
    keep: bool,
}

/// Restarts instances. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    ways: Arc<HashMap<InstanceId, Way>>,
    seen: Arc<HashMap<InstanceId, watch::Receiver<ProcessStatus>>>,
}

/// How an instance is restarted.
#[derive(Debug)]
enum Way {
    Process(mpsc::Sender<Order>),
    /// Empty where there is none.
    Command(Vec<String>),
}

impl Service {
    /// Takes up what an earlier router left running in `dir`, starts what is missing, and ends what is no longer wanted.
    /// `instances` are all of them, those that were planned included.
    pub async fn start(
        config: &config::Launch,
        dir: &Path,
        instances: &[config::Instance],
        planned: Vec<Planned>,
    ) -> Result<(Self, Handle), StartError> {
        let patience = Duration::from_secs(config.stop_s);
        place::end_others(dir, &planned, patience).await;
        let way = |one: &config::Instance| (one.name.clone(), Way::Command(one.restart.clone()));
        let mut ways: HashMap<_, _> = instances.iter().map(way).collect();
        let start = |planned: Planned| {
            let instance = planned.instance.name.clone();
            let keeper = Keeper::start(planned, patience);
            keeper.map(|keeper| (instance.clone(), keeper)).map_err(|error| StartError { instance, error })
        };
        let started = whole(planned.into_iter().map(start).collect()).await?;
        let mut seen = HashMap::new();
        let mut service = Self { keepers: Vec::new(), keep: config.keep };
        for (instance, keeper) in started {
            let (orders, inbox) = mpsc::channel(4);
            seen.insert(instance.clone(), keeper.status());
            tasks::spawn("instance's process", OnError::Log, keeper.run(inbox));
            service.keepers.push(orders.clone());
            ways.insert(instance, Way::Process(orders));
        }
        Ok((service, Handle { ways: Arc::new(ways), seen: Arc::new(seen) }))
    }

    /// Ends them all, or leaves them to the next router, as configured.
    pub async fn stop(self) {
        if !self.ends_them() {
            return;
        }
        tracing::info!(count = self.keepers.len(), "ending the processes of the launched instances");
        let ends = self.keepers.iter().map(|orders| async move {
            let (done, ended) = oneshot::channel();
            if orders.send(Order::Stop(done)).await.is_ok() {
                let _ = ended.await;
            }
        });
        join_all(ends).await;
    }

    /// They end with the router.
    pub fn ends_them(&self) -> bool {
        !self.keep && !self.keepers.is_empty()
    }
}

/// All of them, or none: the first that failed, and those that were started are ended again.
async fn whole(
    started: Vec<Result<(InstanceId, Keeper), StartError>>,
) -> Result<Vec<(InstanceId, Keeper)>, StartError> {
    let (good, bad): (Vec<_>, Vec<_>) = started.into_iter().partition(Result::is_ok);
    let good = good.into_iter().filter_map(Result::ok);
    match bad.into_iter().find_map(Result::err) {
        None => Ok(good.collect()),
        Some(error) => {
            join_all(good.map(|(_, keeper)| keeper.undo())).await;
            Err(error)
        }
    }
}

impl Handle {
    /// Of an instance that the router has started.
    pub fn status(&self, instance: &InstanceId) -> Option<ProcessStatus> {
        Some(self.seen.get(instance)?.borrow().clone())
    }

    /// Ends the instance's process and starts another, or runs the operator's command to its end.
    pub async fn restart(&self, instance: &InstanceId) -> Result<(), RestartError> {
        match self.ways.get(instance) {
            None => Err(RestartError::NoSuchInstance(instance.clone())),
            Some(Way::Command(command)) => command::run(command, instance).await,
            Some(Way::Process(orders)) => {
                let (done, restarted) = oneshot::channel();
                orders.send(Order::Restart(done)).await.map_err(|_| RestartError::Stopping)?;
                Ok(restarted.await.map_err(|_| RestartError::Stopping)??)
            }
        }
    }
}

#[cfg(test)]
mod tests;
