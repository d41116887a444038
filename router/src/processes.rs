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
mod system;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

pub use plan::{Card, PlanError, Planned, apart, plan};

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
    #[error("`{program}` cannot be started: {error}")]
    Start { program: String, error: io::Error },
    #[error("`{program}` did not end within {after:?}")]
    Timeout { program: String, after: Duration },
    #[error("`{program}` failed ({status}): {said}")]
    Failed { program: String, status: ExitStatus, said: String },
    #[error("the router is shutting down")]
    Stopping,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("instance {instance} cannot be started: `{program}`: {error}")]
    Start { instance: InstanceId, program: String, error: io::Error },
    #[error("{} cannot be used: {error}", path.display())]
    Folder { path: PathBuf, error: io::Error },
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
}

/// How an instance is restarted.
#[derive(Debug)]
enum Way {
    Process(mpsc::Sender<Order>),
    Command(Vec<String>),
    None,
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
        let way = |instance: &config::Instance| match instance.restart.is_empty() {
            true => Way::None,
            false => Way::Command(instance.restart.clone()),
        };
        let mut ways: HashMap<_, _> =
            instances.iter().map(|instance| (instance.name.clone(), way(instance))).collect();
        let mut service = Self { keepers: Vec::new(), keep: config.keep };
        for planned in planned {
            let name = planned.instance.name.clone();
            let program = planned.program.command[0].clone();
            let keeper = match Keeper::start(planned, patience).await {
                Ok(keeper) => keeper,
                Err(error) => {
                    service.stop().await;
                    return Err(StartError::Start { instance: name, program, error });
                }
            };
            let (orders, inbox) = mpsc::channel(4);
            tasks::spawn("instance's process", OnError::Log, keeper.run(inbox));
            service.keepers.push(orders.clone());
            ways.insert(name, Way::Process(orders));
        }
        Ok((service, Handle { ways: Arc::new(ways) }))
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
        futures_util::future::join_all(ends).await;
    }

    /// They end with the router.
    pub fn ends_them(&self) -> bool {
        !self.keep && !self.keepers.is_empty()
    }
}

impl Handle {
    /// Ends the instance's process and starts another, or runs the operator's command to its end.
    pub async fn restart(&self, instance: &InstanceId) -> Result<(), RestartError> {
        match self.ways.get(instance) {
            None => Err(RestartError::NoSuchInstance(instance.clone())),
            Some(Way::None) => Err(RestartError::Unsupervised),
            Some(Way::Command(command)) => command::run(command, instance).await,
            Some(Way::Process(orders)) => {
                let (done, restarted) = oneshot::channel();
                orders.send(Order::Restart(done)).await.map_err(|_| RestartError::Stopping)?;
                restarted.await.map_err(|_| RestartError::Stopping)?
            }
        }
    }
}

#[cfg(test)]
mod tests;
