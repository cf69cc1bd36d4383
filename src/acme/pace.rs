//! When a certificate is ordered: at two thirds of the old one's life, and never often. Pure.
//!
//! Let's Encrypt refuses a name after five failed verifications within an hour, and a certificate
//! that it has issued five times within a week. What is here is kept in a file, so that a wall that
//! is started again and again orders no more often than one that runs.

use serde::{Deserialize, Serialize};

use crate::clock::UnixSeconds;
use crate::tls::Validity;

/// After the first failure; doubled with each further one: four in the first hour.
const PAUSE_FIRST_S: u64 = 300;
const PAUSE_MAX_S: u64 = 12 * 3600;
/// Between an order that succeeded and the next, however that is needed so soon; less for
/// certificates that live a few hours only.
const PAUSE_AFTER_SUCCESS_S: u64 = 24 * 3600;

/// What is remembered of the orders for one name.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(from = "Stored", into = "Stored")]
pub(super) struct Pace {
    /// Orders in a row that did not succeed, one under way included.
    pub(super) failures: u32,
    /// Not before then.
    pub(super) next_order_at: UnixSeconds,
}

#[derive(Deserialize, Serialize)]
struct Stored {
    failures: u32,
    next_order_at: u64,
}

impl From<Stored> for Pace {
    fn from(stored: Stored) -> Self {
        Self {
            failures: stored.failures,
            next_order_at: UnixSeconds(stored.next_order_at),
        }
    }
}

impl From<Pace> for Stored {
    fn from(pace: Pace) -> Self {
        Self {
            failures: pace.failures,
            next_order_at: pace.next_order_at.0,
        }
    }
}

impl Pace {
    /// Until when nothing may be ordered; `None` when it may. A time that no pause reaches was written
    /// under a wrong clock, and does not count.
    pub(super) fn not_before(&self, now: UnixSeconds) -> Option<UnixSeconds> {
        let wait_s = self.next_order_at.since(now);
        let longest_s = PAUSE_AFTER_SUCCESS_S.max(PAUSE_MAX_S.saturating_mul(2));
        (1..=longest_s)
            .contains(&wait_s)
            .then_some(self.next_order_at)
    }

    /// An order begins. It counts as failed until it has succeeded. `random` spreads the next one.
    pub(super) fn begun(&self, now: UnixSeconds, random: u64) -> Self {
        let doubled = PAUSE_FIRST_S.checked_shl(self.failures.min(16));
        let pause_s = doubled.unwrap_or(PAUSE_MAX_S).min(PAUSE_MAX_S);
        let spread_s = share(random, pause_s / 4);
        Self {
            failures: self.failures.saturating_add(1),
            next_order_at: now.plus(pause_s).plus(spread_s),
        }
    }

    /// An order has succeeded.
    pub(super) fn after(validity: Validity, now: UnixSeconds) -> Self {
        let third_s = life_s(validity) / 3;
        Self {
            failures: 0,
            next_order_at: now.plus(PAUSE_AFTER_SUCCESS_S.min(third_s)),
        }
    }

    /// A certificate was issued, and cannot be used.
    pub(super) fn in_vain(now: UnixSeconds) -> Self {
        Self {
            failures: 0,
            next_order_at: now.plus(PAUSE_AFTER_SUCCESS_S),
        }
    }
}

/// When a certificate is renewed: when two thirds of its life are over, up to a thirtieth of it earlier.
pub(super) fn renewal(validity: Validity, spread: u64) -> UnixSeconds {
    let life_s = life_s(validity);
    let rest_s = life_s / 3;
    let earlier_s = share(spread, life_s / 30);
    validity.not_after.minus(rest_s).minus(earlier_s)
}

const fn life_s(validity: Validity) -> u64 {
    validity.not_after.since(validity.not_before)
}

/// 0 to `most`, by a random number.
fn share(random: u64, most: u64) -> u64 {
    random.checked_rem(most.saturating_add(1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_S: u64 = 86_400;

    fn lives(days: u64) -> Validity {
        let not_before = UnixSeconds(1_800_000_000);
        Validity {
            not_before,
            not_after: not_before.plus(days.saturating_mul(DAY_S)),
        }
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life_or_a_little_earlier() {
        let validity = lives(90);
        let latest = validity.not_before.plus(5_184_000);
        assert_eq!(renewal(validity, 0), latest);
        for spread in [1, 77, u64::MAX, u64::MAX / 3] {
            let renewal = renewal(validity, spread);
            assert!(renewal <= latest && renewal >= latest.minus(259_200));
        }
        let broken = Validity {
            not_before: UnixSeconds(9),
            not_after: UnixSeconds(5),
        };
        assert_eq!(renewal(broken, 1), UnixSeconds(5));
    }

    #[test]
    fn failures_double_the_pause_and_stay_below_the_server_s_limit() {
        let mut now = UnixSeconds(1_800_000_000);
        let first = now;
        let mut pace = Pace::default();
        let mut orders = Vec::new();
        for _ in 0..40 {
            assert_eq!(pace.not_before(now), None);
            orders.push(now.since(first));
            pace = pace.begun(now, 0);
            assert_eq!(pace.not_before(now), Some(pace.next_order_at));
            assert_eq!(
                pace.not_before(pace.next_order_at.minus(1)),
                Some(pace.next_order_at)
            );
            now = pace.next_order_at;
        }
        assert_eq!(orders[..5], [0, 300, 900, 2100, 4500]);
        assert!(
            orders
                .windows(2)
                .all(|two| two[1].abs_diff(two[0]) <= PAUSE_MAX_S)
        );
        let spread = Pace::default()
            .begun(first, u64::MAX)
            .next_order_at
            .since(first);
        assert!((300..=375).contains(&spread), "{spread}");
    }

    #[test]
    fn a_success_is_followed_by_a_day_without_orders_or_a_third_of_a_short_life() {
        let now = UnixSeconds(1_800_000_000);
        let long = Pace::after(lives(90), now);
        assert_eq!((long.failures, long.next_order_at), (0, now.plus(DAY_S)));
        let short = Pace::after(lives(1), now);
        assert_eq!(short.next_order_at, now.plus(DAY_S / 3));
    }

    #[test]
    fn a_time_that_a_wrong_clock_wrote_does_not_stop_orders() {
        let now = UnixSeconds(1_800_000_000);
        let pace = Pace {
            failures: 3,
            next_order_at: now.plus(864_000),
        };
        assert_eq!(pace.not_before(now), None);
    }

    #[test]
    fn what_is_stored_is_read_again() {
        let pace = Pace {
            failures: 3,
            next_order_at: UnixSeconds(77),
        };
        let text = serde_json::to_string(&pace).unwrap();
        assert_eq!(text, r#"{"failures":3,"next_order_at":77}"#);
        assert_eq!(serde_json::from_str::<Pace>(&text).unwrap(), pace);
    }
}
