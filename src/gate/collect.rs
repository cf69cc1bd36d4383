//! A payment that the ledger knows: what presenting it again gives.

use crate::gate::in_flight::Slot;
use crate::gate::settler::Among;
use crate::gate::{Admission, Ask, Gate, Paid, PaymentRefusal, Purchase, Replay, fingerprint};
use crate::ledger::{Fingerprint, Record};
use crate::proof::Proof;
use crate::settlement::State;

impl Gate {
    /// Whether a payment was made for this request. The rule that sold it may have another name by
    /// now, or in another wall: what was bought is the same.
    pub(super) fn is_for(
        &self,
        ask: &Ask<'_>,
        proof: &Proof,
        (presented_for, record): (Fingerprint, &Record),
    ) -> bool {
        let bought = record.claim.fingerprint;
        bought == presented_for || bought == fingerprint(ask, &record.claim.rule, proof)
    }

    /// The payment is known: what does presenting it again give?
    pub(super) async fn collect(
        &self,
        ask: &Ask<'_>,
        purchase: &Purchase,
        proof: &Proof,
        (presented_for, record): (Fingerprint, Record),
        (slot, among): (Slot, Among),
    ) -> Result<Admission, PaymentRefusal> {
        if !self.is_for(ask, proof, (presented_for, &record)) {
            return Err(PaymentRefusal::Spent);
        }
        // A debt that a person has settled otherwise is no debt any more.
        if record.state == State::Settled && !self.ledger.notes(record.id).await?.is_empty() {
            return Err(PaymentRefusal::Spent);
        }
        let receipt = record
            .receipt
            .as_deref()
            .and_then(|text| serde_json::from_str(text).ok());
        let kept = self
            .kept
            .get(record.claim.payment, record.claim.fingerprint);
        let payment = record.claim.payment;
        let is_lost = record.state == State::Settled && kept.is_none();
        let never_sent = is_lost && self.unforwarded.take(payment);
        let may_be_asked = never_sent || (is_repeatable(ask) && !self.abandoned.too_often(payment));
        match (record.state, kept) {
            (State::Settled | State::Delivered, Some(kept)) => {
                Ok(Admission::Replay(Box::new(Replay {
                    kept,
                    receipt,
                    purchase: purchase.clone(),
                    record,
                    _slot: slot,
                })))
            }
            (State::Settled, None) if may_be_asked => {
                let (settler, owed) = (&self.settler, (&record, receipt));
                let held = (slot, among);
                let paid = Paid::owed(settler, purchase, proof, owed, never_sent, held);
                Ok(Admission::Paid(Box::new(paid)))
            }
            (State::Settled, None) => Err(PaymentRefusal::ResponseLost {
                receipt: receipt.map(Box::new),
            }),
            (State::Claimed, _) => Err(PaymentRefusal::InProgress),
            (State::Settling, _) => Err(PaymentRefusal::OutcomeUnknown),
            (State::Delivered | State::Released | State::Refused | State::Expired, _) => {
                Err(PaymentRefusal::Spent)
            }
        }
    }
}

/// Whether the upstream may be asked a second time for the same: a safe method without a body.
fn is_repeatable(ask: &Ask<'_>) -> bool {
    matches!(ask.method, "GET" | "HEAD" | "OPTIONS") && !ask.has_body
}
