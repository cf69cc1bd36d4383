//! What a shared ledger forgets, and what it never does.

use farewall::clock::UnixSeconds;
use farewall::ledger::upkeep::{BATCH_ROWS, Batch, Cursor};
use farewall::ledger::{ClaimId, Filter, Ledger, LedgerError, Move, NEVER_USED};
use farewall::settlement::{STATES, State};
use tokio_postgres::NoTls;

use super::ledger::{NOW, PATHS, claimed, go, new_claim, on_a_database, wall};

const LATE: UnixSeconds = UnixSeconds(i64::MAX as u64);

async fn prune_all(ledger: &dyn Ledger, before: UnixSeconds) -> u64 {
    let (mut pruned, mut from) = (0, Some(Cursor::default()));
    while let Some(cursor) = from {
        let batch = ledger.prune(before, LATE, cursor).await.unwrap();
        assert!(batch.rows <= u64::from(BATCH_ROWS));
        pruned += batch.rows;
        from = batch.next;
    }
    pruned
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_over_and_old_is_deleted_by_the_clock_of_the_database_too() {
    on_a_database(|cluster, url| async move {
        let ledger = wall(&url, 60).await;
        for (n, (_, path)) in (1..).zip(PATHS) {
            let claim = claimed(&ledger, n).await;
            go(&ledger, claim.id(), path).await;
        }
        let unused = claimed(&ledger, 20).await;
        go(&ledger, unused.id(), &[State::Settling]).await;
        let reason = NEVER_USED.into();
        let expired = Move::Expired { reason };
        ledger.advance(unused.id(), expired, NOW).await.unwrap();
        // Copies that are over, so that one batch is not enough.
        cluster.sql(
            "ledger",
            "INSERT INTO farewall.claim (payment, fingerprint, state, rule, accept, scheme, network,
                asset, amount, payer, pay_to, nonce, valid_before, request, settle_request,
                claimed_at, changed_at, facilitator, transaction_id, receipt, attempt)
             SELECT sha256(n::text::bytea), fingerprint, state, rule, accept, scheme, network, asset,
                amount, payer, pay_to, nonce, valid_before, request, '', claimed_at, changed_at,
                facilitator, transaction_id, receipt, attempt
             FROM farewall.claim, generate_series(1, 150) AS n WHERE state = 'delivered'",
        );
        // All of it was made at a time that the tests made up; make it young by the database's clock.
        let shift = |to: &str| {
            let sql = format!(
                "UPDATE farewall.claim SET claimed_at = t.now + claimed_at - {NOW},
                    changed_at = t.now + changed_at - {NOW}, valid_before = t.now + valid_before - {NOW}
                 FROM (SELECT extract(epoch FROM now())::bigint {to} AS now) AS t",
                NOW = NOW.0
            );
            cluster.sql("ledger", &sql);
        };
        shift("");
        assert_eq!(prune_all(&ledger, LATE).await, 0, "a wall's clock is not enough");
        cluster.sql(
            "ledger",
            "UPDATE farewall.claim SET claimed_at = claimed_at - 90000,
                changed_at = changed_at - 90000, valid_before = valid_before - 90000",
        );
        assert_eq!(prune_all(&ledger, LATE).await, 4 + 150);
        let left = ledger.list(Filter::default()).await.unwrap();
        let mut states: Vec<State> = left.iter().map(|record| record.state).collect();
        states.sort_unstable();
        let needed = [State::Claimed, State::Settling, State::Settled, State::Expired];
        assert_eq!(states, needed);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_wall_at_a_time_tidies_up_and_the_others_do_not_wait() {
    on_a_database(|_cluster, url| async move {
        let ledger = wall(&url, 60).await;
        let claim = claimed(&ledger, 1).await;
        go(&ledger, claim.id(), &[State::Released]).await;
        let (other, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        let lock = |what: &str| format!("SELECT pg_advisory_{what}(1180126258)");
        other.batch_execute(&lock("lock")).await.unwrap();
        let prune = || ledger.prune(LATE, LATE, Cursor::default());
        assert_eq!(prune().await.unwrap(), Batch::default());
        assert_eq!(ledger.compact().await.unwrap(), Batch::default());
        other.batch_execute(&lock("unlock")).await.unwrap();
        assert_eq!(prune().await.unwrap().rows, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_over_keeps_no_settle_request() {
    on_a_database(|_cluster, url| async move {
        let ledger = wall(&url, 60).await;
        let mut kept = Vec::new();
        for (n, (state, path)) in (1..).zip(PATHS) {
            let claim = claimed(&ledger, n).await;
            go(&ledger, claim.id(), path).await;
            let record = ledger.find(new_claim(n).payment).await.unwrap().unwrap();
            assert_eq!(record.state, state);
            if !record.claim.settle_request.is_empty() {
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
        ledger.leave().await;
        let other = wall(&url, 60).await;
        let lost = other.find(new_claim(1).payment).await.unwrap().unwrap();
        assert_eq!(lost.state, State::Released);
        assert!(lost.claim.settle_request.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_version_1_is_carried_forward_whole_and_emptied_in_the_background() {
    on_a_database(|cluster, url| async move {
        cluster.sql("ledger", include_str!("v1.sql"));
        let ledger = wall(&url, 60).await;
        let newest_first = ledger.list(Filter::default()).await.unwrap();
        let states: Vec<State> = newest_first.iter().rev().map(|r| r.state).collect();
        let want = STATES.map(|state| match state {
            // Its wall is gone.
            State::Claimed => State::Released,
            other => other,
        });
        assert_eq!(states, want);
        let full = async || -> Vec<i64> {
            let records = ledger.list(Filter::default()).await.unwrap();
            let full = records.iter().rev();
            full.filter(|record| !record.claim.settle_request.is_empty())
                .map(|record| record.id.0)
                .collect()
        };
        assert_eq!(full().await, [2, 3, 4, 5, 6, 7]);
        let batch = ledger.compact().await.unwrap();
        assert_eq!((batch.rows, batch.next), (3, None));
        assert_eq!(full().await, [2, 3, 7], "unknown and owed ones");
        assert_eq!(ledger.compact().await.unwrap(), Batch::default());
        let done = ledger.advance(ClaimId(3), Move::Delivered, NOW).await;
        assert!(matches!(
            done,
            Ok(()) | Err(LedgerError::IllegalMove { .. })
        ));
        assert_eq!(full().await, [2, 7]);
        let again = ledger.claim(new_claim(4), NOW).await.unwrap();
        assert!(format!("{again:?}").starts_with("Held"), "{again:?}");
    })
    .await;
}
