//! Decides what runs where and when. Owns every open job from its acceptance to the durable record of its end.
//!
//! [`core`] is pure and knows nothing of sockets, SQLite or wasm; the driver runs it: it turns the world into inputs and
//! executes its actions. Faces talk to it through [`Handle`].

mod account;
mod capacity;
pub mod config;
pub mod core;
mod dispatch;
pub mod driver;
mod guard;
mod handle;
pub mod input;
mod intern;
mod keep;
mod learn;
mod queue;
mod settle;
mod texts;

pub use driver::{Organs, Service};
pub use guard::Quarantine;
pub use handle::{Accepted, ChangeError, Handle, QueueView, Stopped, SubmitError};
pub use keep::follow_history;
