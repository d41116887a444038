//! Copies what a job wrote, so that it outlives its instance; pictures that were only shown, as long as the history names
//! them.

use std::collections::HashSet;
use std::time::Duration;

use crate::comfy::files;
use crate::metrics;
use crate::model::event::OutputFile;
use crate::model::id::{InstanceId, JobId};
use crate::model::job::UploadRef;

use super::driver::Organs;
use super::handle::{Handle, Stopped};
use crate::assets;
use crate::ledger;

/// Results, and the pictures of nodes that only show them (`temp`): clients read both by the history. One after the other: the instance has other work. What cannot be copied stays where it is, and its loss is told.
pub(super) async fn outputs(organs: &Organs, job: JobId, instance: &InstanceId, written: Vec<OutputFile>) {
    for file in written.into_iter().filter(|file| file.kind != "input") {
        let name = kept_as(instance, &file);
        let there = UploadRef { kind: file.kind, subfolder: file.subfolder, name: file.filename };
        match organs.assets.fetch_output(instance, &there, &name, &organs.fleet).await {
            Ok(kept) => metrics::output_kept(kept.bytes()),
            Err(error) => {
                metrics::output_not_kept();
                tracing::warn!(%job, %instance, file = there.name, %error, "output is not kept");
            }
        }
    }
}

fn kept_as(instance: &InstanceId, file: &OutputFile) -> UploadRef {
    let subfolder = files::tag(instance, &file.subfolder);
    UploadRef { kind: file.kind.clone(), subfolder, name: file.filename.clone() }
}

/// The history is looked through again after this at the earliest,
const REST: Duration = Duration::from_secs(1);
/// and after so many times what it took to look through it.
const REST_TIMES: u32 = 100;

/// Drops copies of temporary files when no job in the history names them any more, whatever took it out: a client, its
/// bound, a newer job of the same id. Until the ledger is closed.
pub async fn follow_history(ledger: ledger::Handle, assets: assets::Handle, scheduler: Handle) {
    let mut history = ledger.history_changes();
    loop {
        history.mark_unchanged();
        let begun = tokio::time::Instant::now();
        match forget_unnamed(&ledger, &assets, &scheduler).await {
            Ok(0) => {}
            Ok(files) => tracing::debug!(files, "kept previews left with the history"),
            Err(error) => {
                tracing::warn!(%error, "kept previews stay, though their jobs may have left the history")
            }
        }
        tokio::time::sleep(REST.max(begun.elapsed() * REST_TIMES)).await;
        if history.changed().await.is_err() {
            return;
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ForgetError {
    #[error(transparent)]
    Ledger(#[from] ledger::LedgerError),
    #[error(transparent)]
    Scheduler(#[from] Stopped),
    #[error("the directory of kept files: {0}")]
    Disk(#[from] std::io::Error),
}

async fn forget_unnamed(
    ledger: &ledger::Handle,
    assets: &assets::Handle,
    scheduler: &Handle,
) -> Result<usize, ForgetError> {
    // Listed first: a job is in the history before its files are copied, and what is of use from now on stays.
    let mut held = assets.held_outputs("temp");
    if held.is_empty() {
        return Ok(0);
    }
    let shown = ledger.shown_files().await?;
    let open = scheduler.queue().await?;
    let read = open.running.iter().chain(&open.pending).flat_map(|job| job.needs.uploads.iter().cloned());
    let shown = shown.iter().map(|(instance, file)| kept_as(instance, file));
    let named: HashSet<UploadRef> =
        shown.chain(read).filter_map(|file| assets::checked(&file).ok()).collect();
    held.retain(|held| !named.contains(&held.file));
    if held.is_empty() {
        return Ok(0);
    }
    Ok(assets.forget_outputs(held).await?)
}
