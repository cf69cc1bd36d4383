//! Unknown settlements, until they are known: repeats the identical settle with growing pauses.
//!
//! After an unknown outcome only a *success* is believed. A refusal proves nothing: when the first
//! call landed, repeating it fails with a used nonce or an empty wallet. Such a claim stays unknown
//! until the authorization has run out, and is then `expired`: listed for a person, never guessed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::chain::Payer;
use crate::clock::{Clock, UnixSeconds};
use crate::facilitator::{FacilitatorRequest, SettleAnswer};
use crate::gate::{Settler, settled_move};
use crate::ledger::{ClaimId, Filter, Ledger, LedgerError, Move, Record};
use crate::metrics;
use crate::settlement::State;

/// How often unknown settlements are looked at.
const TICK: Duration = Duration::from_secs(1);

/// The first pause before repeating, in seconds; it doubles up to [`PAUSE_MAX_S`].
const PAUSE_MIN_S: u64 = 2;

/// The longest pause.
const PAUSE_MAX_S: u64 = 60;

/// How long after `validBefore` an unknown outcome may still turn out well: the chain may have
/// mined it in time and the facilitator may tell late.
const GRACE_S: u64 = 120;

/// Repeats unknown settlements.
pub struct Reconciler {
    settler: Arc<Settler>,
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    due: HashMap<ClaimId, Due>,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    at: UnixSeconds,
    pause: u64,
}

impl Reconciler {
    /// A reconciler that has seen nothing yet.
    #[must_use]
    pub fn new(settler: Arc<Settler>, ledger: Arc<dyn Ledger>, clock: Arc<dyn Clock>) -> Self {
        Self {
            settler,
            ledger,
            clock,
            due: HashMap::new(),
        }
    }

    /// Works until the runtime ends.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(TICK).await;
            if let Err(error) = self.pass().await {
                tracing::error!(%error, "cannot reconcile");
            }
        }
    }

    /// One look at every unknown settlement; returns how many are still unknown.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] when the ledger cannot be read or written.
    pub async fn pass(&mut self) -> Result<usize, LedgerError> {
        let filter = Filter {
            states: vec![State::Settling],
            ..Filter::default()
        };
        let unknown: Vec<Record> = self.ledger.list(filter).await?;
        let mut left = 0_usize;
        self.due
            .retain(|id, _| unknown.iter().any(|record| record.id == *id));
        for record in unknown {
            if !self.settler.is_active(record.id) && !self.look_at(&record).await? {
                left = left.saturating_add(1);
            }
        }
        metrics::unknown_settlements(left);
        Ok(left)
    }

    /// Returns whether the outcome is definite now.
    async fn look_at(&mut self, record: &Record) -> Result<bool, LedgerError> {
        let now = self.clock.now();
        let first = Due {
            at: now,
            pause: PAUSE_MIN_S,
        };
        let due = *self.due.entry(record.id).or_insert(first);
        if now < due.at {
            return Ok(false);
        }
        let pause = due.pause.saturating_mul(2).min(PAUSE_MAX_S);
        self.due.insert(
            record.id,
            Due {
                at: now.plus(due.pause),
                pause,
            },
        );
        let name = record.facilitator.as_deref().unwrap_or_default();
        if let Some(facilitator) = self.settler.facilitator(name) {
            let request = FacilitatorRequest {
                body: record.claim.settle_request.clone(),
            };
            match facilitator.settle(&request).await {
                SettleAnswer::Settled(receipt) => {
                    let unknown_payer = record.claim.payer.as_str().is_empty();
                    let payer = receipt.payer.as_deref().filter(|_| unknown_payer);
                    let settled = settled_move(&receipt, payer.map(Payer::verbatim), None);
                    self.ledger.advance(record.id, settled, now).await?;
                    let claim = &record.claim;
                    metrics::settled(&claim.rule, &claim.accept, claim.amount);
                    tracing::info!(claim = record.id.0, "unknown settlement turned out paid");
                    return Ok(true);
                }
                SettleAnswer::Refused(receipt) => tracing::warn!(
                    claim = record.id.0,
                    reason = receipt.error_reason.as_deref().unwrap_or("none"),
                    "refused on repetition, which proves nothing; still unknown"
                ),
                SettleAnswer::Unknown(fault) | SettleAnswer::NotSent(fault) => {
                    tracing::warn!(claim = record.id.0, %fault, "still unknown");
                }
            }
        } else {
            tracing::error!(
                claim = record.id.0,
                facilitator = name,
                "its facilitator is not configured any more"
            );
        }
        if now > record.claim.valid_before.plus(GRACE_S) {
            self.ledger.advance(record.id, Move::Expired, now).await?;
            tracing::error!(
                claim = record.id.0,
                "the outcome stayed unknown; it needs a person"
            );
            return Ok(true);
        }
        Ok(false)
    }
}
