//! What the tests are made with: the real binary, an origin that counts, the sandbox facilitator,
//! and clients that can say exactly what they want to say.

pub mod buyer;
pub mod frames;
pub mod front;
pub mod http;
pub mod http2;
pub mod lenient;
pub mod origin;
pub mod pages;
pub mod pebble;
pub mod postgres;
pub mod protocol;
pub mod raw;
pub mod report;
pub mod wall;

pub use buyer::{Signer, offer};
pub use http::{Answer, client, send};
pub use origin::Origin;
pub use postgres::Cluster;
pub use raw::{RawResponse, raw_request};
pub use report::{Trial, report};
pub use wall::{Setup, Wall};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// Decodes a payment header.
#[track_caller]
pub fn decode(header: &str) -> Value {
    serde_json::from_slice(&STANDARD.decode(header).unwrap()).unwrap()
}

/// Encodes a payment header.
pub fn encode(value: &Value) -> String {
    STANDARD.encode(value.to_string())
}

/// Tries until it holds; for what happens a moment later, such as a record behind a response.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(15);
    while !holds() {
        assert!(std::time::Instant::now() < end, "never came true: {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
