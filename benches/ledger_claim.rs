//! What does a durable claim cost, alone and when 64 requests share the disk?

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

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use farewall::chain::{PayTo, Payer, PaymentKey};
use farewall::ledger::sqlite::SqliteLedger;
use farewall::ledger::{ClaimAnswer, Fingerprint, Ledger, NewClaim};
use futures_util::future::join_all;
use std::time::Instant;

/// A claim of a payment that nobody has made before.
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

fn ledger_claim(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(&folder.path().join("ledger.db")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let template = claim(0);
    let mut nth = 0_u64;
    let mut next = || {
        nth += 1;
        let mut claim = template.clone();
        claim.payment.0[..8].copy_from_slice(&nth.to_be_bytes());
        claim
    };
    let mut group = c.benchmark_group("ledger_claim");
    for at_once in [1_u64, 64] {
        group.throughput(Throughput::Elements(at_once));
        group.bench_function(BenchmarkId::from_parameter(at_once), |b| {
            b.iter_custom(|times| {
                let rounds: Vec<Vec<_>> = (0..times)
                    .map(|_| (0..at_once).map(|_| next()).collect())
                    .collect();
                let since = Instant::now();
                for round in rounds {
                    let claims = round.into_iter().map(|new| ledger.claim(new, support::NOW));
                    for answer in runtime.block_on(join_all(claims)) {
                        assert!(matches!(answer, Ok(ClaimAnswer::Claimed(_))));
                    }
                }
                since.elapsed()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, ledger_claim);
criterion_main!(benches);
