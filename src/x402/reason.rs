//! Machine-readable reason codes: the specification's where it has one, ours otherwise.

use std::borrow::Cow;
use std::fmt;

use crate::code::codes;

codes! {
    /// The reasons that the wall gives itself: the specification's where it has one, ours otherwise.
    pub enum Reason {
        /// There is no payment, or nothing that can be decoded. The official middleware's words.
        Required = "Payment required",
        /// The same for version 1, in the words of its middleware.
        RequiredV1 = "X-PAYMENT header is required",
        /// More than one payment header.
        DuplicateHeader = "duplicate_payment_header",
        /// It answers none of the offers. The official middleware's words.
        NoMatch = "No matching payment requirements",
        /// The extensions of the challenge were not echoed as they were.
        EchoMismatch = "extension_echo_mismatch",
        /// Not of the form that its scheme has.
        InvalidPayload = "invalid_payload",
        /// Of the form of another scheme.
        WrongPayload = "unsupported_payload_type",
        /// The token's EIP-712 domain is not known.
        MissingDomain = "invalid_exact_evm_missing_eip712_domain",
        /// EIP-3009: another recipient.
        Recipient = "invalid_exact_evm_recipient_mismatch",
        /// EIP-3009: another amount.
        Amount = "invalid_exact_evm_payload_authorization_value_mismatch",
        /// EIP-3009: expired, or too soon.
        Expired = "invalid_exact_evm_payload_authorization_valid_before",
        /// EIP-3009: not yet valid.
        NotYetValid = "invalid_exact_evm_payload_authorization_valid_after",
        /// EIP-3009: the signature is not the payer's.
        Signature = "invalid_exact_evm_signature",
        /// Permit2: another spender than the proxy of x402.
        Permit2Spender = "invalid_permit2_spender",
        /// Permit2: another token.
        Permit2Token = "permit2_token_mismatch",
        /// Permit2: another recipient.
        Permit2Recipient = "invalid_permit2_recipient_mismatch",
        /// Permit2: another amount.
        Permit2Amount = "permit2_amount_mismatch",
        /// Permit2: expired, or too soon.
        Permit2Expired = "permit2_deadline_expired",
        /// Permit2: not yet valid.
        Permit2NotYetValid = "permit2_not_yet_valid",
        /// Permit2: the signature is not the payer's.
        Permit2Signature = "invalid_permit2_signature",
        /// Permit2: the buyer must approve the contract first.
        AllowanceRequired = "permit2_allowance_required",
        /// The payment has bought something already.
        AlreadyUsed = "payment_already_used",
        /// Its buyer hung up on it too often.
        Abandoned = "payment_abandoned",
        /// In place of a facilitator's text that is no code.
        Rejected = "payment_rejected",
    }
}

/// A short code that tells the client why a payment was not accepted. Never an internal text.
///
/// Codes that come from a facilitator are opaque (spec section 3.10) but bounded: 1 to 128
/// characters of `A-Z a-z 0-9 _ - . :` and space; anything else becomes `payment_rejected`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ReasonCode(Cow<'static, str>);

impl ReasonCode {
    /// One of ours.
    #[must_use]
    pub const fn ours(reason: Reason) -> Self {
        Self(Cow::Borrowed(reason.as_str()))
    }

    /// One that a facilitator sent; replaced when it does not look like a code.
    #[must_use]
    pub fn foreign(code: &str) -> Self {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b" _-.:".contains(&b);
        if (1..=128).contains(&code.len()) && code.bytes().all(allowed) {
            Self(Cow::Owned(code.to_owned()))
        } else {
            Self::ours(Reason::Rejected)
        }
    }

    /// The code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
