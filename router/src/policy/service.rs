//! The policy thread: asks the version whose turn it is, and answers natively where that does not. Owns the lanes and
//! the guests in them; every change of version happens here, between two questions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

use tokio::sync::{oneshot, watch};

use super::canary::Canary;
use super::config::Config;
use super::handle::{self, Ask};
use super::lane::{Gone, Lane, Slot};
use super::orders::Standing;
use super::record::{self, builtin_version};
use super::shadow::Shadow;
use super::status::{PolicyStatus, State, VersionRow};
use super::turn::Turn;
use super::wasm::Version;
use crate::clock::Clock;
use crate::metrics;
use crate::model::decision::{Consultation, Decided, Hook, PolicyVersion, Question};

#[derive(Debug)]
pub(crate) enum Command {
    Ask(Ask),
    /// A version that passed every check, with a fresh guest of it; the sender is told when it is in place, and given what
    /// it displaced.
    Install {
        lane: usize,
        slot: Box<Slot>,
        place: Place,
        placed: SyncSender<Vec<Gone>>,
    },
    /// A component that may not serve, for the list.
    Refused(Box<(usize, VersionRow)>),
    /// What answers in a lane, for new settings of the same component.
    Live {
        lane: usize,
        reply: SyncSender<Option<(Arc<Version>, Arc<str>)>>,
    },
    /// How each lane stands, for the orders on disk.
    Standing {
        reply: SyncSender<Vec<Standing>>,
    },
    Operate {
        lane: usize,
        order: Order,
        reply: oneshot::Sender<Result<PolicyVersion, String>>,
    },
}

/// What a new version is to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Place {
    /// It answers from now on.
    Live,
    /// It is asked and compared, and obeyed in nothing.
    Shadow,
    /// It is obeyed for this share of the jobs, above 0 and below 1.
    Canary(f64),
}

/// An operator's word about the versions of a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    RollBack,
    /// The canary or shadow, or the version whose digest begins so.
    Promote(Option<String>),
    /// Neither canary nor shadow any more.
    Withdraw,
}

/// Everything the policy thread owns.
pub(crate) struct Service {
    pub config: Arc<Config>,
    pub clock: Arc<dyn Clock>,
    /// The first is the policy's own, which is asked whatever no other lane is.
    pub lanes: Vec<Lane>,
    /// By hook: the lane that is asked.
    pub asked: [usize; Hook::ALL.len()],
    /// Whether `placement` is to be asked instead of `route`.
    pub places: Arc<AtomicBool>,
    pub serving: watch::Sender<PolicyVersion>,
    pub status: watch::Sender<PolicyStatus>,
    /// To the loading thread, which drops what it is given: a decision should not wait for that.
    pub gone: SyncSender<Vec<Gone>>,
}

impl Service {
    pub(crate) fn run(mut self, commands: &Receiver<Command>) {
        metrics::policy_serves(&self.serving.borrow());
        while let Ok(command) = commands.recv() {
            match command {
                // Who asked has waited too long and been answered natively: the queue is behind, this catches up.
                Command::Ask(ask) if ask.reply.is_closed() => {}
                Command::Ask(Ask { consultation, reply }) => self.answer(&consultation, reply),
                Command::Install { lane, slot, place, placed } => {
                    self.install(lane, *slot, place);
                    let _ = placed.send(self.lanes[lane].take_gone());
                }
                Command::Refused(refused) => {
                    self.lanes[refused.0].note(refused.1);
                    self.publish();
                }
                Command::Live { lane, reply } => {
                    let live = self.lanes[lane].newest.as_ref();
                    let _ = reply.send(live.map(|slot| (slot.version.clone(), slot.origin.clone())));
                }
                Command::Standing { reply } => {
                    let _ = reply.send(self.lanes.iter().map(Lane::standing).collect());
                }
                Command::Operate { lane, order, reply } => {
                    let done = self.operate(lane, &order);
                    // Before the answer: who has it tells the loading thread, which then finds this.
                    self.give_away_gone();
                    let _ = reply.send(done);
                }
            }
        }
    }

    fn answer(&mut self, asked: &Arc<Consultation>, reply: oneshot::Sender<Decided>) {
        let decided = self.decide(asked);
        self.show_shadows(asked, &decided);
        let _ = reply.send(decided);
        let wall = self.clock.now().wall;
        for lane in &mut self.lanes {
            lane.revive(wall);
        }
        match &asked.question {
            Question::Observe { outcomes } => self.watch_canaries(outcomes),
            // About once a second: what is shown of shadows and canaries moves without any change of version.
            Question::Tick { .. } => self.publish(),
            _ => {}
        }
        // Of a canary that just ended.
        self.give_away_gone();
    }

    /// While the loading thread compiles it drops nothing; what is too much to wait for it is dropped here.
    fn give_away_gone(&mut self) {
        for lane in &mut self.lanes {
            let gone = lane.take_gone();
            if !gone.is_empty() {
                drop(self.gone.try_send(gone));
            }
        }
    }

    fn decide(&mut self, consultation: &Arc<Consultation>) -> Decided {
        if self.lanes.iter().all(|lane| lane.newest.is_none()) {
            let decided = record::natively(consultation, &self.config, &builtin_version(), None, 0);
            for record in &decided.records {
                metrics::decision(record.hook, &record.version, None, std::time::Duration::ZERO);
            }
            return decided;
        }
        Turn::new(self, consultation).take()
    }

    /// The lane that is asked this.
    pub(crate) fn lane(&self, hook: Hook) -> usize {
        self.asked[hook as usize]
    }

    fn show_shadows(&self, asked: &Arc<Consultation>, decided: &Decided) {
        for (index, lane) in self.lanes.iter().enumerate() {
            let Some(shadow) = &lane.shadow else { continue };
            let hooks = handle::hooks(&asked.question);
            let its: Vec<Hook> =
                hooks.iter().copied().filter(|hook| self.asked[*hook as usize] == index).collect();
            if !its.is_empty() {
                shadow.look(asked, its, &decided.answer);
            }
        }
    }

    fn watch_canaries(&mut self, outcomes: &[crate::model::decision::AttemptReport]) {
        let mut ended = false;
        for lane in &mut self.lanes {
            let Some(canary) = &mut lane.canary else { continue };
            if let Some(why) = canary.observe(outcomes) {
                lane.end_canary(State::Failed, &why);
                ended = true;
            }
        }
        if ended {
            self.publish();
        }
    }

    fn install(&mut self, lane: usize, slot: Slot, place: Place) {
        let lane = &mut self.lanes[lane];
        let (policy, digest) = (slot.version.id.name.clone(), slot.version.id.digest.clone());
        match place {
            Place::Live => lane.install(slot),
            Place::Canary(share) => {
                lane.end_canary(State::Retired, "another canary took its place");
                tracing::info!(lane = %lane.name, %policy, %digest, share, "policy is a canary");
                let since = slot.at;
                lane.canary = Some(Canary::new(slot, share, since, self.config.canary));
            }
            Place::Shadow => {
                lane.end_shadow("another shadow took its place");
                match Shadow::start(Slot { guest: None, ..slot }, &self.config) {
                    Ok(shadow) => {
                        tracing::info!(lane = %lane.name, %policy, %digest, "policy is a shadow");
                        lane.shadow = Some(shadow);
                    }
                    Err(error) => tracing::error!(%policy, %digest, %error, "no thread for the shadow"),
                }
            }
        }
        self.publish();
    }

    fn operate(&mut self, lane: usize, order: &Order) -> Result<PolicyVersion, String> {
        let lane = &mut self.lanes[lane];
        let done = match order {
            Order::RollBack => lane.roll_back(),
            Order::Promote(wanted) => lane.promote(wanted.as_deref()),
            Order::Withdraw if lane.canary.is_none() && lane.shadow.is_none() => {
                Err("there is neither a canary nor a shadow".to_owned())
            }
            Order::Withdraw => {
                lane.end_canary(State::Retired, "withdrawn by an operator");
                lane.end_shadow("withdrawn by an operator");
                Ok(lane.serving())
            }
        };
        self.publish();
        done
    }

    /// After anything that changes who answers or what is shown.
    pub(crate) fn publish(&mut self) {
        let now = self.clock.now();
        let serving = self.lanes[0].serving();
        let before: Vec<PolicyVersion> =
            self.status.borrow().lanes.iter().map(|lane| lane.serving.clone()).collect();
        let placer = &self.lanes[self.asked[Hook::Place as usize]];
        self.places.store(placer.exports(Hook::Place), Ordering::Release);
        let lanes: Vec<_> = self.lanes.iter().map(|lane| lane.status(now.tick)).collect();
        let changed = before.iter().ne(lanes.iter().map(|lane| &lane.serving));
        let main_changed = *self.serving.borrow() != serving;
        self.status.send_modify(|status| {
            status.newest.clone_from(&lanes[0].newest);
            status.last_good.clone_from(&lanes[0].last_good);
            status.lanes = lanes;
            status.versions = self.lanes.iter().flat_map(Lane::rows).collect();
            if main_changed {
                status.serving = serving.clone();
                status.since = now.wall;
            }
        });
        if main_changed {
            metrics::policy_serves(&serving);
        }
        if changed || main_changed {
            // Told also when another lane changed: its hooks may be what priorities came from.
            self.serving.send_replace(serving);
        }
    }
}
