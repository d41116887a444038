//! An operator's word about where a waiting job stands. It is durable before it counts, and no policy changes a place or
//! a priority that an operator gave.

use std::collections::VecDeque;

use crate::model::decision::{Limits, Priority, Question};
use crate::model::event::{Event, Standing};
use crate::model::id::JobId;
use crate::model::job::{Job, Number, Requested};

use super::super::input::{Action, Change, ChangeRefused, Place, Reply, RequestId};
use super::super::queue::Waiting;
use super::{Asked, Core, Entry, Phase, Then};

impl Core {
    pub(super) fn change(&mut self, request: RequestId, prompt_id: &str, change: Change) {
        let Some(id) = self.prompt_ids.get(prompt_id).copied() else {
            return self.refuse_change(request, ChangeRefused::Unknown);
        };
        let changes = self.changing.entry(id).or_default();
        changes.push_back((request, change));
        if changes.len() == 1 {
            self.change_next(id);
        }
    }

    /// One change of a job at a time: the next begins with what the one before it led to. The one under way is the
    /// first in the list.
    fn change_next(&mut self, id: JobId) {
        while let Some((request, change)) =
            self.changing.get(&id).and_then(|changes| changes.front().copied())
        {
            match self.jobs.get(&id).map(|entry| matches!(entry.phase, Phase::Waiting)) {
                Some(true) => return self.begin_change(request, id, change),
                Some(false) => self.refuse_change(request, ChangeRefused::NotWaiting),
                None => self.refuse_change(request, ChangeRefused::Unknown),
            }
            self.changing.get_mut(&id).map(VecDeque::pop_front);
        }
        self.changing.remove(&id);
    }

    fn change_over(&mut self, id: JobId) {
        self.changing.get_mut(&id).map(VecDeque::pop_front);
        self.change_next(id);
    }

    fn begin_change(&mut self, request: RequestId, id: JobId, change: Change) {
        let entry = &self.jobs[&id];
        let standing = Box::new(self.wished(entry, change));
        // What the policy goes by is another, or its judgement counts again.
        let asked = change.number.is_some() || change.class.is_some() || change.priority == Some(None);
        if asked && !standing.pinned {
            let mut view = self.view(entry);
            (view.number, view.front) = (standing.requested.number, standing.requested.front);
            view.class = standing.class;
            return self
                .ask(Asked::Standing { request, job: id, standing }, Question::Reassess { job: view });
        }
        self.commit_standing(request, id, standing);
    }

    fn wished(&self, entry: &Entry, change: Change) -> Standing {
        let (front, back) = self.queue.front_and_back();
        let mut standing = entry.standing();
        if let Some(number) = change.number {
            standing.number = Number::Given(number);
            standing.requested = Requested { number: Some(number), front: false };
        }
        if let Some(class) = change.class {
            standing.class = class;
        }
        match change.priority {
            Some(Some(score)) => {
                standing.priority = Priority { score, ageing_per_second: 0.0 };
                standing.pinned = true;
            }
            Some(None) => standing.pinned = false,
            None => {}
        }
        match change.place {
            Some(Place::Front) => standing.place = front,
            Some(Place::Back) => standing.place = back,
            Some(Place::Normal) => standing.place = 0,
            None => {}
        }
        standing
    }

    pub(super) fn standing_judged(
        &mut self,
        request: RequestId,
        id: JobId,
        mut standing: Box<Standing>,
        (priority, limits): (Priority, Limits),
    ) {
        let waits = self.jobs.get(&id).is_some_and(|entry| matches!(entry.phase, Phase::Waiting));
        if !waits {
            self.refuse_change(request, ChangeRefused::NotWaiting);
            return self.change_over(id);
        }
        standing.priority = priority;
        standing.limits = self.clamp_limits(limits);
        self.commit_standing(request, id, standing);
    }

    fn commit_standing(&mut self, request: RequestId, id: JobId, standing: Box<Standing>) {
        let event = Event::JobChanged { job: id, standing: standing.clone() };
        self.commit(Then::Changed { request, job: id, standing }, vec![event]);
    }

    /// It is durable. A job that has started meanwhile keeps it for a later attempt.
    pub(super) fn changed(&mut self, request: RequestId, id: JobId, standing: Standing) {
        if let Some(entry) = self.jobs.get_mut(&id) {
            entry.stand(&standing);
            let row = entry.row(id, Default::default());
            self.queue.change(id, |waiting| {
                let (ready_at, held) = (waiting.ready_at, waiting.held);
                *waiting = Waiting { ready_at, held, ..row };
            });
            self.version += 1;
        }
        self.out.push(Action::Reply { request, reply: Reply::Changed(Box::new(standing)) });
        self.change_over(id);
    }

    pub(super) fn not_changed(&mut self, request: RequestId, id: JobId, full: bool, reason: String) {
        self.refuse_change(request, ChangeRefused::Storage { full, reason });
        self.change_over(id);
    }

    fn refuse_change(&mut self, request: RequestId, refused: ChangeRefused) {
        self.out.push(Action::Reply { request, reply: Reply::NotChanged(refused) });
    }
}

impl Entry {
    fn standing(&self) -> Standing {
        Standing {
            number: self.job.number,
            requested: self.job.requested,
            class: self.job.class,
            place: self.place,
            priority: self.priority,
            pinned: self.pinned,
            limits: self.limits,
        }
    }

    fn stand(&mut self, standing: &Standing) {
        let job: &mut Job = std::sync::Arc::make_mut(&mut self.job);
        (job.number, job.requested, job.class) = (standing.number, standing.requested, standing.class);
        (self.place, self.pinned) = (standing.place, standing.pinned);
        (self.priority, self.limits) = (standing.priority, standing.limits);
    }
}
