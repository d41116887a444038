//! What a policy is shown: the queue as a whole, and one job.

use std::sync::Arc;

use crate::clock::Tick;
use crate::model::job::{Job, JobClass};
use crate::model::view::{Context, JobTexts, JobView, Totals, WaitingView};

use super::{Core, Entry, Instance};

/// Waiting jobs a policy may list, and how old the list may be.
const HEAD_JOBS: usize = 64;
const HEAD_MS: u64 = 1_000;

#[derive(Debug)]
pub(super) struct Head {
    pub(super) at: Tick,
    pub(super) classes: [Totals; 3],
    pub(super) waiting: Arc<Vec<WaitingView>>,
}

impl Core {
    pub(super) fn context(&mut self) -> Context {
        let (classes, waiting) = self.head();
        let instances = &self.instances;
        let texts =
            self.texts.get_or_insert_with(|| Arc::new(instances.iter().map(Instance::texts).collect()));
        Context {
            now_ms: self.now.wall,
            fleet: texts.clone(),
            all: self.totals(),
            tenants: self.tenants.shared(),
            clients: self.clients.shared(),
            classes,
            waiting,
        }
    }

    /// By class and in order: what a policy may read of the queue as a whole. Made anew at most once a second.
    pub(super) fn head(&mut self) -> ([Totals; 3], Arc<Vec<WaitingView>>) {
        let now = self.now.tick;
        if let Some(head) = &self.head
            && now.since(head.at) < HEAD_MS
        {
            return (head.classes, head.waiting.clone());
        }
        let mut classes = JobClass::ALL
            .map(|class| Totals { queued: self.queue.waiting_of(class) as u32, ..Totals::default() });
        for live in self.instances.iter().flat_map(|instance| &instance.live) {
            if let Some(entry) = self.jobs.get(&live.job) {
                classes[entry.job.class as usize].running += 1;
            }
        }
        let first = self.queue.first(now, HEAD_JOBS, |_| true);
        let waiting: Arc<Vec<WaitingView>> =
            Arc::new(first.iter().map(|id| self.waiting_view(&self.jobs[id])).collect());
        self.head = Some(Head { at: now, classes, waiting: waiting.clone() });
        (classes, waiting)
    }

    pub(super) fn waiting_view(&self, entry: &Entry) -> WaitingView {
        let view = self.view(entry);
        WaitingView {
            tenant: view.tenant,
            client: view.client,
            class: view.class,
            signature: view.signature,
            models: view.models,
            waited_ms: view.waited_ms,
            run_ms: view.run_ms,
        }
    }

    pub(super) fn totals(&self) -> Totals {
        let queued = self.queue.len() as u32;
        let running = self.instances.iter().map(|i| i.live.len() as u32).sum();
        Totals { queued, running }
    }

    /// Something a policy may read by name changed.
    pub(super) fn texts_changed(&mut self) {
        self.texts = None;
    }

    pub(super) fn view(&self, entry: &Entry) -> JobView {
        let mut view = job_view(&entry.job, entry.tenant, entry.client);
        view.attempt = entry.attempts + 1;
        view.waited_ms = clamp_ms(self.now.tick.since(entry.accepted));
        view.run_ms = self.learned.run_ms(entry.job.needs.signature, None);
        view
    }
}

pub(super) fn job_view(job: &Job, tenant: u32, client: u32) -> JobView {
    let needs = &job.needs;
    JobView {
        tenant,
        client,
        class: job.class,
        number: job.requested.number,
        front: job.requested.front,
        nodes: needs.nodes,
        outputs: job.body.outputs.len() as u32,
        images: needs.images,
        steps: needs.steps,
        megapixels: needs.megapixels,
        work: needs.work(),
        signature: (needs.signature ^ (needs.signature >> 32)) as u32,
        models: needs.models.len() as u32,
        input_kib: job.body.input_kib,
        attempt: 1,
        waited_ms: 0,
        run_ms: None,
        texts: JobTexts { job: Some(job.id), body: job.body.clone(), needs: needs.clone() },
    }
}

pub(super) fn clamp_ms(ms: u64) -> u32 {
    ms.min(u32::MAX.into()) as u32
}
