//! How often strangers may ask: rate limits of rules, and facilitator calls by client and by payer.
//!
//! Everything here is counted in memory that is bounded, whoever asks: see [`Meters`] and [`Shares`].
//! Nothing is refused here once a payment is claimed.

mod meters;
mod shares;

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::chain::Payer;
use crate::config::settings::{LimitBy, RateLimit};

pub use crate::throttle::meters::{Meters, Rate};
pub use crate::throttle::shares::{Share, Shares};

const MINUTE: Duration = Duration::from_secs(60);

/// Searches of the ledger per minute and client, for payments that answer no offer.
const SEARCHES_PER_MINUTE: NonZeroU32 = NonZeroU32::new(60).unwrap();

/// Who asks, as far as an address tells: an IPv4 address, or an IPv6 /64, which is what one customer
/// of a provider gets at least.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Client(IpAddr);

impl Client {
    /// The client at this address. Those without one (local sockets) are one client.
    #[must_use]
    pub fn at(address: Option<IpAddr>) -> Self {
        Self(match address.map(|ip| ip.to_canonical()) {
            Some(IpAddr::V6(ip)) => {
                let network = ip.to_bits() & !u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from_bits(network))
            }
            Some(v4) => v4,
            None => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        })
    }
}

/// Bounds on what clients and payers can make facilitators do.
#[derive(Clone, Copy, Debug)]
pub struct ThrottleLimits {
    /// Facilitator calls per minute and client.
    pub calls_per_client: NonZeroU32,
    /// Facilitator calls per minute and payer.
    pub calls_per_payer: NonZeroU32,
    /// Refused proofs per minute and client, after which its proofs are not verified for a while.
    pub refused_per_client: NonZeroU32,
    /// Proofs of one client in verification at once.
    pub verifying_per_client_max: usize,
    /// Keys that each limit keeps count of.
    pub keys_max: u64,
}

/// Why not now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Throttled {
    /// Too often; possible again after so long.
    TooOften(Duration),
    /// Too many at once.
    TooManyAtOnce,
}

/// Whose requests a rule counts together.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Who {
    Client(Client),
    Payer(Arc<str>),
    Everybody,
}

/// Counts.
pub struct Throttle {
    limits: ThrottleLimits,
    rules: Arc<Meters<(Arc<str>, RateLimit, Who)>>,
    calls_by_client: Arc<Meters<Client>>,
    calls_by_payer: Arc<Meters<Arc<str>>>,
    refused: Arc<Meters<Client>>,
    searches: Arc<Meters<Client>>,
    barred: Cache<Client, Instant>,
    verifying: Shares<Client>,
}

impl Throttle {
    /// Nobody has asked yet.
    #[must_use]
    pub fn new(limits: ThrottleLimits) -> Self {
        let keys_max = limits.keys_max;
        Self {
            rules: Arc::new(Meters::new(keys_max)),
            calls_by_client: Arc::new(Meters::new(keys_max)),
            calls_by_payer: Arc::new(Meters::new(keys_max)),
            refused: Arc::new(Meters::new(keys_max)),
            searches: Arc::new(Meters::new(keys_max)),
            barred: Cache::builder()
                .max_capacity(keys_max)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(MINUTE)
                .build(),
            verifying: Shares::new(limits.verifying_per_client_max),
            limits,
        }
    }

    /// The same counts under other limits. A rate that changed is counted anew; how many keys are
    /// kept count of stays as it was.
    #[must_use]
    pub fn with_limits(&self, limits: ThrottleLimits) -> Self {
        let keys_max = self.limits.keys_max;
        let limits = ThrottleLimits { keys_max, ..limits };
        fn kept<K: Eq + std::hash::Hash + Send + Sync + 'static>(
            meters: &Arc<Meters<K>>,
            is_same: bool,
            keys_max: u64,
        ) -> Arc<Meters<K>> {
            // The rate of a key is that of its first event.
            match is_same {
                true => Arc::clone(meters),
                false => Arc::new(Meters::new(keys_max)),
            }
        }
        let (old, new) = (&self.limits, &limits);
        Self {
            rules: Arc::clone(&self.rules),
            calls_by_client: kept(
                &self.calls_by_client,
                old.calls_per_client == new.calls_per_client,
                keys_max,
            ),
            calls_by_payer: kept(
                &self.calls_by_payer,
                old.calls_per_payer == new.calls_per_payer,
                keys_max,
            ),
            refused: kept(
                &self.refused,
                old.refused_per_client == new.refused_per_client,
                keys_max,
            ),
            searches: Arc::clone(&self.searches),
            barred: self.barred.clone(),
            verifying: self
                .verifying
                .with_each_max(limits.verifying_per_client_max),
            limits,
        }
    }

    /// Counts a search of the ledger for a payment that answers no offer.
    ///
    /// # Errors
    ///
    /// How long to wait, when there were too many.
    pub fn search(&self, client: Client) -> Result<(), Duration> {
        let rate = Rate {
            events: SEARCHES_PER_MINUTE,
            per: MINUTE,
        };
        self.searches.count(client, rate)
    }

    /// Counts a request under the rule's limit, unless that counts payers.
    ///
    /// # Errors
    ///
    /// How long to wait, when there were too many.
    pub fn request(
        &self,
        rule: &Arc<str>,
        limit: Option<RateLimit>,
        client: Client,
    ) -> Result<(), Duration> {
        let Some(limit) = limit else { return Ok(()) };
        let who = match limit.by {
            LimitBy::Client => Who::Client(client),
            LimitBy::Rule => Who::Everybody,
            LimitBy::Payer => return Ok(()),
        };
        self.under(rule, limit, who)
    }

    /// Counts a request with a payment, when the rule's limit counts payers. Where the payer is not
    /// known before verification, the client stands for it.
    ///
    /// # Errors
    ///
    /// How long to wait, when there were too many.
    pub fn payment(
        &self,
        rule: &Arc<str>,
        limit: Option<RateLimit>,
        payer: &Payer,
        client: Client,
    ) -> Result<(), Duration> {
        match limit {
            Some(limit) if limit.by == LimitBy::Payer => {
                let who = match payer.as_str() {
                    "" => Who::Client(client),
                    known => Who::Payer(known.into()),
                };
                self.under(rule, limit, who)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn under(&self, rule: &Arc<str>, limit: RateLimit, who: Who) -> Result<(), Duration> {
        let rate = Rate {
            events: limit.requests,
            per: limit.per,
        };
        self.rules.count((Arc::clone(rule), limit, who), rate)
    }

    /// Counts a proof that a facilitator is going to be asked about, until the share is dropped.
    ///
    /// # Errors
    ///
    /// [`Throttled`]: nobody may be asked.
    pub fn verification(&self, client: Client, payer: &Payer) -> Result<Share<Client>, Throttled> {
        if let Some(until) = self.barred.get(&client) {
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return Err(Throttled::TooOften(left));
            }
        }
        let share = self
            .verifying
            .take(client)
            .ok_or(Throttled::TooManyAtOnce)?;
        let minutely = |events| Rate {
            events,
            per: MINUTE,
        };
        // The payer first: its signature was checked, so that nobody else uses up its calls, while
        // what it sends in vain does not use up those of its neighbours at one address.
        if !payer.as_str().is_empty() {
            self.calls_by_payer
                .count(payer.as_str().into(), minutely(self.limits.calls_per_payer))
                .map_err(Throttled::TooOften)?;
        }
        self.calls_by_client
            .count(client, minutely(self.limits.calls_per_client))
            .map_err(Throttled::TooOften)?;
        Ok(share)
    }

    /// A facilitator was asked, and refused the client's proof.
    pub fn refused(&self, client: Client) {
        let rate = Rate {
            events: self.limits.refused_per_client,
            per: MINUTE,
        };
        if let Err(wait) = self.refused.count(client, rate)
            && let Some(until) = Instant::now().checked_add(wait)
        {
            self.barred.insert(client, until);
        }
    }
}

/// Whole seconds for `Retry-After`, at least 1.
#[must_use]
pub fn retry_after_s(wait: Duration) -> u64 {
    let seconds = wait.as_millis().div_ceil(1000);
    u64::try_from(seconds).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    fn throttle() -> Throttle {
        Throttle::new(ThrottleLimits {
            calls_per_client: n(3),
            calls_per_payer: n(2),
            refused_per_client: n(2),
            verifying_per_client_max: 2,
            keys_max: 100,
        })
    }

    fn client(text: &str) -> Client {
        Client::at(Some(text.parse().unwrap()))
    }

    fn payer(text: &str) -> Payer {
        Payer::verbatim(text)
    }

    #[test]
    fn one_customer_of_a_provider_is_one_client() {
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"));
        assert_ne!(client("10.0.0.1"), client("10.0.0.2"));
    }

    #[test]
    fn calls_are_counted_by_client_and_by_payer() {
        let throttle = throttle();
        let (here, there) = (client("10.0.0.1"), client("10.0.0.2"));
        let asks = |client, who| throttle.verification(client, &payer(who)).map(drop);
        assert_eq!((asks(here, "a"), asks(here, "a")), (Ok(()), Ok(())));
        assert!(matches!(asks(there, "a"), Err(Throttled::TooOften(_))));
        assert!(asks(there, "b").is_ok());
        assert!(asks(here, "c").is_ok(), "the third");
        assert!(matches!(asks(here, "d"), Err(Throttled::TooOften(_))));
    }

    #[test]
    fn who_sends_refused_proofs_is_left_unverified_for_a_while_and_nobody_else() {
        let throttle = throttle();
        let (bad, good) = (client("10.0.0.1"), client("10.0.0.2"));
        for _ in 0..2 {
            throttle.refused(bad);
        }
        assert!(
            throttle.verification(bad, &payer("a")).is_ok(),
            "at the limit"
        );
        throttle.refused(bad);
        let Err(Throttled::TooOften(wait)) = throttle.verification(bad, &payer("a")) else {
            panic!("over the limit")
        };
        assert!(wait <= MINUTE);
        assert!(throttle.verification(good, &payer("b")).is_ok());
    }

    #[test]
    fn one_client_cannot_take_all_places() {
        let throttle = throttle();
        let (greedy, other) = (client("10.0.0.1"), client("10.0.0.2"));
        let _one = throttle.verification(greedy, &payer("")).unwrap();
        let two = throttle.verification(greedy, &payer("")).unwrap();
        let third = throttle.verification(greedy, &payer(""));
        assert!(matches!(third, Err(Throttled::TooManyAtOnce)));
        assert!(throttle.verification(other, &payer("")).is_ok());
        drop(two);
        assert!(throttle.verification(greedy, &payer("")).is_ok());
    }

    /// How many of five requests pass: from one client, then from another, by one payer and another.
    #[track_caller]
    fn check(by: LimitBy, want: [usize; 3]) {
        let throttle = throttle();
        let rule: Arc<str> = "r".into();
        let limit = Some(RateLimit {
            requests: n(2),
            per: Duration::from_secs(3600),
            by,
        });
        let pass = |address, who| {
            let (from, payer) = (client(address), payer(who));
            let passes = |_: &i32| {
                let asked = throttle.request(&rule, limit, from);
                asked.is_ok() && throttle.payment(&rule, limit, &payer, from).is_ok()
            };
            (0..5).filter(passes).count()
        };
        let found = [
            pass("10.0.0.1", "a"),
            pass("10.0.0.2", "a"),
            pass("10.0.0.2", "b"),
        ];
        assert_eq!(found, want, "{by:?}");
        assert!(throttle.request(&rule, None, client("10.0.0.1")).is_ok());
        assert!(
            throttle
                .request(&"other".into(), limit, client("10.0.0.1"))
                .is_ok()
        );
    }

    #[test]
    fn a_rule_counts_by_client_by_payer_or_all_together() {
        check(LimitBy::Client, [2, 2, 0]);
        check(LimitBy::Payer, [2, 0, 2]);
        check(LimitBy::Rule, [2, 0, 0]);
    }

    #[test]
    fn retry_after_is_rounded_up_and_never_0() {
        assert_eq!(retry_after_s(Duration::ZERO), 1);
        assert_eq!(retry_after_s(Duration::from_millis(1001)), 2);
        assert_eq!(retry_after_s(Duration::from_secs(3)), 3);
    }
}
