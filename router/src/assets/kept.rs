//! A file that is kept, for whoever reads it.

use std::io::SeekFrom;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::recording::read;
use super::store::{Content, Digest};
use crate::model::job::WallMs;

/// It is not dropped as long as this is held.
#[derive(Debug, Clone)]
pub struct Kept {
    content: Arc<Content>,
    tag: Option<String>,
    at: WallMs,
}

impl Kept {
    pub(super) fn new(content: Arc<Content>, tag: Option<String>, at: WallMs) -> Self {
        Self { content, tag, at }
    }

    pub fn digest(&self) -> Digest {
        self.content.digest()
    }

    pub fn bytes(&self) -> u64 {
        self.content.bytes()
    }

    /// When its name got this content.
    pub fn at(&self) -> WallMs {
        self.at
    }

    /// How the instance it was read from tells whether it is still the same there.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub(super) fn path(&self) -> &Path {
        self.content.path()
    }

    /// These bytes of it.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub async fn body(&self, range: Range<u64>) -> std::io::Result<Body> {
        let mut file = tokio::fs::File::open(self.content.path()).await?;
        if range.start > 0 {
            file.seek(SeekFrom::Start(range.start)).await?;
        }
        Ok(read(file.take(range.end.saturating_sub(range.start))))
    }
}
