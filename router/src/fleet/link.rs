//! The websocket to one instance, as a sequence of [`LinkEvent`]s. Connects again by itself, always under the same sid: what
//! runs there is told of to the sid it was posted under.
//!
//! ComfyUI forgets a sid when the *older* of two connections under it ends, and the newer one then stays silent. So the older
//! one is ended in good order before the next is opened; where that fails, [`Hearing`](super::hearing::Hearing) notices.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::time::{Interval, MissedTickBehavior};
use uuid::Uuid;

use super::calls;
use super::pool::Pool;
use super::socket::{HandshakeError, Message, Socket, SocketError};
use crate::comfy::frame::Frame;
use crate::config;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long the instance may take to end a connection.
const GOODBYE: Duration = Duration::from_secs(1);
/// Previews then name their prompt. ComfyUI reads this from a connection's first message only.
const FEATURE_FLAGS: &str = r#"{"type":"feature_flags","data":{"supports_preview_metadata":true}}"#;

#[derive(Debug)]
pub(super) enum LinkEvent {
    Up {
        /// The instance no longer knows a prompt that it had: it is another process than before.
        restarted: bool,
    },
    Down {
        reason: String,
    },
    Frame {
        frame: Frame,
        bytes: usize,
    },
}

#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    #[error("{0}")]
    Greeting(#[from] std::io::Error),
    #[error("no handshake within {0:?}")]
    Timeout(Duration),
}

pub(super) struct Link {
    pool: Arc<Pool>,
    sid: Arc<str>,
    config: config::Fleet,
    state: State,
    attempts: u32,
}

enum State {
    Off,
    Pausing(BoxFuture<'static, ()>),
    Connecting(BoxFuture<'static, Result<Opened, LinkError>>),
    Open(Box<Open>),
}

struct Opened {
    socket: Socket,
    restarted: bool,
}

struct Open {
    socket: Socket,
    pings: Interval,
    heard: Instant,
}

impl Link {
    pub(super) fn new(pool: Arc<Pool>, sid: Arc<str>, config: config::Fleet) -> Self {
        Self { pool, sid, config, state: State::Off, attempts: 0 }
    }

    /// Connects, if it is off.
    pub(super) fn start(&mut self) {
        if matches!(self.state, State::Off) {
            self.attempts = 0;
            self.connect(None);
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Drops the connection. True if it was up.
    pub(super) fn stop(&mut self) -> bool {
        matches!(std::mem::replace(&mut self.state, State::Off), State::Open(_))
    }

    /// Ends the connection, if it is up, and connects again.
    pub(super) fn renew(&mut self) {
        if self.is_open() {
            self.attempts = 0;
            self.pause("it is renewed");
        }
    }

    /// The next thing that happens; never, while it is off. Nothing is lost when the wait is given up. `witness` is a prompt
    /// that the instance has taken: if it is unknown after a reconnect, so is everything else.
    pub(super) async fn next(&mut self, witness: impl Fn() -> Option<String>) -> LinkEvent {
        loop {
            match &mut self.state {
                State::Off => std::future::pending().await,
                State::Pausing(pause) => {
                    pause.await;
                    self.connect(witness());
                }
                State::Connecting(opening) => match opening.await {
                    Ok(opened) => return self.opened(opened),
                    Err(error) => self.pause(&error.to_string()),
                },
                State::Open(open) => match open.next(&self.config).await {
                    Ok(Some(frame)) => return frame,
                    Ok(None) => {}
                    Err(reason) => return self.lost(reason),
                },
            }
        }
    }

    /// The next thing that has happened: frames come many at a time.
    pub(super) fn heard(&mut self) -> Option<LinkEvent> {
        let State::Open(open) = &mut self.state else { return None };
        match open.heard() {
            Ok(frame) => frame,
            Err(reason) => Some(self.lost(reason)),
        }
    }

    fn lost(&mut self, reason: String) -> LinkEvent {
        self.attempts = 0;
        self.pause(&reason);
        LinkEvent::Down { reason }
    }

    fn connect(&mut self, witness: Option<String>) {
        let opening = open(self.pool.clone(), self.sid.clone(), self.config.clone(), witness);
        self.state = State::Connecting(Box::pin(opening));
    }

    fn opened(&mut self, opened: Opened) -> LinkEvent {
        let Opened { socket, restarted } = opened;
        let every = Duration::from_millis(self.config.ping_ms);
        let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.attempts = 0;
        self.state = State::Open(Box::new(Open { socket, pings, heard: Instant::now() }));
        LinkEvent::Up { restarted }
    }

    fn pause(&mut self, reason: &str) {
        let pause = pause_before(self.attempts, Uuid::new_v4().as_u128() as u32);
        tracing::debug!(instance_url = %self.pool.url(), error = reason, ?pause, "no websocket");
        self.attempts = self.attempts.saturating_add(1);
        let before = std::mem::replace(&mut self.state, State::Off);
        self.state = State::Pausing(Box::pin(async move {
            if let State::Open(open) = before {
                let _ = tokio::time::timeout(GOODBYE, open.socket.part()).await;
            }
            tokio::time::sleep(pause).await;
        }));
    }
}

impl Open {
    /// A frame, or nothing of interest, or why the connection is over.
    async fn next(&mut self, config: &config::Fleet) -> Result<Option<LinkEvent>, String> {
        let message = tokio::select! {
            message = self.socket.next() => message,
            _ = self.pings.tick() => {
                self.ping(Duration::from_millis(config.silence_ms)).await?;
                return Ok(None);
            }
        };
        self.heard = Instant::now();
        frame(message.map_err(|error| error.to_string())?)
    }

    fn heard(&mut self) -> Result<Option<LinkEvent>, String> {
        loop {
            let message = self.socket.take().map_err(|error| SocketError::from(error).to_string())?;
            let Some(message) = message else { return Ok(None) };
            if let Some(frame) = frame(message)? {
                return Ok(Some(frame));
            }
        }
    }

    async fn ping(&mut self, silence: Duration) -> Result<(), String> {
        let silent = self.heard.elapsed();
        if silent >= silence {
            return Err(format!("no sign of life for {} ms", silent.as_millis()));
        }
        self.socket.ping().await.map_err(|error| error.to_string())
    }
}

/// None for what is no frame of ComfyUI's.
fn frame(message: Message) -> Result<Option<LinkEvent>, String> {
    let (bytes, frame) = match message {
        Message::Text(text) => (text.len(), Frame::text(text)),
        Message::Binary(binary) => (binary.len(), Some(Frame::binary(binary))),
        Message::Ping(_) | Message::Pong => return Ok(None),
        Message::Close => return Err(SocketError::Closed.to_string()),
    };
    Ok(frame.map(|frame| LinkEvent::Frame { frame, bytes }))
}

async fn open(
    pool: Arc<Pool>,
    sid: Arc<str>,
    config: config::Fleet,
    witness: Option<String>,
) -> Result<Opened, LinkError> {
    let patience = Duration::from_millis(config.health_timeout_ms);
    let opening = async {
        let mut socket = Socket::open(&pool, &format!("/ws?clientId={sid}")).await?;
        socket.text(FEATURE_FLAGS).await?;
        // Frames that arrive meanwhile wait in the socket.
        let restarted = match witness {
            Some(id) => !knows(&pool, &id, patience).await,
            None => false,
        };
        Ok(Opened { socket, restarted })
    };
    tokio::time::timeout(patience, opening).await.map_err(|_| LinkError::Timeout(patience))?
}

/// Is the prompt in the instance's queue or history? In doubt, yes: a false alarm would end attempts that still run.
async fn knows(pool: &Arc<Pool>, id: &str, patience: Duration) -> bool {
    // The queue first: between two looks, a prompt moves from the queue to the history and never back.
    match calls::queue(pool, patience).await {
        Ok(queue) if queue.running.iter().chain(&queue.pending).any(|known| known == id) => return true,
        Ok(_) => {}
        Err(_) => return true,
    }
    !matches!(calls::history(pool, id, patience).await, Ok(None))
}

/// Doubles from 0.1 to 5 s, less up to a quarter, so that many routers do not come back at once.
fn pause_before(attempt: u32, random: u32) -> Duration {
    let pause = FIRST_PAUSE.saturating_mul(1 << attempt.min(10)).min(LONGEST_PAUSE);
    pause - pause.mul_f64(0.25 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_five_seconds_and_differ() {
        assert_eq!(pause_before(0, 0), Duration::from_millis(100));
        assert_eq!(pause_before(0, u32::MAX), Duration::from_millis(75));
        assert_eq!(pause_before(3, 0), Duration::from_millis(800));
        for attempt in 6..40 {
            let pause = pause_before(attempt, u32::MAX / 2);
            assert!(pause > Duration::from_secs(4) && pause <= LONGEST_PAUSE, "{attempt}: {pause:?}");
        }
    }
}
