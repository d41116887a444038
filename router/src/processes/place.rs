//! The folder in which each process has one of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::plan::Planned;
use super::process::Process;

/// Ends what an earlier router started and this one does not want: instances that are configured no more, or otherwise. All of
/// them before anything is started: one may hold another's port.
pub(super) async fn end_others(dir: &Path, planned: &[Planned], patience: Duration) {
    let wanted = |folder: &Path, process: &Process| {
        planned.iter().any(|one| one.program.dir == folder && process.is(&one.program))
    };
    let left = folders(dir).into_iter().filter_map(|folder| Some((Process::recorded(&folder)?, folder)));
    let others = left.filter(|(process, folder)| !wanted(folder, process));
    let ends = others.map(|(process, folder)| {
        let (pid, folder) = (process.pid(), folder.display());
        tracing::warn!(pid, %folder, "an instance of an earlier run is not launched so any more, its process is ended");
        process.terminate(patience)
    });
    futures_util::future::join_all(ends).await;
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
