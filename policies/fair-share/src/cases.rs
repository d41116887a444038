//! View in, decision out; and small days in which the lowest tag runs next.

use comfy_router_policy::testing::{candidate, job, with_host};
use comfy_router_policy::{JobClass, RouteAnswer};

use super::*;

/// A queue in front of one instance: the highest score runs, and the host tells who still waits.
struct Day {
    policy: FairShare,
    waiting: Vec<(f64, Job)>,
}

impl Day {
    fn new(settings: &str) -> Self {
        with_host(|host| {
            host.tenants = ["anna", "ben", "carl"].map(str::to_owned).to_vec();
            host.clients = (0..64).map(|n| format!("client{n}")).collect();
            host.queued.clear();
        });
        Self { policy: FairShare::configure(settings).expect("the settings are right"), waiting: Vec::new() }
    }

    fn send(&mut self, tenant: u32, client: u32, count: usize) {
        for _ in 0..count {
            self.send_job(Job { tenant, client, run_ms: Some(10_000), ..job() });
        }
    }

    fn send_job(&mut self, job: Job) {
        let score = self.policy.prioritize(&job).score;
        self.waiting.push((score, job));
        self.tell();
    }

    /// Runs the best job and says whose it was.
    fn run(&mut self) -> Job {
        let mut best = 0;
        for row in 1..self.waiting.len() {
            if self.waiting[row].0 > self.waiting[best].0 {
                best = row;
            }
        }
        let (_, job) = self.waiting.remove(best);
        self.tell();
        job
    }

    fn run_tenants(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| self.run().tenant).collect()
    }

    fn tell(&self) {
        with_host(|host| {
            host.queued.clear();
            for (_, job) in &self.waiting {
                *host.queued.entry(job.tenant).or_default() += 1;
            }
        });
    }
}

fn share(of: u32, ran: &[u32]) -> usize {
    ran.iter().filter(|&&tenant| tenant == of).count()
}

#[test]
fn a_flood_does_not_delay_another_tenant() {
    let mut day = Day::new("{}");
    day.send(0, 0, 500);
    assert_eq!(day.run_tenants(20), [0; 20]);
    day.send(1, 1, 1);
    let ran = day.run_tenants(2);
    assert!(ran.contains(&1), "ben's only job is among the next two: {ran:?}");
}

#[test]
fn tenants_share_by_weight() {
    let mut day = Day::new(r#"{"tenants": {"anna": 3, "ben": 1}}"#);
    day.send(0, 0, 100);
    day.send(1, 1, 100);
    let ran = day.run_tenants(80);
    assert!((58..=62).contains(&share(0, &ran)), "anna got {} of 80", share(0, &ran));
}

#[test]
fn many_clients_do_not_make_a_tenant_larger() {
    let mut day = Day::new("{}");
    for client in 2..42 {
        day.send(0, client, 1);
    }
    day.send(1, 1, 40);
    let ran = day.run_tenants(40);
    assert!((19..=21).contains(&share(0, &ran)), "anna got {} of 40", share(0, &ran));
}

#[test]
fn clients_of_one_tenant_take_turns_by_weight() {
    let mut day = Day::new(r#"{"clients": {"client2": 2}}"#);
    day.send(0, 1, 50);
    day.send(0, 2, 1);
    let first: Vec<u32> = (0..3).map(|_| day.run().client).collect();
    assert!(first.contains(&2), "the second client is not behind the flood of the first: {first:?}");
}

#[test]
fn an_idle_tenant_saves_nothing_up() {
    let mut day = Day::new("{}");
    day.send(0, 0, 50);
    day.run_tenants(50);
    day.send(0, 0, 20);
    day.send(1, 1, 20);
    let ran = day.run_tenants(20);
    assert!((9..=11).contains(&share(1, &ran)), "ben got {} of 20", share(1, &ran));
}

#[test]
fn within_a_tenant_the_classes_are_in_order() {
    let mut day = Day::new("{}");
    day.send_job(Job { class: JobClass::Batch, ..job() });
    day.send_job(Job { class: JobClass::Batch, ..job() });
    let batch = day.waiting[1].0;
    day.send_job(Job { class: JobClass::Interactive, ..job() });
    assert!(day.waiting[2].0 > batch);
}

#[test]
fn everything_that_waits_is_run_and_ages() {
    let mut day = Day::new("{}");
    for round in 0..30 {
        day.send(round % 3, round, 5);
    }
    assert_eq!(day.run_tenants(150).len(), 150);
    assert!(day.policy.prioritize(&job()).ageing_per_second > 0.0);
}

#[test]
fn a_flood_beyond_memory_still_queues_up_behind_itself() {
    let mut day = Day::new("{}");
    let mut last = f64::INFINITY;
    with_host(|host| {
        host.queued.insert(0, u32::MAX);
    });
    for _ in 0..2_200 {
        let score = day.policy.prioritize(&Job { run_ms: Some(1_000), ..job() }).score;
        assert!(score < last, "{score} after {last}");
        last = score;
    }
}

#[test]
fn the_place_is_where_fewest_models_are_missing() {
    let mut policy = FairShare::default();
    let cold = candidate(0);
    let warm = Candidate { models_resident: 1, running: 1, ..candidate(1) };
    let full = Candidate { free_slots: 0, models_resident: 1, ..candidate(2) };
    let decision = policy.route(&job(), &[cold, warm, full]);
    assert!(matches!(&decision.answer, RouteAnswer::Ranked(rows) if rows == &[1, 0]), "{decision:?}");
}

#[test]
fn wrong_settings_are_named() {
    for (json, named) in [
        (r#"{"tenants": {"anna": 0}}"#, "tenants.anna"),
        (r#"{"clients": {"c": -1}}"#, "clients.c"),
        (r#"{"default_weight": 1e9}"#, "default_weight"),
        (r#"{"ageing_per_second": 1}"#, "ageing_per_second"),
        (r#"{"weights": {}}"#, "weights"),
    ] {
        let error = FairShare::configure(json).unwrap_err();
        assert!(error.contains(named), "{named} in {error}");
    }
}
