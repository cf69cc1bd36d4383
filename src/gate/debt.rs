//! What is owed is collected whatever the price is now: also when it was paid under a configuration
//! that nobody remembers any more.
//!
//! Only asked when a proof answers no offer. The proof names its own terms; when its signature fits
//! them, and only so often for each client, the ledger is searched for the payment. What the ledger
//! holds must be what the proof names.

use crate::clock::UnixSeconds;
use crate::gate::{Ask, Gate, PaymentRefusal, fingerprint, too_often};
use crate::proof::check::CheckedProof;
use crate::proof::named::named;
use crate::proof::parse::Decoded;
use crate::route::PricedRoute;

impl Gate {
    /// The proof as an answer to what was offered when it was paid, if it was paid for this request
    /// and holds its payment still.
    ///
    /// # Errors
    ///
    /// [`PaymentRefusal::Ledger`] when the ledger cannot be read, [`PaymentRefusal::RateLimited`] when
    /// this client had it searched too often.
    pub(super) async fn paid_before(
        &self,
        ask: &Ask<'_>,
        decoded: &Decoded<'_>,
        route: &PricedRoute,
        now: UnixSeconds,
    ) -> Result<Option<CheckedProof>, PaymentRefusal> {
        let Some(proof) = named(decoded, &"".into(), now, &self.signers) else {
            return Ok(None);
        };
        // Not "not found": a debtor who is told that would pay again.
        self.throttle.search(ask.client).map_err(too_often)?;
        let payment = proof.proof().key();
        let found = self.ledger.find(payment).await?;
        let Some(record) = found.filter(|record| record.state.holds_payment()) else {
            return Ok(None);
        };
        // The ledger knows what was paid: the terms that the proof names must be those.
        let accept = &record.claim.accept;
        let proof = named(decoded, accept, now, &self.signers);
        Ok(proof.filter(|proof| {
            let proof = proof.proof();
            let presented_for = fingerprint(ask, &route.rule, proof);
            let (offer, claim) = (proof.offer(), &record.claim);
            let is_what_was_paid = offer.amount == claim.amount
                && offer.pay_to == claim.pay_to
                && offer.scheme == claim.scheme;
            is_what_was_paid
                && proof.key() == payment
                && self.is_for(ask, proof, (presented_for, &record))
        }))
    }
}
