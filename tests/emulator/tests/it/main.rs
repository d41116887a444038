//! The emulator from outside: real sockets, recordings of the real server, faults, time.

mod client;
mod control;
mod events;
mod faults;
mod files;
mod process;
mod realistic;
mod recordings;
