//! The circuit breaker of one facilitator: who keeps failing is left alone for a while, then probed.
//!
//! ```text
//! closed ──failures in a row, or Retry-After──▶ open ──time──▶ half open ──probe answered──▶ closed
//!                                                ▲                 └──probe failed──▶ open
//!                                                └────────────────────────────────────┘
//! ```
//!
//! Pure: time is an argument. The crates there are (`failsafe`, `recloser`) read the clock
//! themselves and cannot be opened for a given time, which `Retry-After` asks for.

use std::time::Duration;

/// Time since some moment that stays the same, such as the start of the process.
pub type Moment = Duration;

/// The longest that a `Retry-After` keeps a breaker open: a facilitator must not be able to take
/// itself out for a day by one header.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BreakerSettings {
    /// Failures in a row that open it; at least 1.
    pub failures: u32,
    /// How long it stays open, and how long a probe may take before there is another.
    pub open_for: Duration,
}

/// Whether a call may be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Permit {
    /// Yes.
    Call,
    /// Yes, and its outcome decides: others wait for it.
    Probe,
    /// Not for so long.
    Wait(Duration),
}

/// Where a breaker stands, for people.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Stage {
    /// Calls are made.
    #[default]
    Closed,
    /// The next call decides.
    HalfOpen,
    /// No verifications are asked for.
    Open,
}

impl Stage {
    /// The word in the admin API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// What a failure says beside that it is one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Failure {
    /// `Retry-After`, which opens the breaker at once.
    pub retry_after: Option<Duration>,
}

/// A circuit breaker.
#[derive(Clone, Copy, Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Closed { failures: u32 },
    Open { until: Moment },
    HalfOpen { probed: Moment },
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub const fn new(settings: BreakerSettings) -> Self {
        Self {
            settings,
            state: State::Closed { failures: 0 },
        }
    }

    /// Asks for leave to call. After [`Permit::Probe`] nobody else gets leave until the outcome is
    /// reported, or the probe took too long.
    pub fn permit(&mut self, now: Moment) -> Permit {
        match self.waits(now) {
            Some(wait) => Permit::Wait(wait),
            None if self.is_closed() => Permit::Call,
            None => {
                self.state = State::HalfOpen { probed: now };
                Permit::Probe
            }
        }
    }

    /// How long calls should stay away; `None` when one may be made.
    #[must_use]
    pub const fn waits(&self, now: Moment) -> Option<Duration> {
        let until = match self.state {
            State::Closed { .. } => return None,
            State::Open { until } => until,
            State::HalfOpen { probed } => probed.saturating_add(self.settings.open_for),
        };
        let left = until.saturating_sub(now);
        if left.is_zero() { None } else { Some(left) }
    }

    /// Where it stands.
    #[must_use]
    pub const fn stage(&self, now: Moment) -> Stage {
        if self.is_closed() {
            Stage::Closed
        } else if self.waits(now).is_some() {
            Stage::Open
        } else {
            Stage::HalfOpen
        }
    }

    /// Whether it is closed.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// A call was answered: whatever was before, the facilitator is well.
    pub const fn succeeded(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    /// A call failed.
    pub fn failed(&mut self, failure: Failure, now: Moment) {
        let asked = failure.retry_after.map(|wait| wait.min(RETRY_AFTER_MAX));
        let asked = asked.filter(|wait| !wait.is_zero());
        self.state = match (self.state, asked) {
            // Nothing that fails late shortens a wait that was asked for.
            (State::Open { until }, asked) => State::Open {
                until: asked.map_or(until, |wait| until.max(now.saturating_add(wait))),
            },
            (_, Some(wait)) => State::Open {
                until: now.saturating_add(wait),
            },
            (State::HalfOpen { .. }, None) => self.open(now),
            (State::Closed { failures }, None) => {
                let failures = failures.saturating_add(1);
                if failures >= self.settings.failures.max(1) {
                    self.open(now)
                } else {
                    State::Closed { failures }
                }
            }
        };
    }

    const fn open(&self, now: Moment) -> State {
        State::Open {
            until: now.saturating_add(self.settings.open_for),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SETTINGS: BreakerSettings = BreakerSettings {
        failures: 3,
        open_for: Duration::from_secs(5),
    };

    const fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    fn failing(times: u32, now: Moment) -> Breaker {
        let mut breaker = Breaker::new(SETTINGS);
        for _ in 0..times {
            breaker.failed(Failure::default(), now);
        }
        breaker
    }

    #[test]
    fn it_opens_at_the_last_of_the_failures_in_a_row_and_not_before() {
        assert_eq!(failing(2, at(0)).permit(at(0)), Permit::Call);
        assert_eq!(failing(3, at(0)).permit(at(1)), Permit::Wait(at(4)));
        let mut mended = failing(2, at(0));
        mended.succeeded();
        mended.failed(Failure::default(), at(0));
        assert_eq!(mended.permit(at(0)), Permit::Call, "not in a row");
    }

    #[test]
    fn one_probe_decides() {
        let mut breaker = failing(3, at(0));
        assert_eq!(breaker.permit(at(5)), Permit::Probe);
        assert_eq!(breaker.permit(at(6)), Permit::Wait(at(4)), "one at a time");
        let mut failed = breaker;
        failed.failed(Failure::default(), at(7));
        assert_eq!(failed.permit(at(11)), Permit::Wait(at(1)));
        assert_eq!(breaker.permit(at(10)), Permit::Probe, "the first is lost");
        breaker.succeeded();
        assert_eq!(breaker.permit(at(10)), Permit::Call);
    }

    #[test]
    fn a_retry_after_opens_it_at_once_for_that_long_but_not_for_ever() {
        let mut breaker = Breaker::new(SETTINGS);
        let asked = |seconds| Failure {
            retry_after: Some(at(seconds)),
        };
        breaker.failed(asked(30), at(0));
        assert_eq!(breaker.permit(at(1)), Permit::Wait(at(29)));
        breaker.failed(Failure::default(), at(1));
        assert_eq!(breaker.permit(at(1)), Permit::Wait(at(29)), "not shortened");
        breaker.failed(asked(86_400), at(0));
        assert_eq!(breaker.permit(at(0)), Permit::Wait(RETRY_AFTER_MAX));
        let mut none = Breaker::new(SETTINGS);
        none.failed(asked(0), at(0));
        assert_eq!(none.permit(at(0)), Permit::Call, "0 asks for nothing");
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Ask,
        Success,
        Failure(Option<u64>),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => Just(Event::Ask),
            1 => Just(Event::Success),
            3 => proptest::option::weighted(0.2, 0_u64..200_000).prop_map(Event::Failure),
        ]
    }

    proptest! {
        /// Never stuck: whatever happened, a call is allowed after the longest wait there is. Never
        /// silent for nothing: it waits only after failures. Never two probes in one period.
        #[test]
        fn it_is_never_stuck_and_never_floods(
            events in proptest::collection::vec((event(), 0_u64..8), 0..200),
        ) {
            let mut breaker = Breaker::new(SETTINGS);
            let (mut now, mut failures, mut last_probe) = (at(0), 0_u32, None);
            for (event, passed) in events {
                now = now.saturating_add(at(passed));
                match event {
                    Event::Ask => match breaker.permit(now) {
                        Permit::Call => prop_assert!(failures < SETTINGS.failures),
                        Permit::Probe => {
                            let spaced = last_probe.is_none_or(|t| now.saturating_sub(t) >= SETTINGS.open_for);
                            prop_assert!(spaced);
                            last_probe = Some(now);
                        }
                        Permit::Wait(wait) => {
                            prop_assert!(failures > 0);
                            prop_assert!(wait <= RETRY_AFTER_MAX.max(SETTINGS.open_for));
                            let mut later = breaker;
                            let permit = later.permit(now.saturating_add(wait));
                            prop_assert!(!matches!(permit, Permit::Wait(_)));
                        }
                    },
                    Event::Success => {
                        breaker.succeeded();
                        (failures, last_probe) = (0, None);
                        prop_assert!(breaker.is_closed());
                    }
                    Event::Failure(retry_after) => {
                        failures = failures.saturating_add(1);
                        // A probe that failed at once allows the next after `open_for`, as a lost one.
                        let retry_after = retry_after.map(Duration::from_millis);
                        breaker.failed(Failure { retry_after }, now);
                        if retry_after.is_some() {
                            last_probe = None;
                        }
                    }
                }
            }
            let late = now.saturating_add(RETRY_AFTER_MAX.max(SETTINGS.open_for));
            prop_assert_eq!(breaker.waits(late), None);
        }
    }
}
