//! The thread that copies the log into the ledger file, beside the payments.
//!
//! Left alone, SQLite lets the commit that fills the log do that, and everybody who waits then waits for it: 20 ms where
//! payments are in an index of half a gigabyte, because each claim of one log is in a page of its own there. A connection
//! of its own may copy while another writes. It writes nothing that is not in the log, and nothing of the log is given up
//! before the copy is on disk; SQLite sees to both.
//!
//! While payments never pause, such a copy never reaches the end of the log, which would grow for ever. So when
//! the log has become long, writers are held up for what is left of it, some milliseconds, and it begins anew.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::file::{self, LOG_PAGES_MAX, Place};
use crate::ledger::LedgerError;

/// Rows written after which the log is copied: 700 payments, or some thousand pages.
const ROWS: u64 = 4096;

/// Whoever writes tells it how much; it copies when that is enough.
///
/// Dropped before the connection that writes, which is the last to close and clears the log away.
#[derive(Debug)]
pub(super) struct Checkpoints {
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Rows written when it was last woken.
    seen: u64,
}

impl Checkpoints {
    /// Starts the thread, for a file that is up to date.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Store`] when the file cannot be opened once more, or the thread not be started.
    pub(super) fn start(path: &Path, place: &Place) -> Result<Self, LedgerError> {
        let connection = file::open_for_checkpoints(path, place)?;
        let (wake, woken) = sync_channel(1);
        let at = place.clone();
        let thread = std::thread::Builder::new()
            .name("ledger-log".to_owned())
            .spawn(move || run(&connection, &at, &woken))
            .map_err(|cause| place.failed(cause))?;
        Ok(Self {
            wake: Some(wake),
            thread: Some(thread),
            seen: 0,
        })
    }

    /// After a commit, with all rows that this process has written so far. Never waits.
    pub(super) fn look(&mut self, rows: u64) {
        if rows.saturating_sub(self.seen) >= ROWS
            && let Some(wake) = &self.wake
        {
            self.seen = rows;
            // Full: it is at it, or will be.
            let _ = wake.try_send(());
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        drop(self.wake.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(connection: &Connection, place: &Place, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        if let Err(cause) = copy(connection) {
            // What is in the log is safe there; it is tried again, and past `LOG_PAGES_MAX` by the writer too.
            tracing::warn!(ledger = %place, %cause, "the log could not be copied into the ledger");
        }
    }
}

/// Copies what is there; twice and to the end when the log is long, so that little is left while writers wait.
pub(super) fn copy(connection: &Connection) -> rusqlite::Result<()> {
    if pages_of_log(connection, "PASSIVE")? >= LOG_PAGES_MAX {
        pages_of_log(connection, "PASSIVE")?;
        pages_of_log(connection, "FULL")?;
    }
    Ok(())
}

/// Pages in the log after a copy; -1 while another process copies.
pub(super) fn pages_of_log(connection: &Connection, mode: &str) -> rusqlite::Result<i64> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        row.get(1)
    })
}
