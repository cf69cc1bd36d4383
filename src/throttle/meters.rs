//! One token bucket a key, for so many keys and no more.
//!
//! Two kept crates do the work: `governor` is the bucket (its own table of keys has no bound), moka
//! the table. Of too many keys those go that were longest not seen, and so begin anew when they come
//! back: whoever has more addresses than the table has rows is not stopped by counting addresses.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

/// A bucket that was not used for so long is full again: no rate has a longer period.
const IDLE_MAX: Duration = Duration::from_secs(3600);

/// So many events in so much time; all of them may come at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// How many.
    pub events: NonZeroU32,
    /// In which time; at most an hour.
    pub per: Duration,
}

impl Rate {
    fn quota(self) -> Quota {
        let one = self.per.checked_div(self.events.get()).unwrap_or_default();
        // Over a billion a second: as good as no limit.
        Quota::with_period(one.max(Duration::from_nanos(1)))
            .unwrap_or_else(|| Quota::per_second(NonZeroU32::MAX))
            .allow_burst(self.events)
    }
}

type Bucket<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// Token buckets by key.
pub struct Meters<K, C: Clock = DefaultClock> {
    buckets: Cache<K, Arc<Bucket<C>>>,
    clock: C,
}

impl<K: Eq + Hash + Send + Sync + 'static> Meters<K> {
    /// For at most so many keys.
    #[must_use]
    pub fn new(keys_max: u64) -> Self {
        Self::with_clock(keys_max, DefaultClock::default())
    }
}

impl<K: Eq + Hash + Send + Sync + 'static, C: Clock + Clone + Send + Sync + 'static> Meters<K, C>
where
    C::Instant: Send + Sync + 'static,
{
    fn with_clock(keys_max: u64, clock: C) -> Self {
        Self {
            buckets: Cache::builder()
                .max_capacity(keys_max)
                // Another policy may turn new keys away, which would then never be counted.
                .eviction_policy(EvictionPolicy::lru())
                .time_to_idle(IDLE_MAX)
                .build(),
            clock,
        }
    }

    /// Counts one event of `key`. The rate is that of the key's first event: put it into the key
    /// when it may change.
    ///
    /// # Errors
    ///
    /// How long until the next is allowed; this one is not counted.
    pub fn count(&self, key: K, rate: Rate) -> Result<(), Duration> {
        let new = || {
            Arc::new(RateLimiter::direct_with_clock(
                rate.quota(),
                self.clock.clone(),
            ))
        };
        let bucket = self.buckets.get_with(key, new);
        bucket
            .check()
            .map_err(|not_yet| not_yet.wait_time_from(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    fn rate(events: u32, seconds: u64) -> Rate {
        Rate {
            events: NonZeroU32::new(events).unwrap(),
            per: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn a_burst_passes_and_then_one_after_the_other() {
        let clock = FakeRelativeClock::default();
        let meters = Meters::with_clock(10, clock.clone());
        let count = || meters.count("a", rate(3, 60));
        assert_eq!([count(), count(), count()], [Ok(()); 3]);
        assert_eq!(count(), Err(Duration::from_secs(20)));
        clock.advance(Duration::from_millis(19_999));
        assert_eq!(count(), Err(Duration::from_millis(1)));
        clock.advance(Duration::from_millis(1));
        assert_eq!(count(), Ok(()));
        assert!(count().is_err());
        assert_eq!(meters.count("b", rate(3, 60)), Ok(()), "another key");
        clock.advance(Duration::from_secs(3600));
        assert_eq!([count(), count(), count()], [Ok(()); 3]);
        assert!(count().is_err(), "no more than a full bucket");
    }

    #[test]
    fn rates_at_their_bounds_are_rates() {
        for events in [1, 1_000_000_000, u32::MAX] {
            for seconds in [1, 3600] {
                let meters = Meters::with_clock(10, FakeRelativeClock::default());
                assert_eq!(meters.count((), rate(events, seconds)), Ok(()));
            }
        }
    }

    #[test]
    fn memory_is_bounded_and_new_keys_are_counted_all_the_same() {
        let meters = Meters::with_clock(100, FakeRelativeClock::default());
        for key in 0..10_000_u32 {
            assert_eq!(meters.count(key, rate(1, 60)), Ok(()));
            assert!(meters.count(key, rate(1, 60)).is_err(), "{key}");
        }
        meters.buckets.run_pending_tasks();
        assert!(meters.buckets.entry_count() <= 100);
    }
}
