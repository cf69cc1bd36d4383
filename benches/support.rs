//! A configuration, its route table and a buyer, made the way the product makes them.
//!
//! Numbers are worth something only with the machine and the command that made them:
//! `cargo bench --bench rule_lookup`.

#![allow(dead_code, reason = "each benchmark uses a part")]
#![allow(unreachable_pub, reason = "one module of several programs")]

pub mod gate;

use std::fmt::Write as _;
use std::sync::Arc;

use alloy_primitives::B256;
use farewall::buyer::choice::{Challenge, SpendLimit};
use farewall::buyer::{Buyer, Proof};
use farewall::challenge;
use farewall::clock::UnixSeconds;
use farewall::config;
use farewall::facilitator::supported::SupportedBook;
use farewall::money::{AtomicAmount, PriceText};
use farewall::route::price::Quote;
use farewall::route::{Access, RequestLine, RouteTable};
use farewall::x402::message::ResourceInfo;
use secp256k1::SecretKey;

/// The time at which proofs are made and judged.
pub const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

const HEAD: &str = r#"
[server]
public_origin = "https://api.example.com"
[facilitator.main]
url = "https://facilitator.example"
[accept.base]
network = "base"
pay_to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
[accept.base-sepolia]
network = "base-sepolia"
pay_to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
[upstream.api]
url = "http://127.0.0.1:9000"
[[rule]]
name = "free"
path = "/free"
free = true
"#;

/// A table of so many priced rules, like an API of that many resources.
pub fn table(rules: usize) -> RouteTable {
    let mut text = HEAD.to_owned();
    for n in 0..rules {
        write!(
            text,
            "[[rule]]\nname = \"r{n}\"\nmethods = [\"GET\"]\npath = \"/v1/r{n}/{{id}}\"\nprice = \"$0.001\"\n"
        )
        .unwrap();
    }
    let loaded = config::parse(&text, "bench.toml", &|_| None).unwrap();
    RouteTable::build(&loaded.settings, &SupportedBook::new()).unwrap()
}

/// The quote of the first rule.
pub fn quote() -> Arc<Quote> {
    let request = RequestLine {
        method: "GET",
        host: "api.example.com",
        path: "/v1/r0/7",
    };
    let Access::Priced(route) = table(1).access(&request) else {
        panic!("not priced");
    };
    route.price.quote()
}

/// What the quote is for.
pub fn resource() -> ResourceInfo {
    ResourceInfo {
        url: "https://api.example.com/v1/r0/7".to_owned(),
        description: "One of many".to_owned(),
        mime_type: "application/json".to_owned(),
        service_name: Some("Bench".to_owned()),
    }
}

/// A good proof for the quote, as a buyer sends it.
pub fn proof(quote: &Quote, nonce: u8) -> Proof {
    signed(quote, B256::repeat_byte(nonce), 0)
}

/// A proof that pays one unit more than is asked, and is good otherwise.
pub fn overpaid(quote: &Quote, nth: u64) -> Proof {
    let mut nonce = B256::ZERO;
    nonce[..8].copy_from_slice(&nth.to_be_bytes());
    signed(quote, nonce, 1)
}

fn signed(quote: &Quote, nonce: B256, too_much: u128) -> Proof {
    let rendered = challenge::render(&quote.offers, &resource(), None);
    let challenge = Challenge::from_header(rendered.header.as_bytes()).unwrap();
    let limit = SpendLimit {
        max_price: PriceText::parse("$0.10").unwrap(),
        network: None,
    };
    let mut choice = challenge.choose(&limit).unwrap();
    choice.amount = AtomicAmount::new(choice.amount.units() + too_much);
    let buyer = Buyer::new(SecretKey::from_byte_array([7; 32]).unwrap());
    buyer.prove(&challenge, &choice, NOW, nonce)
}
