//! Refusal -> status, headers, body: the only such mapping.
//!
//! Every answer tells the client what to do next, never what went wrong inside.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use pingora::http::ResponseHeader;
use pingora::{ErrorType, OkOrErr, Result};
use serde_json::json;

use crate::chain::Network;
use crate::chain::assets::v1_name;
use crate::challenge;
use crate::gate::{PaymentRefusal, Purchase, Refusal, UpstreamFailure};
use crate::proxy::code::Code;
use crate::proxy::context::RequestId;
use crate::proxy::wire::Wire;
use crate::route::price::PriceRule;
use crate::target::TargetError;
use crate::x402::Version;
use crate::x402::header;
use crate::x402::message::{ResourceInfo, SettlementResponse};
use crate::x402::reason::{Reason, ReasonCode};

/// What challenges say about the seller.
#[derive(Clone, Debug)]
pub struct Seller {
    /// Scheme, host and port that clients use, without trailing slash.
    pub public_origin: Arc<str>,
    /// 1 to 32 printable ASCII characters.
    pub service_name: Option<Arc<str>>,
    /// Whether a missing Permit2 allowance is 402 instead of 412.
    pub allowance_as_402: bool,
}

/// An answer of the wall's own.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: ResponseHeader,
    pub(super) body: Bytes,
    /// A short word for metrics and log.
    pub(super) outcome: &'static str,
}

/// The answer to a refused request.
pub(super) fn answer(refusal: &Refusal, seller: &Seller) -> Result<Answer> {
    match refusal {
        Refusal::Target(TargetError::TooLong) => {
            plain(Code::TargetTooLong, "The request target is over the limit.")
        }
        Refusal::Target(error) => plain(Code::UnsafeTarget, &error.to_string()),
        Refusal::Host(error) => plain(Code::BadHost, &error.to_string()),
        Refusal::BadRequest(text) => plain(Code::BadRequest, text),
        Refusal::MethodNotAllowed => plain(Code::MethodNotAllowed, "This method is not served."),
        Refusal::OriginNotAllowed => plain(
            Code::OriginNotAllowed,
            "Scripts of this origin are not served.",
        ),
        Refusal::NoSuchRoute | Refusal::AmbiguousRoute(_) => {
            plain(Code::NoSuchRoute, "Nothing is sold or given here.")
        }
        Refusal::Denied { .. } => plain(Code::Denied, "This is not served."),
        Refusal::NothingOffered { .. } => later(
            Code::PaymentUnavailable,
            "Payments cannot be taken right now; nothing was charged.",
            30,
        ),
        Refusal::SettlesAfterDelivery { .. } => plain(
            Code::SettlesAfterDelivery,
            "This is not sold by this way; nothing was charged.",
        ),
        Refusal::PeerNotTrusted => plain(
            Code::PeerNotTrusted,
            "Only the proxies of this listener are answered.",
        ),
        Refusal::RateLimited { retry_after_s, .. } => rate_limited(*retry_after_s),
        Refusal::BodyTooLarge => plain(Code::BodyTooLarge, "The request body is over the limit."),
        Refusal::Payment { why, purchase } => payment(why, purchase, seller),
        Refusal::Upstream(UpstreamFailure::Timeout) => plain(
            Code::UpstreamTimeout,
            "The service did not answer in time; nothing was charged.",
        ),
        Refusal::Upstream(UpstreamFailure::Unreachable | UpstreamFailure::Broken) => plain(
            Code::UpstreamFailed,
            "The service did not answer; nothing was charged.",
        ),
        Refusal::Internal(_) => plain(
            Code::InternalError,
            "This is our fault. If you paid, repeat the request with the same payment; do not pay again.",
        ),
    }
}

fn payment(why: &PaymentRefusal, purchase: &Purchase, seller: &Seller) -> Result<Answer> {
    let challenge =
        |code: Code, error: Option<&str>| challenged(code.status(), code, error, purchase, seller);
    match why {
        PaymentRefusal::Required => required(purchase, seller),
        PaymentRefusal::Proof(error) => {
            challenge(Code::ProofRefused, Some(error.reason().as_str()))
        }
        PaymentRefusal::Invalid(reason) if *reason == ALLOWANCE_REQUIRED => {
            // The buyer must approve Permit2 first; signing another proof would not help.
            challenged(
                if seller.allowance_as_402 { 402 } else { 412 },
                Code::AllowanceRequired,
                Some(reason.as_str()),
                purchase,
                seller,
            )
        }
        PaymentRefusal::Invalid(reason) => challenge(Code::ProofInvalid, Some(reason.as_str())),
        PaymentRefusal::Spent => challenge(Code::PaymentSpent, Some(Reason::AlreadyUsed.as_str())),
        PaymentRefusal::Abandoned => {
            challenge(Code::PaymentAbandoned, Some(Reason::Abandoned.as_str()))
        }
        PaymentRefusal::SettlementRefused { receipt } => refused(receipt, purchase, seller),
        PaymentRefusal::InProgress => later(Code::PaymentInProgress, IN_PROGRESS, 1),
        PaymentRefusal::Busy => later(Code::Busy, STILL_GOOD, 1),
        PaymentRefusal::RateLimited { retry_after_s } => rate_limited(*retry_after_s),
        PaymentRefusal::FacilitatorUnavailable { retry_after_s, .. } => {
            later(Code::PaymentUnavailable, STILL_GOOD, *retry_after_s)
        }
        PaymentRefusal::SettlementNotSent | PaymentRefusal::Ledger(_) => {
            later(Code::PaymentUnavailable, STILL_GOOD, 5)
        }
        PaymentRefusal::OutcomeUnknown => later(Code::SettlementUnknown, UNKNOWN, 5),
        PaymentRefusal::NotSold(_) => plain(Code::UpstreamFailed, PARTIAL),
        PaymentRefusal::Undelivered { failure, receipt } => {
            let status = if *failure == UpstreamFailure::Timeout {
                504
            } else {
                502
            };
            with_receipt(
                later_as(status, Code::ResponseOwed, OWED, 5)?,
                Some(receipt),
                purchase,
            )
        }
        PaymentRefusal::ResponseLost { receipt } => {
            let receipt = receipt.as_deref();
            with_receipt(plain(Code::ResponseLost, LOST)?, receipt, purchase)
        }
    }
}

fn rate_limited(retry_after_s: u64) -> Result<Answer> {
    later(
        Code::RateLimited,
        "Too many requests. A payment sent with this one was not used and is still good.",
        retry_after_s,
    )
}

const IN_PROGRESS: &str = "A request with this payment is in progress. \
    Repeat it with the same payment; do not pay again.";
const STILL_GOOD: &str = "Payments cannot be taken right now, and nothing was charged. \
    The payment is still good: repeat the request with it.";
const UNKNOWN: &str = "The settlement is not confirmed yet. \
    The same payment is still good: repeat the request with it, and do not pay again.";
const PARTIAL: &str = "The service gave a partial answer; nothing was charged.";
const OWED: &str = "The payment is settled, but the service did not answer. The response is owed: \
    repeat the request with the same payment, and do not pay again.";
const LOST: &str = "This payment was settled, but its response is lost and the request cannot be \
    repeated safely. Keep the receipt and ask the operator; do not pay again.";

fn with_receipt(
    mut answer: Answer,
    receipt: Option<&SettlementResponse>,
    purchase: &Purchase,
) -> Result<Answer> {
    if let Some(receipt) = receipt {
        set_receipt(&mut answer.head, receipt, purchase)?;
    }
    Ok(answer)
}

const ALLOWANCE_REQUIRED: ReasonCode = ReasonCode::ours(Reason::AllowanceRequired);

/// An answer as it goes over an HTTP/1.1 connection that stays open.
pub(super) struct OnWire {
    pub(super) bytes: Vec<u8>,
    pub(super) status: u16,
    /// As of an [`Answer`].
    pub(super) outcome: &'static str,
}

/// [`answer`] in bytes, the body left out where the request was `HEAD`.
pub(super) fn on_wire(
    refusal: &Refusal,
    seller: &Seller,
    request_id: &RequestId,
    is_head: bool,
) -> Result<OnWire> {
    if let Refusal::Payment {
        why: PaymentRefusal::Required,
        purchase,
    } = refusal
        && let Some(first) = prepared(purchase, seller).and_then(|r| r.first.get())
        && first.path == purchase.path
        && let Some(bytes) = first
            .wire
            .as_ref()
            .and_then(|w| w.fill(request_id, is_head))
    {
        return Ok(OnWire {
            bytes,
            status: Code::PaymentRequired.status(),
            outcome: Code::PaymentRequired.as_str(),
        });
    }
    let Answer {
        head,
        body,
        outcome,
    } = answer(refusal, seller)?;
    let status = head.status.as_u16();
    let wire = Wire::new(head, &body)?;
    let bytes = wire.and_then(|wire| wire.fill(request_id, is_head));
    let bytes = bytes.or_err(
        ErrorType::InternalError,
        "an answer has no place for its request",
    )?;
    Ok(OnWire {
        bytes,
        status,
        outcome,
    })
}

/// The answer to requests without payment under one rule.
struct Required {
    challenge: challenge::Prepared,
    /// Complete, for the path that was asked for first: a rule for one path has no other.
    first: OnceLock<First>,
}

struct First {
    path: Arc<str>,
    head: ResponseHeader,
    body: Bytes,
    wire: Option<Wire>,
}

/// What is kept of the answer; `None` where it cannot be.
fn prepared<'a>(purchase: &'a Purchase, seller: &Seller) -> Option<&'a Required> {
    // Another kind of price may give each request another quote, and then has to be rendered.
    let PriceRule::Fixed(quote) = &purchase.route.price;
    let prepared = purchase.route.prepared.get_or_make(|| {
        let at_origin = resource(purchase, seller, "");
        challenge::Prepared::new(&quote.offers, &at_origin).map(|challenge| Required {
            challenge,
            first: OnceLock::new(),
        })
    });
    prepared?.as_ref()
}

/// 402 for a request without payment: nothing of it is rendered that was rendered before.
fn required(purchase: &Purchase, seller: &Seller) -> Result<Answer> {
    const CODE: Code = Code::PaymentRequired;
    let Some(required) = prepared(purchase, seller) else {
        return challenged(CODE.status(), CODE, None, purchase, seller);
    };
    if let Some(first) = required.first.get()
        && first.path == purchase.path
    {
        return Ok(Answer {
            head: first.head.clone(),
            body: first.body.clone(),
            outcome: CODE.as_str(),
        });
    }
    let Some(challenge) = required.challenge.fill(&purchase.path) else {
        return challenged(CODE.status(), CODE, None, purchase, seller);
    };
    let answer = offering(CODE.status(), CODE, challenge)?;
    if required.first.get().is_none() {
        // Whoever was first: any path of the rule does.
        let _ = required.first.set(First {
            path: Arc::clone(&purchase.path),
            head: answer.head.clone(),
            body: answer.body.clone(),
            wire: Wire::new(answer.head.clone(), &answer.body)?,
        });
    }
    Ok(answer)
}

/// 402 (or 412) with a fresh challenge; version 1 clients find theirs in the body.
fn challenged(
    status: u16,
    code: Code,
    error: Option<&str>,
    purchase: &Purchase,
    seller: &Seller,
) -> Result<Answer> {
    let resource = resource(purchase, seller, &purchase.path);
    let challenge = challenge::render(&purchase.quote.offers, &resource, error);
    offering(status, code, challenge)
}

fn offering(status: u16, code: Code, challenge: challenge::Challenge) -> Result<Answer> {
    let mut head = json_head(status, challenge.body.len(), 6)?;
    head.insert_header(header::PAYMENT_REQUIRED, challenge.header)?;
    Ok(Answer {
        head,
        body: challenge.body.into(),
        outcome: code.as_str(),
    })
}

/// 402 after a refused settlement: the receipt, and no challenge header (spec section 1.3, row 18).
fn refused(receipt: &SettlementResponse, purchase: &Purchase, seller: &Seller) -> Result<Answer> {
    let body = match purchase.version {
        Version::V2 => Bytes::from_static(b"{}"),
        Version::V1 => {
            let reason = receipt.error_reason.as_deref().map(ReasonCode::foreign);
            let error = reason.as_ref().map(ReasonCode::as_str);
            challenge::render(
                &purchase.quote.offers,
                &resource(purchase, seller, &purchase.path),
                error,
            )
            .body
            .into()
        }
    };
    let mut head = json_head(Code::SettlementRefused.status(), body.len(), 6)?;
    set_receipt(&mut head, receipt, purchase)?;
    Ok(Answer {
        head,
        body,
        outcome: Code::SettlementRefused.as_str(),
    })
}

/// What is sold: the public origin and the canonical path, never what a client claims. The query
/// stays out: it may hold secrets, and the challenge travels to facilitators.
fn resource(purchase: &Purchase, seller: &Seller, path: &str) -> ResourceInfo {
    ResourceInfo {
        url: format!("{}{path}", seller.public_origin),
        description: purchase.route.description.to_string(),
        mime_type: purchase.route.mime_type.to_string(),
        service_name: seller.service_name.as_deref().map(str::to_owned),
    }
}

/// Adds the receipt, in the version and under the name that the client reads.
pub(super) fn set_receipt(
    head: &mut ResponseHeader,
    receipt: &SettlementResponse,
    purchase: &Purchase,
) -> Result<()> {
    let mut receipt = receipt.clone();
    receipt.error_message = None;
    receipt.error_reason = receipt
        .error_reason
        .map(|r| ReasonCode::foreign(&r).to_string());
    let name = match purchase.version {
        Version::V2 => header::PAYMENT_RESPONSE,
        Version::V1 => {
            let offer = purchase
                .quote
                .offers
                .iter()
                .find(|o| o.network.as_str() == receipt.network);
            // Paid at a price of an earlier configuration, perhaps on another network.
            let by_name = || v1_name(&Network::parse_caip2(&receipt.network).ok()?);
            if let Some(name) = offer.and_then(|o| o.v1_network).or_else(by_name) {
                name.clone_into(&mut receipt.network);
            }
            header::X_PAYMENT_RESPONSE
        }
    };
    head.insert_header(name, header::encode(&receipt))
}

/// An error with a code for programs and a sentence for people.
fn plain(code: Code, message: &str) -> Result<Answer> {
    plain_as(code.status(), code, message)
}

fn plain_as(status: u16, code: Code, message: &str) -> Result<Answer> {
    let body = Bytes::from(json!({ "error": code.as_str(), "message": message }).to_string());
    Ok(Answer {
        head: json_head(status, body.len(), 4)?,
        body,
        outcome: code.as_str(),
    })
}

/// The same, with `Retry-After`.
fn later(code: Code, message: &str, seconds: u64) -> Result<Answer> {
    later_as(code.status(), code, message, seconds)
}

fn later_as(status: u16, code: Code, message: &str, seconds: u64) -> Result<Answer> {
    let mut answer = plain_as(status, code, message)?;
    answer
        .head
        .insert_header("Retry-After", seconds.to_string())?;
    Ok(answer)
}

fn json_head(status: u16, length: usize, headers: usize) -> Result<ResponseHeader> {
    // Names go out in lower case, which costs less than to remember another; HTTP takes any.
    let mut head = ResponseHeader::build_no_case(status, Some(headers))?;
    head.insert_header(CONTENT_TYPE, HeaderValue::from_static("application/json"))?;
    head.insert_header(CONTENT_LENGTH, length)?;
    head.insert_header(CACHE_CONTROL, HeaderValue::from_static("no-store"))?;
    // Every answer gets one, and what is there already need not be made room for.
    head.insert_header("X-Request-Id", HeaderValue::from_static(""))?;
    Ok(head)
}
