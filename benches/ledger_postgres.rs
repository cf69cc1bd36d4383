//! What does a ledger that walls share add to a payment, compared with a file of one's own?
//!
//! Starts a PostgreSQL of its own that flushes every commit; without its programs it says so and measures
//! nothing. `once` is a whole life: look-up, claim, settling, settled, delivered; `64` is 64 of them at once.

#![allow(missing_docs, reason = "criterion_group! makes public functions")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark may stop at anything odd"
)]
#![allow(
    clippy::arithmetic_side_effects,
    reason = "benchmarks count small numbers"
)]

#[path = "../tests/it/support/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests use the rest")]
mod postgres;
mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use farewall::chain::{PayTo, Payer, PaymentKey};
use farewall::config::ledger::parse_url;
use farewall::ledger::postgres::PostgresLedger;
use farewall::ledger::sqlite::SqliteLedger;
use farewall::ledger::{ClaimAnswer, Fingerprint, Ledger, Move, NewClaim};
use futures_util::future::join_all;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

fn claim(nth: u64) -> NewClaim {
    let offer = support::quote().offers[0].clone();
    let mut key = [0; 32];
    key[..8].copy_from_slice(&nth.to_be_bytes());
    NewClaim {
        payment: PaymentKey(key),
        fingerprint: Fingerprint(key),
        rule: "r0".into(),
        accept: offer.accept.clone(),
        scheme: offer.scheme.clone(),
        network: offer.network.clone(),
        asset: offer.asset.clone(),
        amount: offer.amount,
        payer: Payer::verbatim("0x70997970C51812dc3A010C7d01b50e0d17dc79C8"),
        pay_to: PayTo::verbatim(offer.pay_to.as_str()),
        nonce: nth.to_string().into(),
        valid_before: support::NOW.plus(300),
        request: "GET api.example.com/v1/r0/7".into(),
        settle_request: "{}".into(),
    }
}

/// What the gate asks of the ledger for one payment that goes well.
async fn life(ledger: Arc<dyn Ledger>, new: NewClaim) {
    let now = support::NOW;
    assert!(ledger.find(new.payment).await.unwrap().is_none());
    let ClaimAnswer::Claimed(claim) = ledger.claim(new, now).await.unwrap() else {
        panic!("held");
    };
    let settling = Move::Settling {
        facilitator: "main".into(),
    };
    let settled = Move::Settled {
        facilitator: None,
        transaction: "0xabc".into(),
        receipt: "{}".into(),
        payer: None,
        body: None,
    };
    for step in [settling, settled, Move::Delivered] {
        ledger.advance(claim.id(), step, now).await.unwrap();
    }
}

fn ledger_postgres(c: &mut Criterion) {
    let Some(cluster) = postgres::Cluster::start_with("fsync = on") else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = parse_url(&cluster.database("ledger"), Path::new("")).unwrap();
    let shared = runtime.block_on(PostgresLedger::connect(&server, None, 0));
    let folder = tempfile::tempdir().unwrap();
    let file = SqliteLedger::open(&folder.path().join("ledger.db")).unwrap();
    let ledgers: [(&str, Arc<dyn Ledger>); 2] = [
        ("sqlite", Arc::new(file)),
        ("postgres", Arc::new(shared.unwrap())),
    ];
    let template = claim(0);
    let mut nth = 0_u64;
    for (name, ledger) in ledgers {
        let mut group = c.benchmark_group(format!("payment_in_{name}"));
        group.sample_size(10);
        for at_once in [1_u64, 64] {
            group.throughput(Throughput::Elements(at_once));
            group.bench_function(BenchmarkId::from_parameter(at_once), |b| {
                b.iter_custom(|times| {
                    let since = Instant::now();
                    for _ in 0..times {
                        let lives = (0..at_once).map(|_| {
                            nth += 1;
                            let mut new = template.clone();
                            new.payment.0[..8].copy_from_slice(&nth.to_be_bytes());
                            runtime.spawn(life(Arc::clone(&ledger), new))
                        });
                        let lives: Vec<_> = lives.collect();
                        for life in runtime.block_on(join_all(lives)) {
                            life.unwrap();
                        }
                    }
                    since.elapsed()
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, ledger_postgres);
criterion_main!(benches);
