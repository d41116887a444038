//! Keeps the process of one instance running.

use std::io;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::RestartError;
use super::plan::Planned;
use super::process::{Process, Program};
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
    Restart(oneshot::Sender<Result<(), RestartError>>),
    /// Ends it for good.
    Stop(oneshot::Sender<()>),
}

#[derive(Debug)]
pub(super) struct Keeper {
    instance: InstanceId,
    program: Program,
    patience: Duration,
    pause: Duration,
    /// None between two.
    process: Option<Process>,
    since: Instant,
}

impl Keeper {
    /// Takes up the process that an earlier router left, if it is the same program, or starts one.
    pub(super) async fn start(planned: Planned, patience: Duration) -> io::Result<Self> {
        let Planned { instance, program } = planned;
        let left = Process::recorded(&program.dir);
        let mut keeper = Self {
            instance: instance.name,
            program,
            patience,
            pause: FIRST_PAUSE,
            process: None,
            since: Instant::now(),
        };
        match left {
            Some(process) if *process.program() == keeper.program => {
                tracing::info!(instance = %keeper.instance, pid = process.pid(), "instance's process still runs, it is taken up");
                keeper.process = Some(process);
            }
            Some(process) => {
                tracing::info!(instance = %keeper.instance, pid = process.pid(), "instance is launched otherwise now, its process is replaced");
                process.terminate(patience).await;
                keeper.spawn()?;
            }
            None => keeper.spawn()?,
        }
        Ok(keeper)
    }

    fn spawn(&mut self) -> io::Result<()> {
        let process = Process::spawn(&self.program)?;
        let (pid, log) = (process.pid(), self.program.log());
        let gpu = self.program.env.get("CUDA_VISIBLE_DEVICES").map(String::as_str);
        tracing::info!(instance = %self.instance, pid, gpu, log = %log.display(), "instance's process started");
        (self.process, self.since) = (Some(process), Instant::now());
        Ok(())
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
                    let outcome = self.restart().await;
                    let _ = done.send(outcome);
                }
                Some(Order::Stop(done)) => {
                    self.end().await;
                    let _ = done.send(());
                    return;
                }
                None => return,
            }
        }
    }

    /// Waits for the next thing to do, and does it. May be given up at any await.
    async fn keep(&mut self) {
        let Some(process) = &mut self.process else {
            tokio::time::sleep(self.pause).await;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            if let Err(error) = self.spawn() {
                let (program, pause) = (&self.program.command[0], self.pause);
                tracing::error!(instance = %self.instance, program, %error, ?pause, "instance cannot be started, it is tried again");
            }
            return;
        };
        let Ok(how) = tokio::time::timeout(LOG_CHECK, process.ended()).await else {
            let program = self.program.clone();
            let bounded = tokio::task::spawn_blocking(move || program.bound_log()).await;
            if let Ok(Err(error)) = bounded {
                tracing::warn!(instance = %self.instance, %error, "instance's log cannot be shortened");
            }
            return;
        };
        self.process = None;
        metrics::instance_process_end(&self.instance);
        if self.since.elapsed() >= LONG {
            self.pause = FIRST_PAUSE;
        }
        let (log, said, pause) = (self.program.log(), self.program.last_words(), self.pause);
        tracing::error!(
            instance = %self.instance, how, said, log = %log.display(), ?pause,
            "instance's process ended, it is started again"
        );
    }

    async fn restart(&mut self) -> Result<(), RestartError> {
        self.end().await;
        self.pause = FIRST_PAUSE;
        let program = self.program.command[0].clone();
        self.spawn().map_err(|error| RestartError::Start { program, error })
    }

    async fn end(&mut self) {
        if let Some(process) = self.process.take() {
            process.terminate(self.patience).await;
        }
    }
}
