//! The core against a world that does things in any order, and the flows one by one.

mod deaf;
mod failover;
mod flows;
mod invariants;
mod orders;
mod races;
mod restart;
mod world;

pub(super) use world::job as plain_job;
