//! The codes of the answers that the wall gives in place of an upstream: `error` in the body, the outcome
//! in metrics and log. Each has the status that it comes with.

use crate::code::codes;

codes! {
    /// Why a request was not served.
    pub enum Code {
        /// Path and query are over the limit.
        TargetTooLong = "target_too_long",
        /// The path cannot be matched safely.
        UnsafeTarget = "unsafe_target",
        /// The host cannot be read safely.
        BadHost = "bad_host",
        /// Malformed in another way.
        BadRequest = "bad_request",
        /// A method that is never forwarded.
        MethodNotAllowed = "method_not_allowed",
        /// A preflight from an origin that is not allowed.
        OriginNotAllowed = "origin_not_allowed",
        /// A forward-auth listener is asked by somebody else than its proxies.
        PeerNotTrusted = "peer_not_trusted",
        /// A forward-auth listener is asked about a rule that settles after the response.
        SettlesAfterDelivery = "settles_after_delivery",
        /// No rule governs it, or its spelling would make it cheaper.
        NoSuchRoute = "no_such_route",
        /// A rule denies it.
        Denied = "denied",
        /// Over a rate limit.
        RateLimited = "rate_limited",
        /// The request body is over the limit.
        BodyTooLarge = "body_too_large",
        /// There is no payment.
        PaymentRequired = "payment_required",
        /// The wall refused the payment.
        ProofRefused = "proof_refused",
        /// A facilitator refused the payment.
        ProofInvalid = "proof_invalid",
        /// The buyer must approve Permit2 first.
        AllowanceRequired = "allowance_required",
        /// The payment has bought something already.
        PaymentSpent = "payment_spent",
        /// The buyer hung up on this payment too often.
        PaymentAbandoned = "payment_abandoned",
        /// The facilitator refused to move the money.
        SettlementRefused = "settlement_refused",
        /// The same payment is being served.
        PaymentInProgress = "payment_in_progress",
        /// Too many payments are being verified.
        Busy = "busy",
        /// Payments cannot be taken now.
        PaymentUnavailable = "payment_unavailable",
        /// Money may have moved.
        SettlementUnknown = "settlement_unknown",
        /// Paid, and the upstream failed: owed.
        ResponseOwed = "paid_response_owed",
        /// Paid, and the response cannot be made again.
        ResponseLost = "paid_response_lost",
        /// The upstream failed.
        UpstreamFailed = "upstream_failed",
        /// The upstream was too slow.
        UpstreamTimeout = "upstream_timeout",
        /// A mistake of the wall's own.
        InternalError = "internal_error",
    }
}

impl Code {
    /// The statuses that it comes with, the usual one first.
    #[must_use]
    pub const fn statuses(self) -> &'static [u16] {
        match self {
            Self::UnsafeTarget | Self::BadHost | Self::BadRequest => &[400],
            Self::PaymentRequired
            | Self::ProofRefused
            | Self::ProofInvalid
            | Self::PaymentSpent
            | Self::PaymentAbandoned
            | Self::SettlementRefused => &[402],
            Self::OriginNotAllowed | Self::PeerNotTrusted | Self::Denied => &[403],
            Self::NoSuchRoute => &[404],
            Self::MethodNotAllowed => &[405],
            Self::PaymentInProgress | Self::ResponseLost => &[409],
            Self::AllowanceRequired => &[412, 402],
            Self::BodyTooLarge => &[413],
            Self::TargetTooLong => &[414],
            Self::RateLimited => &[429],
            Self::InternalError => &[500],
            Self::SettlesAfterDelivery => &[501],
            Self::UpstreamFailed => &[502],
            Self::ResponseOwed => &[502, 504],
            Self::Busy | Self::PaymentUnavailable | Self::SettlementUnknown => &[503],
            Self::UpstreamTimeout => &[504],
        }
    }

    /// The usual status.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self.statuses() {
            [usual, ..] => *usual,
            [] => 500,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::OUTCOMES;

    #[test]
    fn every_code_is_counted_under_its_own_name() {
        for code in Code::ALL {
            assert!(OUTCOMES.contains(&code.as_str()), "{code:?}");
        }
    }
}
