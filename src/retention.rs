//! What the ledger forgets, a little at a time, while the wall works: settle requests that older
//! versions left in finished rows, and, where the operator set `retention_days`, old rows.
//!
//! What may go is decided in [`crate::ledger::upkeep`]. This is only the pace: small batches with
//! pauses between them, so that a payment never waits for more than one. It may be killed at any
//! time: each batch is one transaction, and the next walk begins at the oldest row.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::ledger::upkeep::Cursor;
use crate::ledger::{Ledger, LedgerError};
use crate::metrics;

/// How long after a start the first walk begins, and how long between two walks.
const FIRST_WALK: Duration = Duration::from_secs(2);
const WALK: Duration = Duration::from_secs(60);

/// The pause between two batches: [`crate::ledger::upkeep::BATCH_ROWS`] rows each are some thousands
/// of rows a second, more than one wall sells.
const PAUSE: Duration = Duration::from_millis(20);

const DAY_S: u64 = 86_400;

/// Keeps a ledger small.
pub struct Retention {
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    /// After how many days finished rows go; `None` keeps them for ever.
    days: Option<u32>,
}

/// What one walk did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Walk {
    /// Finished rows of an older version that lost their settle request.
    pub compacted: u64,
    /// Rows deleted.
    pub pruned: u64,
}

impl Retention {
    /// Nothing is done yet.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>, clock: Arc<dyn Clock>, days: Option<u32>) -> Self {
        Self {
            ledger,
            clock,
            days,
        }
    }

    /// Works until the runtime ends.
    pub async fn run(self) {
        tokio::time::sleep(FIRST_WALK).await;
        loop {
            match self.walk().await {
                Ok(Walk::NOTHING) => {}
                Ok(walk) => tracing::info!(
                    pruned = walk.pruned,
                    compacted = walk.compacted,
                    "the ledger was tidied up"
                ),
                Err(error) => tracing::error!(%error, "cannot tidy up the ledger"),
            }
            tokio::time::sleep(WALK).await;
        }
    }

    /// One walk through everything that may go.
    ///
    /// # Errors
    ///
    /// [`LedgerError`]; what was done before stays done.
    pub async fn walk(&self) -> Result<Walk, LedgerError> {
        let mut walk = Walk::NOTHING;
        loop {
            let batch = self.ledger.compact().await?;
            walk.compacted = walk.compacted.saturating_add(batch.rows);
            if batch.next.is_none() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        let Some(days) = self.days else {
            return Ok(walk);
        };
        let now = self.clock.now();
        let before = now.minus(u64::from(days).saturating_mul(DAY_S));
        let mut from = Cursor::default();
        loop {
            let batch = self.ledger.prune(before, now, from).await?;
            walk.pruned = walk.pruned.saturating_add(batch.rows);
            metrics::pruned(batch.rows);
            let Some(next) = batch.next else {
                return Ok(walk);
            };
            from = next;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Walk {
    const NOTHING: Self = Self {
        compacted: 0,
        pruned: 0,
    };
}
