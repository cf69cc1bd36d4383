//! What happens to writes that wait: shared commits, callers that leave, full queues, drops and kills.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "a test that overflows fails"
)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;

fn commits(ledger: &SqliteLedger) -> u64 {
    ledger.commits().unwrap()
}

#[tokio::test]
async fn claims_that_wait_together_share_a_commit() {
    let (directory, ledger) = fresh();
    let path = directory.path().join("farewall.db");
    let other = Connection::open(path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let claims = join_all((0..64).map(|n| claim(&ledger, new_claim(n))));
    let (granted, ()) = tokio::join!(claims, async {
        // Polled after all 64 are in the queue, and none of them can have been written.
        assert_eq!(commits(&ledger), 0);
        other.execute_batch("ROLLBACK").unwrap();
    });
    assert!(granted.iter().all(Option::is_some));
    assert!((1..=2).contains(&commits(&ledger)), "{}", commits(&ledger));
}

#[test]
fn only_where_many_write_is_more_waited_for_and_never_beyond_a_batch() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("farewall.db");
    let place = Place::new(&path);
    let connection = file::open_for_writing(&path, &place, false).unwrap();
    let hands = Hands::of(&connection, (&path, &place), None).unwrap();
    let mut writer = Writer::new(connection, place, Default::default(), hands);
    let (queue, waiting) = sync_channel(1000);
    let (id, now) = (ClaimId(1), NOW);
    let send = |count: usize| {
        (0..count).for_each(|_| queue.send(Op::Tidy(Tidy::GiveBack { id, now })).unwrap())
    };
    let gathered = |writer: &Writer| {
        let mut ops = vec![waiting.recv().unwrap()];
        writer.gather(&mut ops, &waiting);
        ops.len()
    };
    send(3);
    assert_eq!(gathered(&writer), 1, "who comes alone is not kept waiting");
    let ops = vec![waiting.recv().unwrap()];
    send(1);
    assert_eq!(
        writer.write_together(ops, &waiting),
        3,
        "what waits is written too"
    );
    writer.shared_by = 3;
    send(1);
    assert_eq!(gathered(&writer), 1, "nobody came");
    send(5);
    assert_eq!(gathered(&writer), 5);
    send(300);
    assert_eq!((gathered(&writer), gathered(&writer)), (256, 44));
}

#[tokio::test]
async fn a_write_that_fails_leaves_the_others_of_its_commit_alone() {
    let (directory, ledger) = fresh();
    let first = claim_in(&ledger, 1, State::Settled).await;
    let before = commits(&ledger);
    let other = Connection::open(directory.path().join("farewall.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (held, illegal, missing, won, delivered, ()) = tokio::join!(
        ledger.claim(new_claim(1), NOW),
        ledger.advance(first, move_to(State::Expired).unwrap(), NOW),
        ledger.advance(ClaimId(99), Move::Delivered, NOW),
        ledger.claim(new_claim(2), NOW),
        ledger.advance(first, Move::Delivered, NOW),
        async { other.execute_batch("ROLLBACK").unwrap() },
    );
    assert!(commits(&ledger) - before <= 2);
    assert!(matches!(held, Ok(ClaimAnswer::Held(record)) if record.id == first));
    assert!(matches!(illegal, Err(LedgerError::IllegalMove { .. })));
    assert!(matches!(missing, Err(LedgerError::NoSuchClaim(99))));
    assert!(matches!(won, Ok(ClaimAnswer::Claimed(_))));
    assert!(delivered.is_ok());
    assert_eq!(state_of(&ledger, 1).await, State::Delivered);
    assert_eq!(state_of(&ledger, 2).await, State::Claimed);
}

#[tokio::test]
async fn a_claim_that_nobody_waits_for_is_given_back() {
    let (directory, ledger) = fresh();
    let other = Connection::open(directory.path().join("farewall.db")).unwrap();
    for n in 1..=20 {
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut leaving = ledger.claim(new_claim(n), NOW);
        assert!(futures_util::poll!(&mut leaving).is_pending());
        other.execute_batch("ROLLBACK").unwrap();
        // Half of them leave before the answer, half after it has arrived.
        if n % 2 == 0 {
            while ledger.find(payment(n)).await.unwrap().is_none() {
                tokio::task::yield_now().await;
            }
        }
        drop(leaving);
    }
    drop(ledger);
    let ledger = SqliteLedger::open(&directory.path().join("farewall.db")).unwrap();
    for n in 1..=20 {
        let record = ledger.find(payment(n)).await.unwrap().unwrap();
        assert_eq!(record.state, State::Released);
        assert_eq!(record.reason.as_deref(), Some("abandoned"));
    }
}

#[tokio::test]
async fn writes_beyond_the_queue_are_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("farewall.db");
    let ledger = SqliteLedger::open_with(&path, 4, None).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let claims = join_all((0..20).map(|n| ledger.claim(new_claim(n), NOW)));
    let (answers, ()) = tokio::join!(claims, async { other.execute_batch("ROLLBACK").unwrap() });
    let refused = |answer: &&Result<ClaimAnswer, LedgerError>| {
        matches!(answer, Err(LedgerError::Closed("too many writes wait")))
    };
    // The writer holds one while it waits for the lock, and four wait behind it.
    assert!((15..=16).contains(&answers.iter().filter(refused).count()));
    assert!(
        answers
            .iter()
            .all(|answer| answer.is_ok() || refused(&answer))
    );
}

#[tokio::test]
async fn dropping_the_ledger_writes_what_still_waits() {
    let (directory, ledger) = fresh();
    let path = directory.path().join("farewall.db");
    let id = claim_in(&ledger, 1, State::Settled).await;
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut leaving = ledger.advance(id, Move::Delivered, NOW);
    assert!(futures_util::poll!(&mut leaving).is_pending());
    drop(leaving);
    other.execute_batch("ROLLBACK").unwrap();
    drop(ledger);
    let ledger = SqliteLedger::open(&path).unwrap();
    assert_eq!(state_of(&ledger, 1).await, State::Delivered);
}

const CHILD_LEDGER: &str = "FAREWALL_TEST_LEDGER";

/// Not a fact by itself: what the next test starts, and kills.
#[tokio::test]
#[ignore = "runs in a process that the next test starts and kills"]
async fn claims_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD_LEDGER) else {
        return;
    };
    let ledger = SqliteLedger::open(Path::new(&path)).unwrap();
    for round in 0..5_000_u64 {
        join_all((0..4).map(async |n| {
            let id = claim_in(&ledger, round * 4 + n, State::Settled).await;
            eprintln!("settled: {}", id.0);
        }))
        .await;
    }
}

#[test]
fn nothing_that_was_answered_is_missing_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("farewall.db");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "ledger::sqlite::tests::waiting::claims_until_it_is_killed",
            "--exact",
            "--ignored",
        ])
        .arg("--nocapture")
        .env(CHILD_LEDGER, &path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let number = |line: String| line.strip_prefix("settled: ").map(|id| id.parse().unwrap());
    let mut answered: Vec<i64> = lines.by_ref().filter_map(number).take(40).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    answered.extend(lines.filter_map(number));
    assert!((40..20_000).contains(&answered.len()), "{}", answered.len());
    let ledger = SqliteLedger::open(&path).unwrap();
    for id in answered {
        assert_eq!(
            ledger.get(ClaimId(id)).unwrap().unwrap().state,
            State::Settled
        );
    }
}
