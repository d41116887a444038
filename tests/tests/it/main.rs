//! End-to-end tests: one file per behaviour. See the harness in `tests/src`.

mod clients;
mod configuration;
mod crashes;
mod door;
mod drain;
mod events;
mod faults;
mod files;
mod foreign_clients;
mod health;
mod large_files;
mod observation;
mod pass_through;
mod policy;
mod queue;
mod replay;
mod restart;
mod schedules;
mod soak;
mod stock_page;
mod submit;
mod surface;
mod tenants_files;
mod vulnerabilities;
