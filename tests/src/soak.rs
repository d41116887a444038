//! Many jobs of many clients in one life of the router: nothing lost, nothing misdelivered, and the memory stays flat.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::watch;

use crate::{Books, Client, Fleet, Router, Run, Serve, complete, plain};

#[derive(Debug, Clone, Copy)]
pub struct Soak {
    pub instances: usize,
    pub clients: usize,
    pub jobs: usize,
    /// Jobs that a client has open at a time.
    pub open: usize,
}

/// What was measured.
#[derive(Debug, Clone)]
pub struct Report {
    pub jobs: usize,
    pub took: Duration,
    /// Resident KiB of the router, one sample for each twentieth of the jobs that were over.
    pub resident_kib: Vec<u64>,
}

impl Report {
    /// Growth of the second half, in KiB for each job, by the medians of its ends.
    pub fn growth_kib_per_job(&self) -> f64 {
        let half = &self.resident_kib[self.resident_kib.len() / 2..];
        let part = (half.len() / 3).max(1);
        let median = |samples: &[u64]| {
            let mut samples = samples.to_vec();
            samples.sort_unstable();
            samples[samples.len() / 2] as f64
        };
        let grown = median(&half[half.len() - part..]) - median(&half[..part]);
        grown / (self.jobs as f64 / 2.0)
    }
}

impl Soak {
    /// # Panics
    /// When a job is lost, repeated or misdelivered.
    pub async fn run(self) -> Report {
        let fleet = Fleet::of(self.instances).await;
        let mut router = Serve::over(fleet.instances()).set("log.level=warn").start().await;
        let mut clients = Vec::new();
        for at in 0..self.clients {
            clients.push(Client::connect_quietly(&router, &format!("soak-{at}")).await);
        }
        let over = watch::Sender::new(0usize);
        let started = Instant::now();
        let each = self.jobs / self.clients;
        let posting =
            join_all(clients.iter().enumerate().map(|(at, client)| self.follow(client, at, each, &over)));
        let (accepted, resident_kib) = tokio::join!(posting, sample(&router, &over, each * self.clients));
        let took = started.elapsed();
        let accepted: Vec<String> = accepted.into_iter().flatten().collect();
        router.stop().await;
        let books = Books::read(&router.state_dir());
        books.nothing_is_lost(&accepted);
        books.nothing_ran_unrecorded(&Run::of(&fleet));
        assert_eq!((books.attempts(), fleet.started()), (accepted.len(), accepted.len()), "each ran once");
        Report { jobs: accepted.len(), took, resident_kib }
    }

    /// One client: posts, hears each job from its first event to its last, and nothing else.
    async fn follow(
        &self,
        client: &Client,
        at: usize,
        each: usize,
        over: &watch::Sender<usize>,
    ) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.len() < each {
            let (first, mut heard) = (ids.len(), 0);
            for n in first..(first + self.open).min(each) {
                let graph = plain(colour(at, n));
                ids.push((client.post(&graph).await, graph));
            }
            for (id, graph) in &ids[first..] {
                let mut seen = *over.borrow();
                let goes_on = || {
                    let now = *over.borrow();
                    std::mem::replace(&mut seen, now) < now
                };
                let said = client.end_while(id, goes_on).await;
                complete(&said, graph).unwrap_or_else(|wrong| panic!("{id} {wrong}"));
                heard += said.len();
                over.send_modify(|over| *over += 1);
            }
            let (id, n) = (&ids[first].0, first);
            assert_eq!(client.colour_made_by(id).await, colour(at, n), "{id} has its own picture");
            let jobs = client.take_record().iter().filter(|m| !m.data()["prompt_id"].is_null()).count();
            assert_eq!(jobs, heard, "soak-{at} heard of nobody else's jobs");
        }
        ids.into_iter().map(|(id, _)| id).collect()
    }
}

fn colour(client: usize, n: usize) -> u32 {
    (client * 1_000 + n + 1) as u32
}

async fn sample(router: &Router, over: &watch::Sender<usize>, jobs: usize) -> Vec<u64> {
    let mut over = over.subscribe();
    let mut samples = Vec::new();
    for twentieth in 1..=20 {
        // The sender outlives all that is sent.
        let _ = over.wait_for(|over| *over >= jobs * twentieth / 20).await;
        samples.push(router.resident_kib());
    }
    samples
}
