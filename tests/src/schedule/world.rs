//! The world that a plan is played in.

use std::collections::HashMap;
use std::time::Duration;

use comfyui_emulator::Fault;
use futures_util::FutureExt;
use hyper::{Method, StatusCode};
use serde_json::json;

use super::{Plan, Played, Step};
use crate::{Books, Client, Fleet, Router, Run, Serve, colour_of, plain};

/// Everything is noticed and given up quickly; the last attempt is never reached.
const SETTINGS: [&str; 12] = [
    "timeouts.stall_s=1",
    "timeouts.interrupt_s=1",
    "limits.attempts=100",
    "fleet.poll_ms=100",
    "fleet.health_timeout_ms=1000",
    "fleet.submit_timeout_ms=1000",
    "fleet.failures=2",
    "fleet.ping_ms=100",
    "fleet.silence_ms=600",
    "fleet.inspect_ms=200",
    "fleet.quarantine_s=1",
    "telemetry.nvml=false",
];

pub(super) struct World {
    fleet: Fleet,
    router: Router,
    clients: Vec<Client>,
    failures: usize,
    accepted: Vec<Accepted>,
    posted: u32,
    deaths: usize,
}

struct Accepted {
    id: String,
    client: usize,
    colour: u32,
    /// Somebody asked for its end.
    stopped: bool,
}

impl World {
    pub(super) async fn start(plan: &Plan) -> Self {
        let fleet = Fleet::of(plan.instances).await;
        let serve = SETTINGS.iter().fold(Serve::over(fleet.instances()), |serve, setting| serve.set(setting));
        let router = serve.start().await;
        let mut clients = Vec::new();
        for at in 0..plan.clients {
            clients.push(Client::connect(&router, &format!("client-{at}")).await);
        }
        let failures = plan.failures();
        Self { fleet, router, clients, failures, accepted: Vec::new(), posted: 0, deaths: 0 }
    }

    pub(super) async fn act(&mut self, step: &Step) {
        self.ensure_router().await;
        match step {
            Step::Post { client } => self.post(*client).await,
            Step::Fault { instance, fault } => self.fleet.control(*instance).inject(fault.clone()),
            Step::Restart { instance } => self.fleet.restart(*instance).await,
            Step::KillRouter => {
                self.router.kill();
                self.revive().await;
            }
            Step::EndRouterAt { point } => self.router.arm(point),
            Step::Reconnect { client } => self.clients[*client].leave(),
            Step::Interrupt { which } => {
                self.ask(*which, "/interrupt", |id| json!({ "prompt_id": id })).await
            }
            Step::Delete { which } => self.ask(*which, "/queue", |id| json!({ "delete": [id] })).await,
            Step::Pause { ms } => tokio::time::sleep(Duration::from_millis(*ms)).await,
        }
        self.reconnect().await;
    }

    async fn post(&mut self, client: usize) {
        self.posted += 1;
        let (colour, id) = (self.posted, format!("job-{}", self.posted));
        let body =
            json!({ "prompt": plain(colour), "prompt_id": id, "client_id": format!("client-{client}") });
        // No answer, or another one than 200, promises nothing.
        if let Ok(answer) = self.send("/prompt", &body).await
            && answer == StatusCode::OK
        {
            self.accepted.push(Accepted { id, client, colour, stopped: false });
        }
    }

    async fn ask(&mut self, which: u64, path: &str, body: impl Fn(&str) -> serde_json::Value) {
        let count = self.accepted.len().max(1) as u64;
        let Some(job) = self.accepted.get_mut((which % count) as usize) else { return };
        job.stopped = true;
        let body = body(&job.id);
        let _ = self.send(path, &body).await;
    }

    async fn send(&self, path: &str, body: &serde_json::Value) -> anyhow::Result<StatusCode> {
        let answer = self.clients[0].http.try_send(Method::POST, path, &[], body.to_string()).await?;
        Ok(answer.status)
    }

    /// One that is ending is waited for and followed by another.
    async fn ensure_router(&mut self) {
        let lives = self.router.admin().try_send(Method::GET, "/livez", &[], "").await.is_ok();
        if !lives {
            self.router.ended().await;
            self.revive().await;
        }
    }

    async fn revive(&mut self) {
        self.deaths += 1;
        // A new one must come up first.
        self.router.disarm_all();
        self.router.start_again().await;
        for client in &mut self.clients {
            client.leave();
        }
    }

    /// Clients come back as soon as there is a router to come back to.
    async fn reconnect(&mut self) {
        for client in self.clients.iter_mut().filter(|client| !client.is_listening()) {
            // It may end at any moment.
            let _ = client.try_reconnect().await;
        }
    }

    /// Nothing is wrong any more.
    pub(super) async fn heal(&mut self) {
        self.router.disarm_all();
        self.ensure_router().await;
        for at in 0..self.fleet.len() {
            let control = self.fleet.control(at);
            control.inject(Fault::Thaw);
            control.inject(Fault::Slow { factor: 1.0, extra_ms: 0 });
            control.inject(Fault::FailPosts { count: 0, status: 500 });
            control.disarm();
            self.fleet.restart(at).await;
        }
        self.router.instances_serve(self.fleet.len()).await;
        self.clients[0].all_done().await;
    }

    pub(super) async fn audit(mut self) -> Played {
        let mut failed = Vec::new();
        for job in &self.accepted {
            if self.ended_well(job).await == Ended::Failed {
                failed.push(self.clients[job.client].history(&job.id).await["status"].to_string());
            }
        }
        assert!(
            failed.len() <= self.failures,
            "{} were made to fail, not all these: {failed:#?}",
            self.failures
        );
        self.nothing_was_misdelivered();
        self.router.stop().await;
        let books = Books::read(&self.router.state_dir());
        let accepted: Vec<String> = self.accepted.iter().map(|job| job.id.clone()).collect();
        let runs = Run::of(&self.fleet);
        books.everything_is_over(&accepted);
        books.nothing_ran_unrecorded(&runs);
        Played {
            jobs: accepted.len(),
            attempts: books.attempts(),
            repeated: books.repeated(&runs),
            router_deaths: self.deaths,
        }
    }

    /// Its history says how it ended, and its picture is its own.
    async fn ended_well(&self, job: &Accepted) -> Ended {
        let client = &self.clients[job.client];
        let history = client.history(&job.id).await;
        let status = history["status"]["status_str"].as_str();
        match status {
            Some("success") => {
                assert_eq!(
                    colour_of_one(client, &job.id).await,
                    job.colour,
                    "{} has its own picture",
                    job.id
                );
                Ended::Well
            }
            // Taken out of the queue: that leaves no history, as in ComfyUI.
            None if job.stopped => Ended::Stopped,
            Some("error") => {
                let messages = history["status"]["messages"].as_array().expect("messages");
                let told = |kind: &str| messages.iter().any(|message| message[0] == kind);
                match (told("execution_error"), told("execution_interrupted")) {
                    (true, _) => Ended::Failed,
                    (false, true) if job.stopped => Ended::Stopped,
                    _ => panic!("{} ended for no reason: {history}", job.id),
                }
            }
            _ => panic!("{} has no end: {history}", job.id),
        }
    }

    /// No client heard of another's job, and of its own no more than one end of each router's life.
    fn nothing_was_misdelivered(&self) {
        let owner: HashMap<&str, usize> =
            self.accepted.iter().map(|job| (job.id.as_str(), job.client)).collect();
        for (at, client) in self.clients.iter().enumerate() {
            for message in client.record() {
                let data = message.data();
                let Some(id) = data["prompt_id"].as_str() else { continue };
                // What was never answered is in nobody's list.
                let theirs = owner.get(id).is_some_and(|owner| *owner != at);
                assert!(!theirs, "client {at} heard of another's job: {data}");
            }
        }
    }
}

/// An instance that is slow for a second is given up by these settings; that it is down is an honest answer for so long.
async fn colour_of_one(client: &Client, job: &str) -> u32 {
    let picture = crate::eventually(&format!("the picture of {job}"), || {
        client
            .picture_made_by(job)
            .map(|answer| (answer.status != StatusCode::SERVICE_UNAVAILABLE).then_some(answer))
    })
    .await;
    colour_of(&picture.ok().body)
}

#[derive(PartialEq, Eq)]
enum Ended {
    Well,
    Failed,
    Stopped,
}
