//! What can go wrong, typed by what the caller can do about it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::ErrorCode;
use rusqlite::ffi;

use crate::model::id::JobId;

/// Why events were not made durable, or a read gave nothing. Clone, because all callers of one transaction share it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// This caller's events contradict what is recorded: a bug of the caller. Nothing of its commit was stored;
    /// commits that shared the transaction are not affected.
    #[error("the ledger refuses {event} of job {job}: {reason}")]
    Refused { event: &'static str, job: JobId, reason: Arc<str> },
    /// The disk, or the size the operator allows, is full. Nothing was stored; later commits are tried again.
    #[error("no room left for the ledger {}: free some, or raise `ledger.max_file_mib`", file.display())]
    Full { file: PathBuf },
    /// Writing failed in a way after which durability cannot be trusted. Nothing more is accepted until the file was
    /// [reopened](super::Handle::reopen). The failed commit may or may not be there after that.
    #[error("the ledger {} cannot be written: {reason}; it accepts nothing until it is reopened", file.display())]
    Io { file: PathBuf, reason: Arc<str> },
    /// The file was given up after an earlier error and not reopened yet. Nothing was stored.
    #[error("the ledger {} is not written to until it is reopened: {reason}", file.display())]
    GivenUp { file: PathBuf, reason: Arc<str> },
    /// Another program holds the file's lock. Nothing was stored; later commits are tried again.
    #[error("the ledger {} is locked by another program", file.display())]
    Locked { file: PathBuf },
    /// A stored row does not have the bytes that were written.
    #[error("the ledger {} is damaged: {reason}; stop the router, move the file aside or restore a copy", file.display())]
    Damaged { file: PathBuf, reason: Arc<str> },
    /// A read failed; writing is not affected.
    #[error("the ledger {} cannot be read: {reason}", file.display())]
    Read { file: PathBuf, reason: Arc<str> },
    /// Too many commits wait for the disk.
    #[error("{waiting} commits wait for the disk, more than may")]
    Busy { waiting: usize },
    #[error("the ledger is closed")]
    Closed,
}

impl LedgerError {
    /// Word for logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::Full { .. } => "full",
            Self::Io { .. } => "io",
            Self::GivenUp { .. } => "given_up",
            Self::Locked { .. } => "locked",
            Self::Damaged { .. } => "damaged",
            Self::Read { .. } => "read",
            Self::Busy { .. } => "busy",
            Self::Closed => "closed",
        }
    }

    /// After this no commit is accepted until the ledger is reopened.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Damaged { .. })
    }

    pub(super) fn writing(file: &Path, error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full { file: file.into() },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked { file: file.into() },
            _ if extended(error) == Some(ffi::SQLITE_IOERR_SHMSIZE) => Self::Full { file: file.into() },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged { file: file.into(), reason: error.to_string().into() }
            }
            _ => Self::Io { file: file.into(), reason: error.to_string().into() },
        }
    }

    pub(super) fn reading(file: &Path, error: &rusqlite::Error) -> Self {
        let reason = error.to_string().into();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged { file: file.into(), reason }
            }
            _ => Self::Read { file: file.into(), reason },
        }
    }
}

/// The file cannot be used at start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot prepare {}: {reason}", folder.display())]
    Folder { folder: PathBuf, reason: String },
    #[error("the ledger {} is in use by another router; stop that one, or set `ledger.dir` to another directory", file.display())]
    InUse { file: PathBuf },
    #[error("the ledger {} was written by a newer comfy-router (schema {found}, this one knows {known}); use that version or another file", file.display())]
    Newer { file: PathBuf, found: i64, known: i64 },
    #[error("the ledger {} is damaged: {reason}; restore a copy, or move it and its -wal file aside to start empty (`sqlite3 FILE .recover` saves what can be saved)", file.display())]
    Damaged { file: PathBuf, reason: String },
    #[error("the ledger {} cannot be opened: {reason}; its folder must be writable and have room", file.display())]
    Open { file: PathBuf, reason: String },
}

impl OpenError {
    pub(super) fn of(file: &Path, error: &rusqlite::Error) -> Self {
        let (file, reason) = (file.to_path_buf(), error.to_string());
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged { file, reason },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse { file },
            _ => Self::Open { file, reason },
        }
    }
}

fn extended(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|e| e.extended_code)
}

/// A failed statement: this caller's fault, or everybody's.
pub(super) enum ApplyError {
    Refused(LedgerError),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for ApplyError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl ApplyError {
    /// Constraint violations and oversized values are the caller's; the transaction of the others goes on.
    pub(super) fn of(event: &'static str, job: JobId) -> impl Fn(rusqlite::Error) -> Self {
        move |error| match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch) => {
                Self::refused(event, job, &error.to_string())
            }
            _ => Self::Sqlite(error),
        }
    }

    pub(super) fn refused(event: &'static str, job: JobId, reason: &str) -> Self {
        Self::Refused(LedgerError::Refused { event, job, reason: reason.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writing(code: i32) -> LedgerError {
        LedgerError::writing(Path::new("x.db"), &rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
    }

    #[test]
    fn only_errors_that_leave_durability_in_doubt_are_fatal() {
        for code in
            [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_CORRUPT, ffi::SQLITE_READONLY]
        {
            assert!(writing(code).is_fatal(), "{code}");
        }
        assert_eq!(writing(ffi::SQLITE_FULL).kind(), "full");
        assert_eq!(writing(ffi::SQLITE_IOERR_SHMSIZE).kind(), "full");
        assert_eq!(writing(ffi::SQLITE_BUSY).kind(), "locked");
        assert!(!writing(ffi::SQLITE_BUSY).is_fatal() && !writing(ffi::SQLITE_FULL).is_fatal());
    }
}
