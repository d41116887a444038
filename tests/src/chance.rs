//! Random choices that can be made again: tests print their seed.

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The seed of `COMFY_ROUTER_TEST_SEED`, or else a fixed one.
    pub fn of_environment() -> Self {
        Self(number("COMFY_ROUTER_TEST_SEED").unwrap_or(20_251_122))
    }

    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// How many random fault schedules are played: `COMFY_ROUTER_SCHEDULES`, or else `schedules`.
    pub fn schedules(schedules: u64) -> u64 {
        number("COMFY_ROUTER_SCHEDULES").unwrap_or(schedules)
    }

    /// How often a random test plays: `COMFY_ROUTER_TEST_ROUNDS`, or else `rounds`.
    pub fn rounds(rounds: u64) -> u64 {
        number("COMFY_ROUTER_TEST_ROUNDS").unwrap_or(rounds)
    }

    pub fn seed(&self) -> u64 {
        self.0
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, which is not a number")))
}
