//! Facilitators that unknown settlements may be asked about: those that are configured, and those that
//! were when a settlement through them began.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::facilitator::Facilitator;
use crate::proof::verify::Facilitators;

/// Such facilitators, by name. Bounded: a former one is forgotten when no settlement needs it.
pub struct Known(Mutex<Inner>);

struct Inner {
    current: Facilitators,
    /// Not configured any more.
    former: Facilitators,
    /// Counts additions to `former`.
    version: u64,
}

impl Known {
    pub(super) fn new(current: Facilitators) -> Self {
        Self(Mutex::new(Inner {
            current,
            former: Facilitators::new(),
            version: 0,
        }))
    }

    /// As it is configured now, else as it was when it still was.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<dyn Facilitator>> {
        let known = self.0.lock();
        let found = known.current.get(name).or_else(|| known.former.get(name));
        found.cloned()
    }

    /// Puts others in place. Those that are not configured any more stay known, because settlements
    /// through them may be unknown, until [`Known::forget`].
    pub fn replace(&self, facilitators: Facilitators) {
        let mut known = self.0.lock();
        let Inner {
            current,
            former,
            version,
        } = &mut *known;
        former.extend(std::mem::replace(current, facilitators));
        former.retain(|name, _| !current.contains_key(name));
        *version = version.saturating_add(1);
    }

    /// To be given to [`Known::forget`]: taken before the unknown settlements are listed.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.0.lock().version
    }

    /// Forgets former facilitators that no unknown settlement needs, unless one was added since
    /// `version`.
    pub fn forget(&self, version: u64, is_needed: impl Fn(&str) -> bool) {
        let mut known = self.0.lock();
        if known.version == version {
            known.former.retain(|name, _| is_needed(name));
        }
    }

    /// An order of an earlier configuration goes to this one.
    pub(super) fn keep(&self, name: &Arc<str>, facilitator: &Arc<dyn Facilitator>) {
        let mut known = self.0.lock();
        if !known.current.contains_key(name) {
            let (name, facilitator) = (Arc::clone(name), Arc::clone(facilitator));
            known.former.insert(name, facilitator);
            known.version = known.version.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::facilitator::supported::Supported;
    use crate::facilitator::{FacilitatorFault, FacilitatorRequest, SettleAnswer, VerifyAnswer};

    struct Named(Arc<str>);

    #[async_trait]
    impl Facilitator for Named {
        fn name(&self) -> &Arc<str> {
            &self.0
        }

        async fn verify(&self, _: &FacilitatorRequest) -> VerifyAnswer {
            VerifyAnswer::Valid { payer: None }
        }

        async fn settle(&self, _: &FacilitatorRequest) -> SettleAnswer {
            SettleAnswer::Unknown(FacilitatorFault::Pending)
        }

        async fn supported(&self) -> Result<Supported, FacilitatorFault> {
            Ok(Supported::default())
        }
    }

    fn named(names: &[&str]) -> Facilitators {
        let one = |name: &&str| -> (Arc<str>, Arc<dyn Facilitator>) {
            ((*name).into(), Arc::new(Named((*name).into())))
        };
        names.iter().map(one).collect()
    }

    #[test]
    fn who_was_removed_is_known_until_nobody_needs_it() {
        let known = Known::new(named(&["a", "b"]));
        let before = known.get("b").unwrap();
        known.replace(named(&["b", "c"]));
        assert!(known.get("a").is_some() && known.get("c").is_some());
        assert!(
            !Arc::ptr_eq(&before, &known.get("b").unwrap()),
            "as it is now"
        );
        known.forget(known.version(), |name| name == "a");
        assert!(known.get("a").is_some());
        let version = known.version();
        known.keep(&"z".into(), &before);
        known.forget(version, |_| false);
        assert!(known.get("z").is_some(), "added since");
        known.forget(known.version(), |_| false);
        assert!(known.get("a").is_none() && known.get("z").is_none());
        assert!(known.get("b").is_some() && known.get("c").is_some());
    }
}
