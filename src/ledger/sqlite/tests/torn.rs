//! A write-ahead log whose end a power cut or a bad disk tore off or garbled: it opens, and every
//! commit that was acknowledged before the damage is there.

use super::*;

const CLAIMS: u64 = 6;

/// A ledger as a kill leaves it, and for each acknowledged write how long the log was then.
struct Left {
    database: Vec<u8>,
    log: Vec<u8>,
    index: Vec<u8>,
    acknowledged: Vec<(usize, u64, State)>,
}

async fn left_behind() -> Left {
    let (directory, ledger) = fresh();
    let path = directory.path().join("farewall.db");
    let log = directory.path().join("farewall.db-wal");
    let mut acknowledged = Vec::new();
    for n in 1..=CLAIMS {
        let id = claim(&ledger, new_claim(n)).await.unwrap();
        let mut note = |state| acknowledged.push((std::fs::read(&log).unwrap().len(), n, state));
        note(State::Claimed);
        for state in [State::Settling, State::Settled] {
            let step = move_to(state).unwrap();
            ledger.advance(id, step, NOW.plus(1)).await.unwrap();
            note(state);
        }
    }
    Left {
        database: std::fs::read(&path).unwrap(),
        log: std::fs::read(&log).unwrap(),
        index: std::fs::read(directory.path().join("farewall.db-shm")).unwrap(),
        acknowledged,
    }
}

/// Opens the ledger with this log; what was acknowledged before `damage` must be there, and nothing
/// that never was.
async fn check(left: &Left, log: &[u8], damage: usize, with_index: bool) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("farewall.db");
    std::fs::write(&path, &left.database).unwrap();
    std::fs::write(directory.path().join("farewall.db-wal"), log).unwrap();
    if with_index {
        std::fs::write(directory.path().join("farewall.db-shm"), &left.index).unwrap();
    }
    let ledger = SqliteLedger::open(&path).unwrap();
    for (length, n, state) in &left.acknowledged {
        if *length <= damage {
            let found = ledger.find(payment(*n)).await.unwrap();
            let found = found.map(|record| record.state);
            assert!(found >= Some(*state), "{n} at {damage}: {found:?}, {state}");
        }
    }
    let records = ledger.list(Filter::default()).await.unwrap();
    for (n, record) in (1_u64..).zip(records.iter().rev()) {
        assert_eq!(record.claim.payment, payment(n), "no gap, and no stranger");
    }
    assert!(claim(&ledger, new_claim(99)).await.is_some(), "it goes on");
}

#[tokio::test]
async fn what_was_acknowledged_before_a_tear_survives_it() {
    let left = left_behind().await;
    assert!(left.log.len() > 20 * 4096, "the log holds it all");
    for (n, cut) in (0..=left.log.len()).step_by(1373).enumerate() {
        check(&left, &left.log[..cut], cut, n % 2 == 0).await;
    }
    check(&left, &left.log, left.log.len(), true).await;
}

#[tokio::test]
async fn what_was_acknowledged_before_garbage_survives_it() {
    let left = left_behind().await;
    for (n, at) in (0..left.log.len()).step_by(2741).enumerate() {
        let mut log = left.log.clone();
        log[at] ^= 0x55;
        // A frame holds one page: the damage begins where its frame does.
        let frame = at.saturating_sub(32) / (24 + 4096) * (24 + 4096) + 32;
        check(&left, &log, frame, n % 2 == 0).await;
        let rest = log.len().min(at + 9000);
        log[at..rest].fill(0xA5);
        check(&left, &log, frame, n % 2 == 1).await;
    }
}

#[test]
fn a_torn_file_is_refused_in_words_or_read_and_never_a_panic() {
    let (directory, ledger) = fresh();
    drop(ledger);
    let path = directory.path().join("farewall.db");
    let whole = std::fs::read(&path).unwrap();
    for cut in (1..whole.len()).step_by(911) {
        std::fs::write(&path, &whole[..cut]).unwrap();
        if let Err(error) = SqliteLedger::open(&path) {
            let text = error.to_string();
            assert!(text.contains(&path.display().to_string()), "{text}");
        }
        for log in ["farewall.db-wal", "farewall.db-shm"] {
            let _ = std::fs::remove_file(directory.path().join(log));
        }
    }
}
