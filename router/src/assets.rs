//! Files that the router keeps: uploads, so that any instance can be given them (a client uploads once, and its job may run
//! anywhere), and, if the operator wants, results, so that they outlive their instance.
//!
//! Owns two directories: one file for each content, named by its SHA-256, and a journal that says which names have which
//! content. Never looks at a name as a path: names of clients are data. The front records what was uploaded; the driver
//! stages what an attempt needs and keeps what it made. What nobody recorded (files put on an instance's disk by hand) is not
//! known here and not staged.

mod journal;
mod kept;
mod name;
mod recording;
mod store;
mod told;

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use sha2::{Digest as _, Sha256};

pub use kept::Kept;
pub use name::{BadName, checked};
pub use recording::{Complete, Recording, Spool};
pub use store::{Digest, Held};
pub use told::Told;

use crate::clock::Clock;
use crate::model::id::InstanceId;
use crate::model::job::UploadRef;
use store::Store;

/// An instance that is silent for so long in the middle of a file is given up. Loading a model stops its replies for seconds.
const STALL: Duration = Duration::from_secs(60);
/// Names remembered of each instance; clients may name every upload anew.
const MOST_GIVEN: usize = 16_384;

#[derive(Debug, Clone)]
pub struct Config {
    pub uploads: Bounds,
    pub outputs: Bounds,
}

/// Of one directory.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Made if it is not there; nobody else writes to it.
    pub dir: PathBuf,
    /// All contents together; the longest unused go first.
    pub max_bytes: u64,
    /// None: as long as there is room.
    pub max_age_ms: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
#[error("the directory of kept files {} cannot be used: {error}", dir.display())]
pub struct OpenError {
    pub dir: PathBuf,
    pub error: std::io::Error,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error(transparent)]
    Name(#[from] BadName),
    #[error("larger than all kept files together may be, which is {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("the file cannot be kept: {0}")]
    Io(#[from] std::io::Error),
}

/// A file could not be read from an instance.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the instance has no such file")]
    Absent,
    #[error("{0}")]
    Failed(String),
    /// Nothing of it is kept.
    #[error("the file broke off: {0}")]
    Broken(axum::Error),
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// An instance could not be given a file.
#[derive(Debug, thiserror::Error)]
#[error("`{}` could not be given to the instance: {what}", file.name)]
pub struct StageError {
    pub file: UploadRef,
    pub what: String,
}

/// What an instance says of a file.
#[derive(Debug)]
pub enum Found {
    Absent,
    /// Still what the tag that was shown belongs to.
    Same,
    Content {
        body: Body,
        /// Tells this content from a later one.
        tag: Option<String>,
    },
}

/// Gives files to instances and takes them from there. The fleet does.
pub trait Instances: Sync {
    /// Changes when the instance may have lost what it was given.
    fn epoch(&self, instance: &InstanceId) -> u64;

    /// Stores `source` there under exactly this name, over any other of that name.
    fn upload(
        &self,
        instance: &InstanceId,
        file: &UploadRef,
        source: &Path,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// Reads a file from there, unless it is still what `tag` belongs to.
    fn download(
        &self,
        instance: &InstanceId,
        file: &UploadRef,
        tag: Option<&str>,
    ) -> impl Future<Output = Result<Found, String>> + Send;
}

/// Keeps and stages files. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    uploads: Arc<Store>,
    outputs: Arc<Store>,
    given: Arc<Mutex<Given>>,
    told: Told,
}

/// What each instance has been given.
type Given = HashMap<InstanceId, InstanceFiles>;

#[derive(Debug, Default)]
struct InstanceFiles {
    epoch: u64,
    /// With the number of the last use.
    files: HashMap<UploadRef, (u64, Slot)>,
    uses: u64,
}

/// One name on one instance: the content it has there. Held while it is being changed, so that two attempts that need the
/// same file send it once.
type Slot = Arc<tokio::sync::Mutex<Option<Digest>>>;

/// Opens the directories and reads their journals. Blocks.
///
/// # Errors
/// When a directory cannot be used. A torn or damaged journal is no error: what it does not say is forgotten.
pub fn open(config: Config, clock: &Arc<dyn Clock>) -> Result<Handle, OpenError> {
    let store = |bounds: Bounds| {
        let dir = bounds.dir.clone();
        Store::open(bounds, clock.clone()).map(Arc::new).map_err(|error| OpenError { dir, error })
    };
    let (uploads, outputs) = (store(config.uploads)?, store(config.outputs)?);
    Ok(Handle { uploads, outputs, given: Arc::default(), told: Told::default() })
}

impl Handle {
    /// Begins to keep an upload while it streams by. Dropped before it is finished, it leaves nothing.
    pub async fn record(&self) -> Result<Recording, RecordError> {
        Recording::begin(self.uploads.clone()).await
    }

    /// The instance has this content under this name already.
    pub async fn given(&self, instance: &InstanceId, epoch: u64, file: &UploadRef, content: Digest) {
        if let Ok(file) = name::checked(file) {
            *self.slot(instance, epoch, &file).lock().await = Some(content);
        }
    }

    /// A kept upload or result; none if it was never recorded or had to make room.
    pub fn find(&self, file: &UploadRef) -> Option<Kept> {
        let file = name::checked(file).ok()?;
        self.uploads.find(&file).or_else(|| self.outputs.find(&file))
    }

    /// Gives the instance each file it lacks. Files that were never recorded are left to the instance: it may have them.
    ///
    /// # Errors
    /// The first file that could not be given.
    pub async fn stage<I: Instances>(
        &self,
        instance: &InstanceId,
        needed: &[UploadRef],
        instances: &I,
    ) -> Result<(), StageError> {
        for file in needed {
            // A name that cannot have been recorded is the instance's to refuse.
            let Ok(file) = name::checked(file) else { continue };
            let Some(kept) = self.find(&file) else { continue };
            self.stage_as(instance, &kept, &file, instances).await?;
        }
        Ok(())
    }

    /// Gives the instance a kept content under this name, if it lacks it.
    ///
    /// # Errors
    /// When it could not be given.
    pub async fn stage_as<I: Instances>(
        &self,
        instance: &InstanceId,
        kept: &Kept,
        file: &UploadRef,
        instances: &I,
    ) -> Result<(), StageError> {
        let slot = self.slot(instance, instances.epoch(instance), file);
        let mut has = slot.lock().await;
        if *has == Some(kept.digest()) {
            return Ok(());
        }
        // Until it is there again nobody knows what is.
        *has = None;
        let given = instances.upload(instance, file, kept.path()).await;
        given.map_err(|what| StageError { file: file.clone(), what })?;
        *has = Some(kept.digest());
        tracing::debug!(%instance, file = file.name, "file was staged");
        Ok(())
    }

    /// Reads `there` from the instance and keeps it as the upload `name`, if it is not kept so already.
    ///
    /// # Errors
    /// When it is not there or does not arrive whole; then what was kept before is kept still.
    pub async fn fetch<I: Instances>(
        &self,
        instance: &InstanceId,
        there: &UploadRef,
        name: &UploadRef,
        instances: &I,
    ) -> Result<Kept, FetchError> {
        fetch(&self.uploads, instance, (there, name), instances).await
    }

    /// The same, as a result that is to outlive its instance.
    ///
    /// # Errors
    /// When it is not there or does not arrive whole.
    pub async fn fetch_output<I: Instances>(
        &self,
        instance: &InstanceId,
        there: &UploadRef,
        name: &UploadRef,
        instances: &I,
    ) -> Result<Kept, FetchError> {
        fetch(&self.outputs, instance, (there, name), instances).await
    }

    /// Every kept result of this kind.
    pub fn held_outputs(&self, kind: &str) -> Vec<Held> {
        self.outputs.held(kind)
    }

    /// Drops kept results, but for those that were of use since they were listed; says how many went.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn forget_outputs(&self, held: Vec<Held>) -> std::io::Result<usize> {
        let outputs = self.outputs.clone();
        let forgotten = tokio::task::spawn_blocking(move || outputs.forget(held)).await;
        forgotten.map_err(std::io::Error::other)?
    }

    /// Of a file on an instance. Nothing of it is kept.
    ///
    /// # Errors
    /// When it is not there or does not arrive whole.
    pub async fn digest<I: Instances>(
        &self,
        instance: &InstanceId,
        there: &UploadRef,
        instances: &I,
    ) -> Result<Digest, FetchError> {
        let mut body = match download(instances, instance, there, None).await? {
            Found::Content { body, .. } => body,
            Found::Absent | Found::Same => return Err(FetchError::Absent),
        };
        let mut hash = Sha256::new();
        while let Some(piece) = next_piece(&mut body).await? {
            hash.update(&piece);
        }
        Ok(Digest(hash.finalize().into()))
    }

    /// Whose the files are that clients have been told of lately.
    pub fn told(&self) -> &Told {
        &self.told
    }

    fn slot(&self, instance: &InstanceId, epoch: u64, file: &UploadRef) -> Slot {
        let mut given = self.lock();
        let files = given.entry(instance.clone()).or_default();
        if files.epoch != epoch {
            *files = InstanceFiles { epoch, ..InstanceFiles::default() };
        }
        files.slot(file)
    }

    fn lock(&self) -> MutexGuard<'_, Given> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InstanceFiles {
    fn slot(&mut self, file: &UploadRef) -> Slot {
        if self.files.len() >= MOST_GIVEN && !self.files.contains_key(file) {
            self.forget_half();
        }
        self.uses += 1;
        let (used, slot) = self.files.entry(file.clone()).or_default();
        *used = self.uses;
        slot.clone()
    }

    /// The longest unused, but for those that are being given. They are given again when they are needed.
    fn forget_half(&mut self) {
        let mut uses: Vec<u64> = self.files.values().map(|(used, _)| *used).collect();
        uses.sort_unstable();
        let median = uses[uses.len() / 2];
        self.files.retain(|_, (used, slot)| *used >= median || Arc::strong_count(slot) > 1);
    }
}

async fn fetch<I: Instances>(
    store: &Arc<Store>,
    instance: &InstanceId,
    (there, name): (&UploadRef, &UploadRef),
    instances: &I,
) -> Result<Kept, FetchError> {
    let name = name::checked(name).map_err(RecordError::from)?;
    let known = store.find(&name);
    let tag = known.as_ref().and_then(Kept::tag);
    let (mut body, tag) = match download(instances, instance, there, tag).await? {
        Found::Absent => return Err(FetchError::Absent),
        Found::Same => {
            return known.ok_or_else(|| FetchError::Failed("the instance answers as if it knew us".into()));
        }
        Found::Content { body, tag } => (body, tag),
    };
    let mut recording = Recording::begin(store.clone()).await?;
    while let Some(piece) = next_piece(&mut body).await? {
        recording.write(&piece).await?;
    }
    recording.complete().await?.keep(&name, tag).await?;
    store.find(&name).ok_or_else(|| FetchError::Failed("it had to make room at once".into()))
}

async fn download<I: Instances>(
    instances: &I,
    instance: &InstanceId,
    there: &UploadRef,
    tag: Option<&str>,
) -> Result<Found, FetchError> {
    let answered = tokio::time::timeout(STALL, instances.download(instance, there, tag)).await;
    answered.map_err(|_| stalled())?.map_err(FetchError::Failed)
}

/// None at the end.
async fn next_piece(body: &mut Body) -> Result<Option<Bytes>, FetchError> {
    loop {
        let frame = tokio::time::timeout(STALL, body.frame()).await.map_err(|_| stalled())?;
        let Some(frame) = frame.transpose().map_err(FetchError::Broken)? else { return Ok(None) };
        if let Ok(piece) = frame.into_data() {
            return Ok(Some(piece));
        }
    }
}

fn stalled() -> FetchError {
    FetchError::Failed(format!("the instance sent nothing for {STALL:?}"))
}

#[cfg(test)]
mod tests;
