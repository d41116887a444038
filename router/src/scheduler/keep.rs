//! Copies what a job wrote, so that it outlives its instance.

use crate::comfy::files;
use crate::metrics;
use crate::model::event::OutputFile;
use crate::model::id::{InstanceId, JobId};
use crate::model::job::UploadRef;

use super::driver::Organs;

/// Results, and the pictures of nodes that only show them (`temp`): clients read both by the history. One after the other: the instance has other work. What cannot be copied stays where it is, and its loss is told.
pub(super) async fn outputs(organs: &Organs, job: JobId, instance: &InstanceId, written: Vec<OutputFile>) {
    for file in written.into_iter().filter(|file| file.kind != "input") {
        let there = UploadRef { kind: file.kind, subfolder: file.subfolder, name: file.filename };
        let name = UploadRef { subfolder: files::tag(instance, &there.subfolder), ..there.clone() };
        match organs.assets.fetch_output(instance, &there, &name, &organs.fleet).await {
            Ok(kept) => metrics::output_kept(kept.bytes()),
            Err(error) => {
                metrics::output_not_kept();
                tracing::warn!(%job, %instance, file = there.name, %error, "output is not kept");
            }
        }
    }
}
