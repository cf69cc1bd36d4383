//! Networks and default assets.

use crate::chain::Network;

/// The name of version 1 for a network that legacy clients can parse.
#[must_use]
pub fn v1_name(network: &Network) -> Option<&'static str> {
    match network.as_str() {
        "eip155:8453" => Some("base"),
        "eip155:84532" => Some("base-sepolia"),
        _ => None,
    }
}
