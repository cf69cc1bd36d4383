//! What does it cost to judge a proof here: decode, match, digest, recover the signer?

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
use farewall::proof::{ProofHeaders, check, parse};
use std::hint::black_box;

fn proof_check(c: &mut Criterion) {
    let quote = support::quote();
    let proof = support::proof(&quote, 1);
    let headers = ProofHeaders {
        payment_signature: vec![proof.value.as_bytes()],
        x_payment: Vec::new(),
    };
    let parsed = || parse(black_box(&headers), &quote, 16_384, support::NOW).unwrap();
    c.bench_function("proof_check/decode_and_match", |b| b.iter(parsed));
    c.bench_function("proof_check/whole", |b| {
        b.iter(|| check(parsed(), support::NOW).unwrap());
    });
}

criterion_group!(benches, proof_check);
criterion_main!(benches);
