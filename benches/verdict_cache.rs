//! What does a remembered verdict cost, in place of a question to the facilitator?

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

use criterion::{Criterion, criterion_group, criterion_main};
use farewall::proof::cache::{Verdict, VerdictCache, VerdictKey};
use farewall::proof::{ProofHeaders, parse};
use std::hint::black_box;

fn verdict_cache(c: &mut Criterion) {
    let quote = support::quote();
    let cache = VerdictCache::new(100_000);
    let value = support::proof(&quote, 1).value;
    let headers = ProofHeaders {
        payment_signature: vec![value.as_bytes()],
        x_payment: Vec::new(),
    };
    let proof = parse(&headers, &quote, 16_384, support::NOW).unwrap();
    let verdict = Verdict::Valid {
        payer: None,
        facilitator: "main".into(),
    };
    cache.keep(
        VerdictKey::of(&proof, 0),
        verdict,
        proof.valid_before(),
        support::NOW,
    );
    c.bench_function("verdict_cache/hit", |b| {
        b.iter(|| {
            cache
                .get(&VerdictKey::of(black_box(&proof), 0), support::NOW)
                .unwrap()
        });
    });
}

criterion_group!(benches, verdict_cache);
criterion_main!(benches);
