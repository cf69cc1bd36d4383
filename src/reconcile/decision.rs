//! What is believed about an unknown settlement, and when to look again. Pure.

use std::time::Duration;

use alloy_primitives::B256;

use crate::chain_rpc::Finding;
use crate::clock::UnixSeconds;
use crate::ledger::{NEVER_USED, OUTCOME_UNKNOWN};

/// How long after `validBefore` an unknown outcome may still turn out well when no chain can be
/// asked: it may have been mined in time, and the facilitator may tell late.
pub(super) const GRACE_S: u64 = 120;

/// The same when a chain is configured: longer, because its answer will be final and an endpoint
/// may be down for a while.
pub(super) const CHAIN_GRACE_S: u64 = 86_400;

/// How long an outcome may be unknown, whatever its authorization says: one that can be settled for ever
/// would be asked about for ever. Thirty days, after which the money may still have moved.
const UNKNOWN_MAX_S: u64 = 30 * 86_400;

/// From when on it is asked about as rarely as what is only waited for.
const OLD_S: u64 = 86_400;

/// The shortest turn of a facilitator: most settlements are in a block within seconds, and asking
/// another one too early only burns gas.
const TURN_MIN_S: u64 = 30;

/// The shortest pause before looking again, in seconds.
const PAUSE_MIN_S: u64 = 2;
/// The longest while the authorization can be settled, and shortly after.
const PAUSE_MAX_S: u64 = 60;
/// The longest when only a chain is waited for.
const LATE_PAUSE_MAX_S: u64 = 600;
/// `Retry-After` is honoured up to an hour: longer, and a payment would run out behind it.
const RETRY_AFTER_MAX_S: u64 = 3600;

/// What a chain said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sighting {
    /// None is configured, or it could not tell anything about this scheme.
    NotAsked,
    /// No answer.
    Failed,
    /// An answer.
    Seen(Finding),
}

/// What is to be written down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// The money moved in this transaction.
    SettledOnChain(B256),
    /// The money moved, says the facilitator's receipt.
    SettledByFacilitator,
    /// The authorization is gone, and no money moved to us.
    Refused(&'static str),
    /// It cannot be settled any more.
    Expired(&'static str),
    /// Nothing yet.
    Unknown,
}

/// What the chain alone decides; `None` when the facilitator should be asked again.
pub(super) const fn by_chain(sighting: Sighting) -> Option<Verdict> {
    match sighting {
        Sighting::Seen(Finding::Paid { transaction }) => Some(Verdict::SettledOnChain(transaction)),
        Sighting::Seen(Finding::Cancelled) => Some(Verdict::Refused("authorization_cancelled")),
        Sighting::Seen(Finding::UsedElsewhere) => {
            Some(Verdict::Refused("authorization_used_elsewhere"))
        }
        Sighting::Seen(Finding::NeverUsed) => Some(Verdict::Expired(NEVER_USED)),
        Sighting::Seen(Finding::Unused { .. } | Finding::Unexplained(_))
        | Sighting::NotAsked
        | Sighting::Failed => None,
    }
}

/// What the repeated settle decides when the chain did not. Only a success is believed: after an
/// unknown outcome a refusal proves nothing, because when the first call landed, repeating it fails
/// with a used nonce or an empty wallet.
pub(super) fn by_facilitator(
    is_settled: bool,
    sighting: Sighting,
    now: UnixSeconds,
    (claimed_at, valid_before): (UnixSeconds, UnixSeconds),
) -> Verdict {
    let grace = match sighting {
        Sighting::NotAsked | Sighting::Seen(Finding::Unexplained(_)) => GRACE_S,
        Sighting::Failed
        | Sighting::Seen(
            Finding::Unused { .. }
            | Finding::NeverUsed
            | Finding::Paid { .. }
            | Finding::Cancelled
            | Finding::UsedElsewhere,
        ) => CHAIN_GRACE_S,
    };
    if is_settled {
        Verdict::SettledByFacilitator
    } else if now > valid_before.plus(grace).min(claimed_at.plus(UNKNOWN_MAX_S)) {
        Verdict::Expired(OUTCOME_UNKNOWN)
    } else {
        Verdict::Unknown
    }
}

/// Whether the next facilitator may be asked to settle the same authorization.
///
/// Only on the word of a chain: a block that is deep enough, and younger than the turn of the
/// facilitator on record is long, does not know the authorization. Its call may still be under way.
/// That can cost gas and never money: the token (or Permit2) takes one nonce once, so of two
/// transactions that carry the same authorization the second reverts. Schemes of which no chain can
/// say that are never [`Sighting::Seen`].
///
/// A turn is as long as the payment was unknown before it, so that the facilitators of a long
/// authorization are asked in turns that double, across restarts too.
pub(super) fn may_move(
    sighting: Sighting,
    (claimed_at, asked_at): (UnixSeconds, UnixSeconds),
    now: UnixSeconds,
    valid_before: UnixSeconds,
) -> bool {
    let Sighting::Seen(Finding::Unused { as_of }) = sighting else {
        return false;
    };
    let turn = asked_at.since(claimed_at).max(TURN_MIN_S);
    now < valid_before && as_of >= asked_at.plus(turn)
}

/// The pause before the next look: as long as the outcome has been unknown, so that pauses double,
/// across restarts too; and by chance (`roll`) up to half of that less, so that claims that became
/// unknown together do not come back together.
pub(super) fn pause(unknown_for_s: u64, is_late: bool, roll: u16) -> Duration {
    let longest = if is_late || unknown_for_s > OLD_S {
        LATE_PAUSE_MAX_S
    } else {
        PAUSE_MAX_S
    };
    let half_ms = unknown_for_s
        .clamp(PAUSE_MIN_S, longest)
        .saturating_mul(500);
    let chance_ms = half_ms.saturating_mul(roll.into()) >> 16;
    Duration::from_millis(half_ms.saturating_add(chance_ms))
}

/// How long a facilitator that says when to come back is left alone.
pub(super) fn rest(retry_after_s: Option<u64>) -> Duration {
    Duration::from_secs(retry_after_s.unwrap_or(0).min(RETRY_AFTER_MAX_S))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const END: UnixSeconds = UnixSeconds(1_800_000_000);
    const TRANSACTION: B256 = B256::repeat_byte(7);
    const UNUSED: Finding = Finding::Unused {
        as_of: UnixSeconds(1_799_999_000),
    };

    fn seen(finding: Finding) -> Sighting {
        Sighting::Seen(finding)
    }

    /// Both steps in their order, as the reconciler takes them.
    #[track_caller]
    fn check(sighting: Sighting, is_settled: bool, now: UnixSeconds, want: Verdict) {
        let got = by_chain(sighting)
            .unwrap_or_else(|| by_facilitator(is_settled, sighting, now, (END.minus(300), END)));
        assert_eq!(got, want, "{sighting:?} settled={is_settled} at {now:?}");
    }

    #[test]
    fn a_final_answer_of_the_chain_is_believed_whatever_the_facilitator_or_the_clock_say() {
        for (finding, want) in [
            (
                Finding::Paid {
                    transaction: TRANSACTION,
                },
                Verdict::SettledOnChain(TRANSACTION),
            ),
            (
                Finding::Cancelled,
                Verdict::Refused("authorization_cancelled"),
            ),
            (
                Finding::UsedElsewhere,
                Verdict::Refused("authorization_used_elsewhere"),
            ),
            (Finding::NeverUsed, Verdict::Expired(NEVER_USED)),
        ] {
            for now in [END.minus(9), END.plus(CHAIN_GRACE_S + 1)] {
                check(seen(finding), false, now, want);
                check(seen(finding), true, now, want);
            }
        }
    }

    #[test]
    fn otherwise_only_a_success_of_the_facilitator_is_believed() {
        for sighting in [
            Sighting::NotAsked,
            Sighting::Failed,
            seen(UNUSED),
            seen(Finding::Unexplained("x")),
        ] {
            check(sighting, true, END, Verdict::SettledByFacilitator);
            check(sighting, true, END.plus(99), Verdict::SettledByFacilitator);
            check(sighting, false, END.minus(200), Verdict::Unknown);
            check(sighting, false, END.plus(GRACE_S), Verdict::Unknown);
        }
    }

    #[test]
    fn what_stays_unknown_expires_after_a_grace_that_depends_on_whether_a_chain_may_still_tell() {
        let expired = Verdict::Expired(OUTCOME_UNKNOWN);
        for sighting in [Sighting::NotAsked, seen(Finding::Unexplained("x"))] {
            check(sighting, false, END.plus(GRACE_S + 1), expired);
        }
        for sighting in [Sighting::Failed, seen(UNUSED)] {
            check(sighting, false, END.plus(CHAIN_GRACE_S), Verdict::Unknown);
            check(sighting, false, END.plus(CHAIN_GRACE_S + 1), expired);
        }
    }

    #[test]
    fn what_could_be_settled_for_ever_is_for_a_person_after_thirty_days() {
        for end in [END.plus(UNKNOWN_MAX_S + 1), UnixSeconds(u64::MAX)] {
            for sighting in [Sighting::NotAsked, Sighting::Failed, seen(UNUSED)] {
                let at = |now| by_facilitator(false, sighting, now, (END, end));
                assert_eq!(at(END.plus(UNKNOWN_MAX_S)), Verdict::Unknown);
                let expired = Verdict::Expired(OUTCOME_UNKNOWN);
                assert_eq!(at(END.plus(UNKNOWN_MAX_S + 1)), expired, "never refused");
            }
        }
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_do_not_begin_again_after_a_restart() {
        let at = |age| pause(age, false, u16::MAX).as_millis().div_ceil(1000);
        assert_eq!(
            [0, 1, 2, 4, 8, 16, 32, 60, 64, 9999].map(at),
            [2, 2, 2, 4, 8, 16, 32, 60, 60, 60]
        );
        assert_eq!(pause(9999, true, 0), Duration::from_secs(300));
        assert_eq!(at(OLD_S), 60);
        assert_eq!(at(OLD_S + 1), 600, "a day later");
    }

    #[test]
    fn a_facilitator_that_says_when_to_come_back_is_obeyed_within_reason() {
        assert_eq!(rest(None), Duration::ZERO);
        assert_eq!(rest(Some(30)), Duration::from_secs(30));
        assert_eq!(rest(Some(86_400)), Duration::from_secs(3600));
    }

    #[track_caller]
    fn moves(sighting: Sighting, asked_after_s: u64, seen_after_s: u64) -> bool {
        let claimed_at = END.minus(1000);
        let asked_at = claimed_at.plus(asked_after_s);
        let sighting = match sighting {
            Sighting::Seen(Finding::Unused { .. }) => {
                let as_of = asked_at.plus(seen_after_s);
                seen(Finding::Unused { as_of })
            }
            other @ (Sighting::Seen(_) | Sighting::NotAsked | Sighting::Failed) => other,
        };
        may_move(sighting, (claimed_at, asked_at), END.minus(1), END)
    }

    #[test]
    fn another_facilitator_is_asked_only_when_a_deep_block_after_the_turn_of_the_first_knows_nothing()
     {
        for (asked_after_s, turn) in [(0, 30), (2, 30), (30, 30), (31, 31), (400, 400)] {
            assert!(!moves(seen(UNUSED), asked_after_s, turn - 1));
            assert!(moves(seen(UNUSED), asked_after_s, turn));
        }
        for never in [
            Sighting::NotAsked,
            Sighting::Failed,
            seen(Finding::Unexplained("x")),
            seen(Finding::NeverUsed),
            seen(Finding::Cancelled),
        ] {
            assert!(!moves(never, 0, 9999), "{never:?}");
        }
        let asked = (END.minus(1000), END.minus(1000));
        assert!(!may_move(seen(UNUSED), asked, END, END), "it is over");
        let none = Finding::Unused {
            as_of: UnixSeconds(0),
        };
        assert!(!may_move(seen(none), asked, END.minus(1), END), "no block");
    }

    proptest! {
        #[test]
        fn chance_takes_at_most_half_away(age in any::<u64>(), late in any::<bool>(), roll in any::<u16>()) {
            let most = pause(age, late, u16::MAX);
            let got = pause(age, late, roll);
            prop_assert!(got <= most && got.saturating_mul(2) >= most);
            prop_assert!(got >= Duration::from_secs(1) && got <= Duration::from_secs(600));
        }
    }
}
