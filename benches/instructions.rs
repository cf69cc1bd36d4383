//! How many instructions do the hot paths take? Counted under valgrind, so the answer repeats.
//!
//! Run it with `benches/instructions.sh`, which holds the counts against `benches/instructions.toml`.

#![allow(missing_docs, reason = "gungraun makes public functions")]
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

use std::hint::black_box;

use alloy_primitives::B256;
use farewall::chain::{PaymentKey, parse_evm_address};
use farewall::challenge::{Challenge, render};
use farewall::clock::UnixSeconds;
use farewall::money::AtomicAmount;
use farewall::proof::cache::{Verdict, VerdictCache, VerdictKey};
use farewall::proof::{Proof, ProofHeaders, parse};
use farewall::route::price::Quote;
use farewall::route::{Access, RequestLine, RouteTable};
use farewall::target::CanonicalTarget;
use farewall::x402::eip712;
use farewall::x402::eip3009::Authorization;
use farewall::x402::message::ResourceInfo;
use gungraun::prelude::*;
use secp256k1::SecretKey;
use std::sync::Arc;
use support::gate::World;

// What the product allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Set-up lives for ever, so that taking it down is not counted.
fn kept<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn rules(count: usize) -> (&'static RouteTable, &'static str) {
    let path = format!("/v1/r{}/7", count - 1);
    let (table, path) = (kept(support::table(count)), kept(path));
    look_up(table, path);
    (table, path)
}

fn look_up(table: &RouteTable, path: &str) -> Access {
    table.access(&RequestLine {
        method: "GET",
        host: "api.example.com",
        path,
    })
}

#[library_benchmark(setup = rules)]
#[bench::of_10(10)]
#[bench::of_10000(10_000)]
fn rule_lookup((table, path): (&'static RouteTable, &'static str)) -> Access {
    black_box(look_up(black_box(table), black_box(path)))
}

#[library_benchmark]
#[bench::plain("/v1/weather/paris?units=c")]
#[bench::escaped("/v1/caf%c3%a9/%41%42%7e?q=%20")]
fn canonical_path(target: &'static str) -> CanonicalTarget {
    black_box(CanonicalTarget::parse(black_box(target.as_bytes()), 8192)).unwrap()
}

fn sold() -> (&'static Arc<Quote>, &'static ResourceInfo) {
    let (quote, resource) = (kept(support::quote()), kept(support::resource()));
    drop(render(&quote.offers, resource, None));
    (quote, resource)
}

#[library_benchmark(setup = sold)]
#[bench::two_offers()]
fn challenge_render((quote, resource): (&'static Arc<Quote>, &'static ResourceInfo)) -> Challenge {
    black_box(render(black_box(&quote.offers), resource, None))
}

fn paid() -> (&'static Arc<Quote>, &'static str) {
    let quote = kept(support::quote());
    let proof = kept(support::proof(quote, 1).value);
    drop(read((quote, proof)));
    (quote, proof)
}

fn read((quote, proof): (&'static Arc<Quote>, &'static str)) -> Proof {
    let headers = ProofHeaders {
        payment_signature: vec![proof.as_bytes()],
        x_payment: Vec::new(),
    };
    parse(black_box(&headers), quote, 16_384, support::NOW).unwrap()
}

#[library_benchmark(setup = paid)]
#[bench::decode_and_match()]
fn proof_parse(paid: (&'static Arc<Quote>, &'static str)) -> Proof {
    black_box(read(paid))
}

fn authorization() -> (&'static Authorization, B256) {
    let account = parse_evm_address("0x70997970C51812dc3A010C7d01b50e0d17dc79C8").unwrap();
    let (after, before) = (UnixSeconds(1_800_000_000), UnixSeconds(1_800_000_300));
    let (amount, nonce) = (AtomicAmount::new(1000), B256::repeat_byte(1));
    let signed = Authorization::new(account, account, amount, after, before, nonce);
    let domain = eip712::domain_separator("USDC", Some("2"), 8453, account);
    let _warm = signed.digest(domain);
    (kept(signed), domain)
}

#[library_benchmark(setup = authorization)]
#[bench::eip3009()]
fn digest((signed, domain): (&'static Authorization, B256)) -> B256 {
    black_box(black_box(signed).digest(black_box(domain)))
}

fn signature() -> (B256, [u8; 65]) {
    let digest = B256::repeat_byte(7);
    let key = SecretKey::from_byte_array([7; 32]).unwrap();
    let signature = eip712::sign(digest, &key);
    eip712::recover(digest, &signature).unwrap();
    (digest, signature)
}

#[library_benchmark(setup = signature)]
#[bench::signer()]
fn recover((digest, signature): (B256, [u8; 65])) -> alloy_primitives::Address {
    black_box(eip712::recover(black_box(digest), &signature)).unwrap()
}

fn verdicts() -> (&'static VerdictCache, &'static Proof) {
    let cache = kept(VerdictCache::new(1000));
    let proof = kept(read(paid()));
    let verdict = Verdict::Valid {
        payer: None,
        facilitator: "main".into(),
    };
    let until = support::NOW.plus(300);
    cache.keep(VerdictKey::of(proof, 0), verdict, until, support::NOW);
    hit((cache, proof));
    (cache, proof)
}

fn hit((cache, proof): (&VerdictCache, &Proof)) -> Verdict {
    cache.get(&VerdictKey::of(proof, 0), support::NOW).unwrap()
}

#[library_benchmark(setup = verdicts)]
#[bench::hit()]
fn verdict_cache(kept: (&'static VerdictCache, &'static Proof)) -> Verdict {
    black_box(hit(black_box(kept)))
}

fn payment() -> &'static Proof {
    kept(read(paid()))
}

#[library_benchmark(setup = payment)]
#[bench::of_proof()]
fn payment_key(proof: &'static Proof) -> PaymentKey {
    black_box(black_box(proof).payment().key())
}

/// A gate that has answered the same before, once for the caches and once for good measure; of several
/// proofs the next one is new to it.
fn asked(world: World, is_paid: bool) -> (&'static World, bool) {
    let world = kept(world);
    world.admit(is_paid);
    world.admit(is_paid);
    (world, is_paid)
}

#[library_benchmark]
#[bench::free(asked(World::new("/free"), false))]
#[bench::unpaid(asked(World::new("/v1/r0/7"), false))]
#[bench::first_proof(asked(World::overpaid(3), true))]
#[bench::known_verdict(asked(World::known(), true))]
fn admit((world, is_paid): (&'static World, bool)) -> bool {
    black_box(world.admit(black_box(is_paid)))
}

library_benchmark_group!(
    name = hot_paths,
    benchmarks = [
        rule_lookup,
        canonical_path,
        challenge_render,
        proof_parse,
        digest,
        recover,
        verdict_cache,
        payment_key,
        admit
    ]
);
main!(library_benchmark_groups = hot_paths);
