//! The run itself: clients send, the stage gathers what they see, looks at the router and shows it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::board::Board;
use super::client::{self, News, What};
use super::line::{Line, Style};
use super::picture::{Event, Picture};
use super::show;
use super::swap::Swap;
use super::terminal::{self, Terminal};
use super::watch::{self, EVERY, Refused, Watch};
use super::workload;
use crate::model::decision::PolicyVersion;
use crate::tasks::{self, OnError};

/// Without a terminal, a line about the state of things this often.
const STATUS_EVERY: Duration = Duration::from_secs(4);
/// Without news for so long the demo gives up; the longest job takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);
const NEWS: usize = 1_024;
/// How often the router is looked at before a policy counts as not taken up.
const SETTLE_LOOKS: u32 = 40;

pub(super) struct Stage {
    listen: SocketAddr,
    board: Board,
    watch: Watch,
    swap: Swap,
    /// None: lines are printed instead.
    terminal: Option<Terminal>,
    events: Vec<Event>,
    began: Instant,
    last_news: Instant,
    last_status: Instant,
    serving: PolicyVersion,
    refused: Option<Refused>,
}

/// What is left when the last client is done.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) board: Board,
    pub(super) watch: Watch,
    /// From the first prompt to the last end.
    pub(super) took: Duration,
    /// What the stage itself saw go wrong.
    pub(super) problems: Vec<String>,
}

/// Its user has seen enough.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(super) struct Interrupted;

/// Waits until the user has seen enough.
pub(super) async fn interrupted() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        },
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

impl Stage {
    pub(super) async fn new(
        listen: SocketAddr,
        admin: SocketAddr,
        plan: &[workload::Client],
        policy: PathBuf,
    ) -> anyhow::Result<Self> {
        let watch = Watch::new(admin).await?;
        let now = Instant::now();
        let mut stage = Self {
            listen,
            board: Board::new(plan),
            serving: watch.policy.serving.clone(),
            refused: watch.policy.refused.clone(),
            watch,
            swap: Swap::new(policy),
            terminal: Terminal::open(),
            events: Vec::new(),
            began: now,
            last_news: now,
            last_status: now,
        };
        let clients = plan.iter().filter(|client| !client.prompts.is_empty()).count();
        let prompts = stage.board.entries().len();
        let policy = watch::named(&stage.serving);
        stage.say(Style::Plain, format!("router at http://{listen}, operator's page at http://{admin}"));
        stage.say(Style::Plain, format!("{prompts} prompts from {clients} clients, policy {policy}"));
        Ok(stage)
    }

    /// # Errors
    /// When it is interrupted or the router stops answering.
    pub(super) async fn run(mut self, plan: Vec<workload::Client>) -> anyhow::Result<Outcome> {
        let (sender, mut news) = mpsc::channel(NEWS);
        self.began = Instant::now();
        for client in plan.into_iter().filter(|client| !client.prompts.is_empty()) {
            let running = client::run(client, self.listen, self.began, sender.clone());
            tasks::spawn("demo client", OnError::Log, running);
        }
        // The last client to end closes the channel.
        drop(sender);
        let mut look = interval(EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut interrupted = pin!(interrupted());
        loop {
            tokio::select! {
                some = news.recv() => match some {
                    Some(some) => self.take(some),
                    None => break,
                },
                _ = look.tick() => {
                    self.look().await?;
                    if self.last_news.elapsed() > PATIENCE {
                        self.say(Style::Bad, format!("nothing happened for {} s: giving up", PATIENCE.as_secs()));
                        break;
                    }
                }
                () = &mut interrupted => return Err(Interrupted.into()),
                failed = tasks::fatal() => anyhow::bail!("{failed} of the router has failed"),
            }
        }
        let problems = self.settle().await?;
        let ends = self.board.entries().iter().filter_map(|entry| entry.ended);
        let took = ends.max().map_or(Duration::ZERO, |last| last.saturating_duration_since(self.began));
        Ok(Outcome { took, problems, board: self.board, watch: self.watch })
    }

    /// With few prompts the last of them ends before the last policy serves.
    async fn settle(&mut self) -> anyhow::Result<Vec<String>> {
        let last = self.swap.last().name();
        for _ in 0..SETTLE_LOOKS {
            self.look().await?;
            if watch::named(&self.serving).starts_with(last) {
                return Ok(Vec::new());
            }
            tokio::time::sleep(EVERY).await;
        }
        Ok(vec![format!("{last} was dropped over policy.wasm and does not serve")])
    }

    fn take(&mut self, news: News) {
        self.last_news = news.at;
        let told = match &news.what {
            What::Refused(why) => Some(format!("refused: {why}")),
            What::Failed(why) => Some(format!("failed: {why}")),
            What::Checked(Err(wrong)) => Some(format!("wrong image: {wrong}")),
            _ => None,
        };
        let index = news.index;
        self.board.take(news);
        if let Some(told) = told {
            let text = format!("{} {told}", self.board.entries()[index].label());
            self.say(Style::Bad, text);
        }
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        self.watch.look(&mut self.board).await?;
        self.notice_policy();
        if let Some(said) = self.swap.advance(&self.board.counts()).context("the policy file")? {
            self.say(Style::Warn, said);
        }
        let picture = self.picture();
        match &mut self.terminal {
            Some(terminal) => {
                let lines = picture.lines(terminal.size());
                terminal.draw(&lines);
            }
            None if self.last_status.elapsed() >= STATUS_EVERY => {
                self.last_status = Instant::now();
                terminal::print(&[Line::new().plain(show::status(&picture))]);
            }
            None => {}
        }
        Ok(())
    }

    fn notice_policy(&mut self) {
        let policy = self.watch.policy.clone();
        if policy.refused != self.refused {
            if let Some(refused) = &policy.refused {
                let text = format!("refused, {} stays: {}", watch::named(&policy.serving), refused.message);
                self.say(Style::Warn, text);
            }
            self.refused = policy.refused;
        }
        if policy.serving != self.serving {
            let counts = self.board.counts();
            let serving = watch::named(&policy.serving);
            let (running, queued) = (counts.running, counts.queued);
            let text = format!("{serving} serves from now on; {running} jobs run, {queued} wait");
            self.say(Style::Good, text);
            self.serving = policy.serving;
        }
    }

    fn picture(&self) -> Picture {
        let address = format!("http://{}", self.listen);
        show::picture(&address, self.began.elapsed(), &self.board, &self.watch, &self.events)
    }

    fn say(&mut self, style: Style, text: String) {
        let event = Event { at: self.began.elapsed(), style, text };
        if self.terminal.is_none() {
            terminal::print(&[Line::new().plain(show::event(&event))]);
        }
        self.events.push(event);
    }
}
