//! skeleton

use super::handle::LoadRequest;

#[derive(Debug)]
pub(crate) enum Command {
    Load(LoadRequest),
}
