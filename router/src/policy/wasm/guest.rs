//! One live guest: calls its exports within the limits. After any error from wasmtime it is dead and must be dropped.

use std::time::Duration;

use wasmtime::{Store, Trap};

use super::bindings::exports::comfy_router::policy as hooks;
use super::component::{Version, line};
use super::convert;
use super::engine::Engine;
use super::host::State;
use super::meter::{Meter, Stop};
use crate::model::decision::{
    Admission, AttemptReport, Consultation, Failure, Fallback, Hook, Limit, Limits, Order, Placement,
    Priority, Progress, RecoveryDecision, RouteDecision, TimeoutDecision,
};
use crate::model::view::{Candidate, Context, InstanceView, JobTexts, JobView, Load, Offer, Seat};
use crate::policy::config::GuestLimits;
use crate::policy::error::LoadError;
use crate::policy::state::Space;

/// A guest did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallError {
    pub reason: Fallback,
    pub message: String,
    /// wasmtime lets nobody into the guest again.
    pub dead: bool,
}

pub(crate) struct Guest {
    store: Store<State>,
    exports: Exports,
    engine: Engine,
    limits: GuestLimits,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guest")
    }
}

struct Exports {
    lifecycle: Option<hooks::lifecycle::Guest>,
    admission: Option<hooks::admission::Guest>,
    priority: Option<hooks::priority::Guest>,
    timeouts: Option<hooks::timeouts::Guest>,
    routing: Option<hooks::routing::Guest>,
    placement: Option<hooks::placement::Guest>,
    recovery: Option<hooks::recovery::Guest>,
    housekeeping: Option<hooks::housekeeping::Guest>,
    feedback: Option<hooks::feedback::Guest>,
}

type Called<T> = Result<T, CallError>;

/// The exports of one guest: `$field` of each that is there, loaded. Only loading compares the types of records.
macro_rules! load {
    ($version:expr, $store:expr, $instance:expr, $($field:ident),*) => {
        Exports {$(
            $field: match &$version.linked.indices.$field {
                None => None,
                Some(indices) => Some(indices.load(&mut $store, &$instance).map_err(|error| LoadError::Shape {
                    interface: stringify!($field),
                    message: line(&error),
                })?),
            },
        )*}
    };
}

/// More than any call may take.
const FUEL: u64 = u64::MAX / 2;

/// Fuel is counted, never a limit: that is the deadline.
fn refuel(store: &mut Store<State>, engine: &Engine) {
    if engine.metered {
        // Fails only where fuel is not counted.
        let _ = store.set_fuel(FUEL);
    }
}

impl Guest {
    pub(super) fn instantiate(version: &Version, space: Space, live: bool) -> Result<Self, LoadError> {
        let limits = version.linked.limits;
        let mut store =
            Store::new(&version.linked.engine.wasmtime, State::new(version.id.clone(), &limits, space, live));
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(limits.transfer_kib as usize * 1024);
        refuel(&mut store, &version.linked.engine);
        let time = Duration::from_millis(limits.configure_ms);
        store.set_epoch_deadline(Engine::ticks(time));
        store.data_mut().meter = Meter::new(limits.host_calls, time);
        let running = version.linked.engine.call();
        let instance = version
            .linked
            .pre
            .instantiate(&mut store)
            .map_err(|error| LoadError::Instantiate(line(&error)))?;
        let exports = load!(
            version,
            store,
            instance,
            lifecycle,
            admission,
            priority,
            timeouts,
            routing,
            placement,
            recovery,
            housekeeping,
            feedback
        );
        drop(running);
        Ok(Self { store, exports, engine: version.linked.engine.clone(), limits })
    }

    /// The last answer was found good: what its call changed in `state` counts.
    pub(crate) fn keep(&mut self) {
        self.store.data_mut().keep();
    }

    /// Instructions of the last call; none unless the engine is metered.
    pub(crate) fn fuel(&self) -> Option<u64> {
        self.engine.metered.then(|| FUEL.saturating_sub(self.store.get_fuel().unwrap_or(FUEL)))
    }

    /// Bytes of linear memory in use.
    pub(crate) fn memory(&self) -> usize {
        self.store.data().memory.used
    }

    pub(super) fn configure(&mut self, settings: &str, time: Duration, now_ms: u64) -> Result<(), LoadError> {
        if self.exports.lifecycle.is_none() {
            return Ok(());
        }
        let context = Context { now_ms, ..Context::default() };
        let answer = self.call(Hook::Configure, time, 0, &context, Vec::new(), |exports, store, _| {
            exports.lifecycle.as_ref().map(|hook| hook.call_configure(store, settings))
        });
        match answer {
            Ok(Ok(())) => {
                self.keep();
                Ok(())
            }
            Ok(Err(message)) => {
                let max = self.limits.text_bytes as usize;
                Err(LoadError::Settings(crate::policy::check::text(&message, max)))
            }
            Err(CallError { reason, message, .. }) => {
                Err(LoadError::Gate { hook: Hook::Configure, reason: reason.as_str(), message })
            }
        }
    }

    pub(crate) fn admit(&mut self, asked: &Consultation, job: &JobView, load: &Load) -> Called<Admission> {
        let answer = self.ask(Hook::Admit, asked, Some(&job.texts), |exports, store, handle| {
            let hook = exports.admission.as_ref()?;
            Some(hook.call_admit(store, convert::job(job, handle), convert::load(load)))
        })?;
        Ok(convert::admission(answer))
    }

    /// With the reason, which is for the record only.
    pub(crate) fn prioritize(&mut self, asked: &Consultation, job: &JobView) -> Called<(Priority, String)> {
        let answer = self.ask(Hook::Prioritize, asked, Some(&job.texts), |exports, store, handle| {
            Some(exports.priority.as_ref()?.call_prioritize(store, convert::job(job, handle)))
        })?;
        Ok((Priority { score: answer.score, ageing_per_second: answer.ageing_per_second }, answer.reason))
    }

    pub(crate) fn limits_for(&mut self, asked: &Consultation, job: &JobView) -> Called<Limits> {
        let answer = self.ask(Hook::LimitsFor, asked, Some(&job.texts), |exports, store, handle| {
            Some(exports.timeouts.as_ref()?.call_limits_for(store, convert::job(job, handle)))
        })?;
        Ok(Limits { queue_ms: answer.queue_ms, run_ms: answer.run_ms, stall_ms: answer.stall_ms })
    }

    pub(crate) fn on_timeout(
        &mut self,
        asked: &Consultation,
        job: &JobView,
        limit: Limit,
        progress: &Progress,
    ) -> Called<TimeoutDecision> {
        let answer = self.ask(Hook::OnTimeout, asked, Some(&job.texts), |exports, store, handle| {
            let hook = exports.timeouts.as_ref()?;
            let (which, progress) = (convert::limit(limit), convert::progress(progress));
            Some(hook.call_on_timeout(store, convert::job(job, handle), which, progress))
        })?;
        Ok(convert::timeout(answer))
    }

    pub(crate) fn route(
        &mut self,
        asked: &Consultation,
        job: &JobView,
        candidates: &[Candidate],
    ) -> Called<RouteDecision> {
        let candidates: Vec<_> = candidates.iter().map(convert::candidate).collect();
        let answer = self.ask(Hook::Route, asked, Some(&job.texts), |exports, store, handle| {
            Some(exports.routing.as_ref()?.call_route(store, convert::job(job, handle), &candidates))
        })?;
        Ok(convert::route(answer))
    }

    pub(crate) fn place(
        &mut self,
        asked: &Consultation,
        jobs: &[JobView],
        seats: &[Seat],
        offers: &[Offer],
    ) -> Called<Placement> {
        let seats: Vec<_> = seats.iter().map(convert::seat).collect();
        let offers: Vec<_> = offers.iter().map(convert::offer).collect();
        let texts = jobs.iter().map(|job| job.texts.clone()).collect();
        let (time, seed) = (self.limits.call(), asked.seed);
        let answer =
            self.call(Hook::Place, time, seed, &asked.context, texts, |exports, store, handle| {
                let hook = exports.placement.as_ref()?;
                let handles = (0..).map(|row: u32| handle.wrapping_add(row));
                let jobs: Vec<_> =
                    jobs.iter().zip(handles).map(|(job, handle)| convert::job(job, handle)).collect();
                Some(hook.call_place(store, &jobs, &seats, &offers))
            })?;
        Ok(convert::placement(answer))
    }

    pub(crate) fn on_failure(
        &mut self,
        asked: &Consultation,
        job: &JobView,
        failure: &Failure,
    ) -> Called<RecoveryDecision> {
        let answer = self.ask(Hook::OnFailure, asked, Some(&job.texts), |exports, store, handle| {
            let hook = exports.recovery.as_ref()?;
            Some(hook.call_on_failure(store, convert::job(job, handle), convert::failure(failure)))
        })?;
        Ok(convert::recovery(answer))
    }

    pub(crate) fn tick(&mut self, asked: &Consultation, instances: &[InstanceView]) -> Called<Vec<Order>> {
        let instances: Vec<_> = instances.iter().map(convert::instance).collect();
        let answer = self.ask(Hook::Tick, asked, None, |exports, store, _| {
            Some(exports.housekeeping.as_ref()?.call_tick(store, &instances))
        })?;
        Ok(answer.into_iter().map(convert::order).collect())
    }

    pub(crate) fn observe(&mut self, asked: &Consultation, outcomes: &[AttemptReport]) -> Called<()> {
        let outcomes: Vec<_> = outcomes.iter().map(convert::outcome).collect();
        self.ask(Hook::Observe, asked, None, |exports, store, _| {
            Some(exports.feedback.as_ref()?.call_observe(store, &outcomes))
        })
    }

    fn ask<T>(
        &mut self,
        hook: Hook,
        asked: &Consultation,
        job: Option<&JobTexts>,
        call: impl FnOnce(&Exports, &mut Store<State>, u32) -> Option<wasmtime::Result<T>>,
    ) -> Called<T> {
        let jobs = job.cloned().into_iter().collect();
        self.call(hook, self.limits.call(), asked.seed, &asked.context, jobs, call)
    }

    /// Every call goes through here: limits are set anew, and what went wrong gets its reason.
    fn call<T>(
        &mut self,
        hook: Hook,
        time: Duration,
        seed: u64,
        context: &Context,
        jobs: Vec<JobTexts>,
        call: impl FnOnce(&Exports, &mut Store<State>, u32) -> Option<wasmtime::Result<T>>,
    ) -> Called<T> {
        let meter = Meter::new(self.limits.host_calls, time);
        let handle = self.store.data_mut().enter(hook, seed, context, jobs, meter);
        self.store.set_epoch_deadline(Engine::ticks(time));
        refuel(&mut self.store, &self.engine);
        let running = self.engine.call();
        let answer = call(&self.exports, &mut self.store, handle);
        drop(running);
        match answer {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) => Err(self.failed(&error)),
            None => Err(CallError {
                reason: Fallback::NotExported,
                message: "not exported".to_owned(),
                dead: false,
            }),
        }
    }

    fn failed(&self, error: &wasmtime::Error) -> CallError {
        let stopped = error.downcast_ref::<Stop>().copied();
        let trap = error.downcast_ref::<Trap>().copied();
        let reason = match (stopped, trap) {
            (Some(Stop::HostCalls), _) => Fallback::Limit,
            (Some(Stop::Deadline), _) | (None, Some(Trap::Interrupt)) => Fallback::Deadline,
            // A guest that is refused memory aborts, and its trap does not say why.
            _ if self.store.data().memory.refused => Fallback::Limit,
            (None, Some(_)) => Fallback::Trap,
            // No trap and no budget of ours: what it handed over was no valid value, or too much of it.
            (None, None) => Fallback::BadAnswer,
        };
        CallError { reason, message: line(error), dead: true }
    }
}
