//! The ComfyUI face: what clients connect to.
//!
//! Owns the client listener, the table of routes and the rules at the door (hosts, origins, keys, limits). Everything it
//! says comes from elsewhere: jobs from the scheduler and the ledger, files and pages from instances, events from the
//! sessions. It never decides what runs where, and keeps nothing but two caches that can be
//! rebuilt, and who is just being answered.

mod answer;
mod answering;
mod body;
mod change;
mod connection;
mod files;
mod form;
mod gate;
mod history;
mod home;
mod inert;
mod info;
mod jobs;
mod lacks;
mod listen;
mod lists;
mod once;
mod pass;
mod pieces;
mod place;
mod queue;
mod renewal;
mod routes;
mod serve;
mod submit;
mod upload;
mod ws;

use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use hyper::{Request, Response};

use crate::clock::Clock;
use crate::config;
use crate::fleet::Errand;
use crate::metrics::{self, RouteKind};
use crate::{assets, fleet, ledger, scheduler, sessions};
use answer::Answer;
use answering::Answering;
use gate::{Caller, Gate};
use info::Caches;
use routes::{Endpoint, Routes};

// For whoever feeds it what no client should send.
pub use form::{Form, read as read_form};
pub use listen::Listener;

/// What the face is made of. The handles are those of the running organs.
#[derive(Clone)]
pub struct Parts {
    pub scheduler: scheduler::Handle,
    pub ledger: ledger::Handle,
    pub fleet: fleet::Handle,
    pub sessions: sessions::Handle,
    pub assets: assets::Handle,
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("front::Parts")
    }
}

/// Answers requests. Shared by every connection.
pub struct Front {
    parts: Parts,
    gate: Gate,
    limits: config::Limits,
    /// How long the answer to a request with an idempotency key is remembered.
    once_ms: u64,
    /// Lower-case names of the headers that are kept with a job.
    kept_headers: Vec<String>,
    routes: Routes,
    /// All instances write their results to one folder.
    outputs_shared: bool,
    caches: Caches,
    answering: Answering,
}

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Front").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// One request that passed the door.
#[derive(Debug)]
struct Call {
    request: Request<Body>,
    caller: Caller,
    /// What stands where the route's path has `{}`, decoded.
    params: Vec<String>,
}

/// What the door and the routes make of a request.
enum Begun {
    /// It passes through to the home instance as it is.
    Plain(Errand),
    /// The future of everything else is large.
    Large(Pin<Box<dyn Future<Output = Answer> + Send>>),
    Refused(Answer),
}

impl Call {
    fn query(&self) -> Vec<(String, String)> {
        body::query(self.request.uri().query().unwrap_or_default())
    }
}

impl Front {
    pub fn new(parts: Parts, config: &config::Config) -> Arc<Self> {
        let (front, limits) = (&config.front, &config.limits);
        Arc::new(Self {
            parts,
            gate: Gate::new(front, limits.header_bytes),
            limits: limits.clone(),
            once_ms: config.ledger.idempotency_s.saturating_mul(1_000),
            kept_headers: front.headers.iter().map(|name| name.to_ascii_lowercase()).collect(),
            routes: Routes::new(&config.routes),
            outputs_shared: config.outputs.shared,
            caches: Caches::default(),
            answering: Answering::default(),
        })
    }

    /// Answers one request, whatever it is. What happens before the first wait happens here, so that the future of the common
    /// case, which hyper moves about, holds little.
    fn handle(self: Arc<Self>, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send {
        let started = std::time::Instant::now();
        let (kind, begun) = self.begin(request);
        async move {
            let (answer, took) = match begun {
                Begun::Plain(errand) => {
                    let (answered, took) = errand.run(started).await;
                    let failed = |failed| answer::unreachable(errand.instance(), &failed);
                    (answered.unwrap_or_else(failed), took)
                }
                Begun::Large(answered) => (answered.await, started.elapsed()),
                Begun::Refused(refused) => (refused, started.elapsed()),
            };
            metrics::http_request(kind, answer.status().as_u16(), took);
            answer.map(|body| body::counted(kind, body))
        }
    }

    fn begin(self: Arc<Self>, mut request: Request<Body>) -> (RouteKind, Begun) {
        let caller = match self.gate.admit(&mut request) {
            Ok(caller) => caller,
            Err(refused) => return (RouteKind::Refused, Begun::Refused(refused)),
        };
        let (route, params) = self.routes.find(request.method(), request.uri().path());
        let passes = route.endpoint == Endpoint::Home && !files::names_file(&request, caller.apart);
        if passes && let Some(errand) = self.parts.fleet.errand(&request) {
            return (route.kind, Begun::Plain(errand));
        }
        let call = Call { request, caller, params };
        let answered: Pin<Box<dyn Future<Output = Answer> + Send>> = match passes {
            true => Box::pin(async move { self.pass_home(call.request).await }),
            false => Box::pin(self.answer(route.endpoint, call)),
        };
        (route.kind, Begun::Large(answered))
    }

    async fn answer(self: Arc<Self>, endpoint: Endpoint, call: Call) -> Answer {
        let answered = match endpoint {
            Endpoint::Submit => self.submit(call).await,
            Endpoint::Remaining => Ok(self.remaining()),
            Endpoint::Queue => self.queue(call).await,
            Endpoint::ChangeQueue => self.change_queue(call).await,
            Endpoint::Interrupt => self.interrupt(call).await,
            Endpoint::History => self.history(call).await,
            Endpoint::HistoryOf => self.history_of(call).await,
            Endpoint::ChangeHistory => self.change_history(call).await,
            Endpoint::Jobs => self.jobs(call).await,
            Endpoint::Job => self.job(call).await,
            Endpoint::CancelJob => self.cancel_job(call).await,
            Endpoint::CancelJobs => self.cancel_jobs(call).await,
            Endpoint::ObjectInfo => self.object_info(call).await,
            Endpoint::ObjectInfoOf => self.object_info_of(call).await,
            Endpoint::SystemStats => self.system_stats(),
            Endpoint::Features => Ok(self.features_answer().await),
            Endpoint::List => self.list(call).await,
            Endpoint::Free => self.free(call).await,
            Endpoint::Found => self.found(call).await,
            Endpoint::UserData => self.user_data(call).await,
            Endpoint::Asset => self.asset(call).await,
            Endpoint::Internal => self.internal(call).await,
            Endpoint::View => self.view(call).await,
            Endpoint::UploadImage => self.upload_image(call).await,
            Endpoint::UploadMask => self.upload_mask(call).await,
            Endpoint::LogSubscription => self.log_subscription(call).await,
            Endpoint::Websocket => self.websocket(call),
            Endpoint::Home => Ok(self.elsewhere(call).await),
            Endpoint::Broadcast => self.broadcast(call).await,
            Endpoint::ByClient => Ok(self.by_client(call).await),
            Endpoint::Denied => Ok(home::denied()),
            Endpoint::Outside => Ok(home::outside()),
        };
        answered.unwrap_or_else(Answer::from)
    }
}
