//! Header bytes become a [`Proof`] that answers one offer of a [`Quote`].
//!
//! Judges nothing about money or signatures. Whatever the version, the facilitator is sent a
//! version 2 request with our own requirement: what is signed does not commit to the version.
//! Rule: fact sheet sections 1.3 rows 4 to 7, 1.7 and 2.6.

use std::sync::Arc;

use alloy_primitives::hex;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Proof, ProofError, ProofHeaders, Signers, Terms, Transfer, check, opaque};
use crate::chain::{Nonce, NonceSpace, Payer, PaymentId};
use crate::clock::UnixSeconds;
use crate::facilitator::FacilitatorRequest;
use crate::route::price::{Method, Offer, Quote};
use crate::x402::Version;
use crate::x402::eip3009;
use crate::x402::header;
use crate::x402::matching;
use crate::x402::permit2;

/// Reads the proof of a request and finds the offer it answers.
///
/// `PAYMENT-SIGNATURE` goes before `X-PAYMENT`. A header of more than `bytes_max` bytes, or with
/// several values, is refused. `now` only bounds how long an opaque proof counts as good.
///
/// # Errors
///
/// [`ProofError`]; all of them become 402.
pub fn parse(
    headers: &ProofHeaders<'_>,
    quote: &Quote,
    bytes_max: usize,
    now: UnixSeconds,
) -> Result<Proof, ProofError> {
    decode(headers, bytes_max)?.answer_to(quote, now, &Signers::forgetful())
}

/// A payment header that can be read; what it says was held against nothing yet.
pub struct Decoded {
    /// The version of its header.
    pub(super) version: Version,
    pub(super) members: Map<String, Value>,
}

/// Reads the payment header of a request, once for all offers that it may answer.
///
/// # Errors
///
/// [`ProofError::Absent`], [`ProofError::Duplicate`] or [`ProofError::Undecodable`].
pub fn decode(headers: &ProofHeaders<'_>, bytes_max: usize) -> Result<Decoded, ProofError> {
    let v2 = single(&headers.payment_signature, header::PAYMENT_SIGNATURE)?;
    let v1 = single(&headers.x_payment, header::X_PAYMENT)?;
    let (version, value) = match (v2, v1) {
        (Some(value), _) => (Version::V2, value),
        (None, Some(value)) => (Version::V1, value),
        (None, None) => return Err(ProofError::Absent),
    };
    let members = members(value, bytes_max)?;
    Ok(Decoded { version, members })
}

impl Decoded {
    /// Finds the offer of `quote` that it answers. `signers` is asked where the signature must tell which
    /// of several is meant.
    ///
    /// # Errors
    ///
    /// [`ProofError`]; all of them become 402.
    pub fn answer_to(
        &self,
        quote: &Quote,
        now: UnixSeconds,
        signers: &Signers,
    ) -> Result<Proof, ProofError> {
        match self.version {
            Version::V2 => parse_v2(&self.members, quote, now),
            Version::V1 => parse_v1(&self.members, quote, now, signers),
        }
    }
}

fn single<'a>(values: &[&'a [u8]], name: &'static str) -> Result<Option<&'a [u8]>, ProofError> {
    match values {
        [] => Ok(None),
        [value] => Ok(Some(value)),
        [_, _, ..] => Err(ProofError::Duplicate(name)),
    }
}

fn members(value: &[u8], bytes_max: usize) -> Result<Map<String, Value>, ProofError> {
    match header::decode(value, bytes_max)? {
        Value::Object(members) => Ok(members),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(header::HeaderError::NotObject.into())
        }
    }
}

fn parse_v2(
    members: &Map<String, Value>,
    quote: &Quote,
    now: UnixSeconds,
) -> Result<Proof, ProofError> {
    let version = members.get("x402Version");
    if version.is_some_and(|v| matching::is_number(v, 1)) {
        // With `accepted` beside it this is a hybrid that the official SDK half accepts.
        return Err(ProofError::NoMatch);
    }
    if !version.is_some_and(|v| matching::is_number(v, 2)) {
        return Err(unsupported(version));
    }
    let accepted = members.get("accepted").ok_or(ProofError::NoMatch)?;
    let payload = members.get("payload");
    let matching = quote.offers.iter().filter(|offer| {
        let dynamic = matching::dynamic_members(&offer.scheme, offer.network.as_str());
        matching::matches(&offer.requirements_json, accepted, dynamic)
    });
    // `extra` of an EIP-3009 offer may be a part of that of a Permit2 offer for the same token, so
    // that both match: the one is meant whose kind of authorization was signed.
    let meant = matching
        .clone()
        .find(|offer| is_of_its_kind(offer, payload));
    let offer = meant.or_else(|| matching.clone().next());
    let offer = Arc::clone(offer.ok_or(ProofError::NoMatch)?);
    match members.get("extensions") {
        None | Some(Value::Null) => {}
        // No extension is advertised yet.
        Some(Value::Object(echoed)) if matching::echo_matches(None, Some(echoed)) => {}
        Some(_) => return Err(ProofError::EchoMismatch),
    }
    let signed = signed(&offer, payload, now)?;
    let rewritten = signed.payload().map(Value::from);
    let payment = match &rewritten {
        // What the client wrote beside it is nobody's business, and would make one payment many.
        Some(payload) => Payment::new(payload, &offer.requirements_json),
        None => Payment::new(payload.unwrap_or(&Value::Null), accepted),
    };
    let written = payment.written(&offer, &signed);
    Ok(signed.into_proof(Version::V2, offer, written))
}

fn parse_v1(
    members: &Map<String, Value>,
    quote: &Quote,
    now: UnixSeconds,
    signers: &Signers,
) -> Result<Proof, ProofError> {
    let version = members.get("x402Version");
    if !version.is_some_and(|v| matching::is_number(v, 1)) {
        return Err(unsupported(version));
    }
    if members.contains_key("accepted") {
        return Err(ProofError::NoMatch);
    }
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    let (scheme, network) = (text("scheme"), text("network"));
    let candidates: Vec<&Arc<Offer>> = quote
        .offers
        .iter()
        .filter(|offer| matches!(offer.method, Method::Eip3009(_)))
        .filter(|offer| offer.v1_network.is_some() && offer.v1_network == network)
        .filter(|offer| Some(&*offer.scheme) == scheme)
        .collect();
    let payload = members.get("payload");
    // A payment of version 1 does not name its token. Where we offer several on one network, the
    // one whose domain the signature fits is meant; else the first, whose check says what is wrong.
    let meant = candidates.iter().find(|offer| {
        candidates.len() > 1
            && signed(offer, payload, now)
                .is_ok_and(|signed| check::judge(&signed.terms, offer.amount, signers).is_ok())
    });
    let offer = Arc::clone(meant.or(candidates.first()).ok_or(ProofError::NoMatch)?);
    let signed = signed(&offer, payload, now)?;
    let rewritten = signed.payload().map(Value::from);
    let payload = rewritten.as_ref().or(payload).unwrap_or(&Value::Null);
    let written = Payment::new(payload, &offer.requirements_json).written(&offer, &signed);
    Ok(signed.into_proof(Version::V1, offer, written))
}

/// The payment as the facilitator is sent it. Nothing is copied before it is written.
#[derive(Serialize)]
struct Payment<'a> {
    #[serde(rename = "x402Version")]
    version: u8,
    payload: &'a Value,
    accepted: &'a Value,
}

/// What the facilitator is asked.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Asked<'a> {
    #[serde(rename = "x402Version")]
    version: u8,
    payment_payload: &'a Payment<'a>,
    payment_requirements: &'a Value,
}

/// A payment in writing.
struct Written {
    request: Arc<str>,
    /// The payment as the client wrote it, when it cannot be read here.
    opaque: Option<Arc<str>>,
}

impl<'a> Payment<'a> {
    const fn new(payload: &'a Value, accepted: &'a Value) -> Self {
        Self {
            version: 2,
            payload,
            accepted,
        }
    }

    fn written(&self, offer: &Offer, signed: &Signed) -> Written {
        let asked = Asked {
            version: 2,
            payment_payload: self,
            payment_requirements: &offer.requirements_json,
        };
        Written {
            request: text(&asked),
            opaque: match signed.terms {
                Terms::Opaque => Some(text(self)),
                Terms::Eip3009 { .. } | Terms::Permit2 { .. } => None,
            },
        }
    }
}

/// As JSON. Of values that were JSON this cannot fail; an empty question would be refused.
fn text(value: &impl Serialize) -> Arc<str> {
    serde_json::to_string(value).unwrap_or_default().into()
}

/// Whether the payload holds the kind of authorization that the offer asks for; nothing is read yet.
fn is_of_its_kind(offer: &Offer, payload: Option<&Value>) -> bool {
    let holds = |name: &str| payload.is_some_and(|payload| payload.get(name).is_some());
    match offer.method {
        Method::Eip3009(_) => !holds("permit2Authorization"),
        Method::Permit2(_) => holds("permit2Authorization"),
        Method::Opaque => true,
    }
}

/// The version as the official SDK spells it, `undefined` included.
fn unsupported(version: Option<&Value>) -> ProofError {
    ProofError::UnsupportedVersion(match version {
        None => "undefined".to_owned(),
        Some(Value::Number(number)) => number.to_string(),
        Some(_) => "not a number".to_owned(),
    })
}

/// What a payload says under the terms of an offer.
struct Signed {
    terms: Terms,
    nonce: Nonce,
    payer: Payer,
    valid_after: UnixSeconds,
    valid_before: UnixSeconds,
}

fn signed(offer: &Offer, payload: Option<&Value>, now: UnixSeconds) -> Result<Signed, ProofError> {
    let payload = payload
        .and_then(Value::as_object)
        .ok_or(ProofError::NoPayload)?;
    match &offer.method {
        Method::Eip3009(terms) => {
            let (authorization, signature) =
                eip3009::from_payload(payload).map_err(|error| ProofError::Payload {
                    transfer: Some(Transfer::Eip3009),
                    error,
                })?;
            Ok(Signed {
                nonce: Nonce {
                    space: NonceSpace::Eip3009,
                    bytes: authorization.nonce,
                },
                payer: Payer::evm(authorization.from),
                valid_after: authorization.valid_after(),
                valid_before: authorization.valid_before(),
                terms: Terms::Eip3009 {
                    authorization,
                    signature,
                    offer: terms.clone(),
                },
            })
        }
        Method::Permit2(terms) => {
            let (authorization, signature) =
                permit2::from_payload(payload).map_err(|error| ProofError::Payload {
                    transfer: Some(Transfer::Permit2),
                    error,
                })?;
            Ok(Signed {
                nonce: Nonce {
                    space: NonceSpace::Permit2,
                    bytes: authorization.nonce_word(),
                },
                payer: Payer::evm(authorization.from),
                valid_after: authorization.valid_after(),
                valid_before: authorization.deadline(),
                terms: Terms::Permit2 {
                    authorization,
                    signature,
                    offer: terms.clone(),
                },
            })
        }
        Method::Opaque => {
            let bytes = opaque::digest(&offer.scheme, offer.network.as_str(), payload)
                .map_err(ProofError::Transaction)?;
            Ok(Signed {
                nonce: Nonce {
                    space: NonceSpace::Opaque,
                    bytes,
                },
                payer: Payer::verbatim(""),
                valid_after: UnixSeconds(0),
                valid_before: now.plus(offer.requirements.max_timeout_seconds),
                terms: Terms::Opaque,
            })
        }
    }
}

impl Signed {
    /// What was signed, written out afresh; `None` when only the facilitator can read it.
    fn payload(&self) -> Option<Map<String, Value>> {
        let (mut payload, signature) = match &self.terms {
            Terms::Eip3009 {
                authorization,
                signature,
                ..
            } => (authorization.to_payload(&[0; 65]), signature),
            Terms::Permit2 {
                authorization,
                signature,
                ..
            } => (authorization.to_payload(&[0; 65]), signature),
            Terms::Opaque => return None,
        };
        let signature = hex::encode_prefixed(signature.as_bytes());
        payload.insert("signature".to_owned(), signature.into());
        Some(payload)
    }

    fn into_proof(self, version: Version, offer: Arc<Offer>, written: Written) -> Proof {
        Proof {
            version,
            payment: PaymentId {
                network: offer.network.clone(),
                asset: offer.asset.clone(),
                payer: self.payer.clone(),
                nonce: self.nonce,
            },
            payer: self.payer,
            valid_after: self.valid_after,
            valid_before: self.valid_before,
            request: FacilitatorRequest {
                body: written.request,
            },
            terms: self.terms,
            opaque: written.opaque,
            offer,
        }
    }
}
