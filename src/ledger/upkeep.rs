//! What an old ledger can do without, the same for every store. Pure.
//!
//! Two things may go, and only of claims that are over: the settle request, as soon as the claim is
//! over, and the whole row, when the operator asks for that and it is old enough.

use crate::clock::UnixSeconds;
use crate::ledger::{Move, NEVER_USED};
use crate::settlement::{STATES, State};

/// The youngest that a row may be deleted, in seconds: the longest retry window. A row that holds its
/// payment goes only when its claim, its last move and the end of its authorization all lie further
/// back, so its proof is refused by its own dates, whatever an operator asks for. Opaque proofs have no
/// dates that we could read: the rows that hold them stay.
pub const PRUNE_AGE_MIN_S: u64 = 86_400;

/// Rows that one batch looks at, so that it holds up a payment for a few milliseconds at most.
pub const BATCH_ROWS: u32 = 64;

/// Where a walk from the oldest claim on has come to. The default is before all of them.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Cursor {
    /// When the last claim that was looked at was made.
    pub claimed_at: UnixSeconds,
    /// Its number.
    pub id: i64,
}

/// What one batch came to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Batch {
    /// Rows deleted, or made smaller.
    pub rows: u64,
    /// Where to go on; `None` when there is nothing more, or another wall is at it.
    pub next: Option<Cursor>,
}

/// The latest time before which rows may go: as asked, but never younger than [`PRUNE_AGE_MIN_S`].
pub(in crate::ledger) fn prune_end(before: UnixSeconds, now: UnixSeconds) -> UnixSeconds {
    before.min(now.minus(PRUNE_AGE_MIN_S))
}

/// Whether nobody needs a claim any more that is in this state for this reason.
///
/// What is open or owed is needed. What expired with an unknown outcome is a person's business for
/// ever; what a person wrote down about it keeps its row too.
const fn is_over(state: State, is_never_used: bool) -> bool {
    match state {
        State::Claimed | State::Settling | State::Settled => false,
        State::Delivered | State::Released | State::Refused => true,
        State::Expired => is_never_used,
    }
}

/// Whether a claim is over after this move.
pub(in crate::ledger) fn ends(step: &Move) -> bool {
    let never_used = matches!(step, Move::Expired { reason } if &**reason == NEVER_USED);
    is_over(step.state(), never_used)
}

/// The condition that a claim is over. The words are ours, nobody else's text.
pub(in crate::ledger) fn over() -> String {
    let words = |is_never_used| {
        let words: Vec<String> = STATES
            .into_iter()
            .filter(|state| is_over(*state, is_never_used))
            .map(|state| format!("'{state}'"))
            .collect();
        words.join(", ")
    };
    format!(
        "(state IN ({}) OR (state IN ({}) AND reason = '{NEVER_USED}'))",
        words(false),
        words(true)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_owed_or_unknown_is_never_over() {
        assert_eq!(
            over(),
            "(state IN ('delivered', 'released', 'refused') OR (state IN ('delivered', 'released', \
             'refused', 'expired') AND reason = 'authorization_never_used'))"
        );
        let expired = |reason: &str| {
            ends(&Move::Expired {
                reason: reason.into(),
            })
        };
        assert!(expired(NEVER_USED) && !expired(crate::ledger::OUTCOME_UNKNOWN));
        assert!(ends(&Move::Delivered));
    }

    #[test]
    fn nothing_younger_than_a_day_goes_whatever_is_asked_for() {
        let now = UnixSeconds(1_000_000);
        let end = now.minus(PRUNE_AGE_MIN_S);
        assert_eq!(prune_end(now, now), end);
        assert_eq!(prune_end(UnixSeconds(u64::MAX), now), end);
        assert_eq!(prune_end(end.minus(1), now), end.minus(1));
        assert_eq!(prune_end(now, UnixSeconds(5)), UnixSeconds(0));
    }
}
