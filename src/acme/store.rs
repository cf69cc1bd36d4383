//! The state folder: the account, and for each name its certificate with its key, and its pace. (io)
//!
//! `STATE/HOST+PATH-OF-DIRECTORY/`, so that what a staging server issued is never taken for what the
//! real one did. Only this user may read it, and every file is whole or not there.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use instant_acme::AccountCredentials;

use super::AcmeError;
use super::pace::Pace;

/// What one server knows us by, and has given us.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
}

impl Store {
    /// Opens the folder for this server, or makes it.
    pub(super) fn open(state: &Path, directory: &str) -> Result<Self, AcmeError> {
        let store = Self {
            folder: state.join(folder_of(directory)),
        };
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&store.folder);
        // One that was there may have been open to others.
        let private = || fs::set_permissions(&store.folder, Permissions::from_mode(0o700));
        made.and_then(|()| private())
            .map_err(failed(&store.folder))?;
        Ok(store)
    }

    /// Key and chain of the name, in one file: a pair of files is never changed at once.
    pub(super) fn certificate(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.pem"))
    }

    pub(super) fn keep_certificate(&self, name: &str, pem: &str) -> Result<(), AcmeError> {
        self.keep(&self.certificate(name), pem.as_bytes())
    }

    fn pace_file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    /// What is remembered of orders; nothing when there is no record.
    pub(super) fn pace(&self, name: &str) -> Pace {
        let text = fs::read(self.pace_file(name)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    pub(super) fn keep_pace(&self, name: &str, pace: &Pace) -> Result<(), AcmeError> {
        let path = self.pace_file(name);
        let text = serde_json::to_vec(pace).map_err(|_| AcmeError::Spoilt(path.clone()))?;
        self.keep(&path, &text)
    }

    fn account_file(&self) -> PathBuf {
        self.folder.join("account.json")
    }

    /// The account on record. What is wrong with the file is not said in its own words: it is a key.
    pub(super) fn account(&self) -> Result<Option<AccountCredentials>, AcmeError> {
        let path = self.account_file();
        let text = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.map_err(failed(&path))?,
        };
        let credentials = serde_json::from_slice(&text);
        credentials.map(Some).map_err(|_| AcmeError::Spoilt(path))
    }

    pub(super) fn keep_account(&self, account: &AccountCredentials) -> Result<(), AcmeError> {
        let path = self.account_file();
        let text = serde_json::to_vec(account).map_err(|_| AcmeError::Spoilt(path.clone()))?;
        self.keep(&path, &text)
    }

    /// Lays the account aside.
    pub(super) fn forget_account(&self) -> Result<(), AcmeError> {
        let path = self.account_file();
        fs::rename(&path, self.folder.join("account.unknown.json")).map_err(failed(&path))
    }

    /// Takes the turn to order, which the system gives back when the process ends; `None` while
    /// another wall has it.
    pub(super) fn lock(&self) -> Result<Option<File>, AcmeError> {
        let path = self.folder.join("lock");
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(false).write(true).mode(0o600);
        let file = options.open(&path).map_err(failed(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(cause)) => Err(failed(&path)(cause)),
        }
    }

    /// Writes a file that nobody else may read; whatever happens, the old one or the new one is there.
    fn keep(&self, path: &Path, content: &[u8]) -> Result<(), AcmeError> {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        let write = || -> io::Result<()> {
            match fs::remove_file(&new) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let mut options = OpenOptions::new();
            let mut file = options
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(failed(path))
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> AcmeError {
    move |cause| AcmeError::State {
        path: path.to_owned(),
        cause,
    }
}

/// The name of a folder that no other directory has.
fn folder_of(directory: &str) -> String {
    let mut folder = String::new();
    for byte in directory.trim_start_matches("https://").bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => {
                folder.push(char::from(byte));
            }
            b'/' => folder.push('+'),
            other => folder.push_str(&format!("%{other:02x}")),
        }
    }
    folder
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixSeconds;

    const DIRECTORY: &str = "https://acme.example:14000/dir";

    #[test]
    fn every_directory_has_a_folder_of_its_own() {
        assert_eq!(folder_of(DIRECTORY), "acme.example%3a14000+dir");
        assert_eq!(folder_of("https://a/.."), "a+..");
        assert_ne!(folder_of("https://a/b+c"), folder_of("https://a/b/c"));
    }

    #[test]
    fn files_are_whole_and_nobody_else_s() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(&state.path().join("acme"), DIRECTORY).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state.path().join("acme")), 0o700);
        assert_eq!(mode(&store.folder), 0o700);
        let path = store.certificate("a.example");
        // What a crash has left.
        fs::write(path.with_extension("pem.new"), "half").unwrap();
        for pem in ["first", "second"] {
            store.keep_certificate("a.example", pem).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), pem);
            assert_eq!(mode(&path), 0o600);
        }
        assert!(!path.with_extension("pem.new").exists());
        let pace = Pace {
            failures: 1,
            next_order_at: UnixSeconds(5),
        };
        assert_eq!(store.pace("a.example"), Pace::default());
        store.keep_pace("a.example", &pace).unwrap();
        assert_eq!(store.pace("a.example"), pace);
        // Opened again, everything is as it was.
        fs::set_permissions(&store.folder, Permissions::from_mode(0o755)).unwrap();
        let again = Store::open(&state.path().join("acme"), DIRECTORY).unwrap();
        assert_eq!(again.pace("a.example"), pace);
        assert_eq!(mode(&store.folder), 0o700);
        let error = Store::open(&path, DIRECTORY).unwrap_err().to_string();
        assert!(error.starts_with(path.to_str().unwrap()), "{error}");
    }

    #[test]
    fn one_wall_at_a_time_orders() {
        let state = tempfile::tempdir().unwrap();
        let [one, other] = [(); 2].map(|()| Store::open(state.path(), DIRECTORY).unwrap());
        let turn = one.lock().unwrap();
        assert!(turn.is_some());
        assert!(other.lock().unwrap().is_none());
        drop(turn);
        assert!(other.lock().unwrap().is_some());
    }

    #[test]
    fn of_an_account_that_cannot_be_read_nothing_is_shown() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path(), DIRECTORY).unwrap();
        assert!(store.account().unwrap().is_none());
        fs::write(store.account_file(), "\"secret\"").unwrap();
        let error = store.account().err().unwrap().to_string();
        assert!(
            !error.contains("secret") && error.contains("account.json"),
            "{error}"
        );
        store.forget_account().unwrap();
        assert!(store.account().unwrap().is_none());
    }
}
