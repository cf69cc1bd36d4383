//! Two processes on one file, while a wall is being replaced.

use super::*;

const START: Cursor = Cursor {
    claimed_at: UnixSeconds(0),
    id: 0,
};

/// One of them.
type Process = (Arc<Presence>, SqliteLedger);

/// A wall, and the one that takes its place.
fn two() -> (TempDir, Process, Process) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("farewall.db");
    let old = Arc::new(Presence::alone(&path).unwrap());
    let first = SqliteLedger::open_as_wall(&path, Arc::clone(&old)).unwrap();
    let old = (old, first);
    let new = successor(&directory, &old);
    (directory, old, new)
}

async fn state(ledger: &SqliteLedger, n: u64) -> State {
    ledger.find(payment(n)).await.unwrap().unwrap().state
}

async fn unsettled(ledger: &SqliteLedger) -> usize {
    ledger.unsettled(START, 10).await.unwrap().len()
}

#[tokio::test]
async fn what_a_process_that_lives_works_on_is_left_alone_and_afterwards_taken_over() {
    let (_directory, (old, first), (_new, second)) = two();
    claim_in(&first, 1, State::Claimed).await;
    claim_in(&first, 2, State::Settling).await;
    claim_in(&second, 3, State::Claimed).await;
    claim_in(&second, 4, State::Settling).await;
    assert_eq!(claim(&second, new_claim(1)).await, None, "it is held");
    for ledger in [&first, &second] {
        assert_eq!(ledger.release_abandoned(NOW).await.unwrap(), 0);
        assert_eq!(unsettled(ledger).await, 1, "each its own");
    }
    drop(first);
    drop(old);
    assert_eq!(second.release_abandoned(NOW).await.unwrap(), 1);
    let released = second.find(payment(1)).await.unwrap().unwrap();
    assert_eq!(released.state, State::Released);
    assert_eq!(released.reason.as_deref(), Some("wall_lost"));
    assert_eq!(state(&second, 3).await, State::Claimed);
    assert_eq!(unsettled(&second).await, 2);
}

#[tokio::test]
async fn the_old_process_gives_back_what_a_new_one_that_failed_had_claimed() {
    let (_directory, (_old, first), (new, second)) = two();
    claim_in(&second, 1, State::Claimed).await;
    claim_in(&first, 2, State::Claimed).await;
    drop(second);
    drop(new);
    assert_eq!(first.release_abandoned(NOW).await.unwrap(), 1);
    assert_eq!(state(&first, 1).await, State::Released);
    assert_eq!(state(&first, 2).await, State::Claimed);
}

#[tokio::test]
async fn a_debt_is_in_one_hand_at_a_time() {
    let (_directory, (old, first), (new, second)) = two();
    let id = claim_in(&first, 1, State::Settled).await;
    assert!(first.is_shared() && second.is_shared());
    assert!(first.take_owed(id).await.unwrap(), "its own");
    assert!(!second.take_owed(id).await.unwrap(), "the old one has it");
    first.let_go(id);
    // A write of the same process that comes after it.
    claim_in(&first, 2, State::Claimed).await;
    assert!(second.take_owed(id).await.unwrap());
    assert!(!first.take_owed(id).await.unwrap(), "the new one has it");
    let left_behind = claim_in(&first, 3, State::Settled).await;
    assert!(!second.take_owed(left_behind).await.unwrap());
    drop(first);
    drop(old);
    assert!(second.take_owed(left_behind).await.unwrap());
    new.set_company(false);
    assert!(!second.is_shared());
}

/// A ledger with a debt that a wall left behind which has ended, and a wall that is alone there.
async fn debt_of_old() -> (TempDir, ClaimId, Process) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("farewall.db");
    let open = || {
        let wall = Arc::new(Presence::alone(&path).unwrap());
        let ledger = SqliteLedger::open_as_wall(&path, Arc::clone(&wall)).unwrap();
        (wall, ledger)
    };
    let (before, ledger) = open();
    let id = claim_in(&ledger, 1, State::Settled).await;
    drop((ledger, before));
    let alone = open();
    (directory, id, alone)
}

/// The one that takes the place of a wall.
fn successor(directory: &TempDir, (old, _): &Process) -> Process {
    let path = directory.path().join("farewall.db");
    old.set_company(true);
    let new = Presence::beside(&path, old.lock_to_hand_over().unwrap()).unwrap();
    let new = Arc::new(new);
    let ledger = SqliteLedger::open_as_wall(&path, Arc::clone(&new)).unwrap();
    (new, ledger)
}

#[tokio::test]
async fn what_a_wall_alone_has_in_hand_is_seen_by_the_one_that_comes() {
    let (directory, id, old) = debt_of_old().await;
    let before = old.1.commits().unwrap();
    assert!(!old.1.is_shared());
    assert!(old.1.take_owed(id).await.unwrap());
    let commits = old.1.commits().unwrap() - before;
    assert_eq!(commits, 1, "what it costs a collection");
    let new = successor(&directory, &old);
    assert!(!new.1.take_owed(id).await.unwrap(), "the old one has it");
    old.1.let_go(id);
    claim_in(&old.1, 2, State::Claimed).await;
    assert!(new.1.take_owed(id).await.unwrap());
}

#[tokio::test]
async fn what_nobody_waits_for_is_written_again_until_it_is_there() {
    let (directory, id, old) = debt_of_old().await;
    let other = Connection::open(directory.path().join("farewall.db")).unwrap();
    for (n, fault) in [(10, "ABORT"), (20, "ROLLBACK")] {
        assert!(old.1.take_owed(id).await.unwrap());
        let refuse = format!(
            "CREATE TRIGGER refuse BEFORE UPDATE ON claim BEGIN SELECT RAISE({fault}, 'full'); END"
        );
        other.execute_batch(&refuse).unwrap();
        old.1.let_go(id);
        // Two who leave: one before the answer, one after it.
        let mut leaving = old.1.claim(new_claim(n), NOW);
        assert!(futures_util::poll!(&mut leaving).is_pending());
        drop(leaving);
        // A write behind them: all of that had its turn, and came to nothing.
        while old.1.claim(new_claim(n + 1), NOW).await.is_err() {}
        let wall: Option<i64> = other
            .query_row("SELECT wall FROM claim WHERE id = ?1", [id.0], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(wall, Some(old.0.id()), "still in hand");
        other.execute_batch("DROP TRIGGER refuse").unwrap();
        loop {
            let sql = "SELECT wall IS NULL FROM claim WHERE id = ?1";
            let is_free: bool = other.query_row(sql, [id.0], |row| row.get(0)).unwrap();
            let claimed = old.1.find(payment(n)).await.unwrap();
            if is_free && claimed.is_none_or(|record| record.state == State::Released) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

#[tokio::test]
async fn what_is_taken_in_hand_again_is_not_let_go_late() {
    let (directory, id, old) = debt_of_old().await;
    let other = Connection::open(directory.path().join("farewall.db")).unwrap();
    assert!(old.1.take_owed(id).await.unwrap());
    let refuse =
        "CREATE TRIGGER refuse BEFORE UPDATE ON claim BEGIN SELECT RAISE(ABORT, 'full'); END";
    other.execute_batch(refuse).unwrap();
    old.1.let_go(id);
    claim_in(&old.1, 2, State::Claimed).await;
    assert!(old.1.take_owed(id).await.unwrap(), "it has it already");
    other.execute_batch("DROP TRIGGER refuse").unwrap();
    let new = successor(&directory, &old);
    // So long that whatever was left over is written.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    claim_in(&old.1, 3, State::Claimed).await;
    assert!(!new.1.take_owed(id).await.unwrap(), "the old one has it");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_get_their_turn_to_write() {
    let (_directory, (_old, first), (_new, second)) = two();
    let claims = |ledger: SqliteLedger, from: u64| async move {
        let ledger = Arc::new(ledger);
        let all = (from..from + 200).map(|n| {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move { claim(&ledger, new_claim(n)).await })
        });
        join_all(all).await
    };
    let (one, two) = tokio::join!(claims(first, 0), claims(second, 100));
    let won = one
        .into_iter()
        .chain(two)
        .filter(|won| won.as_ref().unwrap().is_some());
    assert_eq!(
        won.count(),
        300,
        "each payment once, none refused for want of a turn"
    );
}

#[test]
fn a_schema_that_the_wall_that_runs_does_not_know_is_left_to_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("farewall.db");
    drop(SqliteLedger::open(&path).unwrap());
    let older = Connection::open(&path).unwrap();
    older
        .pragma_update(None, "user_version", schema::KNOWN - 1)
        .unwrap();
    drop(older);
    let old = Presence::alone(&path).unwrap();
    let new = Presence::beside(&path, old.lock_to_hand_over().unwrap()).unwrap();
    let refused = SqliteLedger::open_as_wall(&path, Arc::new(new)).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("restart the wall in place of replacing it")
    );
    let version: i64 = Connection::open(&path)
        .unwrap()
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap();
    assert_eq!(version, schema::KNOWN - 1, "left alone");
}
