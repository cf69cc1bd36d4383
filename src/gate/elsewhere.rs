//! Payments in the hands of other walls, which share the ledger with this one.
//!
//! Within this wall a copy of a request in flight waits for a slot in memory. What another wall does can
//! only be seen in the ledger, so a copy looks there again until something is decided. One copy of a
//! payment at a time does so, because it has the slot.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::gate::in_flight::Slot;
use crate::gate::{Ask, Gate, Paid, PaymentRefusal};
use crate::kept::KeptResponse;
use crate::ledger::{Fingerprint, LedgerError, Record, SharedResponse};
use crate::proof::Proof;
use crate::settlement::State;

/// The first pause before the ledger is looked at again; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(250);

impl Gate {
    /// The record that holds the payment, once no other wall is working on it for the same request. A debt
    /// is in hand for as long as the slot is.
    pub(super) async fn holder(
        &self,
        ask: &Ask<'_>,
        (proof, presented_for): (&Proof, Fingerprint),
        slot: &mut Slot,
    ) -> Result<Option<Record>, PaymentRefusal> {
        let payment = proof.payment().key();
        let until = Instant::now().checked_add(self.limits.duplicate_wait);
        let until = until.unwrap_or_else(Instant::now);
        let mut pause = PAUSE_MIN;
        loop {
            let found = self.ledger.find(payment).await?;
            let Some(record) = found.filter(|record| record.state.holds_payment()) else {
                return Ok(None);
            };
            let same = self.is_for(ask, proof, (presented_for, &record));
            if !same || !self.is_elsewhere(&record, slot).await? {
                return Ok(Some(record));
            }
            if Instant::now() >= until {
                return match record.state {
                    State::Settling => Err(PaymentRefusal::OutcomeUnknown),
                    State::Claimed
                    | State::Settled
                    | State::Delivered
                    | State::Released
                    | State::Refused
                    | State::Expired => Err(PaymentRefusal::InProgress),
                };
            }
            let _place = self
                .waiting
                .try_acquire()
                .map_err(|_| PaymentRefusal::InProgress)?;
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(PAUSE_MAX);
        }
    }

    /// Whether another wall is at it. A debt that nobody has in hand is taken in hand, also while this wall
    /// is alone: another may come before it is paid off.
    async fn is_elsewhere(&self, record: &Record, slot: &mut Slot) -> Result<bool, LedgerError> {
        match record.state {
            State::Claimed | State::Settling => Ok(self.ledger.is_shared()),
            State::Settled if self.is_kept(record).await? => Ok(false),
            State::Settled => {
                // Before it is asked for: who hangs up meanwhile lets it go too.
                slot.holds(&self.ledger, record.id);
                let taken = self.ledger.take_owed(record.id).await?;
                if !taken {
                    slot.holds_nothing();
                }
                Ok(!taken)
            }
            State::Delivered => self.is_kept(record).await.map(|_| false),
            State::Released | State::Refused | State::Expired => Ok(false),
        }
    }

    /// Whether the response is here; if another wall keeps it for us, it is afterwards.
    async fn is_kept(&self, record: &Record) -> Result<bool, LedgerError> {
        let (payment, presented_for) = (record.claim.payment, record.claim.fingerprint);
        if self.kept.get(payment, presented_for).is_some() {
            return Ok(true);
        }
        if !self.ledger.is_shared() {
            return Ok(false);
        }
        let shared = self.ledger.shared_response(payment, presented_for).await?;
        let Some(shared) = shared else {
            return Ok(false);
        };
        let Some(response) = KeptResponse::decode(&shared.bytes) else {
            tracing::warn!(
                claim = record.id.0,
                "another wall keeps a response that this one cannot read"
            );
            return Ok(false);
        };
        self.kept
            .keep(payment, presented_for, Arc::new(response), shared.lifetime);
        Ok(true)
    }

    /// What the other walls need of a response, where there are any.
    pub(super) fn shared(
        &self,
        paid: &Paid,
        response: &KeptResponse,
        lifetime: Duration,
    ) -> Option<SharedResponse> {
        self.ledger.is_shared().then(|| SharedResponse {
            payment: paid.payment(),
            fingerprint: paid.fingerprint(),
            bytes: response.encode(),
            lifetime,
        })
    }
}
