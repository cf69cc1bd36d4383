//! What does it cost to find out who signed a proof: dates, digest, recovery of the signer?

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

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use farewall::proof::{ProofHeaders, check, parse};
use std::hint::black_box;

fn proof_recover(c: &mut Criterion) {
    let quote = support::quote();
    let proof = support::proof(&quote, 1);
    let headers = ProofHeaders {
        payment_signature: vec![proof.value.as_bytes()],
        x_payment: Vec::new(),
    };
    let parsed = || parse(&headers, &quote, 16_384, support::NOW).unwrap();
    c.bench_function("proof_recover", |b| {
        b.iter_batched(
            parsed,
            |proof| check(black_box(proof), support::NOW).unwrap(),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, proof_recover);
criterion_main!(benches);
