//! The embedded ledger: one SQLite file, one thread that writes, commits shared by concurrent requests.
//! Another copies the log into the file meanwhile (`checkpoints`).
//!
//! Every write waits for its commit, and a commit for the disk (`synchronous = FULL`). Writes that
//! arrive while a commit runs share the next one, so durability costs one flush for many requests.
//! Deliberately absent: sums in SQL. SQLite would add amounts as floats.
//!
//! One wall a file ([`presence`]), and for as long as it is being replaced its successor beside it: each
//! claim says in whose `hands` it is, so that neither gives back or repeats what the other works on.

mod checkpoints;
mod file;
pub mod presence;
mod hands;
mod rows;
mod schema;
mod upkeep;
mod writer;

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};

use self::checkpoints::Checkpoints;
use self::file::Place;
use self::hands::Hands;
use self::presence::Presence;
use self::writer::{Leftovers, Op, Tidy, Writer};
use crate::chain::PaymentKey;
use crate::clock::UnixSeconds;
use crate::ledger::upkeep::{Batch, Cursor, prune_end};
use crate::ledger::{
    ClaimAnswer, ClaimId, Filter, Ledger, LedgerError, Move, NewClaim, Note, Record, Total,
};
use crate::priority::after_requests;

/// Writes that may wait for the disk. More are refused: work for strangers is bounded.
const WAITING_MAX: usize = 4096;
/// Connections for reading that are kept open.
const IDLE_READERS_MAX: usize = 4;
/// Listings and sums at once; each reads many rows on a thread of its own.
const LISTINGS_MAX: usize = 4;

/// A ledger in one SQLite file.
///
/// It starts threads, so open it after the process has forked, if it forks. Dropping it writes what
/// still waits.
#[derive(Debug)]
pub struct SqliteLedger {
    readers: Arc<Readers>,
    listings: Semaphore,
    /// `None` when opened for reading only, and while it is dropped.
    queue: Option<SyncSender<Op>>,
    writer: Option<JoinHandle<()>>,
    /// What the queue or the disk did not take, for the writer.
    leftovers: Arc<Leftovers>,
    commits: Arc<AtomicU64>,
    /// As which wall it is used; `None` for commands and tests.
    presence: Option<Arc<Presence>>,
}

/// Connections that only read, opened when needed and kept for the next read.
#[derive(Debug)]
struct Readers {
    path: PathBuf,
    place: Place,
    idle: Mutex<Vec<Connection>>,
}

impl SqliteLedger {
    /// Opens the ledger at `path`, creates it (mode 0600) or brings its schema up to date.
    ///
    /// # Errors
    ///
    /// [`LedgerError::TooNew`] for a file of a newer Farewall; [`LedgerError::Store`] when the
    /// directory does not exist, the file cannot be written, or is not a ledger.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        Self::open_with(path, WAITING_MAX, None)
    }

    /// The same for a wall, which must be present at that path.
    ///
    /// # Errors
    ///
    /// As [`SqliteLedger::open`]; and [`LedgerError::Store`] for a file of an older Farewall that another
    /// wall has open, since that one could not go on with a newer one.
    pub fn open_as_wall(path: &Path, presence: Arc<Presence>) -> Result<Self, LedgerError> {
        Self::open_with(path, WAITING_MAX, Some(presence))
    }

    fn open_with(
        path: &Path,
        waiting_max: usize,
        presence: Option<Arc<Presence>>,
    ) -> Result<Self, LedgerError> {
        let place = Place::new(path);
        let joins = presence.as_ref().is_some_and(|wall| wall.has_joined());
        let connection = file::open_for_writing(path, &place, joins)?;
        let commits = Arc::new(AtomicU64::new(0));
        let hands = Hands::of(&connection, (path, &place), presence.clone())?;
        let checkpoints = Checkpoints::start(path, &place)?;
        let leftovers = Arc::<Leftovers>::default();
        let shared = (Arc::clone(&commits), Arc::clone(&leftovers));
        let writer = Writer::new(connection, place.clone(), shared, hands);
        let (queue, waiting) = sync_channel(waiting_max);
        let thread = std::thread::Builder::new()
            .name("ledger-writer".to_owned())
            .spawn(move || {
                after_requests();
                writer.run(&waiting, checkpoints);
            })
            .map_err(|cause| place.failed(cause))?;
        Ok(Self {
            readers: Arc::new(Readers::new(path, place)),
            listings: Semaphore::new(LISTINGS_MAX),
            queue: Some(queue),
            writer: Some(thread),
            leftovers,
            commits,
            presence,
        })
    }

    /// Opens an existing ledger for reading, also while a wall writes to it.
    ///
    /// Every writing method of it answers [`LedgerError::Closed`].
    ///
    /// # Errors
    ///
    /// [`LedgerError::TooNew`] for a file of a newer Farewall; [`LedgerError::Store`] when there is
    /// no file, it cannot be read, or is not a ledger.
    pub fn open_read_only(path: &Path) -> Result<Self, LedgerError> {
        let place = Place::new(path);
        let readers = Readers::new(path, place);
        readers.with(|_| Ok(()))?;
        Ok(Self {
            readers: Arc::new(readers),
            listings: Semaphore::new(LISTINGS_MAX),
            queue: None,
            writer: None,
            leftovers: Arc::default(),
            commits: Arc::default(),
            presence: None,
        })
    }

    /// How many claims [`Ledger::prune`] would delete in all. Blocks, and reads all of them.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Store`].
    pub fn prunable(&self, before: UnixSeconds, now: UnixSeconds) -> Result<u64, LedgerError> {
        let end = prune_end(before, now);
        self.readers
            .with(|connection| upkeep::prunable(connection, &self.readers.place, end))
    }

    /// Shows `visit` each record that `filter` allows, newest first, until it breaks. Blocks.
    ///
    /// For exports: it holds one record at a time, whatever the size of the ledger.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Store`], or [`LedgerError::Corrupt`] at the first unreadable record.
    pub fn each(
        &self,
        filter: &Filter,
        visit: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), LedgerError> {
        self.readers
            .with(|connection| rows::each(connection, &self.readers.place, filter, visit))
    }

    /// [`Ledger::totals`], blocking.
    ///
    /// # Errors
    ///
    /// As [`Ledger::totals`].
    pub fn totals_blocking(&self, filter: &Filter) -> Result<Vec<Total>, LedgerError> {
        self.readers
            .with(|connection| rows::totals(connection, &self.readers.place, filter))
    }

    /// One claim by its number. Blocks for one look-up.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Store`] or [`LedgerError::Corrupt`].
    pub fn get(&self, id: ClaimId) -> Result<Option<Record>, LedgerError> {
        self.readers
            .with(|connection| rows::get(connection, &self.readers.place, id))
    }

    /// Claims of payments whose keys lie between `first` and `last`, both included; newest first, at
    /// most `limit`. Blocks for one look-up.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Store`] or [`LedgerError::Corrupt`].
    pub fn claims_between(
        &self,
        first: PaymentKey,
        last: PaymentKey,
        limit: u32,
    ) -> Result<Vec<Record>, LedgerError> {
        self.readers
            .with(|connection| rows::between(connection, &self.readers.place, first, last, limit))
    }

    /// [`Ledger::notes`], blocking.
    ///
    /// # Errors
    ///
    /// As [`Ledger::notes`].
    pub fn notes_blocking(&self, id: ClaimId) -> Result<Vec<Note>, LedgerError> {
        self.readers
            .with(|connection| rows::notes(connection, &self.readers.place, id))
    }

    async fn write<T>(
        &self,
        op: impl FnOnce(oneshot::Sender<Result<T, LedgerError>>) -> Op,
    ) -> Result<T, LedgerError> {
        let (to, answer) = oneshot::channel();
        self.send(op(to))?;
        answer.await.unwrap_or(Err(WRITER_STOPPED))
    }

    fn send(&self, op: Op) -> Result<(), LedgerError> {
        let Some(queue) = &self.queue else {
            return Err(LedgerError::Closed("it was opened for reading only"));
        };
        queue.try_send(op).map_err(|cause| match cause {
            TrySendError::Full(_) => LedgerError::Closed("too many writes wait"),
            TrySendError::Disconnected(_) => WRITER_STOPPED,
        })
    }

    /// Has it written whatever happens, for nobody waits for it. What does not fit the queue goes with the next
    /// commit: a queue that is full has one. What a process leaves behind that ends first is given back by the
    /// next one, or by the one beside it: nothing of it is lost, only late.
    fn tidy(&self, tidy: Tidy) {
        if self.queue.is_some() && self.send(Op::Tidy(tidy)).is_err() {
            self.leftovers.push(tidy);
        }
    }

    /// Runs a long read on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection, &Place) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let stopped = || LedgerError::Closed("the reading thread stopped");
        let _permit = self.listings.acquire().await.map_err(|_| stopped())?;
        let readers = Arc::clone(&self.readers);
        tokio::task::spawn_blocking(move || readers.with(|c| read(c, &readers.place)))
            .await
            .unwrap_or_else(|_| Err(stopped()))
    }
}

const WRITER_STOPPED: LedgerError = LedgerError::Closed("its writer has stopped");

impl Drop for SqliteLedger {
    fn drop(&mut self) {
        // Readers first: only a writing connection that closes last can clear the log away.
        self.readers.idle.lock().clear();
        drop(self.queue.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Readers {
    fn new(path: &Path, place: Place) -> Self {
        let (path, idle) = (path.to_owned(), Mutex::new(Vec::new()));
        Self { path, place, idle }
    }

    fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let kept = self.idle.lock().pop();
        let connection = match kept {
            Some(connection) => connection,
            None => file::open_for_reading(&self.path, &self.place)?,
        };
        let result = read(&connection);
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_READERS_MAX {
            idle.push(connection);
        }
        result
    }
}

/// The wait for the answer to a claim. When the caller stops waiting, a claim that was granted
/// meanwhile is given back; else the payment would stay taken until the next start.
struct Awaited<'a> {
    answer: oneshot::Receiver<Result<ClaimAnswer, LedgerError>>,
    ledger: &'a SqliteLedger,
    now: UnixSeconds,
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        // After `close` the answer is either here, or comes back to the writer, which gives it back.
        self.answer.close();
        if let Ok(Ok(ClaimAnswer::Claimed(claim))) = self.answer.try_recv() {
            let (id, now) = (claim.id(), self.now);
            self.ledger.tidy(Tidy::GiveBack { id, now });
        }
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn find(&self, payment: PaymentKey) -> Result<Option<Record>, LedgerError> {
        self.readers
            .with(|connection| rows::find(connection, &self.readers.place, payment))
    }

    async fn claim(&self, claim: NewClaim, now: UnixSeconds) -> Result<ClaimAnswer, LedgerError> {
        let (to, answer) = oneshot::channel();
        let claim = Box::new(claim);
        self.send(Op::Claim { claim, now, to })?;
        let ledger = self;
        let mut awaited = Awaited {
            answer,
            ledger,
            now,
        };
        (&mut awaited.answer).await.unwrap_or(Err(WRITER_STOPPED))
    }

    async fn advance(&self, id: ClaimId, to: Move, now: UnixSeconds) -> Result<(), LedgerError> {
        let step = to;
        self.write(|to| Op::Advance { id, step, now, to }).await
    }

    async fn list(&self, filter: Filter) -> Result<Vec<Record>, LedgerError> {
        self.read(move |connection, place| {
            let mut records = Vec::new();
            rows::each(connection, place, &filter, &mut |record| {
                records.push(record);
                ControlFlow::Continue(())
            })?;
            Ok(records)
        })
        .await
    }

    /// Over all claims that the filter allows; its `limit` is for lists and has no effect here.
    async fn totals(&self, filter: Filter) -> Result<Vec<Total>, LedgerError> {
        self.read(move |connection, place| rows::totals(connection, place, &filter))
            .await
    }

    async fn mark(&self, note: Note) -> Result<(), LedgerError> {
        self.write(|to| Op::Mark { note, to }).await
    }

    async fn notes(&self, id: ClaimId) -> Result<Vec<Note>, LedgerError> {
        self.notes_blocking(id)
    }

    async fn release_abandoned(&self, now: UnixSeconds) -> Result<u64, LedgerError> {
        self.write(|to| Op::ReleaseAbandoned { now, to }).await
    }

    async fn unsettled(&self, from: Cursor, limit: u32) -> Result<Vec<Record>, LedgerError> {
        let own = self.presence.as_ref().map(|wall| wall.id());
        if let Some(own) = own
            && from == Cursor::default()
            && self
                .read(move |connection, place| {
                    rows::has_unsettled_of_others(connection, place, own)
                })
                .await?
        {
            self.write(|to| Op::Adopt { to }).await?;
        }
        self.read(move |connection, place| rows::unsettled(connection, place, own, (from, limit)))
            .await
    }

    /// Also while this wall is alone: one that comes beside it must see what it has in hand. It costs a
    /// collection one more commit.
    async fn take_owed(&self, id: ClaimId) -> Result<bool, LedgerError> {
        match self.presence.is_some() {
            true => self.write(|to| Op::TakeOwed { id, to }).await,
            false => Ok(true),
        }
    }

    fn let_go(&self, id: ClaimId) {
        if self.presence.is_some() {
            self.tidy(Tidy::LetGo { id });
        }
    }

    /// While this wall is being replaced, or replaces another.
    fn is_shared(&self) -> bool {
        self.presence
            .as_ref()
            .is_some_and(|wall| wall.has_company())
    }

    async fn prune(
        &self,
        before: UnixSeconds,
        now: UnixSeconds,
        from: Cursor,
    ) -> Result<Batch, LedgerError> {
        let end = prune_end(before, now);
        self.write(|to| Op::Prune { end, from, to }).await
    }

    async fn compact(&self) -> Result<Batch, LedgerError> {
        self.write(|to| Op::Compact { to }).await
    }

    fn commits(&self) -> Option<u64> {
        Some(self.commits.load(Ordering::Relaxed))
    }
}
