//! ComfyUI's wire, as its 0.3.64 and 0.8.0 servers speak it: prompt bodies and their errors, websocket frames, queue and
//! history shapes, `/object_info`, and what a graph says it needs.
//!
//! Pure: text in, values out; no I/O, no clock, no state. The instances' side (`fleet`, `relay`) and the clients' side
//! (`front`, `sessions`) both read and write the wire through here, so a shape is written down once.

pub mod catalogue;
pub mod errors;
pub mod files;
pub mod frame;
pub mod graph;
pub mod history;
pub mod jobs;
pub mod json;
pub mod prompt;
pub mod python;

pub use catalogue::Catalogue;
pub use errors::PromptError;
pub use frame::Frame;
pub use prompt::Submission;
