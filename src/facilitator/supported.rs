//! What a facilitator handles: its `/supported` answer, remembered in memory and on disk.
//!
//! The file exists so that a facilitator's outage does not stop a start (spec 9.32). It is a cache:
//! whatever is wrong with it counts as absent.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::facilitator::{Facilitator, FacilitatorFault};

/// The largest cache file that is read.
const CACHE_BYTES_MAX: u64 = 1024 * 1024;

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

/// Where the knowledge about a facilitator comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// It just answered.
    Fresh,
    /// It did not, for this reason; this is its last answer, from disk.
    Cached(FacilitatorFault),
    /// It did not, and there is no earlier answer.
    Unknown(FacilitatorFault),
}

/// What all facilitators handle, and how we know.
#[derive(Clone, Debug, Default)]
pub struct LoadedBook {
    /// For each facilitator whose origin is fresh or cached, what it handles.
    pub book: SupportedBook,
    /// For each facilitator, where that comes from.
    pub origins: BTreeMap<Arc<str>, Origin>,
}

impl LoadedBook {
    /// Keeps the fresh answers in the files beside the same facilitators. Not before the configuration that
    /// names them is in force: one that is refused may name others under the same names. Failing to write is
    /// logged and harmless.
    pub fn keep(&self, facilitators: &[(Arc<dyn Facilitator>, PathBuf)]) {
        for (facilitator, cache) in facilitators {
            let name = facilitator.name();
            if let (Some(Origin::Fresh), Some(fresh)) =
                (self.origins.get(name), self.book.get(name))
                && let Err(error) = store_cached(cache, fresh)
            {
                tracing::warn!(facilitator = %name, %error, "/supported was not kept on disk");
            }
        }
    }
}

/// Asks all facilitators at once, each for at most `deadline`, and falls back to the files beside
/// them. Writes nothing.
pub async fn load_book(
    facilitators: &[(Arc<dyn Facilitator>, PathBuf)],
    deadline: Duration,
) -> LoadedBook {
    let asked = facilitators.iter().map(|(facilitator, cache)| async move {
        let answer = tokio::time::timeout(deadline, facilitator.supported()).await;
        let answer = answer.unwrap_or_else(|_| {
            let ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
            Err(FacilitatorFault::Timeout(ms))
        });
        (Arc::clone(facilitator.name()), cache, answer)
    });
    let mut loaded = LoadedBook::default();
    for (name, cache, answer) in join_all(asked).await {
        let (supported, origin) = match answer {
            Ok(fresh) => (Some(fresh), Origin::Fresh),
            Err(fault) => match load_cached(cache) {
                Some(cached) => (Some(cached), Origin::Cached(fault)),
                None => (None, Origin::Unknown(fault)),
            },
        };
        if let Some(supported) = supported {
            loaded.book.insert(Arc::clone(&name), Arc::new(supported));
        }
        loaded.origins.insert(name, origin);
    }
    loaded
}

/// The last answer kept at `path`; `None` when there is none that can be read.
#[must_use]
pub fn load_cached(path: &Path) -> Option<Supported> {
    let mut text = Vec::new();
    let file = File::open(path).ok()?;
    file.take(CACHE_BYTES_MAX.saturating_add(1))
        .read_to_end(&mut text)
        .ok()?;
    let is_small = u64::try_from(text.len()).is_ok_and(|bytes| bytes <= CACHE_BYTES_MAX);
    serde_json::from_slice(&text).ok().filter(|_| is_small)
}

/// Keeps an answer at `path`, readable by the owner only. Whole or not at all: a reader sees the old
/// file or the new one.
///
/// # Errors
///
/// What the file system said.
pub fn store_cached(path: &Path, supported: &Supported) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(name);
    let _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    let written = serde_json::to_vec(supported)
        .map_err(io::Error::other)
        .and_then(|json| file.write_all(&json))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests;
