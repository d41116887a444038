//! Whose the files are that clients have been told of and that no history names yet.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::event::OutputFile;
use crate::model::id::InstanceId;

/// The oldest are forgotten beyond so many; by then their jobs are over, and the ledger knows.
const MOST: usize = 16_384;

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Told(Arc<Mutex<Owners>>);

#[derive(Debug, Default)]
struct Owners {
    tenants: HashMap<(InstanceId, OutputFile), String>,
    order: VecDeque<(InstanceId, OutputFile)>,
}

impl Told {
    /// A client of this tenant is told of a file that its job wrote.
    pub fn tell(&self, tenant: &str, instance: &InstanceId, file: OutputFile) {
        let mut owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (instance.clone(), file);
        if owners.tenants.insert(key.clone(), tenant.to_owned()).is_none() {
            owners.order.push_back(key);
        }
        if owners.order.len() > MOST
            && let Some(oldest) = owners.order.pop_front()
        {
            owners.tenants.remove(&oldest);
        }
    }

    /// Has this tenant been told of that file, and nobody else since? Only of late: in the end the ledger knows.
    pub fn is_of(&self, tenant: &str, instance: &InstanceId, file: &OutputFile) -> bool {
        let owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        owners.tenants.get(&(instance.clone(), file.clone())).is_some_and(|owner| owner == tenant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_owner_counts_and_the_oldest_are_forgotten() {
        let (told, one) = (Told::default(), InstanceId::from("one"));
        let file = |at: usize| OutputFile {
            kind: "temp".into(),
            subfolder: String::new(),
            filename: at.to_string(),
        };
        told.tell("ann", &one, file(0));
        assert!(told.is_of("ann", &one, &file(0)) && !told.is_of("bob", &one, &file(0)));
        assert!(!told.is_of("ann", &InstanceId::from("two"), &file(0)));
        told.tell("bob", &one, file(0));
        assert!(told.is_of("bob", &one, &file(0)) && !told.is_of("ann", &one, &file(0)));
        (1..=MOST).for_each(|at| told.tell("ann", &one, file(at)));
        assert!(!told.is_of("bob", &one, &file(0)) && told.is_of("ann", &one, &file(MOST)));
    }
}
