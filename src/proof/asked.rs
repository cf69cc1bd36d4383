//! What a facilitator is asked about a proof, in writing.
//!
//! What was signed is written out afresh: what the client wrote beside it is nobody's business, and would make
//! one payment many. Whatever the version of the proof, it is a request of version 2 with our own requirement,
//! whose text is ready.

use std::borrow::Cow;

use alloy_primitives::Address;

use super::Terms;
use crate::facilitator::FacilitatorRequest;
use crate::route::price::{EvmTerms, Offer};

/// The question about an EVM payment; `None` when only its client and its facilitator can read it. `payer` is
/// how EIP-55 spells who pays.
pub(super) fn written(terms: &Terms, offer: &Offer, payer: &str) -> Option<FacilitatorRequest> {
    let mut payment = String::with_capacity(offer.requirements_text.len().saturating_add(600));
    payment.push_str(r#"{"x402Version":2,"payload":"#);
    match terms {
        Terms::Eip3009 {
            authorization,
            signature,
            offer: evm,
        } => {
            let spelled = spelled(offer, evm, (authorization.from, payer));
            authorization.write_payload(signature.as_bytes(), spelled, &mut payment);
        }
        Terms::Permit2 {
            authorization,
            signature,
            offer: evm,
        } => {
            let spelled = spelled(offer, evm, (authorization.from, payer));
            authorization.write_payload(signature.as_bytes(), spelled, &mut payment);
        }
        Terms::Opaque => return None,
    }
    payment.push_str(r#","accepted":"#);
    payment.push_str(&offer.requirements_text);
    payment.push('}');
    Some(about(&payment, offer))
}

/// The question about a payment that is in writing.
pub(super) fn about(payment: &str, offer: &Offer) -> FacilitatorRequest {
    let ours = &*offer.requirements_text;
    let body = [
        r#"{"x402Version":2,"paymentPayload":"#,
        payment,
        r#","paymentRequirements":"#,
        ours,
        "}",
    ];
    FacilitatorRequest {
        body: body.concat().into(),
    }
}

/// Accounts as EIP-55 spells them. Those that nearly every payment names are spelled already; for any other it
/// takes a hash.
fn spelled<'a>(
    offer: &'a Offer,
    evm: &EvmTerms,
    (from, payer): (Address, &'a str),
) -> impl Fn(Address) -> Cow<'a, str> {
    let (pay_to, asset) = (evm.pay_to, evm.asset);
    move |account| match account {
        account if account == from => Cow::Borrowed(payer),
        account if account == pay_to => Cow::Borrowed(offer.pay_to.as_str()),
        account if account == asset => Cow::Borrowed(offer.asset.as_str()),
        account => Cow::Owned(account.to_checksum(None)),
    }
}
