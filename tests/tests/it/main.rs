//! End-to-end tests: one file per behaviour. See the harness in `tests/src`.

mod clients;
mod configuration;
mod crashes;
mod door;
mod drain;
mod events;
mod explain;
mod faults;
mod foreign_clients;
mod guard;
mod health;
mod history;
mod long_queue;
mod memory;
mod observation;
mod operators;
mod pass_through;
mod policy;
mod queue;
mod replay;
mod restart;
mod schedules;
mod soak;
mod stock_page;
mod submit;
mod versions;
