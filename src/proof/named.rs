//! A proof by what it says of itself, without a quote: for finding a payment that was made earlier.
//!
//! Nothing may be sold for such a proof. It only says which payment to look for, and that whoever
//! sends it could have made that payment: its signature fits the terms that it names.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Signers;
use super::check::{CheckedProof, identify};
use super::parse::Decoded;
use crate::chain::assets::{self, Transfer};
use crate::clock::UnixSeconds;
use crate::route::offers::remembered;
use crate::route::price::Quote;
use crate::x402::Version;
use crate::x402::json::{Json, Members, Object};

/// The proof, held against the terms that it names itself; `None` when it names none, or its
/// signature does not fit them. `accept` is the name that its offer gets.
#[must_use]
pub fn named(
    decoded: &Decoded<'_>,
    accept: &Arc<str>,
    now: UnixSeconds,
    signers: &Signers,
) -> Option<CheckedProof> {
    let offers = terms(decoded).into_iter();
    let offers: Vec<_> = offers
        .filter_map(|terms| remembered(accept, terms).map(Arc::new))
        .collect();
    let proof = decoded.answer_to(&Quote { offers }, now, signers).ok()?;
    identify(proof, now, signers).ok()
}

/// Requirements that the client may have answered; none when it does not say.
fn terms(decoded: &Decoded<'_>) -> Vec<Value> {
    let members = &decoded.members;
    match decoded.version {
        Version::V2 => members
            .member("accepted")
            .map(Value::from)
            .into_iter()
            .collect(),
        Version::V1 => terms_v1(members),
    }
}

/// Version 1 names the network only: its tokens that clients know without being told.
fn terms_v1(proof: &Object<'_>) -> Vec<Value> {
    let text = |name: &str| proof.member(name).and_then(Json::text);
    let payload = proof.member("payload").and_then(Json::members);
    let authorization = payload
        .and_then(|payload| payload.member("authorization"))
        .and_then(Json::members);
    let signed = |name: &str| authorization?.member(name).map(Value::from);
    let network = text("network").and_then(assets::network_by_name);
    let known = assets::known_assets().iter().filter(|asset| {
        let is_there = network
            .as_ref()
            .is_some_and(|n| n.as_str() == asset.network);
        is_there && asset.transfer == Transfer::Eip3009
    });
    known
        .filter_map(|asset| {
            let (name, version) = asset.eip712?;
            Some(json!({
                "scheme": text("scheme")?,
                "network": asset.network,
                "amount": signed("value")?,
                "asset": asset.address,
                "payTo": signed("to")?,
                "maxTimeoutSeconds": 0,
                "extra": { "name": name, "version": version },
            }))
        })
        .collect()
}
