//! What a ledger file forgets, and what it never does.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "a test that overflows fails"
)]

use super::*;
use crate::ledger::upkeep::{BATCH_ROWS, Cursor, PRUNE_AGE_MIN_S};
use crate::ledger::{NEVER_USED, Note, NoteKind, NoteText};

const LATE: UnixSeconds = UnixSeconds(u64::MAX);

/// A whole walk; returns how many rows went.
pub(super) async fn prune_all(ledger: &SqliteLedger, before: UnixSeconds) -> u64 {
    let want = ledger.prunable(before, LATE).unwrap();
    let (mut pruned, mut from) = (0, Some(Cursor::default()));
    while let Some(cursor) = from {
        let batch = ledger.prune(before, LATE, cursor).await.unwrap();
        assert!(batch.rows <= u64::from(BATCH_ROWS));
        pruned += batch.rows;
        from = batch.next;
    }
    assert_eq!(pruned, want, "what was announced");
    assert_eq!(ledger.prunable(before, LATE).unwrap(), 0);
    pruned
}

async fn never_used(ledger: &SqliteLedger, n: u64) -> ClaimId {
    let id = claim_in(ledger, n, State::Settling).await;
    let reason = NEVER_USED.into();
    ledger
        .advance(id, Move::Expired { reason }, NOW.plus(1))
        .await
        .unwrap();
    id
}

async fn left(ledger: &SqliteLedger) -> Vec<State> {
    let left = ledger.list(Filter::default()).await.unwrap();
    let mut states: Vec<State> = left.iter().map(|record| record.state).collect();
    states.sort_unstable();
    states
}

#[tokio::test]
async fn only_what_is_over_old_and_unsettleable_is_deleted_and_nothing_that_a_person_needs() {
    let (_directory, ledger) = fresh();
    for (n, state) in (1_u64..).zip(STATES) {
        claim_in(&ledger, n, state).await;
    }
    never_used(&ledger, 20).await;
    let marked = never_used(&ledger, 21).await;
    let note = Note {
        claim: marked,
        at: NOW,
        kind: NoteKind::Forgiven,
        text: NoteText::parse("x").unwrap(),
    };
    ledger.mark(note).await.unwrap();
    // Proofs that are refused by nothing but their rows.
    let lasting = NewClaim {
        valid_before: UnixSeconds(u64::MAX),
        ..new_claim(50)
    };
    let opaque = NewClaim {
        nonce: "opaque:0x01".into(),
        ..new_claim(51)
    };
    for new in [lasting, opaque] {
        let id = claim(&ledger, new).await.unwrap();
        for state in way_to(State::Delivered) {
            let step = move_to(*state).unwrap();
            ledger.advance(id, step, NOW).await.unwrap();
        }
    }
    // Nothing was paid with this one, so its row protects nobody, however long its proof is good.
    let unpaid = NewClaim {
        valid_before: UnixSeconds(u64::MAX),
        ..new_claim(52)
    };
    let unpaid = claim(&ledger, unpaid).await.unwrap();
    let released = move_to(State::Released).unwrap();
    ledger.advance(unpaid, released, NOW).await.unwrap();
    for released in 0..u64::from(BATCH_ROWS) * 2 {
        claim_in(&ledger, 100 + released, State::Released).await;
    }
    let settleable = NOW.plus(300);
    assert_eq!(
        prune_all(&ledger, settleable).await,
        4 + u64::from(BATCH_ROWS) * 2
    );
    let over = NOW.plus(301);
    assert_eq!(prune_all(&ledger, over).await, 1);
    let want = [
        State::Claimed,
        State::Settling,
        State::Settled,
        State::Delivered,
        State::Delivered,
        State::Expired,
        State::Expired,
    ];
    assert_eq!(left(&ledger).await, want);
    assert_eq!(prune_all(&ledger, LATE).await, 0);
    assert_eq!(left(&ledger).await, want);
}

#[tokio::test]
async fn what_is_younger_than_the_longest_retry_window_stays_whatever_is_asked() {
    let (_directory, ledger) = fresh();
    claim_in(&ledger, 1, State::Delivered).await;
    let young = NOW.plus(300 + PRUNE_AGE_MIN_S);
    let prune = |now| ledger.prune(LATE, now, Cursor::default());
    assert_eq!(prune(young).await.unwrap().rows, 0);
    let again = ledger.claim(new_claim(1), young).await.unwrap();
    assert!(matches!(again, ClaimAnswer::Held(_)), "spent: {again:?}");
    assert_eq!(prune(young.plus(1)).await.unwrap().rows, 1);
}

#[tokio::test]
async fn a_claim_that_is_over_does_not_keep_its_settle_request_and_an_open_one_does() {
    let (directory, ledger) = fresh();
    let mut kept = Vec::new();
    for (n, state) in (1_u64..).zip(STATES) {
        let id = claim_in(&ledger, n, state).await;
        if !ledger
            .get(id)
            .unwrap()
            .unwrap()
            .claim
            .settle_request
            .is_empty()
        {
            kept.push(state);
        }
    }
    let unknown = [
        State::Claimed,
        State::Settling,
        State::Settled,
        State::Expired,
    ];
    assert_eq!(kept, unknown);
    let unused = never_used(&ledger, 20).await;
    let unused = ledger.get(unused).unwrap().unwrap();
    assert!(unused.claim.settle_request.is_empty());
    drop(ledger);
    // A start gives the open claim back, with its request.
    let path = directory.path().join("farewall.db");
    let ledger = SqliteLedger::open(&path).unwrap();
    assert_eq!(ledger.release_abandoned(NOW.plus(5)).await.unwrap(), 1);
    let file = Connection::open(&path).unwrap();
    let count = |sql| file.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM request"), 3);
    assert_eq!(
        count("SELECT count(*) FROM claim WHERE settle_request <> ''"),
        0
    );
}

#[tokio::test]
async fn older_rows_are_emptied_batch_by_batch_once_and_those_that_are_open_when_they_are_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("farewall.db");
    Connection::open(&path)
        .unwrap()
        .execute_batch(include_str!("v1.sql"))
        .unwrap();
    let ledger = SqliteLedger::open(&path).unwrap();
    let full = |ledger: &SqliteLedger| {
        let ids = 1..=i64::try_from(STATES.len()).unwrap();
        ids.filter(|id| {
            let record = ledger.get(ClaimId(*id)).unwrap().unwrap();
            !record.claim.settle_request.is_empty()
        })
        .collect::<Vec<_>>()
    };
    assert_eq!(full(&ledger), [1, 2, 3, 4, 5, 6, 7]);
    let batch = ledger.compact().await.unwrap();
    assert_eq!((batch.rows, batch.next), (3, None));
    assert_eq!(full(&ledger), [1, 2, 3, 7], "open, owed and unknown ones");
    assert_eq!(ledger.compact().await.unwrap().rows, 0);
    ledger
        .advance(ClaimId(3), Move::Delivered, NOW)
        .await
        .unwrap();
    assert_eq!(full(&ledger), [1, 2, 7]);
}

#[tokio::test]
async fn the_space_of_what_was_deleted_is_used_again() {
    let (directory, ledger) = fresh();
    let path = directory.path().join("farewall.db");
    let pages = || {
        let file = Connection::open(&path).unwrap();
        file.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    let fill = async |from: u64| {
        for n in from..from + 400 {
            claim_in(&ledger, n, State::Delivered).await;
        }
    };
    fill(0).await;
    let first = pages();
    for round in 1..4 {
        assert_eq!(prune_all(&ledger, LATE).await, 400);
        fill(round * 1000).await;
    }
    assert!(
        pages() <= first + first / 4,
        "{first} pages became {}",
        pages()
    );
}
