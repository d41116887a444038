//! Assembly: builds every part in the order of their dependence, binds before it announces, spawns last, and takes
//! everything down again in the opposite order.

mod announce;
mod check;
mod logging;
mod parts;
mod sockets;
mod stop;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;

use crate::admin::{self, Admin};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Mistakes};
use crate::drain;
use crate::front::{self, Front};
use crate::scheduler::core::Core;
use crate::scheduler::input::Restored;
use crate::tasks::{self, OnError};
use crate::{
    assets, fleet, ledger, metrics, policy, processes, relay, scheduler, sessions, simulation, telemetry,
};
use sockets::Sockets;
use stop::{Stop, Why};

/// Progress reports of attempts and news of instances on their way to the scheduler.
const REPORTS: usize = 4_096;
/// After the drain, for the last answers to leave.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// What `serve` does: run until a signal or the failure of a part.
///
/// `again` reads the configuration once more, for SIGHUP.
pub fn serve(
    config: Config,
    check: bool,
    again: impl Fn() -> Result<Config, Mistakes>,
) -> anyhow::Result<()> {
    logging::start(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = with_instances(config).await?;
        if check {
            return check::check(&config).await;
        }
        let mut stop = Stop::listen().context("signals cannot be listened to")?;
        let mut router = Router::start(config).await?;
        router.looked(Duration::from_secs(10)).await;
        announce::ready(&router);
        let why = stop.wanted(async || router.reload(again()).await).await;
        tracing::info!(%why, "shutting down");
        router.shutdown(async { stop.asked().await }).await?;
        match why {
            Why::Asked(_) => Ok(()),
            Why::Failed(part) => {
                anyhow::bail!("{part} failed, without which the router cannot serve; see the log")
            }
        }
    })
}

/// What a simulation is told of the router that this configures.
pub(crate) fn scene(config: &Config) -> simulation::Scene {
    parts::scene(config)
}

/// Without configured or launched instances, those found on this machine.
async fn with_instances(mut config: Config) -> anyhow::Result<Config> {
    if config.instances.is_empty() && config.launch.is_off() {
        config.instances = fleet::discover(&config.discover).await;
        anyhow::ensure!(!config.instances.is_empty(), announce::nothing_found(&config.discover));
    }
    Ok(config)
}

/// A running router.
pub struct Router {
    config: Config,
    /// Of the policies, as they were taken last: what was refused is tried again with the next SIGHUP.
    settings: BTreeMap<Option<String>, policy::Settings>,
    listen: SocketAddr,
    admin: SocketAddr,
    fleet: fleet::Handle,
    scheduler: scheduler::Handle,
    sessions: sessions::Handle,
    policy: policy::Handle,
    ledger: ledger::Service,
    /// Shutdown has begun: no longer ready.
    drain: drain::Signal,
    /// Nothing is answered any more.
    close: drain::Signal,
    watching: fleet::Watching,
    processes: processes::Service,
    /// Its threads end with it.
    _telemetry: telemetry::Service,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router")
            .field("listen", &self.listen)
            .field("admin", &self.admin)
            .finish_non_exhaustive()
    }
}

impl Router {
    /// Bind, read the ledger, start every part. Nothing is accepted before everything runs.
    pub async fn start(mut config: Config) -> anyhow::Result<Self> {
        let planned = parts::planned(&config)?;
        config.instances.extend(planned.iter().map(|planned| planned.instance.clone()));
        let metrics = metrics::install()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let given = Sockets::given(&config)?;
        let listener = front::Listener::open(config.listen, given.clients).await?;
        let admin_listener = admin::Listener::open(config.admin, given.admin).await?;
        let (listen, admin_address) = (listener.address(), admin_listener.address());

        if ledger::in_use(&ledger::Config::from(&config.ledger)) {
            // It says so. What lies beside it is the other router's too, and must not be touched.
            parts::ledger(&config).await?;
        }
        // A policy is compiled and tried while the rest starts.
        let (policy, policy_clock) = (parts::policy(&config), clock.clone());
        let policy = tokio::task::spawn_blocking(move || policy::start(policy, policy_clock));
        let (ledger_service, ledger) = parts::ledger(&config).await?;
        let (telemetry_service, telemetry) = parts::telemetry(&config, clock.clone())?;
        let assets = assets::open(parts::assets(&config), &clock)?;
        let (sessions_service, sessions) = sessions::Service::new(parts::sessions(&config));
        let (fleet_service, fleet) =
            fleet::Service::new(&config.fleet, &config.instances, &ledger.identity().await?);

        let (reports, from_relay) = mpsc::channel(REPORTS);
        let relay = relay::Handle::new(reports, sessions.clone(), assets.told().clone(), clock.clone());
        let core = core(&config, &ledger, &fleet, &relay, clock.as_ref()).await?;
        let policy = policy.await?.context("the policy could not start")?;
        // Last of what may fail: a start that fails leaves no processes behind.
        let dir = parts::processes_dir(&config)?;
        let (processes_service, processes) =
            processes::Service::start(&config.launch, &dir, &config.instances, planned).await?;
        let watching = fleet_service.start(&relay);
        let organs = scheduler::Organs {
            policy: policy.clone(),
            ledger: ledger.clone(),
            fleet: fleet.clone(),
            processes: processes.clone(),
            assets: assets.clone(),
            relay,
            telemetry: telemetry.clone(),
            keep_outputs: config.outputs.keep,
        };
        let (scheduler_service, scheduler) = scheduler::Service::new(core, organs, from_relay, clock.clone());
        let (drain, draining) = drain::channel();
        let (close, closing) = drain::channel();
        let kept = scheduler::follow_history(ledger.clone(), assets.clone(), scheduler.clone());
        let front = Front::new(
            front::Parts {
                scheduler: scheduler.clone(),
                ledger: ledger.clone(),
                fleet: fleet.clone(),
                sessions: sessions.clone(),
                assets,
                clock: clock.clone(),
            },
            &config,
        );
        let admin = Admin::new(
            admin::Parts {
                scheduler: scheduler.clone(),
                ledger,
                fleet: fleet.clone(),
                processes,
                policy: policy.clone(),
                telemetry,
                sessions: sessions.clone(),
                metrics,
                clock,
                drain: draining,
            },
            &config.admin_key,
        );

        tasks::spawn("sessions", OnError::Shutdown, sessions_service.run());
        tasks::spawn("scheduler", OnError::Shutdown, scheduler_service.run());
        tasks::spawn("kept previews", OnError::Log, kept);
        tasks::spawn("front", OnError::Shutdown, listener.run(front, closing.clone()));
        tasks::spawn("admin", OnError::Shutdown, admin_listener.run(admin, closing));
        Ok(Self {
            settings: parts::settings(&config),
            config,
            listen,
            admin: admin_address,
            fleet,
            scheduler,
            sessions,
            policy,
            ledger: ledger_service,
            drain,
            close,
            watching,
            processes: processes_service,
            _telemetry: telemetry_service,
        })
    }

    /// SIGHUP: the settings of the policies, as they are written now, without a restart and without a new component. Those
    /// that were refused before are tried again, the policy may be another by now; and those in force, if others were refused. Everything else in the file waits for
    /// a restart.
    async fn reload(&mut self, written: Result<Config, Mistakes>) {
        let written = match written {
            Ok(written) => written,
            Err(mistakes) => {
                return tracing::error!(%mistakes, "configuration is wrong, the present one stays");
            }
        };
        let mut asked = false;
        for (lane, settings) in parts::settings(&written) {
            let name = lane.as_deref().unwrap_or("policy").to_owned();
            if self.settings.get(&lane) == Some(&settings) && !self.policy.refuses_settings(&name) {
                continue;
            }
            asked = true;
            match self.policy.reconfigured(lane.as_deref(), settings.clone()).await {
                Ok(version) => {
                    tracing::info!(lane = name, digest = %version.digest, "policy settings read again");
                    self.settings.insert(lane, settings);
                }
                Err(error) => {
                    tracing::error!(lane = name, %error, "policy settings refused, the present ones stay; SIGHUP tries them again")
                }
            }
        }
        if !asked {
            tracing::info!("configuration read again, no policy has other settings");
        }
    }

    pub fn listen_addr(&self) -> SocketAddr {
        self.listen
    }

    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// Wait until every instance has been looked at once, but no longer than this.
    pub async fn looked(&self, patience: Duration) {
        // Slower ones show up later, in the log.
        let _ = tokio::time::timeout(patience, self.fleet.looked()).await;
    }

    /// Take no more prompts, let running attempts end until the deadline or until `hurry`, then leave the rest to their
    /// instances: they are taken up again at the next start.
    pub async fn shutdown(self, hurry: impl Future<Output = &'static str>) -> anyhow::Result<()> {
        let patience = Duration::from_secs(self.config.timeouts.drain_s);
        self.drain.drain();
        if let Err(error) = self.scheduler.drain().await {
            tracing::error!(%error, "the scheduler cannot drain, what runs is taken up again at the next start");
        }
        let left = tokio::select! {
            ended = tokio::time::timeout(patience, self.nothing_runs()) => ended.is_err(),
            _ = hurry => true,
        };
        if left && self.processes.ends_them() {
            tracing::warn!(
                "attempts may still run; those of launched instances end with them and are tried again at the next start"
            );
        } else if left {
            tracing::warn!("attempts may still run; they go on and are taken up again at the next start");
        }
        self.close.drain();
        self.sessions.close();
        if let Err(left) = self.close.drained(LAST_ANSWERS).await {
            tracing::warn!(error = %left, "closing open connections");
        }
        self.watching.stop();
        self.processes.stop().await;
        let policy = self.policy.clone();
        tokio::task::spawn_blocking(move || {
            policy.flush(LAST_ANSWERS);
            self.ledger.close();
        })
        .await?;
        Ok(())
    }

    async fn nothing_runs(&self) {
        const LOOK_AGAIN: Duration = Duration::from_millis(100);
        while let Ok(fleet) = self.scheduler.fleet().await
            && fleet.iter().any(|instance| !instance.live.is_empty())
        {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// The scheduler's core, with what the ledger holds of an earlier run.
async fn core(
    config: &Config,
    ledger: &ledger::Handle,
    fleet: &fleet::Handle,
    relay: &relay::Handle,
    clock: &dyn Clock,
) -> anyhow::Result<Core> {
    let settings = parts::core(config);
    let open = ledger.open_jobs(settings.text_bytes).await?;
    let counter = ledger.counter().await?;
    if !open.is_empty() {
        tracing::info!(jobs = open.len(), "taking up the jobs of an earlier run");
    }
    for open in &open {
        let Some((attempt, None)) = open.attempts.last() else { continue };
        fleet.adopt(&attempt.instance, attempt.upstream_id);
        // Before the first event is looked at: the attempt goes on, and its client hears the rest.
        let (job, attempt) = (Arc::new(open.job.clone()), attempt.clone());
        relay.register(job, attempt);
    }
    let restored = Restored { open, counter };
    Ok(Core::new(settings, parts::specs(config), restored, clock.now()))
}
