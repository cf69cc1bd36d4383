//! What does the first door cost: for free, unpaid, with a proof seen first, with a known verdict?
//!
//! The facilitator and the ledger cost nothing here, see `support/gate.rs`.

#![allow(missing_docs, reason = "criterion_group! makes public functions")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark may stop at anything odd"
)]
#![allow(
    clippy::arithmetic_side_effects,
    reason = "benchmarks count small numbers"
)]

mod support;

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use support::gate::World;

fn admit(c: &mut Criterion) {
    let free = World::new("/free");
    assert!(free.admit(false));
    c.bench_function("admit/free", |b| b.iter(|| free.admit(black_box(false))));
    let unpaid = World::new("/v1/r0/7");
    assert!(!unpaid.admit(false));
    c.bench_function("admit/unpaid", |b| {
        b.iter(|| unpaid.admit(black_box(false)));
    });
    // More than the wall remembers the signers of.
    let first = World::overpaid(20_000);
    assert!(
        first.why_not(true).contains("amount"),
        "{}",
        first.why_not(true)
    );
    c.bench_function("admit/first_proof", |b| {
        b.iter(|| first.admit(black_box(true)));
    });
    let known = World::known();
    assert!(
        known.why_not(true).contains("ledger"),
        "{}",
        known.why_not(true)
    );
    c.bench_function("admit/known_verdict", |b| {
        b.iter(|| known.admit(black_box(true)));
    });
}

criterion_group!(benches, admit);
criterion_main!(benches);
