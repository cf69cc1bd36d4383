//! What people did about claims: added only, and never a change of state.

use super::*;
use crate::ledger::{NEVER_USED, NOTE_CHARS_MAX, Note, NoteKind, NoteText};

fn note(claim: ClaimId, kind: NoteKind, text: &str) -> Note {
    Note {
        claim,
        at: NOW.plus(9),
        kind,
        text: NoteText::parse(text).unwrap(),
    }
}

#[tokio::test]
async fn only_what_is_owed_or_was_never_known_can_be_marked() {
    let (_directory, ledger) = fresh();
    for (n, state) in (1..).zip(STATES) {
        let id = claim_in(&ledger, n, state).await;
        let marked = ledger.mark(note(id, NoteKind::Refunded, "by hand")).await;
        let may = matches!(state, State::Settled | State::Expired);
        assert_eq!(marked.is_ok(), may, "{state}: {marked:?}");
        if !may {
            assert!(
                matches!(marked, Err(LedgerError::NoDebt { found, .. }) if found == state),
                "{marked:?}"
            );
        }
        assert_eq!(ledger.notes(id).await.unwrap().len(), usize::from(may));
        assert_eq!(
            state_of(&ledger, n).await,
            state,
            "marking changes no state"
        );
    }
    let nobody = ledger
        .mark(note(ClaimId(99), NoteKind::Forgiven, "x"))
        .await;
    assert!(matches!(nobody, Err(LedgerError::NoSuchClaim(99))));
}

#[tokio::test]
async fn notes_are_read_back_in_their_order_and_after_a_restart() {
    let (directory, ledger) = fresh();
    let id = claim_in(&ledger, 1, State::Settled).await;
    let notes = [
        note(id, NoteKind::Forgiven, "the buyer wrote: \u{1f44d}"),
        note(id, NoteKind::Refunded, "in 0xabc after all"),
    ];
    for one in &notes {
        ledger.mark(one.clone()).await.unwrap();
    }
    assert_eq!(ledger.notes(id).await.unwrap(), notes);
    drop(ledger);
    let path = directory.path().join("farewall.db");
    let ledger = SqliteLedger::open_read_only(&path).unwrap();
    assert_eq!(ledger.notes(id).await.unwrap(), notes);
    let refused = ledger.mark(notes[0].clone()).await;
    assert!(matches!(refused, Err(LedgerError::Closed(_))));
}

#[tokio::test]
async fn nobody_can_change_or_delete_a_note() {
    let (directory, ledger) = fresh();
    let id = claim_in(&ledger, 1, State::Expired).await;
    ledger
        .mark(note(id, NoteKind::Forgiven, "gone"))
        .await
        .unwrap();
    let file = Connection::open(directory.path().join("farewall.db")).unwrap();
    for sql in ["UPDATE note SET text = 'x'", "DELETE FROM note"] {
        let error = file.execute(sql, []).unwrap_err().to_string();
        assert!(error.contains("notes are not"), "{error}");
    }
    let late = UnixSeconds(u64::MAX);
    assert_eq!(upkeep::prune_all(&ledger, late).await, 0, "its claim stays");
}

#[tokio::test]
async fn what_is_marked_or_known_to_be_unpaid_needs_no_person() {
    let (_directory, ledger) = fresh();
    let marked = claim_in(&ledger, 1, State::Settled).await;
    let owed = claim_in(&ledger, 2, State::Settled).await;
    let unknown = claim_in(&ledger, 3, State::Expired).await;
    let unpaid = claim_in(&ledger, 4, State::Settling).await;
    let reason = NEVER_USED.into();
    ledger
        .advance(unpaid, Move::Expired { reason }, NOW)
        .await
        .unwrap();
    ledger
        .mark(note(marked, NoteKind::Refunded, "x"))
        .await
        .unwrap();
    let needs_person = Filter {
        needs_person: true,
        ..Filter::default()
    };
    let listed = ledger.list(needs_person.clone()).await.unwrap();
    let ids: Vec<ClaimId> = listed.iter().map(|record| record.id).collect();
    assert_eq!(ids, [unknown, owed]);
    let totals = ledger.totals(needs_person).await.unwrap();
    assert_eq!(totals.iter().map(|total| total.count).sum::<u64>(), 2);
}

#[tokio::test]
async fn a_file_of_the_first_version_is_brought_up_to_date() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("farewall.db");
    Connection::open(&path)
        .unwrap()
        .execute_batch(include_str!("v1.sql"))
        .unwrap();
    let error = SqliteLedger::open_read_only(&path).unwrap_err().to_string();
    assert!(error.contains("start the wall once"), "{error}");
    let ledger = SqliteLedger::open(&path).unwrap();
    assert_eq!(state_of(&ledger, 3).await, State::Settled);
    ledger
        .mark(note(ClaimId(3), NoteKind::Refunded, "x"))
        .await
        .unwrap();
}

#[test]
fn a_note_has_words_and_not_too_many() {
    let most = "é".repeat(NOTE_CHARS_MAX);
    for (text, good) in [
        ("x", true),
        (" x\n", true),
        ("", false),
        (" \n", false),
        ("a\0b", false),
        (&*most, true),
        (&format!("{most}é"), false),
    ] {
        assert_eq!(NoteText::parse(text).is_some(), good, "{text}");
    }
}
