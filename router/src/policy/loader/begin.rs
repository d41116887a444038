//! The first versions of a process: what is configured, or what an operator ordered instead of it.

use std::sync::Arc;

use super::super::error::LoadError;
use super::super::handle::Source;
use super::super::orders::{Configured, Held, Order, Standing};
use super::super::service::{self, Place};
use super::{Berth, Loader, Tried};
use crate::model::decision::PolicyVersion;

impl Loader {
    pub(crate) fn begin(&mut self) {
        for lane in 0..self.berths.len() {
            let (berth, order) = (&self.berths[lane], self.orders.of(&self.berths[lane].name).cloned());
            let shipped = matches!(berth.source, Some(Source::Shipped(_)));
            match order {
                None => drop(self.configured(lane)),
                Some(order) if berth.configured.is_still(&order.configured, shipped) => {
                    self.resume(lane, &order)
                }
                Some(order) => self.supersede(lane, &order),
            }
        }
        self.note_orders();
        let shown = self.orders.shown();
        self.status.send_modify(|status| status.ordered = shown);
    }

    /// What is configured serves from now on.
    pub(super) fn configured(&mut self, lane: usize) -> Result<PolicyVersion, LoadError> {
        let Some(source) = self.berths[lane].source.clone() else {
            return Err(LoadError::Settings("no component is configured that could serve".to_owned()));
        };
        let configured = self.berths[lane].read_again(&self.config);
        let settings = configured.settings.clone();
        let loaded = self.load(lane, source, Place::Live, Some(&settings))?;
        let berth = &mut self.berths[lane];
        (berth.configured, berth.settings) = (configured, settings);
        Ok(loaded)
    }

    /// The order holds: its versions, or what is configured where they can serve no more.
    fn resume(&mut self, lane: usize, order: &Order) {
        let Standing { live, last_good, canary, shadow, .. } = &order.standing;
        let berth = &mut self.berths[lane];
        let name = berth.name.clone();
        if berth.configured.digest.is_empty() {
            // Its file is away for now, which is no other file.
            berth.configured.digest.clone_from(&order.configured.digest);
        }
        if let Some(held) = last_good {
            self.again(lane, held, Place::Live);
        }
        let served = match live {
            Some(held) => self.again(lane, held, Place::Live).then(|| held.clone()),
            None => None,
        };
        match served {
            Some(held) => {
                let Held { name: policy, digest, settings, .. } = held;
                self.berths[lane].settings = settings;
                let configured = &order.configured.source;
                tracing::info!(lane = %name, %policy, %digest, configured, at = order.at,
                    "an operator's order about the policy holds; `policy unpin` ends it");
            }
            None => drop(self.configured(lane)),
        }
        if let Some((held, share)) = canary {
            let resumed = self.again(lane, held, Place::Canary(*share));
            tracing::warn!(lane = %name, policy = %held.name, digest = %held.digest, share, resumed,
                "a canary was on trial before the restart; what was known of it begins anew");
        }
        if let Some(held) = shadow {
            self.again(lane, held, Place::Shadow);
        }
    }

    /// What is configured was changed since: it serves, unless it cannot.
    fn supersede(&mut self, lane: usize, order: &Order) {
        let name = self.berths[lane].name.clone();
        match self.configured(lane) {
            Ok(version) => tracing::warn!(lane = %name, policy = %version.name, digest = %version.digest,
                "what is configured changed, an operator's order about the policy is over"),
            Err(error) => {
                tracing::error!(lane = %name, %error, "what is configured now cannot serve, what was ordered before does");
                self.resume(lane, order);
            }
        }
    }

    /// A version as it was kept, through every check; false says in the log why not.
    fn again(&self, lane: usize, held: &Held, place: Place) -> bool {
        let Held { name, digest, settings, origin } = held;
        let id = PolicyVersion { name: name.as_str().into(), digest: digest.as_str().into() };
        let bytes = self.orders.component(digest).map_err(|error| LoadError::Read {
            path: format!("the kept component {digest}"),
            message: error.to_string(),
        });
        let version = bytes.and_then(|bytes| self.compile(id, settings.clone(), bytes)).map(Arc::new);
        let tried = Tried { name: name.as_str().into(), origin: origin.as_str().into(), anew: true };
        self.place(lane, &tried, version, place).is_ok()
    }

    /// Writes down what holds, if that changed.
    pub(super) fn note_orders(&mut self) {
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        let asked = self.service.send(service::Command::Standing { reply });
        let Some(standings) = asked.ok().and_then(|()| answer.recv().ok()) else { return };
        let lanes: Vec<_> = self
            .berths
            .iter()
            .zip(standings)
            .map(|(berth, standing)| (berth.name.clone(), berth.configured.clone(), standing))
            .collect();
        let noted = self.orders.note(&lanes, self.clock.now().wall);
        match noted.and_then(|changed| self.orders.prune(&lanes).map(|()| changed)) {
            Ok(false) => {}
            Ok(true) => {
                let shown = self.orders.shown();
                self.status.send_modify(|status| status.ordered = shown);
            }
            Err(error) => {
                tracing::error!(%error, "orders about the policy cannot be written and end with this process");
            }
        }
    }
}

impl Berth {
    /// What is configured, as its file is now.
    pub(super) fn read_again(&self, config: &super::Config) -> Configured {
        Configured::of(self.source.as_ref(), &self.configured.settings, config)
    }
}
