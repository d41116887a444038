//! Small indices for names, as policies see tenants and clients. A name keeps its index while a job of its is open;
//! after that the index may go to another name, the longest unused first.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::model::view::Totals;

#[derive(Debug, Default)]
pub(super) struct Interner {
    entries: Arc<Vec<(Arc<str>, Totals)>>,
    by_name: HashMap<Arc<str>, u32>,
    free: VecDeque<u32>,
}

impl Interner {
    pub(super) fn get(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// The index of `name`, given one if it has none.
    pub(super) fn index(&mut self, name: &str) -> u32 {
        if let Some(index) = self.get(name) {
            return index;
        }
        let name: Arc<str> = name.into();
        let entries = Arc::make_mut(&mut self.entries);
        let index = match self.free.pop_front() {
            Some(index) => {
                let old = std::mem::replace(&mut entries[index as usize], (name.clone(), Totals::default()));
                self.by_name.remove(&old.0);
                index
            }
            None => {
                entries.push((name.clone(), Totals::default()));
                (entries.len() - 1) as u32
            }
        };
        self.by_name.insert(name, index);
        index
    }

    pub(super) fn totals(&self, index: u32) -> Totals {
        self.entries.get(index as usize).map(|e| e.1).unwrap_or_default()
    }

    /// Change the counts of an index; at zero it may be given away.
    pub(super) fn count(&mut self, index: u32, change: impl FnOnce(&mut Totals)) {
        let totals = &mut Arc::make_mut(&mut self.entries)[index as usize].1;
        let before = *totals;
        change(totals);
        if before != Totals::default() && *totals == Totals::default() {
            self.free.push_back(index);
        } else if before == Totals::default() {
            self.free.retain(|free| *free != index);
        }
    }

    /// A name that got an index but was never counted gives it back.
    pub(super) fn release_if_unused(&mut self, name: &str) {
        let Some(index) = self.get(name) else { return };
        if self.totals(index) == Totals::default() && !self.free.contains(&index) {
            self.free.push_back(index);
        }
    }

    pub(super) fn shared(&self) -> Arc<Vec<(Arc<str>, Totals)>> {
        self.entries.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_kept_while_in_use_and_reused_after() {
        let mut names = Interner::default();
        let a = names.index("a");
        names.count(a, |t| t.queued += 1);
        let b = names.index("b");
        names.count(b, |t| t.queued += 1);
        assert_eq!((a, b), (0, 1));
        names.count(a, |t| t.queued -= 1);
        assert_eq!(names.index("a"), a, "still known until somebody needs the index");
        assert_eq!(names.index("c"), a);
        assert_eq!(names.get("a"), None);
        assert_eq!(names.index("b"), b);
    }

    #[test]
    fn names_of_refused_prompts_do_not_pile_up() {
        let mut names = Interner::default();
        for n in 0..1000 {
            let name = n.to_string();
            names.index(&name);
            names.release_if_unused(&name);
        }
        assert_eq!(names.shared().len(), 1);
    }
}
