//! Which offer a proof answers: one that is made now, one that was made a moment ago, or the one that
//! it has paid already.

use std::sync::Arc;

use crate::clock::UnixSeconds;
use crate::gate::{Ask, Gate, PaymentRefusal, Purchase};
use crate::proof::ProofError;
use crate::proof::check::{CheckedProof, identify};
use crate::proof::parse::presented;
use crate::proof::verify::Verifier;
use crate::route::RequestLine;
use crate::route::price::Quote;

/// A proof that answers an offer.
pub(super) struct Reading {
    pub(super) checked: CheckedProof,
    /// Who is to be asked about it.
    pub(super) verifier: Arc<Verifier>,
    /// Why it buys nothing new: the offer that it answers is not made any more.
    pub(super) if_unpaid: Option<ProofError>,
}

impl Reading {
    fn of(checked: CheckedProof, verifier: &Arc<Verifier>) -> Self {
        Self {
            checked,
            verifier: Arc::clone(verifier),
            if_unpaid: None,
        }
    }
}

impl Gate {
    /// The proof as an answer to what is offered now; else to what was offered before the
    /// configuration changed, as long as that is honoured; else to what it has paid already. With
    /// it comes who is to be asked about it.
    pub(super) async fn read(
        &self,
        ask: &Ask<'_>,
        purchase: &Purchase,
        now: UnixSeconds,
    ) -> Result<Reading, PaymentRefusal> {
        let presented = presented(&ask.proof, self.limits.payment_header_bytes_max)?;
        let decoded = presented.decode()?;
        let signers = &self.signers;
        let held_against = |quote: &Quote| {
            let proof = decoded.answer_to(quote, now, signers)?;
            identify(proof, now, signers)
        };
        let error = match held_against(&purchase.quote) {
            Ok(checked) => return Ok(Reading::of(checked, &self.verifier)),
            Err(error) => error,
        };
        if !error.may_answer_another_offer() {
            return Err(error.into());
        }
        let line = RequestLine {
            method: ask.method,
            host: &ask.host.host,
            path: &ask.target.path,
        };
        for former in self.former.quotes(&line, &purchase.quote, now) {
            if let Ok(checked) = held_against(&former.quote) {
                return Ok(Reading::of(checked, &former.verifier));
            }
        }
        let owed = self.paid_before(ask, &decoded, &purchase.route, now);
        match owed.await? {
            Some(checked) => Ok(Reading {
                if_unpaid: Some(error),
                ..Reading::of(checked, &self.verifier)
            }),
            None => Err(error.into()),
        }
    }
}
