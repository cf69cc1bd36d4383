//! Header bytes become a [`Proof`] that answers one offer of a [`Quote`].
//!
//! Judges nothing about money or signatures. Whatever the version, the facilitator is sent a
//! version 2 request with our own requirement: what is signed does not commit to the version.
//! Rule: fact sheet sections 1.3 rows 4 to 7, 1.7 and 2.6.

use std::sync::{Arc, OnceLock};

use alloy_primitives::Address;
use serde::Serialize;
use serde_json::Value;

use super::{Proof, ProofError, ProofHeaders, Signers, Terms, Transfer, asked, check, opaque};
use crate::chain::{Nonce, NonceSpace, Payer, PaymentId};
use crate::clock::UnixSeconds;
use crate::facilitator::FacilitatorRequest;
use crate::route::price::{Method, Offer, Quote};
use crate::x402::Version;
use crate::x402::eip3009;
use crate::x402::header;
use crate::x402::json::{Borrowed, Json, Members, Object};
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
    let presented = presented(headers, bytes_max)?;
    presented
        .decode()?
        .answer_to(quote, now, &Signers::forgetful())
}

/// A payment header out of its encoding; whether that is a message is not known yet.
pub struct Presented {
    version: Version,
    json: Vec<u8>,
}

/// A payment header that can be read; what it says was held against nothing yet.
pub struct Decoded<'a> {
    /// The version of its header.
    pub(super) version: Version,
    pub(super) members: Object<'a>,
}

/// Takes the payment header of a request.
///
/// # Errors
///
/// [`ProofError::Absent`], [`ProofError::Duplicate`] or [`ProofError::Undecodable`].
pub fn presented(headers: &ProofHeaders<'_>, bytes_max: usize) -> Result<Presented, ProofError> {
    let v2 = single(&headers.payment_signature, header::PAYMENT_SIGNATURE)?;
    let v1 = single(&headers.x_payment, header::X_PAYMENT)?;
    let (version, value) = match (v2, v1) {
        (Some(value), _) => (Version::V2, value),
        (None, Some(value)) => (Version::V1, value),
        (None, None) => return Err(ProofError::Absent),
    };
    let json = header::decode_bytes(value, bytes_max)?;
    Ok(Presented { version, json })
}

impl Presented {
    /// Reads it, once for all offers that it may answer.
    ///
    /// # Errors
    ///
    /// [`ProofError::Undecodable`].
    pub fn decode(&self) -> Result<Decoded<'_>, ProofError> {
        Ok(Decoded {
            version: self.version,
            members: header::members(&self.json)?,
        })
    }
}

impl Decoded<'_> {
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

fn parse_v2(members: &Object<'_>, quote: &Quote, now: UnixSeconds) -> Result<Proof, ProofError> {
    let version = members.member("x402Version");
    if version.is_some_and(|v| matching::is_number(v, 1)) {
        // With `accepted` beside it this is a hybrid that the official SDK half accepts.
        return Err(ProofError::NoMatch);
    }
    if !version.is_some_and(|v| matching::is_number(v, 2)) {
        return Err(unsupported(version));
    }
    let accepted = members.member("accepted").ok_or(ProofError::NoMatch)?;
    let payload = members.member("payload");
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
    match members.member("extensions") {
        None | Some(Borrowed::Null) => {}
        // No extension is advertised yet.
        Some(Borrowed::Object(echoed)) if matching::echo_matches(None, Some(echoed)) => {}
        Some(_) => return Err(ProofError::EchoMismatch),
    }
    let signed = signed(&offer, payload, now)?;
    let opaque = match &signed.terms {
        Terms::Opaque => Some(Opaque::written(payload, accepted, &offer)),
        Terms::Eip3009 { .. } | Terms::Permit2 { .. } => None,
    };
    Ok(signed.into_proof(Version::V2, offer, opaque))
}

fn parse_v1(
    members: &Object<'_>,
    quote: &Quote,
    now: UnixSeconds,
    signers: &Signers,
) -> Result<Proof, ProofError> {
    let version = members.member("x402Version");
    if !version.is_some_and(|v| matching::is_number(v, 1)) {
        return Err(unsupported(version));
    }
    if members.member("accepted").is_some() {
        return Err(ProofError::NoMatch);
    }
    let text = |name: &str| members.member(name).and_then(Json::text);
    let (scheme, network) = (text("scheme"), text("network"));
    let candidates: Vec<&Arc<Offer>> = quote
        .offers
        .iter()
        .filter(|offer| matches!(offer.method, Method::Eip3009(_)))
        .filter(|offer| offer.v1_network.is_some() && offer.v1_network == network)
        .filter(|offer| Some(&*offer.scheme) == scheme)
        .collect();
    let payload = members.member("payload");
    // A payment of version 1 does not name its token. Where we offer several on one network, the
    // one whose domain the signature fits is meant; else the first, whose check says what is wrong.
    let meant = candidates.iter().find(|offer| {
        candidates.len() > 1
            && signed(offer, payload, now)
                .is_ok_and(|signed| check::judge(&signed.terms, offer.amount, signers).is_ok())
    });
    let offer = Arc::clone(meant.or(candidates.first()).ok_or(ProofError::NoMatch)?);
    let signed = signed(&offer, payload, now)?;
    // Only EIP-3009 has a version 1 here.
    Ok(signed.into_proof(Version::V1, offer, None))
}

/// A payment of which only the facilitator can read more than we did, in writing.
pub(super) struct Opaque {
    /// As the client wrote it.
    payment: Arc<str>,
    /// What the facilitator is asked.
    request: FacilitatorRequest,
}

/// The payment as the facilitator is sent it.
#[derive(Serialize)]
struct Payment<'a> {
    #[serde(rename = "x402Version")]
    version: u8,
    payload: &'a Value,
    accepted: &'a Value,
}

impl Opaque {
    fn written(payload: Option<&Borrowed<'_>>, accepted: &Borrowed<'_>, offer: &Offer) -> Self {
        let payment = Payment {
            version: 2,
            payload: &payload.map(Value::from).unwrap_or_default(),
            accepted: &Value::from(accepted),
        };
        // Of values that were JSON this cannot fail; an empty question would be refused.
        let payment: Arc<str> = serde_json::to_string(&payment).unwrap_or_default().into();
        let request = asked::about(&payment, offer);
        Self { payment, request }
    }
}

/// Whether the payload holds the kind of authorization that the offer asks for; nothing is read yet.
fn is_of_its_kind(offer: &Offer, payload: Option<&Borrowed<'_>>) -> bool {
    let payload = payload.and_then(Json::members);
    let holds = |name: &str| payload.is_some_and(|payload| payload.member(name).is_some());
    match offer.method {
        Method::Eip3009(_) => !holds("permit2Authorization"),
        Method::Permit2(_) => holds("permit2Authorization"),
        Method::Opaque => true,
    }
}

/// The version as the official SDK spells it, `undefined` included.
fn unsupported(version: Option<&Borrowed<'_>>) -> ProofError {
    ProofError::UnsupportedVersion(match version {
        None => "undefined".to_owned(),
        Some(Borrowed::Number(number)) => number.to_string(),
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

fn signed(
    offer: &Offer,
    payload: Option<&Borrowed<'_>>,
    now: UnixSeconds,
) -> Result<Signed, ProofError> {
    let payload = payload
        .and_then(Json::members)
        .ok_or(ProofError::NoPayload)?;
    match &offer.method {
        Method::Eip3009(terms) => {
            let (authorization, signature) =
                eip3009::from_payload_to(payload, offer.pay_to.as_str()).map_err(|error| {
                    ProofError::Payload {
                        transfer: Some(Transfer::Eip3009),
                        error,
                    }
                })?;
            let from = payload.member("authorization").and_then(Json::members);
            Ok(Signed {
                nonce: Nonce {
                    space: NonceSpace::Eip3009,
                    bytes: authorization.nonce,
                },
                payer: payer(authorization.from, from),
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
            let bytes = opaque::digest(&offer.scheme, offer.network.as_str(), &payload.into())
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

/// The account that signed with EIP-3009. Mixed case was held against its checksum, which is most of the work
/// of spelling an account.
fn payer(account: Address, authorization: Option<&Object<'_>>) -> Payer {
    let spelled = authorization
        .and_then(|members| members.member("from"))
        .and_then(Json::text)
        .filter(|text| text.bytes().any(|b| b.is_ascii_uppercase()));
    spelled.map_or_else(|| Payer::evm(account), Payer::verbatim)
}

impl Signed {
    fn into_proof(self, version: Version, offer: Arc<Offer>, opaque: Option<Opaque>) -> Proof {
        let (request, opaque) = match opaque {
            Some(Opaque { payment, request }) => (OnceLock::from(request), Some(payment)),
            None => (OnceLock::new(), None),
        };
        Proof {
            version,
            payment: PaymentId {
                network: offer.network.clone(),
                asset: offer.asset.clone(),
                payer: self.payer.clone(),
                nonce: self.nonce,
            },
            key: OnceLock::new(),
            payer: self.payer,
            valid_after: self.valid_after,
            valid_before: self.valid_before,
            request,
            terms: self.terms,
            opaque,
            offer,
        }
    }
}
