//! The words every floor shares: ids, jobs and their legal states, what a policy may see, what it may answer, and the
//! durable events. Serde only; no I/O, no clock, no knowledge of HTTP or SQLite.

pub mod decision;
pub mod event;
pub mod id;
pub mod job;
pub mod policy;
pub mod seen;
pub mod view;
