//! Keeps the process of one instance running.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use super::SpawnError;
use super::plan::Planned;
use super::process::Process;
use super::program::Program;
use crate::metrics;
use crate::model::id::InstanceId;

/// Before one that ended is started again; doubles while none lives long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// One that lived so long is no failed start.
const LONG: Duration = Duration::from_secs(60);
/// Between two looks at the size of its log.
const LOG_CHECK: Duration = Duration::from_secs(10);

pub(super) enum Order {
    /// Ends it and starts another.
    Restart(oneshot::Sender<Result<(), SpawnError>>),
    /// Ends it for good.
    Stop(oneshot::Sender<()>),
}

/// What is known of an instance's process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ProcessStatus {
    /// None between two.
    pub pid: Option<u32>,
    /// Processes that ended by themselves, one after the other, and how the last of them did.
    pub ends: u32,
    pub last_end: Option<String>,
}

#[derive(Debug)]
pub(super) struct Keeper {
    status: watch::Sender<ProcessStatus>,
    instance: InstanceId,
    program: Program,
    patience: Duration,
    pause: Duration,
    /// None between two.
    process: Option<Process>,
    since: Instant,
    /// Not started by this router.
    taken_up: bool,
}

impl Keeper {
    /// Takes up the process that an earlier router left, or starts one.
    pub(super) fn start(planned: Planned, patience: Duration) -> Result<Self, SpawnError> {
        let Planned { instance, program } = planned;
        let left = Process::recorded(&program.dir);
        let pid = left.as_ref().map(Process::pid);
        let mut keeper = Self {
            status: watch::Sender::new(ProcessStatus { pid, ..ProcessStatus::default() }),
            instance: instance.name,
            program,
            patience,
            pause: FIRST_PAUSE,
            since: Instant::now(),
            taken_up: left.is_some(),
            process: left,
        };
        match &keeper.process {
            Some(process) if !process.is(&keeper.program) => Err(SpawnError::Stuck { pid: process.pid() }),
            Some(process) => {
                let (instance, pid) = (&keeper.instance, process.pid());
                tracing::info!(%instance, pid, "instance's process still runs, it is taken up");
                Ok(keeper)
            }
            None => keeper.spawn().map(|()| keeper),
        }
    }

    pub(super) fn status(&self) -> watch::Receiver<ProcessStatus> {
        self.status.subscribe()
    }

    /// Until it is told to stop, or nobody can tell it any more: then the process is left as it is.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            let order = tokio::select! {
                order = orders.recv() => order,
                () = self.keep() => continue,
            };
            match order {
                Some(Order::Restart(done)) => {
                    self.pause = FIRST_PAUSE;
                    let _ = done.send(self.restart().await);
                }
                Some(Order::Stop(done)) => {
                    let _ = self.end().await;
                    let _ = done.send(());
                    return;
                }
                None => return,
            }
        }
    }

    /// Takes back a start that came to nothing as a whole.
    pub(super) async fn undo(mut self) {
        if !self.taken_up {
            let _ = self.end().await;
        }
    }

    /// Waits for the next thing to do, and does it. Nothing is lost when the wait is given up.
    async fn keep(&mut self) {
        let Some(process) = &mut self.process else {
            tokio::time::sleep(self.pause).await;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            if let Err(error) = self.spawn() {
                self.tell_end(error.to_string());
                let pause = self.pause;
                tracing::error!(instance = %self.instance, %error, ?pause, "instance cannot be started, it is tried again");
            }
            return;
        };
        let Ok(how) = tokio::time::timeout(LOG_CHECK, process.ended()).await else {
            return self.bound_log().await;
        };
        self.process = None;
        metrics::instance_process_end(&self.instance);
        if self.since.elapsed() >= LONG {
            self.pause = FIRST_PAUSE;
        }
        let (log, said, pause) = (self.program.log(), self.program.last_words(), self.pause);
        self.tell_end(format!("{how}: {said}"));
        tracing::error!(
            instance = %self.instance, how, said, log = %log.display(), ?pause,
            "instance's process ended, it is started again"
        );
    }

    fn tell_end(&self, how: String) {
        self.status.send_modify(|status| {
            *status = ProcessStatus { pid: None, ends: status.ends.saturating_add(1), last_end: Some(how) };
        });
    }

    async fn bound_log(&self) {
        let program = self.program.clone();
        let bounded = tokio::task::spawn_blocking(move || program.bound_log()).await;
        if let Ok(Err(error)) = bounded {
            tracing::warn!(instance = %self.instance, %error, "instance's log cannot be shortened");
        }
    }

    async fn restart(&mut self) -> Result<(), SpawnError> {
        self.end().await?;
        self.spawn()
    }

    fn spawn(&mut self) -> Result<(), SpawnError> {
        let process = Process::spawn(&self.program)?;
        let (pid, log) = (process.pid(), self.program.log());
        tracing::info!(instance = %self.instance, pid, gpu = self.program.gpu(), log = %log.display(), "instance's process started");
        self.status.send_modify(|status| status.pid = Some(pid));
        (self.process, self.since, self.taken_up) = (Some(process), Instant::now(), false);
        Ok(())
    }

    /// One that does not end stays what it is: a second beside it would find neither its port nor its memory free.
    async fn end(&mut self) -> Result<(), SpawnError> {
        let Some(process) = self.process.take() else { return Ok(()) };
        let pid = process.pid();
        let ended = process.terminate(self.patience).await;
        ended.map_err(|process| {
            self.process = Some(process);
            SpawnError::Stuck { pid }
        })
    }
}
