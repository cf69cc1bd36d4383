//! Who checks and settles payments for us: the trait, and its answers with all their shades.
//!
//! The one thing to get right: a time-out, a broken connection, a 5xx or junk after the request
//! went out is [`SettleAnswer::Unknown`]. Money may have moved.

pub mod supported;
pub mod http;
pub mod breaker;
pub mod guarded;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use thiserror::Error;

use crate::facilitator::breaker::Stage;
use crate::facilitator::supported::Supported;
use crate::x402::message::SettlementResponse;
use crate::x402::reason::ReasonCode;

/// The body of `/verify` and `/settle`: our own requirement beside the client's payload.
///
/// Kept as text, so that a settlement is repeated byte for byte.
#[derive(Clone)]
pub struct FacilitatorRequest {
    /// `{"x402Version":…,"paymentPayload":…,"paymentRequirements":…}`
    pub body: Arc<str>,
}

impl std::fmt::Debug for FacilitatorRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Whoever has it can have the payment settled.
        write!(f, "FacilitatorRequest({} bytes)", self.body.len())
    }
}

/// What `/verify` said.
#[derive(Clone, Debug)]
pub enum VerifyAnswer {
    /// The proof is good.
    Valid {
        /// Who pays, as the facilitator spells it.
        payer: Option<String>,
    },
    /// The proof is not good, for this reason. A definite verdict.
    Invalid {
        /// The facilitator's code, passed on to the client.
        reason: ReasonCode,
    },
    /// No verdict: the facilitator could not be asked, or did not make sense.
    Unavailable(FacilitatorFault),
}

/// What `/settle` said, or what we know without it.
#[derive(Clone, Debug)]
pub enum SettleAnswer {
    /// The money moved.
    Settled(SettlementResponse),
    /// A definite no; no money moved.
    Refused(SettlementResponse),
    /// Money may have moved. Repeat the identical request until it is known.
    Unknown(FacilitatorFault),
    /// The request certainly never reached the facilitator.
    NotSent(FacilitatorFault),
}

impl SettleAnswer {
    /// The word in metrics: `settled`, `refused`, `unknown` or `not_sent`.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Settled(_) => "settled",
            Self::Refused(_) => "refused",
            Self::Unknown(_) => "unknown",
            Self::NotSent(_) => "not_sent",
        }
    }
}

/// What went wrong between us and a facilitator. For the log only, never for the client.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum FacilitatorFault {
    /// No connection: refused, name not resolved, TLS handshake failed.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// No complete answer in time.
    #[error("no answer within {0} ms")]
    Timeout(u64),
    /// The connection broke after the request went out.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// A status that carries no verdict.
    #[error("HTTP status {status}")]
    Status {
        /// The status.
        status: u16,
        /// `Retry-After`, in seconds, when given.
        retry_after_s: Option<u64>,
    },
    /// 2xx with a body that is not the protocol's.
    #[error("unusable answer: {0}")]
    Junk(String),
    /// A body over the limit.
    #[error("answer larger than {0} bytes")]
    TooLarge(usize),
    /// `settlement_pending`, even after the one immediate repetition.
    #[error("the settlement is pending")]
    Pending,
    /// Too many calls are under way.
    #[error("too many calls to this facilitator are under way")]
    Saturated,
    /// Not asked: it kept failing, or asked to be left alone.
    #[error("left alone for {retry_after_s} s after failures")]
    Open {
        /// Seconds until it is asked again; at least 1.
        retry_after_s: u64,
    },
}

/// Whether a facilitator is fit to be asked now; in the order of preference.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Fitness {
    /// As far as is known.
    #[default]
    Well,
    /// All its calls are taken: the next one waits.
    Busy,
    /// It kept failing.
    Failing,
}

/// A facilitator: local sandbox or remote service, one API.
#[async_trait]
pub trait Facilitator: Send + Sync {
    /// Its name in the configuration.
    fn name(&self) -> &Arc<str>;

    /// Is this proof good for our requirement?
    async fn verify(&self, request: &FacilitatorRequest) -> VerifyAnswer;

    /// Move the money. Call it from a task that nobody cancels.
    async fn settle(&self, request: &FacilitatorRequest) -> SettleAnswer;

    /// Whether to ask it, or rather another. Without knowledge: [`Fitness::Well`].
    fn fitness(&self) -> Fitness {
        Fitness::Well
    }

    /// Whether its last call that says something about its health was answered. Without knowledge: yes.
    fn is_healthy(&self) -> bool {
        true
    }

    /// Where its breaker stands. Without one: closed.
    fn breaker(&self) -> Stage {
        Stage::Closed
    }

    /// How often a verification that found no verdict is repeated.
    fn verify_retries(&self) -> u32 {
        0
    }

    /// Which versions, schemes and networks it handles.
    async fn supported(&self) -> Result<Supported, FacilitatorFault>;
}

/// A `/supported` kind in raw form, for `extra` to be merged into a requirement.
pub type KindExtra = serde_json::Map<String, Value>;
