//! Uploads, kept so that any instance can be given them: a client uploads once, to one instance, and its job may run on another.
//!
//! Owns a directory: one file for each content, named by its SHA-256, and a journal that says which names have which content.
//! Never looks at a name as a path: names of clients are data. The front records what was uploaded; the driver stages what an
//! attempt needs. What nobody recorded (files put on an instance's disk by hand) is not known here and not staged.

mod journal;
mod name;
mod recording;
mod store;

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use name::BadName;
pub use recording::Recording;
pub use store::Digest;

use crate::model::id::InstanceId;
use crate::model::job::UploadRef;
use store::Store;

#[derive(Debug, Clone)]
pub struct Config {
    /// Made if it is not there; nobody else writes to it.
    pub dir: PathBuf,
    /// All contents together; the longest unused go first.
    pub max_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("the directory of uploads {} cannot be used: {error}", dir.display())]
pub struct OpenError {
    pub dir: PathBuf,
    pub error: std::io::Error,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error(transparent)]
    Name(#[from] BadName),
    #[error("larger than all uploads together may be, which is {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("the upload cannot be kept: {0}")]
    Io(#[from] std::io::Error),
}

/// An instance could not be given a file.
#[derive(Debug, thiserror::Error)]
#[error("`{}` could not be given to the instance: {what}", file.name)]
pub struct StageError {
    pub file: UploadRef,
    pub what: String,
}

/// Gives files to instances. The fleet does.
pub trait Uploader: Sync {
    /// Changes when the instance may have lost what it was given.
    fn epoch(&self, instance: &InstanceId) -> u64;

    /// Stores `source` there under exactly this name, over any other of that name.
    fn upload(
        &self,
        instance: &InstanceId,
        file: &UploadRef,
        source: &Path,
    ) -> impl Future<Output = Result<(), String>> + Send;
}

/// Keeps and stages uploads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    store: Arc<Store>,
    given: Arc<Mutex<Given>>,
}

/// What each instance has been given.
type Given = HashMap<InstanceId, InstanceFiles>;

#[derive(Debug, Default)]
struct InstanceFiles {
    epoch: u64,
    files: HashMap<UploadRef, Slot>,
}

/// One name on one instance: the content it has there. Held while it is being changed, so that two attempts that need the
/// same file send it once.
type Slot = Arc<tokio::sync::Mutex<Option<Digest>>>;

/// Opens the directory and reads the journal. Blocks.
///
/// # Errors
/// When the directory cannot be used. A torn or damaged journal is no error: what it does not say is forgotten.
pub fn open(config: Config) -> Result<Handle, OpenError> {
    let store = Store::open(&config).map_err(|error| OpenError { dir: config.dir, error })?;
    Ok(Handle { store: Arc::new(store), given: Arc::default() })
}

impl Handle {
    /// Begins to keep an upload while it streams by. Dropped before it is finished, it leaves nothing.
    pub async fn record(&self) -> Result<Recording, RecordError> {
        Recording::begin(self.store.clone()).await
    }

    /// The instance has this content under this name already, because the client's upload went through it.
    pub async fn given(&self, instance: &InstanceId, epoch: u64, file: &UploadRef, content: Digest) {
        if let Ok(file) = name::checked(file) {
            *self.slot(instance, epoch, &file).lock().await = Some(content);
        }
    }

    /// Gives the instance each file it lacks. Files that were never recorded are left to the instance: it may have them.
    ///
    /// # Errors
    /// The first file that could not be given.
    pub async fn stage<U: Uploader>(
        &self,
        instance: &InstanceId,
        needed: &[UploadRef],
        uploader: &U,
    ) -> Result<(), StageError> {
        for file in needed {
            // A name that cannot have been recorded is the instance's to refuse.
            let Ok(file) = name::checked(file) else { continue };
            self.stage_one(instance, &file, uploader).await.map_err(|what| StageError { file, what })?;
        }
        Ok(())
    }

    /// Where the content of an upload lies, for reading; none if it was never recorded or had to make room.
    pub fn path(&self, file: &UploadRef) -> Option<PathBuf> {
        let content = self.store.find(&name::checked(file).ok()?)?;
        Some(content.path().to_owned())
    }

    async fn stage_one<U: Uploader>(
        &self,
        instance: &InstanceId,
        file: &UploadRef,
        uploader: &U,
    ) -> Result<(), String> {
        let Some(content) = self.store.find(file) else { return Ok(()) };
        let slot = self.slot(instance, uploader.epoch(instance), file);
        let mut has = slot.lock().await;
        if *has == Some(content.digest()) {
            return Ok(());
        }
        // Until it is there again nobody knows what is.
        *has = None;
        uploader.upload(instance, file, content.path()).await?;
        *has = Some(content.digest());
        tracing::debug!(%instance, file = file.name, "upload was staged");
        Ok(())
    }

    fn slot(&self, instance: &InstanceId, epoch: u64, file: &UploadRef) -> Slot {
        let mut given = self.lock();
        let files = given.entry(instance.clone()).or_default();
        if files.epoch != epoch {
            *files = InstanceFiles { epoch, files: HashMap::new() };
        }
        files.files.entry(file.clone()).or_default().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Given> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
