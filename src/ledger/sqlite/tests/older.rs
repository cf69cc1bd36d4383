//! Files that an older Farewall wrote: every release's schema is frozen here as it was written
//! then, with a claim in each state, and must be carried forward whole.

use super::*;

/// What the first release wrote. Never edited: files out there were made by it.
const V1: &str = include_str!("v1.sql");

fn older(sql: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("farewall.db");
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    (directory, path)
}

fn pragma(path: &Path, name: &str) -> i64 {
    let file = Connection::open(path).unwrap();
    file.pragma_query_value(None, name, |row| row.get(0))
        .unwrap()
}

#[tokio::test]
async fn a_file_of_version_1_is_carried_forward_whole() {
    let (_directory, path) = older(V1);
    assert_eq!(pragma(&path, "user_version"), 1);
    let ledger = SqliteLedger::open(&path).unwrap();
    for (n, state) in (1_u64..).zip(STATES) {
        let record = ledger.find(payment(n)).await.unwrap().unwrap();
        let want = NewClaim {
            amount: AtomicAmount::new(u128::MAX),
            ..new_claim(n)
        };
        assert_eq!(format!("{:?}", record.claim), format!("{want:?}"));
        assert_eq!(
            (record.id.0, record.state),
            (i64::try_from(n).unwrap(), state)
        );
        assert_eq!((record.claimed_at, record.changed_at), (NOW, NOW.plus(2)));
        let asked = !matches!(state, State::Claimed | State::Released);
        assert_eq!(record.facilitator.as_deref(), asked.then_some("sandbox"));
        assert_eq!(
            record.transaction.as_deref(),
            state.is_paid().then_some("0xabc")
        );
        assert_eq!(record.body, state.is_paid().then_some(BodyDigest([3; 32])));
        assert_eq!(claim(&ledger, want).await.is_some(), !state.holds_payment());
    }
    drop(ledger);
    assert_eq!(pragma(&path, "user_version"), schema::KNOWN);
}

#[tokio::test]
async fn the_life_of_an_older_claim_goes_on() {
    let (_directory, path) = older(V1);
    let ledger = SqliteLedger::open(&path).unwrap();
    assert_eq!(ledger.release_abandoned(NOW.plus(9)).await.unwrap(), 1);
    assert_eq!(state_of(&ledger, 1).await, State::Released);
    ledger.advance(ClaimId(2), settled(), NOW).await.unwrap();
    ledger
        .advance(ClaimId(3), Move::Delivered, NOW)
        .await
        .unwrap();
    assert_eq!(state_of(&ledger, 2).await, State::Settled);
    assert_eq!(state_of(&ledger, 3).await, State::Delivered);
}

#[test]
fn a_migration_that_fails_changes_nothing() {
    let (_directory, path) = older(&format!(
        "PRAGMA application_id = {};
         CREATE TABLE claim (kept TEXT);
         INSERT INTO claim VALUES ('this');",
        0x4657_4c31
    ));
    let error = SqliteLedger::open(&path).unwrap_err().to_string();
    assert!(error.contains("already exists"), "{error}");
    assert_eq!(pragma(&path, "user_version"), 0);
    let kept: String = Connection::open(&path)
        .unwrap()
        .query_row("SELECT kept FROM claim", [], |row| row.get(0))
        .unwrap();
    assert_eq!(kept, "this");
}

/// Prints the fixture of the present schema, for the day when it becomes an older one:
/// `cargo test --lib writes_the_fixture -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "prints a fixture, proves nothing"]
async fn writes_the_fixture() {
    let (directory, ledger) = fresh();
    drop(ledger);
    let file = Connection::open(directory.path().join("farewall.db")).unwrap();
    println!("PRAGMA application_id = 0x46574c31;");
    println!("PRAGMA user_version = {};", schema::KNOWN);
    let mut tables = file
        .prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'")
        .unwrap();
    for sql in tables.query_map([], |row| row.get::<_, String>(0)).unwrap() {
        println!("{};", sql.unwrap());
    }
}
