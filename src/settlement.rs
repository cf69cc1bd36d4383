//! The life of a payment: its states, the legal moves between them, and what they mean (DESIGN, section 3).

use std::fmt;
use std::str::FromStr;

/// The states of a claim. A claim is one use of one payment; a payment may be claimed again after
/// a claim of it was released or refused.
///
/// ```text
///             ┌──────┐ (another facilitator)
/// claimed ──▶ settling ──▶ settled ──▶ delivered
///    │            ├──▶ refused
///    │            └──▶ expired
///    └──▶ released
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum State {
    /// Ours alone, written before the upstream is asked. Nothing was asked of the facilitator.
    Claimed,
    /// Written before the settle call. Until its answer is known, money may have moved.
    Settling,
    /// Paid, and *owed*: no complete response has been written to the client yet.
    Settled,
    /// Paid, and a complete response was written.
    Delivered,
    /// Given back unused: the upstream failed, or we stopped before asking for the money.
    Released,
    /// The facilitator refused to settle; no money moved.
    Refused,
    /// The outcome stayed unknown until the authorization could not be settled any more.
    Expired,
}

/// All states, in the order of a payment's life.
pub const STATES: [State; 7] = [
    State::Claimed,
    State::Settling,
    State::Settled,
    State::Delivered,
    State::Released,
    State::Refused,
    State::Expired,
];

impl State {
    /// Whether a claim may move from `self` to `next`. Nothing else ever happens to a claim.
    ///
    /// `settling` may follow `settling`: another facilitator is going to be asked, because the one
    /// on record certainly was not.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Claimed, Self::Settling | Self::Released)
                | (
                    Self::Settling,
                    Self::Settling | Self::Settled | Self::Refused | Self::Expired
                )
                | (Self::Settled, Self::Delivered)
        )
    }

    /// Whether the payment is taken: no other claim of it may exist beside this one.
    #[must_use]
    pub const fn holds_payment(self) -> bool {
        matches!(
            self,
            Self::Claimed | Self::Settling | Self::Settled | Self::Delivered
        )
    }

    /// Whether the money is known to have moved.
    #[must_use]
    pub const fn is_paid(self) -> bool {
        matches!(self, Self::Settled | Self::Delivered)
    }

    /// The word in the ledger, the metrics and the logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Settling => "settling",
            Self::Settled => "settled",
            Self::Delivered => "delivered",
            Self::Released => "released",
            Self::Refused => "refused",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        STATES
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| UnknownState(text.to_owned()))
    }
}

/// A word that names no state.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{0:?} is not a state; the states are claimed, settling, settled, delivered, released, refused, expired"
)]
pub struct UnknownState(pub String);

/// When the money moves.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum SettleWhen {
    /// After the upstream answered well, before the first byte leaves: a failed response costs nothing.
    #[default]
    AfterResponse,
    /// Before the upstream is asked, for expensive or irreversible work.
    BeforeForward,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// DESIGN invariants 3 and 4, over every sequence of attempted moves.
        #[test]
        fn a_claim_ends_in_one_way_and_is_paid_at_most_once(
            moves in proptest::collection::vec(0_usize..STATES.len(), 0..40),
        ) {
            let (mut state, mut paid) = (State::Claimed, 0_u32);
            for next in moves.into_iter().map(|i| STATES[i]) {
                if state.may_become(next) {
                    paid = paid.saturating_add(u32::from(next == State::Settled));
                    state = next;
                }
            }
            prop_assert!(paid <= 1);
            prop_assert_eq!(state.is_paid(), paid == 1);
        }
    }

    #[test]
    fn every_state_is_read_back() {
        for state in STATES {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert!("paid".parse::<State>().is_err());
    }

    #[test]
    fn an_unknown_outcome_never_goes_back_to_claimable_by_itself() {
        assert!(!State::Settling.may_become(State::Released));
        assert!(!State::Settled.may_become(State::Released));
        assert!(State::Settling.holds_payment());
    }
}
