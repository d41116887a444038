//! Handles of what is counted for every request and every message, looked up once: a look-up hashes the name and every label, which costs more
//! than the rest of the count.

use std::sync::OnceLock;
use std::time::Duration;

use ::metrics::{Counter, Histogram, counter, histogram};

use super::labels::{STATUSES, instance_label, status_index};
use super::table;
use crate::model::id::InstanceId;

/// Who answered a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    Here,
    Merged,
    Instance,
    Home,
    /// Every instance.
    Broadcast,
    /// One instance for each client.
    ByClient,
    /// Nobody: it did not pass the door, or leads nowhere.
    Refused,
}

impl RouteKind {
    const ALL: [Self; 7] = [
        Self::Here,
        Self::Merged,
        Self::Instance,
        Self::Home,
        Self::Broadcast,
        Self::ByClient,
        Self::Refused,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Merged => "merged",
            Self::Instance => "instance",
            Self::Home => "home",
            Self::Broadcast => "broadcast",
            Self::ByClient => "by-client",
            Self::Refused => "refused",
        }
    }
}

/// What becomes of a message while its client does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    Terminal,
    Ordinary,
    Progress,
    Preview,
}

impl FrameKind {
    const ALL: [Self; 4] = [Self::Terminal, Self::Ordinary, Self::Progress, Self::Preview];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Terminal => "terminal",
            Self::Ordinary => "ordinary",
            Self::Progress => "progress",
            Self::Preview => "preview",
        }
    }
}

struct Frames {
    messages: Counter,
    bytes: Counter,
}

impl Frames {
    fn count(&self, bytes: usize) {
        self.messages.increment(1);
        self.bytes.increment(bytes as u64);
    }
}

/// The figures of one kind of route.
struct Route {
    requests: [Counter; STATUSES.len()],
    time: Histogram,
    received: Counter,
    sent: Counter,
}

impl Route {
    fn new(kind: RouteKind) -> Self {
        let kind = kind.as_str();
        Self {
            requests: STATUSES
                .map(|status| counter!(table::HTTP_REQUESTS, "kind" => kind, "status" => status)),
            time: histogram!(table::HTTP_TIME, "kind" => kind),
            received: counter!(table::HTTP_IN, "kind" => kind),
            sent: counter!(table::HTTP_OUT, "kind" => kind),
        }
    }
}

/// Set once the recorder is there: a handle that was looked up before would count nothing for ever.
static ROUTES: OnceLock<[Route; RouteKind::ALL.len()]> = OnceLock::new();

static CLIENT_FRAMES: OnceLock<[Frames; FrameKind::ALL.len()]> = OnceLock::new();

pub(super) fn prepare() {
    let _ = ROUTES.set(RouteKind::ALL.map(Route::new));
    let _ = CLIENT_FRAMES.set(FrameKind::ALL.map(|kind| Frames {
        messages: counter!(table::CLIENT_FRAMES, "kind" => kind.as_str()),
        bytes: counter!(table::CLIENT_FRAME_BYTES, "kind" => kind.as_str()),
    }));
}

fn route(kind: RouteKind) -> Option<&'static Route> {
    ROUTES.get().map(|routes| &routes[kind as usize])
}

/// A client was answered.
pub fn http_request(kind: RouteKind, status: u16, took: Duration) {
    if let Some(route) = route(kind) {
        route.requests[status_index(status)].increment(1);
        route.time.record(took.as_secs_f64());
    }
}

pub fn http_received(kind: RouteKind, bytes: u64) {
    if let Some(route) = route(kind) {
        route.received.increment(bytes);
    }
}

pub fn http_sent(kind: RouteKind, bytes: u64) {
    if let Some(route) = route(kind) {
        route.sent.increment(bytes);
    }
}

/// A frame was queued for a client.
pub fn client_frame(kind: FrameKind, bytes: usize) {
    if let Some(frames) = CLIENT_FRAMES.get() {
        frames[kind as usize].count(bytes);
    }
}

/// The frames of one instance. Made after the recorder was installed.
pub struct InstanceFrames(Frames);

impl std::fmt::Debug for InstanceFrames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InstanceFrames")
    }
}

impl InstanceFrames {
    pub fn new(instance: &InstanceId) -> Self {
        let label = instance_label(instance);
        Self(Frames {
            messages: counter!(table::UPSTREAM_FRAMES, "instance" => label.clone()),
            bytes: counter!(table::UPSTREAM_FRAME_BYTES, "instance" => label),
        })
    }

    pub fn count(&self, bytes: usize) {
        self.0.count(bytes);
    }
}

/// The requests to one instance. Made after the recorder was installed.
pub struct InstanceRequests {
    answered: [Counter; STATUSES.len()],
    failed: Counter,
    time: Histogram,
}

impl std::fmt::Debug for InstanceRequests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InstanceRequests")
    }
}

impl InstanceRequests {
    pub fn new(instance: &InstanceId) -> Self {
        let label = instance_label(instance);
        let requests =
            |status| counter!(table::UPSTREAM_REQUESTS, "instance" => label.clone(), "status" => status);
        Self {
            answered: STATUSES.map(requests),
            failed: requests("failed"),
            time: histogram!(table::UPSTREAM_TIME, "instance" => label.clone()),
        }
    }

    /// `status` none: no answer came. `took` is the time until the answer began, or until it failed.
    pub fn count(&self, status: Option<u16>, took: Duration) {
        match status {
            Some(status) => self.answered[status_index(status)].increment(1),
            None => self.failed.increment(1),
        }
        self.time.record(took.as_secs_f64());
    }
}
