//! A quote and a resource become the 402 answer: version 2 in a header, version 1 in the body.
//!
//! Clients of version 2 look at the header only, those of version 1 at the body only, so one answer
//! serves both. Rule: fact sheet sections 1.6 and 1.7.

use std::sync::Arc;

use crate::route::price::{Method, Offer};
use crate::x402::header;
use crate::x402::message::{
    PaymentRequired, PaymentRequiredV1, PaymentRequirementsV1, ResourceInfo,
};

/// A rendered challenge. Constant for a fixed price, so it can be rendered once and kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Challenge {
    /// The value of `PAYMENT-REQUIRED`: base64, so it is always a legal header value.
    pub header: String,
    /// The JSON body: the challenge of version 1, or `{}` when no offer can be paid that way.
    pub body: Vec<u8>,
}

/// The challenge for these offers, in the order in which clients should prefer them.
///
/// `error` is the reason code of a refused proof; without one the texts of the official SDKs for a
/// request without payment are used.
#[must_use]
pub fn render(offers: &[Arc<Offer>], resource: &ResourceInfo, error: Option<&str>) -> Challenge {
    let v2 = PaymentRequired {
        x402_version: 2,
        error: Some(error.unwrap_or("Payment required").to_owned()),
        resource: resource.clone(),
        accepts: offers
            .iter()
            .map(|offer| offer.requirements.clone())
            .collect(),
        extensions: None,
    };
    let v1: Vec<_> = offers
        .iter()
        .filter_map(|offer| v1_requirements(offer, resource))
        .collect();
    let body = if v1.is_empty() {
        None
    } else {
        serde_json::to_vec(&PaymentRequiredV1 {
            x402_version: 1,
            error: error.unwrap_or("X-PAYMENT header is required").to_owned(),
            accepts: v1,
        })
        .ok()
    };
    Challenge {
        header: header::encode(&v2),
        body: body.unwrap_or_else(|| b"{}".to_vec()),
    }
}

/// One entry that legacy clients cannot parse makes them refuse the whole list, so only EIP-3009 on
/// networks that have a name in version 1 is listed.
fn v1_requirements(offer: &Offer, resource: &ResourceInfo) -> Option<PaymentRequirementsV1> {
    let network = match offer.method {
        Method::Eip3009(_) => offer.v1_network?,
        Method::Permit2(_) | Method::Opaque => return None,
    };
    let ours = &offer.requirements;
    Some(PaymentRequirementsV1 {
        scheme: ours.scheme.clone(),
        network: network.to_owned(),
        max_amount_required: ours.amount.clone(),
        resource: resource.url.clone(),
        description: resource.description.clone(),
        mime_type: resource.mime_type.clone(),
        pay_to: ours.pay_to.clone(),
        max_timeout_seconds: ours.max_timeout_seconds,
        asset: ours.asset.clone(),
        extra: ours.extra.clone(),
    })
}

#[cfg(test)]
pub(crate) mod support;
#[cfg(test)]
mod tests;
