//! Random faults from a seed: a fleet, a router, clients, and whatever may go wrong between them, played as the seed says.
//! Afterwards everything is healed, and then the books have to be right: every accepted job is over once, nothing ran that
//! was not recorded before, nobody heard or got what was another's, and no job failed that nobody failed.

mod plan;
mod world;

pub use plan::{Plan, Step};
use world::World;

/// What a schedule came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Played {
    pub jobs: usize,
    pub attempts: usize,
    /// Executions beyond the first of their job.
    pub repeated: usize,
    pub router_deaths: usize,
}

/// Plays the schedule of this seed to its end.
///
/// # Panics
/// When what was promised does not hold.
pub async fn play(seed: u64) -> Played {
    let plan = Plan::of(seed);
    let mut world = World::start(&plan).await;
    for step in &plan.steps {
        world.act(step).await;
    }
    world.heal().await;
    world.audit().await
}
