//! Which processes use a ledger file: one wall, and while it is being replaced two.
//!
//! The file `LEDGER.lock` says "one wall a ledger": its lock goes from a wall to the one that takes its
//! place, and nobody else gets it while one of them lives. The file `LEDGER.wall-ID` is locked by one
//! process, and says that this one lives. The system lets go of locks when a process ends, however it
//! ends: no clock decides, and nothing is left to tidy up but empty files.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;

/// Why this process may not use the ledger as a wall.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PresenceError {
    /// Another wall has it.
    #[error("the ledger {} is in use by another wall", .0.display())]
    InUse(PathBuf),
    /// The lock that was handed over is that of another ledger.
    #[error("the ledger {} is not the one of the wall to be replaced; that needs a restart", .0.display())]
    Other(PathBuf),
    /// A file of its own cannot be made or locked.
    #[error("cannot lock the ledger with {}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

/// This process, as a user of a ledger file.
#[derive(Debug)]
pub struct Presence {
    ledger: PathBuf,
    /// The number under which its claims are: never 0.
    id: u32,
    /// Locked by this process, and by the one that it replaces or that replaces it.
    family: File,
    /// Locked by this process alone. Never read again: it is what holds the lock.
    _alive: File,
    company: AtomicBool,
    /// Whether another process had the ledger open before this one.
    joined: bool,
}

impl Presence {
    /// The only wall of the ledger at `path`.
    ///
    /// # Errors
    ///
    /// [`PresenceError::InUse`], or [`PresenceError::Io`].
    pub fn alone(path: &Path) -> Result<Self, PresenceError> {
        let path = &one_name(path);
        let lock = beside(path, ".lock");
        let family = open(&lock, false)?;
        match family.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(PresenceError::InUse(path.to_owned())),
            Err(TryLockError::Error(cause)) => return Err(PresenceError::Io { path: lock, cause }),
        }
        // Of crashes: nobody lives who could have made them.
        sweep(path);
        Self::with(path, family, false)
    }

    /// Beside the wall that handed over its lock, until that one has ended.
    ///
    /// # Errors
    ///
    /// [`PresenceError::Other`] when the lock is not that of this ledger, or [`PresenceError::Io`].
    pub fn beside(path: &Path, family: OwnedFd) -> Result<Self, PresenceError> {
        let path = &one_name(path);
        let lock = beside(path, ".lock");
        let family = File::from(family);
        let is_the_same = match (family.metadata(), std::fs::metadata(&lock)) {
            (Ok(given), Ok(own)) => given.dev() == own.dev() && given.ino() == own.ino(),
            (Ok(_), Err(_)) => false,
            (Err(cause), _) => return Err(PresenceError::Io { path: lock, cause }),
        };
        if !is_the_same {
            return Err(PresenceError::Other(path.to_owned()));
        }
        Self::with(path, family, true)
    }

    fn with(path: &Path, family: File, joined: bool) -> Result<Self, PresenceError> {
        loop {
            let id: u32 = rand::random();
            let own = file_of(path, id.into());
            let alive = match open(&own, true) {
                Ok(alive) => alive,
                Err(PresenceError::Io { cause, .. })
                    if cause.kind() == io::ErrorKind::AlreadyExists =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            };
            // Nobody else looks at it yet: no claim has this number.
            alive.try_lock().map_err(|error| PresenceError::Io {
                path: own,
                cause: error.into(),
            })?;
            return Ok(Self {
                ledger: path.to_owned(),
                id,
                family,
                _alive: alive,
                company: AtomicBool::new(joined),
                joined,
            });
        }
    }

    /// The number under which its claims are in the ledger.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.id.into()
    }

    /// Whether another process had the ledger open when this one came.
    #[must_use]
    pub const fn has_joined(&self) -> bool {
        self.joined
    }

    /// Whether another process may use the ledger at this moment.
    #[must_use]
    pub fn has_company(&self) -> bool {
        self.company.load(Ordering::SeqCst)
    }

    /// Says whether another process may use the ledger from now on. Before it comes, and after what it
    /// left behind was given back.
    pub fn set_company(&self, company: bool) {
        self.company.store(company, Ordering::SeqCst);
    }

    /// Whether the process with this number has ended.
    #[must_use]
    pub fn has_ended(&self, wall: i64) -> bool {
        is_gone(&self.ledger, wall)
    }

    /// The lock, for whoever takes the place of this process.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn lock_to_hand_over(&self) -> io::Result<OwnedFd> {
        self.family.as_fd().try_clone_to_owned()
    }

    /// For the very end of the process: nothing of it is under way any more.
    pub fn end(&self) {
        // Left behind, it means nothing.
        drop(std::fs::remove_file(file_of(&self.ledger, self.id())));
    }
}

/// The name of a ledger by which all its walls know it, whatever links lead there: their locks have names
/// of their own beside it. The file itself may not exist yet; a link to a file that does not exist is left
/// as it is, for no ledger is opened through one.
pub(super) fn one_name(ledger: &Path) -> PathBuf {
    if let Ok(resolved) = ledger.canonicalize() {
        return resolved;
    }
    let folder = match ledger.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    match (folder.canonicalize(), ledger.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        (Ok(_) | Err(_), _) => ledger.to_owned(),
    }
}

/// Whether the process with this number has ended. Its file goes then.
///
/// When that cannot be told it is taken to live: giving back what somebody works on is worse than waiting.
pub(super) fn is_gone(ledger: &Path, id: i64) -> bool {
    let path = file_of(ledger, id);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) => return error.kind() == io::ErrorKind::NotFound,
    };
    match file.try_lock() {
        Ok(()) => {
            drop(std::fs::remove_file(&path));
            true
        }
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(cause)) => {
            tracing::warn!(path = %path.display(), %cause, "cannot tell whether a wall lives");
            false
        }
    }
}

fn file_of(ledger: &Path, id: i64) -> PathBuf {
    beside(ledger, &format!("{WALL}{id:x}"))
}

/// What the name of a wall's file has after the ledger's.
const WALL: &str = ".wall-";

fn beside(ledger: &Path, more: &str) -> PathBuf {
    let mut name = ledger.file_name().unwrap_or_default().to_owned();
    name.push(more);
    ledger.with_file_name(name)
}

fn open(path: &Path, is_new: bool) -> Result<File, PresenceError> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    if is_new {
        options.create_new(true);
    } else {
        options.create(true).truncate(false);
    }
    options.open(path).map_err(|cause| PresenceError::Io {
        path: path.to_owned(),
        cause,
    })
}

fn sweep(ledger: &Path) {
    let start = beside(ledger, WALL);
    let (Some(start), Some(directory)) = (start.file_name(), ledger.parent()) else {
        return;
    };
    let directory = match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    };
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_one = name
            .as_encoded_bytes()
            .starts_with(start.as_encoded_bytes());
        if is_one {
            drop(std::fs::remove_file(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wall_has_the_ledger_and_its_successor_shares_it_until_both_are_gone() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = directory.path().join("ledger.db");
        let in_use = || matches!(Presence::alone(&ledger), Err(PresenceError::InUse(_)));
        let first = Presence::alone(&ledger).unwrap();
        assert!(in_use());
        let lock = first.lock_to_hand_over().unwrap();
        let second = Presence::beside(&ledger, lock).unwrap();
        assert!(second.has_company() && second.has_joined() && !first.has_joined());
        let (one, two) = (first.id(), second.id());
        assert!(!is_gone(&ledger, one) && !is_gone(&ledger, two));
        drop(first);
        assert!(is_gone(&ledger, one) && !is_gone(&ledger, two));
        assert!(in_use(), "its successor lives");
        drop(second);
        let third = Presence::alone(&ledger).unwrap();
        let files = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(files, 2, "what the second left behind was swept away");
        third.end();
        assert!(!file_of(&ledger, third.id()).exists());
    }

    #[test]
    fn a_ledger_is_the_same_whatever_links_lead_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let ledger = inner.join("ledger.db");
        let (link, folder) = (directory.path().join("link.db"), directory.path().join("f"));
        std::os::unix::fs::symlink(&inner, &folder).unwrap();
        // Before there is a file, and afterwards.
        for other in [folder.join("ledger.db"), inner.join("../inner/ledger.db")] {
            let _first = Presence::alone(&ledger).unwrap();
            let refused = Presence::alone(&other).unwrap_err();
            assert!(matches!(refused, PresenceError::InUse(_)), "{other:?}");
        }
        std::fs::write(&ledger, "").unwrap();
        std::os::unix::fs::symlink(&ledger, &link).unwrap();
        let first = Presence::alone(&link).unwrap();
        let refused = Presence::alone(&ledger).unwrap_err();
        assert!(matches!(refused, PresenceError::InUse(_)));
        let second = Presence::beside(&ledger, first.lock_to_hand_over().unwrap()).unwrap();
        assert!(!second.has_ended(first.id()) && !first.has_ended(second.id()));
        drop(second);
    }

    #[test]
    fn the_lock_of_another_ledger_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (directory.path().join("a.db"), directory.path().join("b.db"));
        let first = Presence::alone(&one).unwrap();
        let lock = || first.lock_to_hand_over().unwrap();
        let refused = |ledger| Presence::beside(ledger, lock()).unwrap_err();
        assert!(matches!(refused(&other), PresenceError::Other(_)));
        let _second = Presence::alone(&other).unwrap();
        assert!(matches!(refused(&other), PresenceError::Other(_)));
        Presence::beside(&one, lock()).unwrap();
    }
}
