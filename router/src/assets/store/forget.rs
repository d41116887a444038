//! Names that are to lead nowhere any more, before what they lead to is old or in the way.

use std::io;
use std::sync::PoisonError;

use super::super::journal::Line;
use super::Store;
use crate::model::job::UploadRef;

/// A kept file as it was when it was looked at.
#[derive(Debug)]
pub struct Held {
    pub file: UploadRef,
    /// When its content was of use last.
    used: u64,
}

impl Store {
    /// Everything of this kind.
    pub(in super::super) fn held(&self, kind: &str) -> Vec<Held> {
        let state = self.state();
        let of_kind = state.names.iter().filter(|(file, _)| file.kind == kind);
        let held = of_kind.filter_map(|(file, entry)| {
            let used = state.contents.get(&entry.content)?.used();
            Some(Held { file: file.clone(), used })
        });
        held.collect()
    }

    /// Drops those that were of no use to anybody since; says how many. Blocks for a disk sync.
    pub(in super::super) fn forget(&self, held: Vec<Held>) -> io::Result<usize> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let (lines, dropped) = {
            let mut state = self.state();
            let mut lines = Vec::new();
            for Held { file, used } in held {
                let content = state.names.get(&file).and_then(|entry| state.contents.get(&entry.content));
                if content.is_some_and(|content| content.used() == used) {
                    state.names.remove(&file);
                    lines.push(Line::Forgotten { file });
                }
            }
            (lines, state.make_room(self.bounds.max_bytes))
        };
        let forgotten = lines.len();
        self.settle(&mut journal, lines, dropped, false)?;
        Ok(forgotten)
    }
}
