//! Which files are opened, how, and what is said about the others.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn path(directory: &TempDir) -> PathBuf {
    directory.path().join("farewall.db")
}

#[track_caller]
fn check_refused(path: &Path, want: &str) {
    for result in [SqliteLedger::open(path), SqliteLedger::open_read_only(path)] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn only_the_owner_may_read_the_file_and_its_log() {
    let (directory, ledger) = fresh();
    claim_in(&ledger, 1, State::Claimed).await;
    let mut modes = Vec::new();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        modes.push(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777);
    }
    assert_eq!(modes, [0o600; 3]);
}

#[tokio::test]
async fn an_empty_file_becomes_a_ledger() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(path(&directory), "").unwrap();
    let ledger = SqliteLedger::open(&path(&directory)).unwrap();
    claim_in(&ledger, 1, State::Settled).await;
    drop(ledger);
    let ledger = SqliteLedger::open(&path(&directory)).unwrap();
    assert_eq!(state_of(&ledger, 1).await, State::Settled);
    assert_eq!(claim(&ledger, new_claim(1)).await, None);
}

#[test]
fn every_commit_reaches_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::new(&path(&directory));
    let connection = file::open_for_writing(&path(&directory), &place, false).unwrap();
    let pragma = |name| {
        connection
            .pragma_query_value(None, name, |row| row.get(0))
            .unwrap()
    };
    let (full, wal): (i64, String) = (
        pragma("synchronous"),
        connection
            .pragma_query_value(None, "journal_mode", |row| row.get(0))
            .unwrap(),
    );
    assert_eq!((full, wal.as_str()), (2, "wal"));
}

#[test]
fn a_file_of_a_newer_farewall_is_refused_and_left_alone() {
    let (directory, ledger) = fresh();
    drop(ledger);
    let file = Connection::open(path(&directory)).unwrap();
    file.pragma_update(None, "user_version", 5).unwrap();
    drop(file);
    let before = std::fs::read(path(&directory)).unwrap();
    for result in [
        SqliteLedger::open(&path(&directory)),
        SqliteLedger::open_read_only(&path(&directory)),
    ] {
        assert!(matches!(
            result,
            Err(LedgerError::TooNew {
                found: 5,
                known: 4,
                ..
            })
        ));
    }
    assert_eq!(std::fs::read(path(&directory)).unwrap(), before);
}

#[test]
fn what_is_not_a_ledger_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let other = directory.path().join("other.db");
    Connection::open(&other)
        .unwrap()
        .execute_batch("CREATE TABLE claim (a)")
        .unwrap();
    let before = std::fs::read(&other).unwrap();
    check_refused(&other, "it is not a Farewall ledger");
    assert_eq!(std::fs::read(&other).unwrap(), before);
    let text = directory.path().join("text.db");
    std::fs::write(
        &text,
        "this is no database, whatever its name says. ".repeat(99),
    )
    .unwrap();
    check_refused(&text, "file is not a database");
}

#[test]
fn a_missing_directory_is_named_and_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let error = SqliteLedger::open(&missing.join("farewall.db"))
        .unwrap_err()
        .to_string();
    let want = format!("the directory {} does not exist", missing.display());
    assert!(error.ends_with(&want), "{error}");
    assert!(!missing.exists());
}

#[test]
fn reading_does_not_create_a_ledger() {
    let directory = tempfile::tempdir().unwrap();
    let error = SqliteLedger::open_read_only(&path(&directory))
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("there is no such file"), "{error}");
    std::fs::write(path(&directory), "").unwrap();
    let error = SqliteLedger::open_read_only(&path(&directory))
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("it is not a Farewall ledger"), "{error}");
}

#[tokio::test]
async fn a_reader_beside_the_wall_sees_each_write_and_can_do_none() {
    let (directory, ledger) = fresh();
    let reader = SqliteLedger::open_read_only(&path(&directory)).unwrap();
    for n in 1..=3 {
        let id = claim_in(&ledger, n, State::Settled).await;
        assert_eq!(state_of(&reader, n).await, State::Settled);
        assert_eq!(
            reader.list(Filter::default()).await.unwrap().len(),
            usize::try_from(n).unwrap()
        );
        let refused = reader.advance(id, Move::Delivered, NOW).await;
        assert!(matches!(refused, Err(LedgerError::Closed(_))));
        assert!(matches!(
            reader.claim(new_claim(9), NOW).await,
            Err(LedgerError::Closed(_))
        ));
    }
}

#[tokio::test]
async fn an_unreadable_value_is_reported_with_its_claim_and_column() {
    let (directory, ledger) = fresh();
    let file = Connection::open(path(&directory)).unwrap();
    file.pragma_update(None, "ignore_check_constraints", true)
        .unwrap();
    let too_large = format!("'{}'", "9".repeat(50));
    for (n, (column, value)) in (1_u64..).zip([
        ("amount", &*too_large),
        ("amount", "'1e3'"),
        ("network", "'base'"),
        ("state", "'paid'"),
        ("payment", "x'00'"),
        ("valid_before", "-1"),
    ]) {
        let id = claim_in(&ledger, n, State::Released).await;
        let sql = format!("UPDATE claim SET {column} = {value} WHERE id = {}", id.0);
        assert_eq!(file.execute(&sql, []).unwrap(), 1);
        match ledger.get(id) {
            Err(LedgerError::Corrupt { id: which, field }) => {
                assert_eq!((which, field), (id.0, column));
            }
            other => panic!("{column}: {other:?}"),
        }
        let listed = ledger.list(Filter::default()).await;
        assert!(matches!(listed, Err(LedgerError::Corrupt { .. })));
        if !["payment", "valid_before"].contains(&column) {
            let summed = ledger.totals(Filter::default()).await;
            assert!(
                matches!(summed, Err(LedgerError::Corrupt { .. })),
                "{column}"
            );
        }
        file.execute("DELETE FROM claim", []).unwrap();
    }
}

#[tokio::test]
async fn a_damaged_claim_of_a_payment_does_not_let_it_be_claimed_again() {
    let (directory, ledger) = fresh();
    let id = claim_in(&ledger, 1, State::Settled).await;
    let file = Connection::open(path(&directory)).unwrap();
    file.execute("UPDATE claim SET network = 'base' WHERE id = ?1", [id.0])
        .unwrap();
    let answer = ledger.claim(new_claim(1), NOW).await;
    assert!(
        matches!(
            answer,
            Err(LedgerError::Corrupt {
                field: "network",
                ..
            })
        ),
        "{answer:?}"
    );
}

#[tokio::test]
async fn the_tables_refuse_what_the_program_would_never_write() {
    let (directory, ledger) = fresh();
    let file = Connection::open(path(&directory)).unwrap();
    claim_in(&ledger, 1, State::Claimed).await;
    for change in [
        "state = 'paid'",
        "amount = '-1'",
        "amount = ''",
        "state = 'settling'",
        "state = 'settled', facilitator = 'f'",
        "payment = x'00'",
        "claimed_at = 'yesterday'",
    ] {
        let result = file.execute(&format!("UPDATE claim SET {change}"), []);
        assert!(result.is_err(), "{change}");
    }
}

#[tokio::test]
async fn a_store_that_cannot_write_fails_every_waiting_write_and_recovers() {
    let (directory, ledger) = fresh();
    let file = Connection::open(path(&directory)).unwrap();
    file.execute_batch(
        "CREATE TRIGGER full BEFORE INSERT ON claim WHEN NEW.rule = 'breaks'
         BEGIN SELECT RAISE(ROLLBACK, 'the disk is full'); END",
    )
    .unwrap();
    file.execute_batch("BEGIN IMMEDIATE").unwrap();
    let breaking = NewClaim {
        rule: "breaks".into(),
        ..new_claim(2)
    };
    let (first, broken, third, ()) = tokio::join!(
        ledger.claim(new_claim(1), NOW),
        ledger.claim(breaking, NOW),
        ledger.claim(new_claim(3), NOW),
        async { file.execute_batch("ROLLBACK").unwrap() },
    );
    assert!(
        matches!(broken, Err(LedgerError::Store { .. })),
        "{broken:?}"
    );
    // Neighbours share its fate or not, but what was answered is what is on disk.
    for (n, another, answer) in [(1, 11, first), (3, 13, third)] {
        let on_disk = ledger.find(payment(n)).await.unwrap().is_some();
        assert_eq!(answer.is_ok(), on_disk, "{answer:?}");
        claim(&ledger, new_claim(another)).await.unwrap();
    }
    assert!(ledger.find(payment(2)).await.unwrap().is_none());
}

#[test]
fn a_file_with_two_names_is_refused_under_both() {
    let directory = tempfile::tempdir().unwrap();
    let (path, other) = (directory.path().join("a.db"), directory.path().join("b.db"));
    drop(SqliteLedger::open(&path).unwrap());
    std::fs::hard_link(&path, &other).unwrap();
    for name in [&path, &other] {
        let refused = SqliteLedger::open(name).unwrap_err().to_string();
        assert!(refused.contains("2 names (hard links)"), "{refused}");
    }
    std::fs::remove_file(&other).unwrap();
    SqliteLedger::open(&path).unwrap();
}

/// Before 3.51.3, a checkpoint beside a commit of another connection could lose what had been committed
/// (sqlite.org/wal.html, "the WAL-reset bug").
#[test]
fn sqlite_is_one_that_loses_nothing_in_a_checkpoint() {
    assert!(rusqlite::version_number() >= 3_051_003);
}
