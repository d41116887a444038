//! Watches one instance: looks at it by HTTP every few seconds, listens on its websocket, and tells what changes, in order.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::board::Board;
use super::calls::{self, CallError, QueueSnapshot};
use super::conn::ConnectError;
use super::hearing::Hearing;
use super::link::{Link, LinkEvent};
use super::member::Member;
use super::stats::{self, Stats};
use super::{Audience, EventKind, FleetEvent, Gone, InstanceInfo, State};
use crate::comfy::Catalogue;
use crate::comfy::frame::{Event, Frame, Kind};
use crate::config;
use crate::tasks::{self, OnError};

/// A dead process says nothing more after so long, however much it had said before.
const LAST_WORDS: Duration = Duration::from_millis(100);
const LONGEST_HEARING: Duration = Duration::from_secs(1);
/// A launched instance may take so long to come up, with all its custom nodes, before something is wrong.
const COMING_UP: Duration = Duration::from_secs(180);
/// Why it is down, for so long.
const COMES_UP: &str = "it is being started";

pub(super) struct Supervisor<A> {
    member: Arc<Member>,
    board: Arc<Board>,
    config: config::Fleet,
    audience: A,
    /// Somebody reads the home instance's log.
    logs: Arc<AtomicBool>,
    /// Its socket is told log lines.
    logs_asked: bool,
    link: Link,
    hearing: Hearing,
    failures: u32,
    /// Websockets it has had since it came up.
    sockets: u32,
    began: Instant,
    /// It went down for giving no answer.
    silent: bool,
}

/// One look at an instance.
struct Look {
    raw: Bytes,
    stats: Stats,
    /// When the queue was asked for.
    asked: Instant,
    queue: QueueSnapshot,
    catalogue: Option<Catalogue>,
    /// The last wish for a new catalogue that this look fulfils.
    wish: Option<u64>,
}

type Looking = Pin<Box<dyn Future<Output = Result<Look, LookError>> + Send>>;

#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("{path} is not the answer of a ComfyUI: {what}")]
    Foreign { path: &'static str, what: String },
}

impl LookError {
    /// No answer at all. The catalogue alone may take its time.
    fn is_silence(&self) -> bool {
        match self {
            Self::Call(CallError::Timeout { path, .. }) => path != "/object_info",
            Self::Call(CallError::Connect(ConnectError::Timeout(_))) => true,
            _ => false,
        }
    }
}

impl<A: Audience> Supervisor<A> {
    pub(super) fn new(
        member: Arc<Member>,
        board: Arc<Board>,
        config: config::Fleet,
        audience: A,
        logs: Arc<AtomicBool>,
    ) -> Self {
        let link = Link::new(member.pool().clone(), member.sid().clone(), config.clone());
        let hearing = Hearing::default();
        Self {
            member,
            board,
            config,
            audience,
            logs,
            logs_asked: false,
            link,
            hearing,
            failures: 0,
            sockets: 0,
            began: Instant::now(),
            silent: false,
        }
    }

    pub(super) async fn run(mut self) {
        let member = self.member.clone();
        let mut looking = self.look(Duration::ZERO);
        loop {
            let heard = tokio::select! {
                event = self.link.next(|| member.witness()) => self.on_link(event).await,
                look = &mut looking => {
                    let heard = self.on_look(look).await;
                    self.follow_logs();
                    looking = self.look(self.pause());
                    heard
                }
            };
            if heard.is_err() {
                return;
            }
        }
    }

    /// An instance that is down is asked more often: it costs it nothing, and jobs wait for it.
    fn pause(&self) -> Duration {
        let poll = Duration::from_millis(self.config.poll_ms);
        if self.is_up() { poll } else { poll.min(Duration::from_secs(1)) }
    }

    fn look(&self, pause: Duration) -> Looking {
        let (member, up) = (self.member.clone(), self.is_up());
        let patience = Duration::from_millis(self.config.health_timeout_ms);
        Box::pin(async move {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = member.hurried() => {}
            }
            member.pool().sweep();
            look(&member, !up, patience).await
        })
    }

    async fn on_look(&mut self, look: Result<Look, LookError>) -> Result<(), Gone> {
        let look = match look {
            Ok(look) => look,
            Err(error) => return self.on_failure(&error).await,
        };
        self.failures = 0;
        let restarted = self.member.take_restarted();
        let deaf = self.link.is_open() && self.hearing.is_deaf(&look.queue, look.asked, Instant::now());
        let before = self.board.get(self.member.index());
        let info = self.post(look);
        if !self.is_up() {
            return self.up(false).await;
        }
        if restarted {
            self.hear_out().await?;
            if self.link.stop() {
                self.socket_down().await?;
            }
            return self.reborn().await;
        }
        if deaf {
            tracing::warn!(instance = %self.member.id(), "websocket to instance is deaf, it is opened again");
            self.link.renew();
            self.socket_down().await?;
        }
        match (before, info) {
            (Some(before), Some(info)) if differs(&before, &info) => self.emit(EventKind::Info(info)).await,
            (_, Some(info)) => self.emit(EventKind::Same(info)).await,
            _ => Ok(()),
        }
    }

    /// Puts what was seen on the board.
    fn post(&self, look: Look) -> Option<InstanceInfo> {
        let foreign = self.member.foreign(&look.queue);
        let catalogue = look.catalogue.map(Arc::new);
        let version: Option<Arc<str>> = look.stats.version.map(Into::into);
        let devices = Arc::new(look.stats.devices);
        self.board.update(self.member.index(), |info| {
            info.version.clone_from(&version);
            info.devices = devices.clone();
            info.foreign = foreign;
            info.system_stats = look.raw.clone();
            info.wish = info.wish.max(look.wish.unwrap_or(0));
            // What says the same stays the same: nothing need be merged again.
            if let Some(catalogue) = catalogue.as_ref().filter(|new| new.raw() != info.catalogue.raw()) {
                info.catalogue = catalogue.clone();
            }
        })
    }

    async fn on_failure(&mut self, error: &LookError) -> Result<(), Gone> {
        self.failures = self.failures.saturating_add(1);
        let certain = matches!(error, LookError::Call(error) if error.is_refused());
        if certain || !self.is_up() || self.failures >= self.config.failures {
            return self.down(&error.to_string(), error.is_silence()).await;
        }
        let (instance, failures) = (self.member.id(), self.failures);
        tracing::info!(%instance, %error, failures, of = self.config.failures, "instance did not answer");
        Ok(())
    }

    async fn on_link(&mut self, event: LinkEvent) -> Result<(), Gone> {
        match event {
            LinkEvent::Frame { frame, bytes } => {
                self.hearing.heard(Instant::now());
                self.heard(frame, bytes).await?;
                // Those that came with it, without asking anybody else in between.
                while let Some(event) = self.link.heard() {
                    let LinkEvent::Frame { frame, bytes } = event else {
                        return Box::pin(self.on_link(event)).await;
                    };
                    self.heard(frame, bytes).await?;
                }
                Ok(())
            }
            LinkEvent::Up { restarted } => {
                if restarted {
                    self.reborn().await?;
                } else if self.sockets > 0 {
                    // Perhaps a restart without a witness; what it can do may have changed.
                    self.member.refresh();
                }
                self.sockets += 1;
                self.hearing = Hearing::default();
                self.member.set_linked(true);
                // ComfyUI strikes off whoever is away while it has something to log.
                self.logs_asked = false;
                self.follow_logs();
                tracing::debug!(instance = %self.member.id(), sid = %self.member.sid(), "websocket to instance is up");
                self.emit(EventKind::SocketUp).await
            }
            LinkEvent::Down { reason } => {
                tracing::info!(instance = %self.member.id(), error = reason, "websocket to instance is lost");
                self.member.hurry();
                self.socket_down().await
            }
        }
    }

    async fn heard(&mut self, frame: Frame, bytes: usize) -> Result<(), Gone> {
        self.member.frames().count(bytes);
        self.notice_others(&frame);
        self.emit(EventKind::Frame(frame)).await
    }

    /// Log lines are the home instance's: whichever becomes it is asked for them, and asked no more when another does.
    fn follow_logs(&mut self) {
        let home = self.board.instances().iter().find(|info| info.is_up()).map(|info| info.index);
        let wanted = home == Some(self.member.index()) && self.logs.load(Ordering::Relaxed);
        if wanted == self.logs_asked || !self.link.is_open() {
            return;
        }
        self.logs_asked = wanted;
        let (member, patience) = (self.member.clone(), Duration::from_millis(self.config.health_timeout_ms));
        tasks::spawn("logs", OnError::Log, async move {
            let asked = calls::subscribe_logs(member.pool(), member.sid(), wanted, patience).await;
            if let Err(error) = asked {
                tracing::info!(instance = %member.id(), %error, wanted, "log lines could not be asked for");
            }
        });
    }

    /// Others' prompts came or went: the load is looked at now, not at the next round.
    fn notice_others(&self, frame: &Frame) {
        if let Frame::Event(Event { kind: Kind::Status { remaining }, .. }) = frame
            && self.member.has_company(*remaining)
        {
            self.member.hurry();
        }
    }

    /// The instance is another process than a moment ago, though no look at it failed.
    async fn reborn(&mut self) -> Result<(), Gone> {
        let reason: Arc<str> = "it was restarted".into();
        tracing::warn!(instance = %self.member.id(), "instance was restarted, what it held is gone");
        self.emit(EventKind::Down { reason, silent: false }).await?;
        self.member.refresh();
        self.up(true).await
    }

    async fn up(&mut self, again: bool) -> Result<(), Gone> {
        self.member.forget();
        self.sockets = 0;
        let info = self.board.update(self.member.index(), |info| {
            info.state = State::Up;
            info.epoch += 1;
        });
        let Some(info) = info else { return Ok(()) };
        let device = info.devices.first().map_or("none", |device| device.name.as_str());
        let (version, classes) = (info.version.as_deref().unwrap_or("unknown"), info.catalogue.len());
        tracing::info!(instance = %info.id, url = %info.url, version, device, classes, "{}", if again { "instance is up again" } else { "instance is up" });
        self.emit(EventKind::Up(info)).await?;
        self.link.start();
        Ok(())
    }

    async fn down(&mut self, reason: &str, silent: bool) -> Result<(), Gone> {
        let before = self.board.get(self.member.index());
        let starts = before.as_ref().is_some_and(|info| self.is_coming_up(info));
        let reason: Arc<str> = if starts { COMES_UP.into() } else { reason.into() };
        let was = before.map(|info| info.state);
        let down = State::Down { reason: reason.clone() };
        let info = self.board.update(self.member.index(), |info| info.state = down.clone());
        let is_news = match &was {
            Some(State::Down { reason: was }) => **was == *COMES_UP && !starts,
            _ => true,
        };
        if let Some(info) = info.filter(|_| is_news) {
            self.tell_down(&info, &reason, starts);
        }
        let was_silent = std::mem::replace(&mut self.silent, silent);
        if matches!(was, Some(State::Down { .. })) {
            let turned = was_silent != silent && !starts;
            return if turned { self.emit(EventKind::Down { reason, silent }).await } else { Ok(()) };
        }
        self.member.pool().clear();
        self.hear_out().await?;
        if self.link.stop() {
            self.socket_down().await?;
        }
        self.emit(EventKind::Down { reason, silent }).await
    }

    fn is_coming_up(&self, info: &InstanceInfo) -> bool {
        self.member.is_launched() && info.epoch == 0 && self.began.elapsed() < COMING_UP
    }

    fn tell_down(&self, info: &InstanceInfo, error: &str, starts: bool) {
        let (instance, url) = (&info.id, &info.url);
        match (self.member.is_launched(), info.epoch) {
            (true, _) if starts => {
                tracing::info!(%instance, %url, "instance is not up yet, it is being started")
            }
            (true, 0) => tracing::warn!(
                %instance, %url, error, after = ?COMING_UP,
                "instance has not come up, see its log and whether its command makes it listen on its port"
            ),
            (true, _) => tracing::warn!(%instance, %url, error, "instance is down"),
            (false, _) => tracing::warn!(
                %instance, %url, error,
                "instance is down, start ComfyUI there or take it out of the configuration"
            ),
        }
    }

    /// What the websocket still holds was said before the instance went away: perhaps how an attempt ended.
    async fn hear_out(&mut self) -> Result<(), Gone> {
        let deadline = tokio::time::Instant::now() + LONGEST_HEARING;
        while self.link.is_open() && tokio::time::Instant::now() < deadline {
            match tokio::time::timeout(LAST_WORDS, self.link.next(|| None)).await {
                Ok(LinkEvent::Frame { frame, bytes }) => {
                    self.heard(frame, bytes).await?;
                }
                Ok(LinkEvent::Down { .. }) => return self.socket_down().await,
                Ok(LinkEvent::Up { .. }) | Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    async fn socket_down(&mut self) -> Result<(), Gone> {
        self.member.set_linked(false);
        self.emit(EventKind::SocketDown).await
    }

    async fn emit(&mut self, kind: EventKind) -> Result<(), Gone> {
        self.audience.tell(FleetEvent { instance: self.member.id().clone(), kind }).await
    }

    fn is_up(&self) -> bool {
        self.board.get(self.member.index()).is_some_and(|info| info.is_up())
    }
}

/// The queue after the figures: an answer of `/system_stats` proves that the instance lives.
async fn look(member: &Member, want_catalogue: bool, patience: Duration) -> Result<Look, LookError> {
    let (pool, wish) = (member.pool(), member.take_wish());
    let raw = calls::get(pool, "/system_stats", patience).await?;
    let stats = stats::parse(&raw).map_err(|what| LookError::Foreign { path: "/system_stats", what })?;
    let asked = Instant::now();
    let queue = calls::queue(pool, patience).await?;
    let catalogue = match want_catalogue || wish.is_some() {
        true => Some(catalogue(calls::get(pool, "/object_info", patience).await?).await?),
        false => None,
    };
    Ok(Look { raw, stats, asked, queue, catalogue, wish })
}

/// Several MB on real installs, so it is parsed away from the runtime's threads.
async fn catalogue(raw: Bytes) -> Result<Catalogue, LookError> {
    let parsed =
        tokio::task::spawn_blocking(|| Catalogue::parse(raw).map_err(|error| error.to_string())).await;
    let foreign = |what| LookError::Foreign { path: "/object_info", what };
    parsed.unwrap_or_else(|error| Err(error.to_string())).map_err(foreign)
}

fn differs(before: &InstanceInfo, after: &InstanceInfo) -> bool {
    before.foreign != after.foreign
        || before.devices != after.devices
        || before.version != after.version
        || !Arc::ptr_eq(&before.catalogue, &after.catalogue)
}
