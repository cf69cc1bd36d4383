//! What does a 402 cost that nobody pays for?

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
use farewall::challenge::render;
use std::hint::black_box;

fn challenge_render(c: &mut Criterion) {
    let (quote, resource) = (support::quote(), support::resource());
    c.bench_function("challenge_render", |b| {
        b.iter(|| render(black_box(&quote.offers), black_box(&resource), None));
    });
}

criterion_group!(benches, challenge_render);
criterion_main!(benches);
