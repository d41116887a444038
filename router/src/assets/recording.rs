//! An upload on its way through.

use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use bytes::BytesMut;
use sha2::{Digest as _, Sha256};
use tempfile::{NamedTempFile, TempPath};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::store::{Arrival, Digest, Store};
use super::{RecordError, name};
use crate::model::job::UploadRef;

const PIECE: usize = 64 << 10;

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

    /// Ends it without keeping it: the content is there until the spool is dropped.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn spool(mut self) -> Result<Spool, RecordError> {
        self.file.flush().await?;
        Ok(Spool { path: self.path, bytes: self.bytes })
    }

    /// The whole content, durable, and not yet kept.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn complete(mut self) -> Result<Complete, RecordError> {
        self.file.flush().await?;
        self.file.sync_data().await?;
        let digest = Digest(self.hash.finalize().into());
        Ok(Complete { store: self.store, arrival: Arrival { digest, bytes: self.bytes, path: self.path } })
    }

    /// Keeps the content under the name that the client was told. Durable when it returns.
    ///
    /// # Errors
    /// When the name is not one that a graph could refer to, or the disk fails.
    pub async fn finish(self, file: &UploadRef) -> Result<Digest, RecordError> {
        self.complete().await?.keep(file, None).await
    }
}

/// A content that needs a name. Dropped without one, it leaves nothing.
#[derive(Debug)]
pub struct Complete {
    store: Arc<Store>,
    arrival: Arrival,
}

impl Complete {
    pub fn digest(&self) -> Digest {
        self.arrival.digest
    }

    pub fn path(&self) -> &Path {
        &self.arrival.path
    }

    /// Keeps it under this name, in the place of any other content; `tag` tells whether it is still the same where it
    /// came from.
    ///
    /// # Errors
    /// When the name is not one that a graph could refer to, or the disk fails.
    pub async fn keep(self, file: &UploadRef, tag: Option<String>) -> Result<Digest, RecordError> {
        let (file, digest) = (name::checked(file)?, self.digest());
        let kept = tokio::task::spawn_blocking(move || self.store.keep(&file, self.arrival, tag)).await;
        kept.map_err(std::io::Error::other)??;
        Ok(digest)
    }

    /// Keeps it under this name, unless another content has it: then it comes back.
    ///
    /// # Errors
    /// When the name is not one that a graph could refer to, or the disk fails.
    pub async fn claim(self, file: &UploadRef) -> Result<Result<Digest, Self>, RecordError> {
        let (file, digest, store) = (name::checked(file)?, self.digest(), self.store.clone());
        let claimed = tokio::task::spawn_blocking(move || self.store.claim(&file, self.arrival)).await;
        let claimed = claimed.map_err(std::io::Error::other)??;
        Ok(claimed.map(|()| digest).map_err(|arrival| Self { store, arrival }))
    }
}

/// A content on its way to several places.
#[derive(Debug)]
pub struct Spool {
    path: TempPath,
    bytes: u64,
}

impl Spool {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// From its beginning, piece by piece.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub async fn body(&self) -> std::io::Result<Body> {
        Ok(read(tokio::fs::File::open(&self.path).await?))
    }
}

/// What a reader still gives, piece by piece.
pub(super) fn read(from: impl AsyncRead + Unpin + Send + 'static) -> Body {
    Body::from_stream(futures_util::stream::try_unfold(from, |mut from| async move {
        let mut piece = BytesMut::with_capacity(PIECE);
        let read = from.read_buf(&mut piece).await?;
        Ok::<_, std::io::Error>((read > 0).then(|| (piece.freeze(), from)))
    }))
}
