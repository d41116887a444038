//! Telling attempts to stop: as their owner wishes, or a policy. The reason is durable before the instance is told, so that
//! a router that dies meanwhile finds an attempt that was interrupted and knows by whom.

use super::super::input::{Action, Reply, RequestId, Target};
use super::{Core, Delivery, Stopping, Then};
use crate::model::event::{Event, StopReason};
use crate::model::id::JobId;

/// Stops that are to be made durable.
#[derive(Debug, Default)]
pub(super) struct Stops(Vec<Event>);

impl Core {
    pub(super) fn interrupt(&mut self, request: RequestId, target: &Target) {
        let jobs: Vec<JobId> = match target {
            Target::Prompt(prompt_id, scope) => self.named(prompt_id, scope).into_iter().collect(),
            Target::Running(scope) => {
                self.jobs.iter().filter(|(_, e)| e.is_of(scope)).map(|(id, _)| *id).collect()
            }
        };
        let mut stops = Stops::default();
        let affected = jobs.into_iter().filter(|id| self.stop_for_good(*id, &mut stops)).count();
        self.note_stops(stops, Some((request, affected)));
    }

    /// As its owner wishes. A job whose attempt has just ended and that is about to wait again will not.
    pub(super) fn stop_for_good(&mut self, id: JobId, stops: &mut Stops) -> bool {
        if self.ask_to_stop(id, StopReason::Owner, stops) {
            return true;
        }
        let requeued = |then: &Then| matches!(then, Then::Requeue { job, .. } if *job == id);
        let between = self.committing.values().any(requeued);
        if between && let Some(entry) = self.jobs.get_mut(&id) {
            entry.unwanted = Some("interrupted between two attempts");
        }
        between
    }

    /// As a policy wishes.
    pub(super) fn stop(&mut self, id: JobId, why: StopReason) {
        let mut stops = Stops::default();
        self.ask_to_stop(id, why, &mut stops);
        self.note_stops(stops, None);
    }

    /// Tell a running attempt to stop; false when it does not run. An owner's wish overrides a policy's, and a policy's
    /// comes too late for an attempt that has failed: what follows is judged already.
    fn ask_to_stop(&mut self, id: JobId, why: StopReason, stops: &mut Stops) -> bool {
        let until = self.now.tick.after(self.config.interrupt_grace_ms);
        let Some(run) = self.run(id) else { return false };
        if why != StopReason::Owner && (run.stopping.is_some() || run.failing) {
            return true;
        }
        if run.stopping.as_ref().is_some_and(|stopping| stopping.why == why) {
            self.tell_to_stop(id);
            return true;
        }
        // Whoever asks again and again does not put off the moment at which it is given up.
        let until = run.stopping.as_ref().map_or(until, |stopping| stopping.until);
        let number = run.attempt.number;
        run.stopping = Some(Stopping { why: why.clone(), until, noted: false });
        stops.0.push(Event::StopAsked { job: id, number, why });
        true
    }

    pub(super) fn note_stops(&mut self, stops: Stops, reply: Option<(RequestId, usize)>) {
        let of = |event: &Event| match event {
            Event::StopAsked { job, number, .. } => Some((*job, *number)),
            _ => None,
        };
        let attempts: Vec<(JobId, u32)> = stops.0.iter().filter_map(of).collect();
        if attempts.is_empty() {
            return self.stops_noted(attempts, reply);
        }
        self.commit(Then::Stop { attempts, reply }, stops.0);
    }

    pub(super) fn stops_noted(&mut self, attempts: Vec<(JobId, u32)>, reply: Option<(RequestId, usize)>) {
        for (id, number) in attempts {
            let run = self.run(id).filter(|run| run.attempt.number == number);
            if let Some(stopping) = run.and_then(|run| run.stopping.as_mut()) {
                stopping.noted = true;
                self.tell_to_stop(id);
            }
        }
        if let Some((request, affected)) = reply {
            self.out.push(Action::Reply { request, reply: Reply::Done { affected } });
        }
    }

    /// Interrupt it, if that was asked for and may be told.
    pub(super) fn tell_to_stop(&mut self, id: JobId) {
        let Some(run) = self.run(id) else { return };
        let noted = run.stopping.as_ref().is_some_and(|stopping| stopping.noted);
        if noted && run.delivery != Delivery::Starting {
            self.send_interrupt(id);
        }
    }

    pub(super) fn send_interrupt(&mut self, id: JobId) {
        let Some(run) = self.run(id) else { return };
        let (instance, upstream) = (run.attempt.instance.clone(), run.attempt.upstream_id);
        self.out.push(Action::Interrupt { instance, upstream });
    }

    pub(super) fn confirm_stop(&mut self, id: JobId) {
        if let Some(stopping) = self.run(id).and_then(|run| run.stopping.clone()) {
            self.stopped(id, &stopping.why, None);
        }
    }
}
