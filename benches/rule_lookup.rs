//! Does finding the rule of a request cost more when there are more rules?

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

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use farewall::route::{Access, RequestLine};
use std::hint::black_box;

fn rule_lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("rule_lookup");
    for rules in [10, 100, 1_000, 10_000] {
        let table = support::table(rules);
        let path = format!("/v1/r{}/7", rules - 1);
        let request = RequestLine {
            method: "GET",
            host: "api.example.com",
            path: &path,
        };
        assert!(matches!(table.access(&request), Access::Priced(_)));
        group.bench_function(BenchmarkId::from_parameter(rules), |b| {
            b.iter(|| table.access(black_box(&request)));
        });
        // In an order that caches cannot guess: a stride that shares no factor with the count.
        let paths: Vec<_> = (0..rules)
            .map(|n| format!("/v1/r{}/7", n * 7919 % rules))
            .collect();
        let mut turn = paths.iter().cycle();
        group.bench_function(
            BenchmarkId::from_parameter(format!("any_of_{rules}")),
            |b| {
                b.iter(|| {
                    table.access(black_box(&RequestLine {
                        method: "GET",
                        host: "api.example.com",
                        path: turn.next().unwrap(),
                    }))
                });
            },
        );
    }
    group.finish();
}

criterion_group!(benches, rule_lookup);
criterion_main!(benches);
