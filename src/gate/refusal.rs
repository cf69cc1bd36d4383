//! Why a request does not go on. `proxy::respond` decides the status and the words for each.

use std::sync::Arc;

use thiserror::Error;

use crate::facilitator::FacilitatorFault;
use crate::gate::paid::Purchase;
use crate::ledger::LedgerError;
use crate::proof::ProofError;
use crate::route::Ambiguity;
use crate::target::{HostError, TargetError};
use crate::x402::message::SettlementResponse;
use crate::x402::reason::ReasonCode;

/// Why a request does not go on. `Display` is for the log.
#[derive(Debug, Error)]
pub enum Refusal {
    /// The target cannot be matched safely.
    #[error("unsafe request target: {0}")]
    Target(#[from] TargetError),
    /// The host cannot be read safely.
    #[error("unsafe host: {0}")]
    Host(#[from] HostError),
    /// The request is malformed in another way; the text may be shown.
    #[error("bad request: {0}")]
    BadRequest(&'static str),
    /// A method that is never forwarded.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// A preflight from an origin that is not allowed.
    #[error("cross-origin request from an origin that is not allowed")]
    OriginNotAllowed,
    /// No rule: unlisted is not free.
    #[error("no rule governs this request")]
    NoSuchRoute,
    /// Free in this spelling, priced in one that a lenient origin takes for the same.
    #[error("{} by its spelling, but a lenient origin could take it for {}", .0.granted, .0.guarded)]
    AmbiguousRoute(Arc<Ambiguity>),
    /// A rule with `deny = true`.
    #[error("rule {rule} denies it")]
    Denied {
        /// The rule.
        rule: Arc<str>,
    },
    /// A priced rule none of whose ways of being paid is available now.
    #[error("rule {rule} has no way of being paid right now: no facilitator answered /supported")]
    NothingOffered {
        /// The rule.
        rule: Arc<str>,
    },
    /// Another proxy asks, and the rule settles after a response that it alone will see.
    #[error("rule {rule} settles after delivery, which forward-auth cannot do")]
    SettlesAfterDelivery {
        /// The rule.
        rule: Arc<str>,
    },
    /// Asked whether a request may pass, by somebody who is not one of the listener's proxies.
    #[error("a forward-auth listener was asked by a peer that is not in `trusted`")]
    PeerNotTrusted,
    /// More requests than the rule's `rate_limit` allows.
    #[error("rule {rule}: over its rate limit")]
    RateLimited {
        /// The rule.
        rule: Arc<str>,
        /// When to come back, in seconds.
        retry_after_s: u64,
    },
    /// The body is longer than the rule allows.
    #[error("request body over the limit")]
    BodyTooLarge,
    /// A priced rule governs it, and the payment does not do.
    #[error("rule {}: {why}", purchase.route.rule)]
    Payment {
        /// What is wrong with the payment.
        #[source]
        why: PaymentRefusal,
        /// What was to be bought.
        purchase: Purchase,
    },
    /// The upstream could not be reached, or did not answer properly.
    #[error("upstream failed: {0}")]
    Upstream(UpstreamFailure),
    /// Our bug.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

/// How an upstream failed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum UpstreamFailure {
    /// No server is healthy, or none could be connected to.
    #[error("unreachable")]
    Unreachable,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The answer was not proper HTTP, or broke off.
    #[error("broken answer")]
    Broken,
}

/// What is wrong with the payment for a priced request.
#[derive(Debug, Error)]
pub enum PaymentRefusal {
    /// There is none.
    #[error("no payment")]
    Required,
    /// The proof does not hold.
    #[error("proof refused: {0}")]
    Proof(#[from] ProofError),
    /// The facilitator says that the proof does not hold.
    #[error("the facilitator refused the proof: {0}")]
    Invalid(ReasonCode),
    /// The payment has bought something already.
    #[error("the payment is spent")]
    Spent,
    /// Its buyer hung up on it too often while the upstream worked.
    #[error("the buyer hung up on this payment too often")]
    Abandoned,
    /// The same request with the same payment is being served.
    #[error("the same payment is in progress")]
    InProgress,
    /// Too many proofs are in verification.
    #[error("too many proofs in verification")]
    Busy,
    /// More payments than this client or payer may have looked at.
    #[error("too many payments from this client or payer")]
    RateLimited {
        /// When to come back, in seconds.
        retry_after_s: u64,
    },
    /// No facilitator gives a verdict.
    #[error("no facilitator gave a verdict: {faults:?}")]
    FacilitatorUnavailable {
        /// When to come back, in seconds.
        retry_after_s: u64,
        /// What went wrong with each, for the log.
        faults: Vec<(Arc<str>, FacilitatorFault)>,
    },
    /// The settle request certainly reached nobody; nothing was charged.
    #[error("no facilitator could be reached to settle")]
    SettlementNotSent,
    /// The facilitator refused to settle; nothing was charged.
    #[error("settlement refused: {}", receipt.error_reason.as_deref().unwrap_or("without a reason"))]
    SettlementRefused {
        /// The receipt that says so.
        receipt: Box<SettlementResponse>,
    },
    /// Money may have moved. The same proof is still good.
    #[error("the outcome of the settlement is not known yet")]
    OutcomeUnknown,
    /// Paid, but the response is gone and the request is not one to repeat: a debt for a person.
    #[error("paid, but the response is lost and cannot be asked for again")]
    ResponseLost {
        /// The receipt.
        receipt: Option<Box<SettlementResponse>>,
    },
    /// Paid in advance, and then the upstream failed: the response is owed.
    #[error("paid, but the upstream failed: {failure}")]
    Undelivered {
        /// How it failed.
        failure: UpstreamFailure,
        /// The receipt.
        receipt: Box<SettlementResponse>,
    },
    /// The upstream answered in a way that must not be sold; nothing was charged.
    #[error("the upstream answered {0}, which is not sold")]
    NotSold(u16),
    /// The ledger failed: fail closed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}
