//! One ledger for several walls, in PostgreSQL. What each wall may do is decided there, one statement a step.
//!
//! Two promises keep walls out of each other's way. A *lease*: each running wall is a row that it renews;
//! when its time runs out, its claims are given back and its unknown settlements become another's, by the
//! database's clock. And a *fence*: only the wall that has a claim in hand may release it or call it
//! refused, so one that was away for too long cannot undo what another did.
//!
//! Without the database nothing is sold: every error here becomes 503 before the upstream is asked.
//! Connections are made anew when they break, and an operation whose answer was lost is repeated in a way
//! that recognises its own first try.

mod claims;
mod connect;
mod hand;
mod keeper;
mod rows;
mod schema;
mod shared;
mod tls;
mod upkeep;

use std::future::Future;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Object, Pool};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::connect::{Fault, Place};
use self::hand::{Attempt, Hand};
use self::shared::Budget;
use crate::chain::PaymentKey;
use crate::clock::UnixSeconds;
use crate::config::settings::LedgerServer;
use crate::ledger::upkeep::{Batch, Cursor, prune_end};
use crate::ledger::{
    ClaimAnswer, ClaimId, Filter, Fingerprint, Ledger, LedgerError, Move, NewClaim, Note, Record,
    SharedResponse, Total,
};

/// The longest that one operation takes, repetitions included. After that the outcome of a write is
/// unknown to the caller; the database and the keeper sort it out.
const OPERATION_MAX: Duration = Duration::from_secs(8);

/// A ledger that other walls use too.
#[derive(Debug)]
pub struct PostgresLedger {
    core: Arc<Core>,
    /// Where all of it runs: connections must outlive the runtimes that requests come from.
    runtime: Handle,
    keeper: JoinHandle<()>,
}

/// What operations share.
#[derive(Debug)]
struct Core {
    pool: Pool,
    /// One connection for the lease, which no load can take away.
    keeper: Pool,
    place: Place,
    /// Who we are, new at every start.
    wall: i64,
    lease_ms: i64,
    hand: Hand,
    budget: Budget,
}

impl Core {
    async fn connection(&self) -> Result<Object, LedgerError> {
        connect::connection(&self.pool, &self.place).await
    }
}

impl PostgresLedger {
    /// Connects, brings the schema up to date and takes a lease. Runs on the current tokio runtime
    /// from then on.
    ///
    /// `ca_file`: whom to trust when the URL does not say. `shared_bytes_max`: bytes of responses that
    /// this wall keeps in the database for the others; 0 keeps nothing.
    ///
    /// # Errors
    ///
    /// [`LedgerError::TooNew`] for a schema of a newer Farewall; [`LedgerError::Store`] when the server
    /// cannot be reached or used.
    pub async fn connect(
        server: &LedgerServer,
        ca_file: Option<&Path>,
        shared_bytes_max: u64,
    ) -> Result<Self, LedgerError> {
        let place = Place(Arc::clone(&server.place));
        let pool =
            |size| connect::pool(server, ca_file, size, false).map_err(|fault| place.failed(fault));
        let core = Arc::new(Core {
            pool: pool(server.connections_max)?,
            keeper: pool(1)?,
            place: place.clone(),
            wall: rand::random(),
            lease_ms: i64::try_from(server.lease.as_millis()).unwrap_or(i64::MAX),
            hand: Hand::default(),
            budget: Budget::new(shared_bytes_max),
        });
        let mut client = connect::connection(&core.keeper, &place).await?;
        schema::migrate(&mut client, &place).await?;
        drop(client);
        core.pulse().await?;
        let keeping = Arc::clone(&core);
        Ok(Self {
            core,
            runtime: Handle::current(),
            keeper: tokio::spawn(async move { keeping.keep().await }),
        })
    }

    /// Runs an operation to its end, whoever stops waiting for it.
    async fn run<T, W>(&self, work: impl FnOnce(Arc<Core>) -> W) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, LedgerError>> + Send + 'static,
    {
        let work = work(Arc::clone(&self.core));
        let task = self
            .runtime
            .spawn(async move { tokio::time::timeout(OPERATION_MAX, work).await });
        match task.await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(self.core.place.failed(Fault::Timeout)),
            Err(_) => Err(self.core.place.failed(Fault::Lost)),
        }
    }

    /// Runs an operation after which this wall may have a claim in hand, which `granted` names.
    async fn hold<T, W, G>(
        &self,
        granted: G,
        work: impl FnOnce(Arc<Core>) -> W,
    ) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, LedgerError>> + Send + 'static,
        G: Fn(&T) -> Option<ClaimId> + Copy + Send + 'static,
    {
        let (to, answer) = oneshot::channel();
        let core = Arc::clone(&self.core);
        let work = work(Arc::clone(&self.core));
        self.runtime.spawn(async move {
            let held = tokio::time::timeout(OPERATION_MAX, work).await;
            let held = held.unwrap_or_else(|_| Err(core.place.failed(Fault::Timeout)));
            // Whoever asked may have left: then nobody works on what was granted.
            if let Err(Ok(unwanted)) = to.send(held)
                && let Some(attempt) = granted(&unwanted).and_then(|id| core.hand.let_go(id))
            {
                core.relinquish(attempt).await;
            }
        });
        let ledger = self;
        let mut awaited = Awaited {
            answer,
            ledger,
            granted,
        };
        let held = (&mut awaited.answer).await;
        held.unwrap_or_else(|_| Err(self.core.place.failed(Fault::Lost)))
    }

    fn relinquish(&self, attempt: Attempt) {
        let core = Arc::clone(&self.core);
        self.runtime
            .spawn(async move { core.relinquish(attempt).await });
    }
}

impl Drop for PostgresLedger {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

#[async_trait]
impl Ledger for PostgresLedger {
    async fn find(&self, payment: PaymentKey) -> Result<Option<Record>, LedgerError> {
        self.run(|core| async move { core.find(payment).await })
            .await
    }

    async fn claim(&self, claim: NewClaim, now: UnixSeconds) -> Result<ClaimAnswer, LedgerError> {
        let granted = |answer: &ClaimAnswer| match answer {
            ClaimAnswer::Claimed(claim) => Some(claim.id()),
            ClaimAnswer::Held(_) => None,
        };
        self.hold(granted, |core| async move { core.claim(&claim, now).await })
            .await
    }

    async fn advance(&self, id: ClaimId, to: Move, now: UnixSeconds) -> Result<(), LedgerError> {
        self.run(|core| async move { core.advance(id, &to, now).await })
            .await
    }

    async fn list(&self, filter: Filter) -> Result<Vec<Record>, LedgerError> {
        self.run(|core| async move {
            let client = core.connection().await?;
            let mut records = Vec::new();
            rows::each(&client, &core.place, &filter, &mut |record| {
                records.push(record);
                ControlFlow::Continue(())
            })
            .await?;
            Ok(records)
        })
        .await
    }

    /// Over all claims that the filter allows; its `limit` is for lists and has no effect here.
    async fn totals(&self, filter: Filter) -> Result<Vec<Total>, LedgerError> {
        self.run(|core| async move {
            let client = core.connection().await?;
            rows::totals(&client, &core.place, &filter).await
        })
        .await
    }

    async fn mark(&self, note: Note) -> Result<(), LedgerError> {
        self.run(|core| async move { core.mark(&note).await }).await
    }

    async fn notes(&self, id: ClaimId) -> Result<Vec<Note>, LedgerError> {
        self.run(|core| async move {
            let client = core.connection().await?;
            rows::notes(&client, &core.place, id).await
        })
        .await
    }

    async fn release_abandoned(&self, now: UnixSeconds) -> Result<u64, LedgerError> {
        self.run(|core| async move { core.release_abandoned(now).await })
            .await
    }

    async fn prune(
        &self,
        before: UnixSeconds,
        now: UnixSeconds,
        from: Cursor,
    ) -> Result<Batch, LedgerError> {
        self.run(|core| async move { core.prune(before, now, from).await })
            .await
    }

    async fn compact(&self) -> Result<Batch, LedgerError> {
        self.run(|core| async move { core.compact().await }).await
    }

    async fn unsettled(&self, from: Cursor, limit: u32) -> Result<Vec<Record>, LedgerError> {
        self.run(|core| async move { core.unsettled(from, limit).await })
            .await
    }

    async fn take_owed(&self, id: ClaimId) -> Result<bool, LedgerError> {
        let taken = move |taken: &bool| taken.then_some(id);
        self.hold(taken, move |core| async move { core.take_owed(id).await })
            .await
    }

    fn let_go(&self, id: ClaimId) {
        if let Some(attempt) = self.core.hand.let_go(id) {
            self.relinquish(attempt);
        }
    }

    async fn share_response(&self, response: SharedResponse) -> Result<(), LedgerError> {
        self.run(|core| async move { core.share_response(&response).await })
            .await
    }

    async fn shared_response(
        &self,
        payment: PaymentKey,
        fingerprint: Fingerprint,
    ) -> Result<Option<SharedResponse>, LedgerError> {
        self.run(|core| async move { core.shared_response(payment, fingerprint).await })
            .await
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn leave(&self) {
        self.keeper.abort();
        if let Err(error) = self.run(|core| async move { core.leave().await }).await {
            tracing::warn!(%error, "the lease of this wall runs out by itself");
        }
    }
}

/// The wait for a hold. When the caller stops waiting, what was granted meanwhile is given back.
struct Awaited<'l, T, G: Fn(&T) -> Option<ClaimId>> {
    answer: oneshot::Receiver<Result<T, LedgerError>>,
    ledger: &'l PostgresLedger,
    granted: G,
}

impl<T, G: Fn(&T) -> Option<ClaimId>> Drop for Awaited<'_, T, G> {
    fn drop(&mut self) {
        // After `close` the answer is either here, or comes back to the task, which gives it back.
        self.answer.close();
        if let Ok(Ok(answer)) = self.answer.try_recv()
            && let Some(id) = (self.granted)(&answer)
        {
            self.ledger.let_go(id);
        }
    }
}

/// The shared ledger for people: reads only, blocks, and is no wall.
#[derive(Debug)]
pub struct PostgresReader {
    runtime: Runtime,
    pool: Pool,
    place: Place,
}

impl PostgresReader {
    /// Opens an existing ledger for reading, also while walls write to it.
    ///
    /// # Errors
    ///
    /// [`LedgerError::TooNew`] for a schema of a newer Farewall; [`LedgerError::Store`] when the server
    /// cannot be reached, or has no ledger.
    pub fn open(server: &LedgerServer, ca_file: Option<&Path>) -> Result<Self, LedgerError> {
        let place = Place(Arc::clone(&server.place));
        let failed = |fault: Fault| place.failed(fault);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|cause| failed(Fault::Runtime(cause)))?;
        let pool = connect::pool(server, ca_file, 1, true).map_err(failed)?;
        runtime.block_on(async {
            let mut client = connect::connection(&pool, &place).await?;
            schema::require(&mut client, &place).await
        })?;
        Ok(Self {
            runtime,
            pool,
            place,
        })
    }

    /// Shows `visit` each record that `filter` allows, newest first, until it breaks.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Store`], or [`LedgerError::Corrupt`] at the first unreadable record.
    pub fn each(
        &self,
        filter: &Filter,
        visit: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), LedgerError> {
        self.runtime.block_on(async {
            let client = connect::connection(&self.pool, &self.place).await?;
            rows::each(&client, &self.place, filter, visit).await
        })
    }

    /// Count and sum per state and asset.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Store`] or [`LedgerError::Corrupt`].
    pub fn totals(&self, filter: &Filter) -> Result<Vec<Total>, LedgerError> {
        self.runtime.block_on(async {
            let client = connect::connection(&self.pool, &self.place).await?;
            rows::totals(&client, &self.place, filter).await
        })
    }

    /// How many claims [`Ledger::prune`] would delete in all.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Store`].
    pub fn prunable(&self, before: UnixSeconds, now: UnixSeconds) -> Result<u64, LedgerError> {
        self.runtime.block_on(async {
            let failed = |cause: tokio_postgres::Error| self.place.failed(cause);
            let client = connect::connection(&self.pool, &self.place).await?;
            let before = rows::stored(prune_end(before, now));
            let row = client
                .query_one(&upkeep::count_prunable(), &[&before])
                .await
                .map_err(failed)?;
            let count: i64 = row.try_get(0).map_err(failed)?;
            Ok(u64::try_from(count).unwrap_or(0))
        })
    }

    /// One claim by its number.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Store`] or [`LedgerError::Corrupt`].
    pub fn get(&self, id: ClaimId) -> Result<Option<Record>, LedgerError> {
        self.runtime.block_on(async {
            let client = connect::connection(&self.pool, &self.place).await?;
            rows::get(&client, &self.place, id).await
        })
    }

    /// The notes on a claim, oldest first.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Store`] or [`LedgerError::Corrupt`].
    pub fn notes(&self, id: ClaimId) -> Result<Vec<Note>, LedgerError> {
        self.runtime.block_on(async {
            let client = connect::connection(&self.pool, &self.place).await?;
            rows::notes(&client, &self.place, id).await
        })
    }

    /// Claims of payments whose keys lie between `first` and `last`, both included; newest first.
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
        self.runtime.block_on(async {
            let client = connect::connection(&self.pool, &self.place).await?;
            rows::between(&client, &self.place, (first, last), limit).await
        })
    }
}
