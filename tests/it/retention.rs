//! A wall with `retention_days`: what it forgets while it sells, whatever ends it.

use std::path::Path;

use farewall::settlement::State;
use rusqlite::Connection;

use crate::support::wall::farewall;
use crate::support::{Setup, Signer, eventually, offer};

const COPIES: i64 = 4000;
/// Two days.
const OLD_S: i64 = 172_800;

fn rows(path: &Path, condition: &str) -> i64 {
    let file = Connection::open(path).unwrap();
    let sql = format!("SELECT count(*) FROM claim WHERE {condition}");
    file.query_row(&sql, [], |row| row.get(0)).unwrap()
}

/// Makes everything two days older, and many copies of what is delivered.
fn age(path: &Path) {
    let file = Connection::open(path).unwrap();
    let sql = format!(
        "UPDATE claim SET claimed_at = claimed_at - {OLD_S}, changed_at = changed_at - {OLD_S},
            valid_before = valid_before - {OLD_S};
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {COPIES})
         INSERT INTO claim (payment, fingerprint, state, rule, accept, scheme, network, asset, amount,
            payer, pay_to, nonce, valid_before, request, settle_request, claimed_at, changed_at,
            facilitator, transaction_id, receipt)
         SELECT randomblob(32), fingerprint, state, rule, accept, scheme, network, asset, amount, payer,
            pay_to, nonce, valid_before, request, '', claimed_at, changed_at, facilitator,
            transaction_id, receipt FROM claim, n WHERE state = 'delivered';"
    );
    file.execute_batch(&sql).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn old_payments_go_while_the_wall_sells_and_after_it_was_killed_amid_it() {
    let setup = Setup {
        ledger: Some("path = \"ledger.db\"\nretention_days = 1".to_owned()),
        ..Setup::default()
    };
    let mut wall = setup.start().await;
    let path = wall.file("ledger.db");
    let old = Signer::new().proof(&offer(1000));
    assert_eq!(wall.pay("/v1/quote", &old).await.status, 200);
    eventually("delivered", || wall.states() == ["delivered"]);
    wall.kill();
    age(&path);
    let is_old = "claimed_at < unixepoch() - 86400";
    wall.restart();
    eventually("some are gone", || rows(&path, is_old) <= COPIES - 64);
    wall.kill();
    let left = rows(&path, is_old);
    assert_eq!(rows(&path, "state = 'delivered'"), left);
    wall.restart();
    let proof = Signer::new().proof(&offer(1000));
    assert_eq!(wall.pay("/v1/quote", &proof).await.status, 200);
    eventually("all are gone", || rows(&path, is_old) == 0);
    eventually("the new one stays", || wall.states() == ["delivered"]);
    assert_eq!(wall.sandbox.stats().settled, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_by_hand_beside_the_wall_counts_first_and_never_takes_the_young() {
    let wall = crate::support::Wall::start().await;
    let path = wall.file("ledger.db");
    let proof = Signer::new().proof(&offer(1000));
    assert_eq!(wall.pay("/v1/quote", &proof).await.status, 200);
    eventually("delivered", || wall.states() == [State::Delivered.as_str()]);
    age(&path);
    let proof = Signer::new().proof(&offer(1000));
    assert_eq!(wall.pay("/v1/quote", &proof).await.status, 200);
    let place = path.to_str().unwrap();
    let prune = |more: &[&str]| {
        let args = ["ledger", "prune", "--ledger", place];
        let output = farewall(&[&args, more].concat());
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, text) = prune(&["--before", "1h"]);
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains("younger than a day"), "{text}");
    let all = COPIES + 1;
    let (code, text) = prune(&["--before", "1d", "--dry-run"]);
    assert_eq!(
        (code, text),
        (Some(0), format!("{all} claims would be deleted.\n"))
    );
    assert_eq!(rows(&path, "TRUE"), all + 1);
    let (code, text) = prune(&["--before", "1d"]);
    assert_eq!(
        (code, text),
        (Some(0), format!("{all} claims were deleted.\n"))
    );
    assert_eq!(rows(&path, "TRUE"), 1);
    let proof = Signer::new().proof(&offer(1000));
    assert_eq!(wall.pay("/v1/quote", &proof).await.status, 200);
}
