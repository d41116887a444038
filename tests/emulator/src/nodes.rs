//! The node classes of an instance: what `/object_info` says of them and what they do when they run.

pub(crate) mod catalogue;
pub(crate) mod models;
pub(crate) mod pictures;
pub(crate) mod run;
pub(crate) mod value;
