//! What the ledger promises: one holder a payment, durable answers, legal moves, exact sums.

mod checkpoints;
mod hands;
mod invariants;
mod notes;
mod older;
mod opening;
mod reading;
mod torn;
mod upkeep;
mod waiting;

use futures_util::future::join_all;
use tempfile::TempDir;

use super::*;
use crate::chain::{Asset, Network, PayTo, Payer};
use crate::ledger::{BodyDigest, Fingerprint};
use crate::money::AtomicAmount;
use crate::settlement::{STATES, State};

pub(super) const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

pub(super) fn payment(n: u64) -> PaymentKey {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&n.to_be_bytes());
    PaymentKey(key)
}

pub(super) fn new_claim(n: u64) -> NewClaim {
    NewClaim {
        payment: payment(n),
        fingerprint: Fingerprint([9; 32]),
        rule: "weather".into(),
        accept: "base-usdc".into(),
        scheme: "exact".into(),
        network: Network::parse_caip2("eip155:84532").unwrap(),
        asset: Asset::verbatim("0x036CbD53842c5426634e7929541eC2318f3dCF7e"),
        amount: AtomicAmount::new(10_000),
        payer: Payer::verbatim("0x857b06519E91e3A54538791bDbb0E22373e36b66"),
        pay_to: PayTo::verbatim("0x209693Bc6afc0C5328bA36FaF03C514EF312287C"),
        nonce: "eip3009:0x01".into(),
        valid_before: NOW.plus(300),
        request: "GET api.example.com/v1/weather".into(),
        settle_request: "{\"x402Version\":2}".into(),
    }
}

pub(super) fn settled() -> Move {
    Move::Settled {
        facilitator: None,
        transaction: "0xabc".into(),
        receipt: "{\"success\":true}".into(),
        payer: None,
        body: Some(BodyDigest([3; 32])),
    }
}

/// A move to `state`; `None` for the state that only a claim leads to.
pub(super) fn move_to(state: State) -> Option<Move> {
    match state {
        State::Claimed => None,
        State::Settling => Some(Move::Settling {
            facilitator: "sandbox".into(),
        }),
        State::Settled => Some(settled()),
        State::Delivered => Some(Move::Delivered),
        State::Released => Some(Move::Released {
            reason: "upstream_failed".into(),
        }),
        State::Refused => Some(Move::Refused {
            reason: "insufficient_funds".into(),
            receipt: "{\"success\":false}".into(),
        }),
        State::Expired => Some(Move::Expired {
            reason: crate::ledger::OUTCOME_UNKNOWN.into(),
        }),
    }
}

/// The moves from a fresh claim to `state`.
fn way_to(state: State) -> &'static [State] {
    match state {
        State::Claimed => &[],
        State::Settling => &[State::Settling],
        State::Settled => &[State::Settling, State::Settled],
        State::Delivered => &[State::Settling, State::Settled, State::Delivered],
        State::Released => &[State::Released],
        State::Refused => &[State::Settling, State::Refused],
        State::Expired => &[State::Settling, State::Expired],
    }
}

pub(super) fn fresh() -> (TempDir, SqliteLedger) {
    let directory = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(&directory.path().join("farewall.db")).unwrap();
    (directory, ledger)
}

/// The claim's number, or `None` when the payment is held.
pub(super) async fn claim(ledger: &SqliteLedger, new: NewClaim) -> Option<ClaimId> {
    match ledger.claim(new, NOW).await.unwrap() {
        ClaimAnswer::Claimed(claim) => Some(claim.id()),
        ClaimAnswer::Held(_) => None,
    }
}

/// A claim of payment `n` that was led to `state`.
pub(super) async fn claim_in(ledger: &SqliteLedger, n: u64, state: State) -> ClaimId {
    let id = claim(ledger, new_claim(n)).await.unwrap();
    for step in way_to(state) {
        ledger
            .advance(id, move_to(*step).unwrap(), NOW.plus(1))
            .await
            .unwrap();
    }
    id
}

async fn state_of(ledger: &SqliteLedger, n: u64) -> State {
    ledger.find(payment(n)).await.unwrap().unwrap().state
}

#[tokio::test]
async fn a_record_is_read_back_as_it_was_written() {
    let (_directory, ledger) = fresh();
    let ClaimAnswer::Claimed(granted) = ledger.claim(new_claim(1), NOW).await.unwrap() else {
        panic!("nobody else claims");
    };
    assert_eq!(granted.payment(), payment(1));
    ledger
        .advance(granted.id(), move_to(State::Settling).unwrap(), NOW.plus(1))
        .await
        .unwrap();
    ledger
        .advance(granted.id(), settled(), NOW.plus(2))
        .await
        .unwrap();
    let record = ledger.find(payment(1)).await.unwrap().unwrap();
    assert_eq!(format!("{:?}", record.claim), format!("{:?}", new_claim(1)));
    assert_eq!((record.id, record.state), (granted.id(), State::Settled));
    assert_eq!((record.claimed_at, record.changed_at), (NOW, NOW.plus(2)));
    assert_eq!(record.facilitator.as_deref(), Some("sandbox"));
    assert_eq!(record.transaction.as_deref(), Some("0xabc"));
    assert_eq!(record.receipt.as_deref(), Some("{\"success\":true}"));
    assert_eq!(
        (record.reason, record.body),
        (None, Some(BodyDigest([3; 32])))
    );
    assert!(ledger.find(payment(2)).await.unwrap().is_none());
}

#[tokio::test]
async fn the_largest_amount_and_the_furthest_time_are_kept() {
    let (_directory, ledger) = fresh();
    let amount = AtomicAmount::new(u128::MAX);
    let valid_before = UnixSeconds(u64::MAX);
    claim(
        &ledger,
        NewClaim {
            amount,
            valid_before,
            ..new_claim(1)
        },
    )
    .await
    .unwrap();
    let record = ledger.find(payment(1)).await.unwrap().unwrap();
    assert_eq!(record.claim.amount, amount);
    assert_eq!(record.claim.valid_before, UnixSeconds(i64::MAX as u64));
}

#[tokio::test]
async fn a_settlement_names_the_payer_only_where_nobody_knew_it() {
    let (_directory, ledger) = fresh();
    for (n, known, want) in [(1, "", "told"), (2, "proved", "proved")] {
        let new = NewClaim {
            payer: Payer::verbatim(known),
            ..new_claim(n)
        };
        let id = claim(&ledger, new).await.unwrap();
        ledger
            .advance(id, move_to(State::Settling).unwrap(), NOW)
            .await
            .unwrap();
        let step = Move::Settled {
            facilitator: Some("second".into()),
            transaction: "".into(),
            receipt: "{}".into(),
            payer: Some(Payer::verbatim("told")),
            body: None,
        };
        ledger.advance(id, step, NOW).await.unwrap();
        let record = ledger.find(payment(n)).await.unwrap().unwrap();
        assert_eq!(record.claim.payer.as_str(), want);
        assert_eq!(record.facilitator.as_deref(), Some("second"));
        assert_eq!(record.transaction.as_deref(), Some(""));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_thousand_claims_of_one_payment_exactly_one_wins() {
    let (_directory, ledger) = fresh();
    let ledger = Arc::new(ledger);
    let tasks = (0..1_000).map(|_| {
        let ledger = Arc::clone(&ledger);
        tokio::spawn(async move { ledger.claim(new_claim(1), NOW).await.unwrap() })
    });
    let answers = join_all(tasks).await;
    let mut granted = Vec::new();
    let mut holders = Vec::new();
    for answer in answers {
        match answer.unwrap() {
            ClaimAnswer::Claimed(claim) => granted.push(claim.id()),
            ClaimAnswer::Held(record) => holders.push((record.id, record.state)),
        }
    }
    assert_eq!((granted.len(), holders.len()), (1, 999));
    assert!(
        holders
            .iter()
            .all(|holder| *holder == (granted[0], State::Claimed))
    );
}

#[tokio::test]
async fn the_facilitator_on_record_is_the_one_that_is_asked_last() {
    let (_directory, ledger) = fresh();
    let id = claim_in(&ledger, 1, State::Settling).await;
    let facilitator = "second".into();
    let step = Move::Settling { facilitator };
    ledger.advance(id, step, NOW.plus(2)).await.unwrap();
    let record = ledger.get(id).unwrap().unwrap();
    assert_eq!(record.state, State::Settling);
    assert_eq!(record.facilitator.as_deref(), Some("second"));
    ledger.advance(id, settled(), NOW.plus(3)).await.unwrap();
    let record = ledger.get(id).unwrap().unwrap();
    assert_eq!(record.facilitator.as_deref(), Some("second"));
}

#[tokio::test]
async fn every_illegal_move_is_refused_and_changes_nothing() {
    let (_directory, ledger) = fresh();
    let mut refused = 0;
    for (n, from) in (1_u64..).zip(STATES) {
        let id = claim_in(&ledger, n, from).await;
        for to in STATES {
            let Some(step) = move_to(to).filter(|_| !from.may_become(to)) else {
                continue;
            };
            match ledger.advance(id, step, NOW.plus(9)).await {
                Err(LedgerError::IllegalMove {
                    id: which,
                    found,
                    wanted,
                }) => {
                    assert_eq!((which, found, wanted), (id.0, from, to));
                }
                other => panic!("{from} to {to}: {other:?}"),
            }
            refused += 1;
        }
        let record = ledger.get(id).unwrap().unwrap();
        assert_eq!(record.state, from);
        assert_ne!(record.changed_at, NOW.plus(9));
    }
    assert_eq!(refused, 7 * 6 - 7);
}

#[tokio::test]
async fn a_payment_can_be_claimed_again_unless_its_claim_holds_it() {
    let (_directory, ledger) = fresh();
    for (n, state) in (1_u64..).zip(STATES) {
        let first = claim_in(&ledger, n, state).await;
        let second = claim(&ledger, new_claim(n)).await;
        assert_eq!(second.is_some(), !state.holds_payment(), "{state}");
        let found = ledger.find(payment(n)).await.unwrap().unwrap();
        assert_eq!(found.id, second.unwrap_or(first), "{state}");
    }
}

#[tokio::test]
async fn the_holder_is_found_before_newer_claims_that_hold_nothing() {
    let (_directory, ledger) = fresh();
    let released = claim_in(&ledger, 1, State::Released).await;
    assert_eq!(ledger.find(payment(1)).await.unwrap().unwrap().id, released);
    let refused = claim_in(&ledger, 1, State::Refused).await;
    assert_eq!(ledger.find(payment(1)).await.unwrap().unwrap().id, refused);
    let holder = claim_in(&ledger, 1, State::Settled).await;
    assert_eq!(ledger.find(payment(1)).await.unwrap().unwrap().id, holder);
}

#[tokio::test]
async fn a_start_releases_what_was_only_claimed_and_nothing_else() {
    let (directory, ledger) = fresh();
    for (n, state) in (1_u64..).zip(STATES) {
        claim_in(&ledger, n, state).await;
    }
    drop(ledger);
    let ledger = SqliteLedger::open(&directory.path().join("farewall.db")).unwrap();
    claim_in(&ledger, 100, State::Claimed).await;
    assert_eq!(ledger.release_abandoned(NOW.plus(5)).await.unwrap(), 1);
    assert_eq!(ledger.release_abandoned(NOW.plus(6)).await.unwrap(), 0);
    for (n, state) in (1_u64..).zip(STATES) {
        let want = if state == State::Claimed {
            State::Released
        } else {
            state
        };
        assert_eq!(state_of(&ledger, n).await, want);
    }
    let released = ledger.find(payment(1)).await.unwrap().unwrap();
    assert_eq!(released.reason.as_deref(), Some("wall_restarted"));
    assert_eq!(released.changed_at, NOW.plus(5));
    assert_eq!(
        state_of(&ledger, 100).await,
        State::Claimed,
        "a claim of this process"
    );
}
