use std::os::unix::fs::PermissionsExt;

use async_trait::async_trait;
use serde_json::json;

use super::*;
use crate::facilitator::{FacilitatorRequest, SettleAnswer, VerifyAnswer};

fn some() -> Supported {
    serde_json::from_value(json!({
        "kinds": [
            {"x402Version": 2, "scheme": "exact", "network": "eip155:84532"},
            {"x402Version": 2, "scheme": "exact", "network": "solana:x", "extra": {"feePayer": "F"}},
        ],
        "extensions": ["bazaar"],
        "signers": {"eip155:*": ["0x1"]},
    }))
    .unwrap()
}

#[test]
fn what_was_stored_is_loaded_and_belongs_to_the_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("supported.json");
    assert_eq!(load_cached(&path), None);
    store_cached(&path, &Supported::default()).unwrap();
    store_cached(&path, &some()).unwrap();
    assert_eq!(load_cached(&path), Some(some()));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no rests");
}

#[test]
fn a_damaged_file_counts_as_absent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("supported.json");
    for text in ["", "{", "[]", r#"{"kinds":1}"#] {
        fs::write(&path, text).unwrap();
        assert_eq!(load_cached(&path), None, "{text:?}");
    }
}

/// Answers, or never does.
struct Fake(Arc<str>, Option<Supported>);

#[async_trait]
impl Facilitator for Fake {
    fn name(&self) -> &Arc<str> {
        &self.0
    }
    async fn verify(&self, _: &FacilitatorRequest) -> VerifyAnswer {
        unreachable!("only /supported is asked")
    }
    async fn settle(&self, _: &FacilitatorRequest) -> SettleAnswer {
        unreachable!("only /supported is asked")
    }
    async fn supported(&self) -> Result<Supported, FacilitatorFault> {
        match &self.1 {
            Some(supported) => Ok(supported.clone()),
            None => std::future::pending().await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_leaves_what_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let fake = |name: &str, answer| {
        let facilitator: Arc<dyn Facilitator> = Arc::new(Fake(name.into(), answer));
        (facilitator, folder.path().join(name))
    };
    store_cached(&folder.path().join("was-up"), &some()).unwrap();
    let facilitators = [
        fake("up", Some(some())),
        fake("was-up", None),
        fake("never-up", None),
    ];
    let loaded = load_book(&facilitators, Duration::from_secs(3)).await;
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing is written for a configuration that may be refused"
    );
    loaded.keep(&facilitators);
    let origin = |name: &str| loaded.origins.get(name).unwrap();
    assert!(matches!(origin("up"), Origin::Fresh));
    assert!(matches!(
        origin("was-up"),
        Origin::Cached(FacilitatorFault::Timeout(3000))
    ));
    assert!(matches!(origin("never-up"), Origin::Unknown(_)));
    assert_eq!(loaded.book.len(), 2);
    assert_eq!(
        loaded.book.get("was-up").map(|s| (**s).clone()),
        Some(some())
    );
    assert_eq!(load_cached(&folder.path().join("up")), Some(some()));
}
