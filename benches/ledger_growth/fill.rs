//! Ledgers of a size, filled as fast as the disk can: rows of payments that are over, spread over the
//! past at ten a second, with keys in no order.

use std::path::Path;

use farewall::ledger::sqlite::SqliteLedger;
use rusqlite::Connection;

use super::support::NOW;

pub(crate) const TRANSACTION: &str =
    "0x5c504ed432cb51138bcf09aa5e8a410dd4a1e204ef84bfed1be16dfba1b22060";
pub(crate) const RECEIPT: &str = "{\"success\":true,\"transaction\":\
    \"0x5c504ed432cb51138bcf09aa5e8a410dd4a1e204ef84bfed1be16dfba1b22060\",\
    \"network\":\"eip155:8453\",\"payer\":\"0x70997970C51812dc3A010C7d01b50e0d17dc79C8\"}";
const ASSET: &str = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913";
const PAYER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

/// The oldest row's time: all are older than any that retention would keep, by the clock of this machine too.
fn first(rows: u64) -> u64 {
    NOW.0 - 100 * 86_400 - rows / 10
}

/// Without an index while rows come in, and without a log: nobody needs this file after a crash.
pub(crate) fn sqlite(path: &Path, rows: u64) {
    drop(SqliteLedger::open(path).unwrap());
    let file = Connection::open(path).unwrap();
    let indexes: Vec<String> = file
        .prepare("SELECT sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'claim' AND sql <> ''")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    file.execute_batch(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000;
         PRAGMA temp_store = FILE",
    )
    .unwrap();
    for index in &indexes {
        let name = index
            .split_whitespace()
            .skip_while(|w| *w != "INDEX")
            .nth(1)
            .unwrap();
        file.execute_batch(&format!("DROP INDEX {name}")).unwrap();
    }
    let first = first(rows);
    let sql = format!(
        "BEGIN;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         INSERT INTO claim (payment, fingerprint, state, rule, accept, scheme, network, asset,
            amount, payer, pay_to, nonce, valid_before, request, settle_request, claimed_at,
            changed_at, facilitator, transaction_id, receipt)
         SELECT randomblob(32), randomblob(32), 'delivered', 'r0', 'base', 'exact', 'eip155:8453',
            '{ASSET}', '1000', '{PAYER}', '{PAYER}', 'eip3009:0x' || lower(hex(randomblob(32))),
            {first} + i / 10 + 300, 'GET api.example.com/v1/r0/7', '', {first} + i / 10,
            {first} + i / 10 + 2, 'main', '0x' || lower(hex(randomblob(32))), '{RECEIPT}'
         FROM n WHERE {rows} > 0;
         COMMIT;"
    );
    file.execute_batch(&sql).unwrap();
    for index in &indexes {
        file.execute_batch(index).unwrap();
    }
    file.execute_batch("PRAGMA journal_mode = WAL").unwrap();
}

/// Rows by the index over times, which is the smallest.
pub(crate) fn sqlite_rows(path: &Path) -> u64 {
    let file = Connection::open(path).unwrap();
    let count = "SELECT count(*) FROM claim INDEXED BY claim_by_time";
    let count: i64 = file.query_row(count, [], |row| row.get(0)).unwrap();
    u64::try_from(count).unwrap()
}

/// The statement that fills the tables of a server.
pub(crate) fn postgres(rows: u64) -> String {
    let first = first(rows);
    format!(
        "INSERT INTO farewall.claim (payment, fingerprint, state, rule, accept, scheme, network, asset,
            amount, payer, pay_to, nonce, valid_before, request, settle_request, claimed_at,
            changed_at, facilitator, transaction_id, receipt, attempt)
         SELECT sha256(i::text::bytea), sha256(i::text::bytea), 'delivered', 'r0', 'base', 'exact',
            'eip155:8453', '{ASSET}', 1000, '{PAYER}', '{PAYER}',
            'eip3009:0x' || encode(sha256(('n' || i)::bytea), 'hex'), {first} + i / 10 + 300,
            'GET api.example.com/v1/r0/7', '', {first} + i / 10, {first} + i / 10 + 2, 'main',
            '0x' || encode(sha256(('t' || i)::bytea), 'hex'), '{RECEIPT}', i
         FROM generate_series(1, {rows}) AS i"
    )
}
