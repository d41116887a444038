//! One emulated machine and the lives of the server process on it. A `Life` is what a crash destroys: queue,
//! history, caches, sockets. A `Machine` is what stays: files, oracle, gate, faults, the card.

mod stillness;

use std::{
    future::pending,
    io,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use stillness::Stillness;
use tokio::sync::{Notify, watch};

use crate::{
    config::{Config, CrashMode, Timing},
    control::{
        fault::{Blow, Fault, Faults, Moment, Strike},
        gate::{Each, Gate},
        oracle::Oracle,
    },
    files::Dirs,
    host::{
        Host,
        gpu::{Gpu, Working},
    },
    hub::Hub,
    nodes::catalogue::Catalogue,
    queue::Queue,
    worker::cache::NodeCache,
};

const DEFAULT_PAGE_CACHE_MIB: u64 = 48 * 1024;
/// A blow at a moment strikes after what was sent before it has left, but waits no longer than this for it.
const LAST_WORDS: Duration = Duration::from_millis(200);

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) config: Config,
    pub(crate) dirs: Dirs,
    pub(crate) catalogue: Catalogue,
    pub(crate) gate: Gate,
    pub(crate) faults: Faults,
    pub(crate) oracle: Oracle,
    pub(crate) host: Arc<Host>,
    pub(crate) gpu: Option<Arc<Gpu>>,
    /// Distinguishes the processes which share a card.
    pub(crate) owner: u64,
    /// Requests that leave no other trace, as `METHOD path length-of-body`.
    pub(crate) visits: Mutex<Vec<String>>,
    lives: AtomicU64,
    current: Mutex<Weak<Life>>,
}

impl Machine {
    pub(crate) fn new(config: Config) -> io::Result<Self> {
        static OWNERS: AtomicU64 = AtomicU64::new(1);
        let host = config.host.clone().unwrap_or_else(|| Host::new(DEFAULT_PAGE_CACHE_MIB));
        let gpu = config.gpu.as_ref().map(|spec| host.gpu(spec, config.timing.speed()));
        Ok(Self {
            dirs: Dirs::open(config.dir.as_deref())?.careless(config.careless),
            catalogue: Catalogue::new(&config),
            gate: Gate::new(),
            faults: Faults::new(),
            oracle: Oracle::open(config.oracle.as_deref())?,
            host,
            gpu,
            owner: OWNERS.fetch_add(1, Ordering::Relaxed),
            visits: Mutex::default(),
            lives: AtomicU64::new(0),
            current: Mutex::default(),
            config,
        })
    }

    pub(crate) fn life(&self) -> Option<Arc<Life>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    pub(crate) fn inject(&self, fault: Fault) {
        match self.faults.note(fault) {
            Strike::Nothing => {}
            Strike::Thaw => self.life().iter().for_each(|life| life.stillness.thaw()),
            Strike::DropSockets => self.life().iter().for_each(|life| life.hub.drop_sockets()),
            Strike::MuteSockets => self.life().iter().for_each(|life| life.hub.mute_sockets()),
            Strike::EndMuteSockets => self.life().iter().for_each(|life| life.hub.end_mute_sockets()),
            Strike::EchoEvents(on) => self.life().iter().for_each(|life| life.hub.echo(on)),
            Strike::Blow(blow) => self.life().iter().for_each(|life| life.strike(blow)),
        }
    }

    pub(crate) fn visit(&self, what: String) {
        self.visits.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    pub(crate) fn reset(&self) {
        self.gate.open();
        self.faults.reset();
        self.life().iter().for_each(|life| life.stillness.thaw());
        self.oracle.reset();
        if let Some(gpu) = &self.gpu {
            gpu.set_overrides(Default::default());
        }
    }
}

/// How a life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Stopped,
    Crashed,
    Restarting { down_ms: u64 },
}

#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) machine: Arc<Machine>,
    /// From 1.
    pub(crate) number: u64,
    pub(crate) queue: Queue,
    pub(crate) hub: Hub,
    pub(crate) interrupt: Interrupt,
    pub(crate) cache: Mutex<NodeCache>,
    pub(crate) stillness: Stillness,
    worker_dead: watch::Sender<bool>,
    end: watch::Sender<Option<End>>,
}

impl Life {
    pub(crate) fn begin(machine: &Arc<Machine>) -> Arc<Self> {
        machine.dirs.wipe_temp();
        if let Some(gpu) = &machine.gpu {
            gpu.attach(machine.owner);
        }
        let life = Arc::new(Self {
            machine: Arc::clone(machine),
            number: machine.lives.fetch_add(1, Ordering::Relaxed) + 1,
            queue: Queue::default(),
            hub: Hub::new(),
            interrupt: Interrupt::default(),
            cache: Mutex::default(),
            stillness: Stillness::default(),
            worker_dead: watch::Sender::new(false),
            end: watch::Sender::new(None),
        });
        *machine.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&life);
        life
    }

    /// What the operating system does after a process: its card memory is free, what it ran will never end.
    pub(crate) fn bury(&self) {
        if let Some(gpu) = &self.machine.gpu {
            gpu.detach(self.machine.owner);
        }
        self.machine.oracle.crashed();
    }

    pub(crate) fn finish(&self, end: End) {
        self.end.send_if_modified(|current| {
            let first = current.is_none();
            *current = current.or(Some(end));
            first
        });
    }

    pub(crate) async fn ended(&self) -> End {
        let mut end = self.end.subscribe();
        let reason = end.wait_for(Option::is_some).await.ok().and_then(|end| *end);
        reason.unwrap_or(End::Stopped)
    }

    fn strike(&self, blow: Blow) {
        tracing::info!(?blow, "scripted fault strikes");
        match blow {
            Blow::Crash if self.machine.config.crash_mode == CrashMode::AbortProcess => std::process::abort(),
            Blow::Crash => self.finish(End::Crashed),
            Blow::RestartEmpty { down_ms } => self.finish(End::Restarting { down_ms }),
            Blow::Hang => self.stillness.hang(),
            Blow::Freeze => self.stillness.freeze(),
            Blow::WorkerDeath => {
                self.worker_dead.send_replace(true);
            }
        }
    }

    /// A named moment of the script. Does not return when the process or the worker dies here.
    pub(crate) async fn reach(&self, moment: Moment) {
        if let Some(blow) = self.machine.faults.reached(moment) {
            // Sockets that fell silent never send what waits for them.
            let _ = tokio::time::timeout(LAST_WORDS, self.hub.flushed()).await;
            self.strike(blow);
            if matches!(blow, Blow::Crash | Blow::RestartEmpty { .. }) {
                pending::<()>().await;
            }
        }
    }

    /// Where the worker can be stopped by a hang, a freeze or its own death.
    pub(crate) async fn checkpoint(&self) {
        self.stillness.progress_allowed().await;
        if *self.worker_dead.borrow() {
            pending::<()>().await;
        }
        tokio::task::yield_now().await;
    }

    /// Resolves when the worker has died.
    pub(crate) async fn worker_died(&self) {
        let _ = self.worker_dead.subscribe().wait_for(|dead| *dead).await;
    }

    /// `PromptServer`'s worker thread ends, for the reasons of the real one.
    pub(crate) async fn die_silently(&self) {
        self.worker_dead.send_replace(true);
        self.checkpoint().await;
    }

    pub(crate) async fn gate(&self, point: Each) {
        self.machine.gate.pass(point, self.interrupt.raised()).await;
    }

    /// A gate that interrupts do not open.
    pub(crate) async fn gate_deaf(&self, point: Each) {
        self.machine.gate.pass(point, pending()).await;
    }

    /// Lets the modelled time of some work pass, with the card busy.
    pub(crate) async fn work(&self, seconds: f64) {
        let _busy = self.busy();
        let (factor, extra_ms) = self.machine.faults.slow();
        let modelled = match self.machine.config.timing {
            Timing::Canned => 0.0,
            Timing::Realistic { speed } => seconds * factor / speed.max(1e-6),
        };
        let total = modelled + extra_ms as f64 / 1_000.0;
        if total > 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(total)).await;
        }
        self.checkpoint().await;
    }

    fn busy(&self) -> Option<Working> {
        self.machine.gpu.as_ref().map(|gpu| gpu.work())
    }
}

/// ComfyUI's global interrupt flag.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    flag: AtomicBool,
    wake: Notify,
}

impl Interrupt {
    pub(crate) fn raise(&self) {
        self.flag.store(true, Ordering::SeqCst);
        self.wake.notify_waiters();
    }

    pub(crate) fn clear(&self) {
        self.flag.store(false, Ordering::SeqCst);
    }

    /// True once for each raise.
    pub(crate) fn consume(&self) -> bool {
        self.flag.swap(false, Ordering::SeqCst)
    }

    async fn raised(&self) {
        loop {
            let woken = self.wake.notified();
            if self.flag.load(Ordering::SeqCst) {
                return;
            }
            woken.await;
        }
    }
}
