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
use crate::x402::reason::Reason;
use crate::x402::template::{EncodedTemplate, Template};

/// A rendered challenge. Constant for a fixed price, so it can be rendered once and kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Challenge {
    /// The value of `PAYMENT-REQUIRED`: base64, so it is always a legal header value.
    pub header: String,
    /// The JSON body: the challenge of version 1, or `{}` when no offer can be paid that way.
    pub body: Vec<u8>,
}

/// The challenge for a request without payment under one rule: all of it but the path.
#[derive(Debug)]
pub struct Prepared {
    header: EncodedTemplate,
    body: Template,
}

/// Stands for the path while the rest is prepared. No canonical path has braces.
const PATH: &str = "/{path}";

impl Prepared {
    /// For these offers and this resource, whose URL is the origin alone. `None` when the place of
    /// the path cannot be told: such a rule's challenges are rendered one by one.
    #[must_use]
    pub fn new(offers: &[Arc<Offer>], at_origin: &ResourceInfo) -> Option<Self> {
        let resource = ResourceInfo {
            url: format!("{}{PATH}", at_origin.url),
            ..at_origin.clone()
        };
        let v2 = serde_json::to_vec(&required(offers, &resource, None)).ok()?;
        let legacy = offers
            .iter()
            .filter_map(|offer| v1_requirements(offer, &resource));
        Some(Self {
            header: EncodedTemplate::cut(&v2, PATH)?,
            body: Template::cut(&legacy_body(offers, &resource, None), PATH, legacy.count())?,
        })
    }

    /// Byte for byte what [`render`] gives for the URL of the origin followed by `path`; `None` for
    /// a path that is none.
    #[must_use]
    pub fn fill(&self, path: &str) -> Option<Challenge> {
        Some(Challenge {
            header: self.header.fill(path)?,
            body: self.body.fill(path)?,
        })
    }
}

/// The challenge for these offers, in the order in which clients should prefer them.
///
/// `error` is the reason code of a refused proof; without one the texts of the official SDKs for a
/// request without payment are used.
#[must_use]
pub fn render(offers: &[Arc<Offer>], resource: &ResourceInfo, error: Option<&str>) -> Challenge {
    Challenge {
        header: header::encode(&required(offers, resource, error)),
        body: legacy_body(offers, resource, error),
    }
}

fn required(
    offers: &[Arc<Offer>],
    resource: &ResourceInfo,
    error: Option<&str>,
) -> PaymentRequired {
    PaymentRequired {
        x402_version: 2,
        error: Some(error.unwrap_or(Reason::Required.as_str()).to_owned()),
        resource: resource.clone(),
        accepts: offers
            .iter()
            .map(|offer| offer.requirements.clone())
            .collect(),
        extensions: None,
    }
}

fn legacy_body(offers: &[Arc<Offer>], resource: &ResourceInfo, error: Option<&str>) -> Vec<u8> {
    let v1: Vec<_> = offers
        .iter()
        .filter_map(|offer| v1_requirements(offer, resource))
        .collect();
    let body = if v1.is_empty() {
        None
    } else {
        serde_json::to_vec(&PaymentRequiredV1 {
            x402_version: 1,
            error: error.unwrap_or(Reason::RequiredV1.as_str()).to_owned(),
            accepts: v1,
        })
        .ok()
    };
    body.unwrap_or_else(|| b"{}".to_vec())
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
