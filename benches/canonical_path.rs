//! What does it cost to make a request target canonical?

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

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use farewall::target::CanonicalTarget;
use std::hint::black_box;

fn canonical_path(c: &mut Criterion) {
    let mut group = c.benchmark_group("canonical_path");
    let long = format!("/{}", "segment/".repeat(500));
    for (name, target) in [
        ("plain", "/v1/weather/paris?units=c"),
        ("escaped", "/v1/caf%c3%a9/%41%42%7e?q=%20"),
        ("long", &long),
    ] {
        assert!(CanonicalTarget::parse(target.as_bytes(), 8192).is_ok());
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| CanonicalTarget::parse(black_box(target.as_bytes()), 8192));
        });
    }
    group.finish();
}

criterion_group!(benches, canonical_path);
criterion_main!(benches);
