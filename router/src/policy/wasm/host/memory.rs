//! `state`: what the policy remembers. Changes stay with the call until its answer was found good.

use super::{Answer, State, wit};
use crate::policy::state::Refused;

/// Keys that one `keys` may list.
const LISTED: usize = 1_024;

impl wit::state::Host for State {
    fn get(&mut self, key: String) -> Answer<Option<String>> {
        self.spend()?;
        Ok(self.space.get(&self.changes, &key, self.context.now_ms))
    }

    fn set(
        &mut self,
        key: String,
        value: String,
        ttl_ms: Option<u32>,
    ) -> Answer<Result<(), wit::state::Refusal>> {
        self.spend_much()?;
        let now = self.context.now_ms;
        Ok(self.space.set(&mut self.changes, key, value, ttl_ms, now).map_err(refusal))
    }

    fn increment(
        &mut self,
        key: String,
        by: f64,
        ttl_ms: Option<u32>,
    ) -> Answer<Result<f64, wit::state::Refusal>> {
        self.spend_much()?;
        let now = self.context.now_ms;
        Ok(self.space.increment(&mut self.changes, key, by, ttl_ms, now).map_err(refusal))
    }

    fn delete(&mut self, key: String) -> Answer<bool> {
        self.spend()?;
        Ok(self.space.delete(&mut self.changes, &key, self.context.now_ms))
    }

    fn keys(&mut self, prefix: String, most: u32) -> Answer<Vec<String>> {
        self.spend_much()?;
        Ok(self.space.keys(&self.changes, &prefix, (most as usize).min(LISTED), self.context.now_ms))
    }
}

fn refusal(refused: Refused) -> wit::state::Refusal {
    match refused {
        Refused::Full => wit::state::Refusal::Full,
        Refused::TooLong => wit::state::Refusal::TooLong,
        Refused::NotANumber => wit::state::Refusal::NotANumber,
    }
}
