//! How much of something that is bounded one key may hold at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// Places in the hands of each key. Bounded when the places are bounded in all: keys without one
/// are not kept.
#[derive(Clone, Debug)]
pub struct Shares<K: Copy + Eq + Hash> {
    each_max: usize,
    taken: Arc<Mutex<HashMap<K, usize>>>,
}

/// One place, until it is dropped.
#[derive(Debug)]
pub struct Share<K: Copy + Eq + Hash> {
    key: K,
    taken: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Copy + Eq + Hash> Shares<K> {
    /// At most so many for each key.
    #[must_use]
    pub fn new(each_max: usize) -> Self {
        Self {
            each_max,
            taken: Arc::default(),
        }
    }

    /// The same places, of which each key may hold another number.
    #[must_use]
    pub fn with_each_max(&self, each_max: usize) -> Self {
        Self {
            each_max,
            taken: Arc::clone(&self.taken),
        }
    }

    /// A place for `key`, unless it has enough.
    #[must_use]
    pub fn take(&self, key: K) -> Option<Share<K>> {
        let mut all = self.taken.lock();
        let taken = all.get(&key).copied().unwrap_or_default();
        if taken >= self.each_max {
            return None;
        }
        all.insert(key, taken.saturating_add(1));
        drop(all);
        Some(Share {
            key,
            taken: Arc::clone(&self.taken),
        })
    }
}

impl<K: Copy + Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut all = self.taken.lock();
        match all.get_mut(&self.key) {
            Some(taken) if *taken > 1 => *taken = taken.saturating_sub(1),
            Some(_) | None => drop(all.remove(&self.key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_share_and_nothing_is_kept_of_those_that_are_gone() {
        let shares = Shares::new(2);
        let mut held = vec![shares.take('a').unwrap(), shares.take('a').unwrap()];
        assert!(shares.take('a').is_none());
        held.push(shares.take('b').unwrap());
        drop(held.remove(0));
        assert!(shares.take('a').is_some());
        drop(held);
        assert!(shares.taken.lock().is_empty());
    }
}
