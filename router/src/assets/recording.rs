//! An upload on its way through.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tempfile::{NamedTempFile, TempPath};
use tokio::io::AsyncWriteExt;

use super::store::{Digest, Store};
use super::{RecordError, name};
use crate::model::job::UploadRef;

/// Takes the content piece by piece; its name comes last, because the instance chooses it.
#[derive(Debug)]
pub struct Recording {
    store: Arc<Store>,
    file: tokio::fs::File,
    /// Removes the file, unless it is kept.
    path: TempPath,
    hash: Sha256,
    bytes: u64,
}

impl Recording {
    pub(super) async fn begin(store: Arc<Store>) -> Result<Self, RecordError> {
        let dir = store.incoming();
        let made = tokio::task::spawn_blocking(move || NamedTempFile::new_in(dir)).await;
        let (file, path) = made.map_err(std::io::Error::other)??.into_parts();
        Ok(Self { store, file: tokio::fs::File::from_std(file), path, hash: Sha256::new(), bytes: 0 })
    }

    /// # Errors
    /// When the disk is full, or the upload is larger than everything that may be kept.
    pub async fn write(&mut self, piece: &[u8]) -> Result<(), RecordError> {
        self.bytes += piece.len() as u64;
        let limit = self.store.max_bytes();
        if self.bytes > limit {
            return Err(RecordError::TooLarge { limit });
        }
        self.hash.update(piece);
        Ok(self.file.write_all(piece).await?)
    }

    /// Keeps the content under the name that the client was told. Durable when it returns.
    ///
    /// # Errors
    /// When the name is not one that a graph could refer to, or the disk fails.
    pub async fn finish(mut self, file: &UploadRef) -> Result<Digest, RecordError> {
        let file = name::checked(file)?;
        self.file.flush().await?;
        self.file.sync_data().await?;
        let digest = Digest(self.hash.finalize().into());
        let (store, path, bytes) = (self.store, self.path, self.bytes);
        let kept = tokio::task::spawn_blocking(move || store.keep(file, digest, bytes, path)).await;
        kept.map_err(std::io::Error::other)??;
        Ok(digest)
    }
}
