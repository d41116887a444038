//! Start tags and virtual time.

use std::collections::BTreeMap;

use comfy_router_policy::{Job, JobClass};

/// Waiting jobs remembered of one tenant. Later ones queue up behind the last: a flood beyond this is still one flood.
const REMEMBERED: usize = 2_048;

/// Tenants remembered; those with nothing waiting are forgotten first.
const TENANTS: usize = 1_024;

/// A job's place among the jobs of its own tenant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Order {
    /// 0 is first: `front`, then the classes.
    rank: u8,
    client: u32,
    client_weight: f64,
}

impl Order {
    pub(crate) fn of(job: &Job, client_weight: f64) -> Self {
        let rank = match (job.front, job.class) {
            (true, _) => 0,
            (false, JobClass::Interactive) => 1,
            (false, JobClass::Standard) => 2,
            (false, JobClass::Batch) => 3,
        };
        Self { rank, client: job.client, client_weight }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Shares {
    now: f64,
    /// In order of their index, so that the same questions always get the same answers.
    tenants: BTreeMap<u32, Tenant>,
}

#[derive(Debug, Default)]
struct Tenant {
    /// Where its next job begins if nothing of it waits.
    base: f64,
    /// By tag, lowest first.
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    tag: f64,
    /// Its share of the tenant's virtual time.
    span: f64,
    rank: u8,
    client: u32,
    /// How far into its client's own jobs: clients take turns by round.
    round: f64,
}

impl Shares {
    /// The virtual time: the lowest tag that waits, and never back.
    pub(crate) fn now(&self) -> f64 {
        self.now
    }

    /// Drops what no longer waits: `queued` tells how many jobs of a tenant still do, and its lowest tags went first.
    pub(crate) fn settle(&mut self, queued: impl Fn(u32) -> usize) {
        for (&index, tenant) in &mut self.tenants {
            let gone = tenant.waiting.len().saturating_sub(queued(index));
            for job in tenant.waiting.drain(..gone) {
                tenant.base = tenant.base.max(job.tag + job.span);
                self.now = self.now.max(job.tag);
            }
        }
        let first = self.tenants.values().filter_map(|t| t.waiting.first()).map(|w| w.tag).reduce(f64::min);
        self.now = self.now.max(first.unwrap_or(self.now));
        if self.tenants.len() > TENANTS {
            let now = self.now;
            self.tenants.retain(|_, tenant| !tenant.waiting.is_empty() || tenant.base > now);
        }
    }

    /// The start tag of a new job of `seconds` of work.
    pub(crate) fn tag(&mut self, tenant: u32, weight: f64, seconds: f64, order: Order) -> f64 {
        let span = seconds / weight;
        let now = self.now;
        let tenant = self.tenants.entry(tenant).or_default();
        let start = tenant.base.max(now);
        if tenant.waiting.len() >= REMEMBERED {
            // Only its end is remembered, as a longer span of the last job.
            return tenant.waiting.last_mut().map_or(start, |last| {
                last.span += span;
                last.tag + last.span - span
            });
        }
        let own = tenant.waiting.iter().filter(|w| (w.rank, w.client) == (order.rank, order.client));
        let round = (own.count() as f64 + 1.0) / order.client_weight;
        // Only what goes first within the tenant counts, so a client's first job need not wait for another's flood.
        let ahead = tenant.waiting.iter().filter(|w| (w.rank, w.round) <= (order.rank, round));
        let tag = start + ahead.map(|w| w.span).sum::<f64>();
        let place = tenant.waiting.partition_point(|w| w.tag <= tag);
        tenant.waiting.insert(place, Waiting { tag, span, rank: order.rank, client: order.client, round });
        tag
    }
}
