//! What does it cost to decode a proof, and to match it with what was asked?

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
use farewall::proof::{ProofHeaders, parse};
use std::hint::black_box;

fn proof_decode(c: &mut Criterion) {
    let quote = support::quote();
    let proof = support::proof(&quote, 1);
    let headers = ProofHeaders {
        payment_signature: vec![proof.value.as_bytes()],
        x_payment: Vec::new(),
    };
    c.bench_function("proof_decode", |b| {
        b.iter(|| parse(black_box(&headers), &quote, 16_384, support::NOW).unwrap());
    });
}

criterion_group!(benches, proof_decode);
criterion_main!(benches);
