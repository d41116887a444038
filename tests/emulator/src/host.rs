//! The box that several emulated instances stand on: its page cache of model files and its GPUs.

pub(crate) mod gpu;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::config::GpuSpec;
use gpu::Gpu;

/// Shared by the emulators of one process through `Config::host`.
#[derive(Debug)]
pub struct Host {
    state: Mutex<State>,
    capacity_mib: u64,
}

#[derive(Debug, Default)]
struct State {
    /// Least recently used first.
    cached: Vec<(String, u64)>,
    gpus: HashMap<String, Arc<Gpu>>,
}

impl Host {
    /// A box whose page cache holds `page_cache_mib` of model files.
    pub fn new(page_cache_mib: u64) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), capacity_mib: page_cache_mib })
    }

    /// Reads a model file; true when it was in the page cache. A file larger than the cache never stays.
    pub(crate) fn read_file(&self, path: &str, size_mib: u64) -> bool {
        let mut state = self.lock();
        let warm =
            state.cached.iter().position(|(cached, _)| cached == path).map(|at| state.cached.remove(at));
        if size_mib <= self.capacity_mib {
            state.cached.push((path.into(), size_mib));
        }
        while state.cached.iter().map(|(_, size)| size).sum::<u64>() > self.capacity_mib {
            state.cached.remove(0);
        }
        warm.is_some()
    }

    /// Files in the page cache, least recently used first.
    pub fn cached_files(&self) -> Vec<String> {
        self.lock().cached.iter().map(|(path, _)| path.clone()).collect()
    }

    pub(crate) fn gpu(&self, spec: &GpuSpec, speed: f64) -> Arc<Gpu> {
        let mut state = self.lock();
        let gpu =
            state.gpus.entry(spec.uuid.clone()).or_insert_with(|| Arc::new(Gpu::new(spec.clone(), speed)));
        Arc::clone(gpu)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_cache_forgets_the_least_recently_read() {
        let host = Host::new(10);
        assert!(!host.read_file("a", 6));
        assert!(!host.read_file("b", 4));
        assert!(host.read_file("a", 6));
        assert!(!host.read_file("c", 4));
        assert_eq!(host.cached_files(), ["a", "c"]);
        assert!(!host.read_file("huge", 11));
        assert!(host.read_file("a", 6));
    }

    #[test]
    fn two_instances_get_the_same_card() {
        let host = Host::new(1);
        assert!(Arc::ptr_eq(&host.gpu(&GpuSpec::new(0), 1.0), &host.gpu(&GpuSpec::new(0), 1.0)));
        assert!(!Arc::ptr_eq(&host.gpu(&GpuSpec::new(0), 1.0), &host.gpu(&GpuSpec::new(1), 1.0)));
    }
}
