//! Opening the ledger file: who may read it, how hard it is written, and what is refused.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use thiserror::Error;

use super::schema;
use crate::ledger::LedgerError;

/// How long a connection waits for a lock of another process, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a writer looks whether it is its turn.
const TURN_LOOK: Duration = Duration::from_micros(500);
/// Pages that the writer keeps in memory, in KiB: grows with the ledger up to this, because payments are in
/// no order and each claim is an entry in some page of an index.
const CACHE_KIB_MAX: i64 = 32 << 10;
/// The log is cut back to this size after a burst.
const LOG_BYTES_MAX: i64 = 64 << 20;
/// Pages of 4 KiB in a log of that size, from which on it is copied to its end so that it begins anew.
pub(super) const LOG_PAGES_MAX: i64 = LOG_BYTES_MAX >> 12;
/// Pages of the log at which whoever writes copies it, because nobody else has: 256 MiB.
const LOG_PAGES_OVERFLOW: i64 = LOG_PAGES_MAX << 2;
/// How long writers may be held up for a copy to begin, or readers be waited for in it.
const COPY_TIMEOUT: Duration = Duration::from_millis(10);

/// Where the ledger is, for messages.
#[derive(Clone, Debug)]
pub(super) struct Place(Arc<str>);

impl Place {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.display().to_string().into())
    }

    /// The error that says that something failed here.
    pub(super) fn failed(
        &self,
        cause: impl std::error::Error + Send + Sync + 'static,
    ) -> LedgerError {
        LedgerError::Store {
            place: self.to_string(),
            cause: Box::new(cause),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a ledger file beside what SQLite says.
#[derive(Debug, Error)]
pub(super) enum FileFault {
    /// The parent directory is missing; making it is up to whoever decides about its rights.
    #[error("the directory {} does not exist", .0.display())]
    NoDirectory(PathBuf),
    /// Nothing to read.
    #[error("there is no such file")]
    NoFile,
    /// The file could not be created.
    #[error("cannot create it: {0}")]
    Create(#[source] io::Error),
    /// SQLite, but not ours.
    #[error("it is not a Farewall ledger")]
    NotALedger,
    /// Reading alone cannot bring it up to date.
    #[error("its schema version {0} is older than this farewall; start the wall once to update it")]
    Older(i64),
    /// The wall that is to be replaced could not go on with a newer one.
    #[error(
        "its schema version {0} is older than this farewall, and the wall that runs knows no newer one; \
         restart the wall in place of replacing it"
    )]
    OlderInUse(i64),
    /// SQLite names its log after the file, and the wall its locks: under two names they would be two, and
    /// writes would get lost.
    #[error("it has {0} names (hard links); a ledger must have one, remove the others")]
    Names(u64),
    /// Write-ahead logging is what lets readers and the writer work side by side.
    #[error("write-ahead logging is not possible here (a network file system?): mode is {0:?}")]
    NoLog(String),
    /// A sum past 128 bits.
    #[error("a sum of amounts does not fit 128 bits")]
    SumTooLarge,
    /// SQLite gave up the whole transaction at one statement, such as when the disk is full.
    #[error("the transaction was rolled back")]
    RolledBack,
    /// A claim was refused, yet nothing holds the payment: the index is damaged.
    #[error("the index over payments is damaged")]
    NoHolder,
}

/// The one connection that writes. Creates the file when it does not exist. Its schema is brought up to
/// date, unless the file `is_in_use` by another wall.
pub(super) fn open_for_writing(
    path: &Path,
    place: &Place,
    is_in_use: bool,
) -> Result<Connection, LedgerError> {
    create(path).map_err(|fault| place.failed(fault))?;
    // A file that cannot be asked about cannot be opened either, which says more.
    let names = std::fs::metadata(path).map_or(1, |file| file.nlink());
    if names > 1 {
        return Err(place.failed(FileFault::Names(names)));
    }
    let mut connection = connect(path, place, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Before anything is changed: a file that we must not touch stays as it is.
    let version = schema::version(&connection, place)?;
    if is_in_use && version < schema::KNOWN {
        return Err(place.failed(FileFault::OlderInUse(version)));
    }
    connection
        .busy_handler(Some(wait_for_turn))
        .map_err(|cause| place.failed(cause))?;
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(|cause| place.failed(cause))?;
    if mode != "wal" {
        return Err(place.failed(FileFault::NoLog(mode)));
    }
    let tune = || -> rusqlite::Result<()> {
        // FULL flushes the log at every commit; NORMAL would lose acknowledged writes in a power cut.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB_MAX)?;
        connection.pragma_update_and_check(
            None,
            "wal_autocheckpoint",
            LOG_PAGES_OVERFLOW,
            |_| Ok(()),
        )?;
        connection.pragma_update(None, "journal_size_limit", LOG_BYTES_MAX)
    };
    tune().map_err(|cause| place.failed(cause))?;
    schema::migrate(&mut connection, place)?;
    Ok(connection)
}

/// A connection that copies the log into the file, as hard as the one that writes.
pub(super) fn open_for_checkpoints(path: &Path, place: &Place) -> Result<Connection, LedgerError> {
    let connection = connect(path, place, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let tune = || -> rusqlite::Result<()> {
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.busy_timeout(COPY_TIMEOUT)
    };
    tune().map_err(|cause| place.failed(cause))?;
    Ok(connection)
}

/// Another process writes: a backup, a command, or a wall that is being replaced. Looks again soon, for
/// its commits follow one another closely and the gaps between them are short.
fn wait_for_turn(times: i32) -> bool {
    std::thread::sleep(TURN_LOOK);
    u32::try_from(times).is_ok_and(|times| TURN_LOOK.saturating_mul(times) < BUSY_TIMEOUT)
}

/// A connection that cannot write, to an existing ledger of the schema that we know.
pub(super) fn open_for_reading(path: &Path, place: &Place) -> Result<Connection, LedgerError> {
    if !path.exists() {
        return Err(place.failed(FileFault::NoFile));
    }
    let connection = connect(path, place, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    match schema::version(&connection, place)? {
        schema::KNOWN => Ok(connection),
        0 => Err(place.failed(FileFault::NotALedger)),
        found => Err(place.failed(FileFault::Older(found))),
    }
}

fn connect(path: &Path, place: &Place, access: OpenFlags) -> Result<Connection, LedgerError> {
    // Without SQLITE_OPEN_URI: a path that looks like `file:…?mode=…` is only a path.
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.set_prepared_statement_cache_capacity(32);
        Ok(connection)
    };
    open().map_err(|cause| place.failed(cause))
}

/// Makes an empty file that only its owner may read; SQLite gives its log the same mode.
///
/// An existing file is never opened here: closing it again would drop the locks that SQLite holds
/// on it elsewhere in this process.
fn create(path: &Path) -> Result<(), FileFault> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    if !directory.is_dir() {
        return Err(FileFault::NoDirectory(directory.to_owned()));
    }
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(_) => File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(FileFault::Create),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(FileFault::Create(error)),
    }
}
