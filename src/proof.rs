//! The stages of a proof: [`Proof`] answers a quote, [`CheckedProof`] holds what can be judged here,
//! [`VerifiedProof`] was found good by a facilitator.
//!
//! Each stage is made by one function only, from the stage before it: holding one is the permission
//! to go on. None of them says that the payment is unspent; only a claim in the ledger does.

mod asked;
pub mod opaque;
pub mod signers;
pub mod parse;
pub mod check;
pub mod cache;
pub mod verify;
pub mod named;

use std::sync::{Arc, OnceLock};

use thiserror::Error;

use crate::chain::{Payer, PaymentId, PaymentKey};
use crate::clock::UnixSeconds;
use crate::facilitator::FacilitatorRequest;
use crate::route::price::{EvmTerms, Offer};
use crate::x402::Version;
use crate::x402::eip712::{Signature, SignatureError};
use crate::x402::eip3009;
use crate::x402::header::{self, HeaderError};
use crate::x402::payload::PayloadError;
use crate::x402::permit2;
use crate::x402::reason::{Reason, ReasonCode};

pub use self::cache::{Freshness, VerdictCache};
pub use self::check::{CheckedProof, check};
pub use self::parse::parse;
pub use self::signers::Signers;
pub use self::verify::{VerifiedProof, Verifier, VerifyError};

/// The payment headers of a request, every value of each.
#[derive(Clone, Default)]
pub struct ProofHeaders<'a> {
    /// Values of `PAYMENT-SIGNATURE`, version 2.
    pub payment_signature: Vec<&'a [u8]>,
    /// Values of `X-PAYMENT`, version 1.
    pub x_payment: Vec<&'a [u8]>,
}

impl std::fmt::Debug for ProofHeaders<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The values hold signatures.
        f.debug_struct("ProofHeaders")
            .field("payment_signature", &self.payment_signature.len())
            .field("x_payment", &self.x_payment.len())
            .finish()
    }
}

impl ProofHeaders<'_> {
    /// The headers that payments come in. Whoever answers a request without reading them looks for all of these.
    pub const NAMES: [&'static str; 2] = [header::PAYMENT_SIGNATURE, header::X_PAYMENT];

    /// Whether no payment was sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.payment_signature.is_empty() && self.x_payment.is_empty()
    }

    /// The version of the proof that counts; version 2 when there is none.
    #[must_use]
    pub fn version(&self) -> Version {
        if self.payment_signature.is_empty() && !self.x_payment.is_empty() {
            Version::V1
        } else {
            Version::V2
        }
    }
}

/// A proof that answers one offer of a quote; nothing of it was judged yet. Only [`parse()`] makes one.
#[derive(Debug)]
pub struct Proof {
    version: Version,
    offer: Arc<Offer>,
    payment: PaymentId,
    /// Its key, once somebody asked.
    key: OnceLock<PaymentKey>,
    payer: Payer,
    valid_after: UnixSeconds,
    valid_before: UnixSeconds,
    /// Written when somebody is going to be asked; of an opaque proof at once.
    request: OnceLock<FacilitatorRequest>,
    terms: Terms,
    /// The payment as the client wrote it, when it cannot be read here.
    opaque: Option<Arc<str>>,
}

/// What the client signed, with what it is to be checked against.
#[derive(Clone, Debug)]
pub enum Terms {
    /// `transferWithAuthorization`.
    Eip3009 {
        /// What was signed.
        authorization: eip3009::Authorization,
        /// The signature as it came.
        signature: Signature,
        /// Our side.
        offer: EvmTerms,
    },
    /// `permitWitnessTransferFrom`.
    Permit2 {
        /// What was signed.
        authorization: permit2::Authorization,
        /// The signature as it came.
        signature: Signature,
        /// Our side.
        offer: EvmTerms,
    },
    /// Only the facilitator can read it.
    Opaque,
}

impl Proof {
    /// The version that the client speaks, and must be answered in.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The offer that it answers.
    #[must_use]
    pub const fn offer(&self) -> &Arc<Offer> {
        &self.offer
    }

    /// Which payment it is.
    #[must_use]
    pub const fn payment(&self) -> &PaymentId {
        &self.payment
    }

    /// The key of [`Self::payment`], hashed once.
    #[must_use]
    pub fn key(&self) -> PaymentKey {
        *self.key.get_or_init(|| self.payment.key())
    }

    /// Who pays by what was signed; empty for opaque proofs.
    #[must_use]
    pub const fn payer(&self) -> &Payer {
        &self.payer
    }

    /// When it can be settled first.
    #[must_use]
    pub const fn valid_after(&self) -> UnixSeconds {
        self.valid_after
    }

    /// From when on it cannot be settled any more; up to `u64::MAX`. For opaque proofs our own
    /// estimate: the offer's time-out from the moment of parsing.
    #[must_use]
    pub const fn valid_before(&self) -> UnixSeconds {
        self.valid_before
    }

    /// What the facilitator is asked, for `/verify` and `/settle` alike.
    #[must_use]
    pub fn request(&self) -> &FacilitatorRequest {
        self.request.get_or_init(|| {
            let written = asked::written(&self.terms, &self.offer, self.payer.as_str());
            // An opaque proof has its question from the beginning; an empty one would be refused.
            written.unwrap_or_else(|| FacilitatorRequest { body: "".into() })
        })
    }

    /// What was signed.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// What only the payer can know, when the signature could not be checked here: the signature
    /// of a contract wallet, or a whole opaque payload. `None` when it was checked.
    #[must_use]
    pub fn unchecked_credential(&self) -> Option<&[u8]> {
        match &self.terms {
            Terms::Eip3009 { signature, .. } | Terms::Permit2 { signature, .. } => {
                match signature {
                    Signature::Eoa(_) => None,
                    Signature::Contract(bytes) => Some(bytes),
                }
            }
            // Not what a facilitator is asked, in which our own words may change with a reload.
            Terms::Opaque => self.opaque.as_deref().map(str::as_bytes),
        }
    }
}

/// How an EVM payment moves; the two have reason codes of their own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transfer {
    /// `transferWithAuthorization` of the token.
    Eip3009,
    /// Permit2.
    Permit2,
}

/// Why a proof was refused without asking anybody. All of these become 402 with a fresh challenge.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProofError {
    /// No payment header at all.
    #[error("no payment header")]
    Absent,
    /// One payment header with several values.
    #[error("the payment header {0} was sent more than once")]
    Duplicate(&'static str),
    /// The header is no message.
    #[error("undecodable payment header: {0}")]
    Undecodable(#[from] HeaderError),
    /// A version that this header does not carry; the text is bounded by the header's size.
    #[error("x402 version {0} in this header")]
    UnsupportedVersion(String),
    /// No offer of the quote is what the client accepted.
    #[error("no offer matches what the client accepted")]
    NoMatch,
    /// The client changed an extension that we advertised.
    #[error("an echoed extension was altered")]
    EchoMismatch,
    /// The scheme's payload cannot be read.
    #[error("unreadable payload: {error}")]
    Payload {
        /// The transfer that the offer asks for; `None` when it is opaque.
        transfer: Option<Transfer>,
        /// What is wrong with it.
        #[source]
        error: PayloadError,
    },
    /// The payload is not a JSON object.
    #[error("the payload is not an object")]
    NoPayload,
    /// An opaque payload that should hold a transaction does not.
    #[error("the transaction cannot be read: {0}")]
    Transaction(#[source] opaque::TransactionError),
    /// Our own offer lacks the EIP-712 name or version: a configuration error.
    #[error("the offer has no EIP-712 domain")]
    MissingDomain,
    /// A spender other than the exact proxy.
    #[error("the Permit2 spender is not the exact proxy")]
    Spender,
    /// A token other than the offer's.
    #[error("the permitted token is not the offer's")]
    Token,
    /// Pays somebody else.
    #[error("pays somebody else")]
    Recipient(Transfer),
    /// Cannot be settled any more, or not for long enough.
    #[error("expires too soon or has expired")]
    Expired(Transfer),
    /// Cannot be settled yet.
    #[error("is not valid yet")]
    NotYetValid(Transfer),
    /// Another amount than the price. `exact` means equal.
    #[error("the amount is not the price")]
    Amount(Transfer),
    /// Nobody's signature, or that of another key than the payer's.
    #[error("the signature is not the payer's")]
    Signature {
        /// How it would have moved.
        transfer: Transfer,
        /// What is wrong with it; `None` when another key made it.
        #[source]
        cause: Option<SignatureError>,
    },
}

impl ProofError {
    /// Whether the proof may be good for another offer than those it was held against: it can be
    /// read, and says something else.
    #[must_use]
    pub const fn may_answer_another_offer(&self) -> bool {
        match self {
            Self::NoMatch
            | Self::Payload { .. }
            | Self::MissingDomain
            | Self::Spender
            | Self::Token
            | Self::Recipient(_)
            | Self::Amount(_)
            | Self::Signature { .. }
            // Told instead of the amount or the signature where both are wrong.
            | Self::Expired(_)
            | Self::NotYetValid(_) => true,
            Self::Absent
            | Self::Duplicate(_)
            | Self::Undecodable(_)
            | Self::UnsupportedVersion(_)
            | Self::EchoMismatch
            | Self::NoPayload
            | Self::Transaction(_) => false,
        }
    }

    /// The code that the client is told: that of the official SDKs, where they have one.
    #[must_use]
    pub fn reason(&self) -> ReasonCode {
        use Transfer::{Eip3009, Permit2};
        ReasonCode::ours(match self {
            Self::UnsupportedVersion(version) => {
                return ReasonCode::foreign(&format!("Unsupported x402 version: {version}"));
            }
            Self::Absent | Self::Undecodable(_) => Reason::Required,
            Self::Duplicate(_) => Reason::DuplicateHeader,
            Self::NoMatch => Reason::NoMatch,
            Self::EchoMismatch => Reason::EchoMismatch,
            Self::Payload { transfer, error } => payload_reason(*transfer, *error),
            Self::NoPayload | Self::Transaction(_) => Reason::InvalidPayload,
            Self::MissingDomain => Reason::MissingDomain,
            Self::Spender => Reason::Permit2Spender,
            Self::Token => Reason::Permit2Token,
            Self::Recipient(Eip3009) => Reason::Recipient,
            Self::Recipient(Permit2) => Reason::Permit2Recipient,
            Self::Expired(Eip3009) => Reason::Expired,
            Self::Expired(Permit2) => Reason::Permit2Expired,
            Self::NotYetValid(Eip3009) => Reason::NotYetValid,
            Self::NotYetValid(Permit2) => Reason::Permit2NotYetValid,
            Self::Amount(transfer) => amount_reason(*transfer),
            Self::Signature { transfer, .. } => signature_reason(*transfer),
        })
    }
}

const fn payload_reason(transfer: Option<Transfer>, error: PayloadError) -> Reason {
    match (transfer, error) {
        (Some(transfer), PayloadError::Signature(_)) => signature_reason(transfer),
        (Some(transfer), PayloadError::AmountTooLarge(_)) => amount_reason(transfer),
        (_, PayloadError::WrongKind) => Reason::WrongPayload,
        (
            _,
            PayloadError::NotObject(_)
            | PayloadError::NotAddress(_)
            | PayloadError::NotNumber(_)
            | PayloadError::NotWord(_)
            | PayloadError::AmountTooLarge(_)
            | PayloadError::Signature(_),
        ) => Reason::InvalidPayload,
    }
}

const fn amount_reason(transfer: Transfer) -> Reason {
    match transfer {
        Transfer::Eip3009 => Reason::Amount,
        Transfer::Permit2 => Reason::Permit2Amount,
    }
}

const fn signature_reason(transfer: Transfer) -> Reason {
    match transfer {
        Transfer::Eip3009 => Reason::Signature,
        Transfer::Permit2 => Reason::Permit2Signature,
    }
}

#[cfg(test)]
mod tests;
