//! What a facilitator handles: its `/supported` answer, remembered in memory and on disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The answer of `/supported`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Supported {
    /// What it handles.
    pub kinds: Vec<Kind>,
    /// Extensions that it handles.
    #[serde(default)]
    pub extensions: Vec<String>,
    /// CAIP-2 pattern to the addresses it signs with.
    #[serde(default)]
    pub signers: Map<String, Value>,
}

/// One version, scheme and network that a facilitator handles.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kind {
    /// 1 or 2.
    pub x402_version: u64,
    /// `exact` or another.
    pub scheme: String,
    /// CAIP-2 in version 2, a name in version 1.
    pub network: String,
    /// To be merged into requirements, such as `feePayer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Map<String, Value>>,
}

/// What each facilitator handles, by its name; absent while unknown.
pub type SupportedBook = BTreeMap<Arc<str>, Arc<Supported>>;

impl Supported {
    /// The kind for this scheme and network in version 2.
    #[must_use]
    pub fn v2(&self, scheme: &str, network: &str) -> Option<&Kind> {
        self.kinds
            .iter()
            .find(|k| k.x402_version == 2 && k.scheme == scheme && k.network == network)
    }
}

/// The last answer that was kept in this file, if it can be read.
#[must_use]
pub fn load_cached(path: &std::path::Path) -> Option<Supported> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}
