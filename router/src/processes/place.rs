//! The folder in which each process has one of its own.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::plan::Planned;
use super::process::Process;

/// Ends what an earlier router started and this one does not want: instances that are configured no more.
pub(super) async fn end_others(dir: &Path, planned: &[Planned], patience: Duration) {
    let wanted: HashSet<&Path> = planned.iter().map(|one| one.program.dir.as_path()).collect();
    let others = folders(dir).into_iter().filter(|folder| !wanted.contains(folder.as_path()));
    let ends = others.filter_map(|folder| Some((Process::recorded(&folder)?, folder))).map(|(process, folder)| {
        let (pid, folder) = (process.pid(), folder.display());
        tracing::warn!(pid, %folder, "an instance of an earlier run is launched no more, its process is ended");
        process.terminate(patience)
    });
    futures_util::future::join_all(ends).await;
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
