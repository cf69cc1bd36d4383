//! A facilitator behind its circuit breaker. Its health is what real calls find, nothing else.
//!
//! The breaker keeps verifications away. It never keeps a settlement away: who settles looks at
//! [`Facilitator::fitness`] and prefers another, but an order is not given up because of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::facilitator::breaker::{Breaker, BreakerSettings, Failure, Moment, Permit, Stage};
use crate::facilitator::supported::Supported;
use crate::facilitator::{
    Facilitator, FacilitatorFault, FacilitatorRequest, Fitness, SettleAnswer, VerifyAnswer,
};
use crate::metrics;

/// A facilitator and its breaker.
pub struct Guarded<F> {
    inner: F,
    breaker: Mutex<Breaker>,
    is_healthy: AtomicBool,
    since: Instant,
}

/// What a call says of the facilitator's health.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Health {
    Well,
    Failing(Failure),
    /// Nothing: the fault is ours, or lies with the one request.
    Unsaid,
}

impl<F: Facilitator> Guarded<F> {
    /// A closed breaker before `inner`.
    #[must_use]
    pub fn new(inner: F, settings: BreakerSettings) -> Self {
        Self {
            inner,
            breaker: Mutex::new(Breaker::new(settings)),
            is_healthy: AtomicBool::new(true),
            since: Instant::now(),
        }
    }

    fn now(&self) -> Moment {
        self.since.elapsed()
    }

    /// Counts a call that was made.
    fn count(&self, call: &'static str, answered: bool, begun: Instant) {
        metrics::facilitator_call(self.inner.name(), call, answered, begun.elapsed());
    }

    fn learn(&self, health: Health) {
        let now = self.now();
        let mut breaker = self.breaker.lock();
        let was_closed = breaker.is_closed();
        match health {
            Health::Well => breaker.succeeded(),
            Health::Failing(failure) => breaker.failed(failure, now),
            Health::Unsaid => return,
        }
        let (is_closed, waits) = (breaker.is_closed(), breaker.waits(now));
        drop(breaker);
        self.is_healthy
            .store(health == Health::Well, Ordering::Relaxed);
        let facilitator = &**self.inner.name();
        if was_closed && !is_closed {
            let for_ms = waits.map_or(0, |wait| wait.as_millis());
            tracing::warn!(facilitator, %for_ms, "facilitator keeps failing; left alone");
        } else if !was_closed && is_closed {
            tracing::info!(facilitator, "facilitator is well again");
        }
    }
}

#[async_trait]
impl<F: Facilitator> Facilitator for Guarded<F> {
    fn name(&self) -> &Arc<str> {
        self.inner.name()
    }

    async fn verify(&self, request: &FacilitatorRequest) -> VerifyAnswer {
        let permit = self.breaker.lock().permit(self.now());
        if let Permit::Wait(wait) = permit {
            let retry_after_s = wait.as_millis().div_ceil(1000);
            return VerifyAnswer::Unavailable(FacilitatorFault::Open {
                retry_after_s: u64::try_from(retry_after_s).unwrap_or(u64::MAX).max(1),
            });
        }
        let begun = Instant::now();
        let answer = self.inner.verify(request).await;
        let answered = !matches!(answer, VerifyAnswer::Unavailable(_));
        self.count("verify", answered, begun);
        self.learn(match &answer {
            VerifyAnswer::Valid { .. } | VerifyAnswer::Invalid { .. } => Health::Well,
            VerifyAnswer::Unavailable(fault) => health(fault),
        });
        answer
    }

    async fn settle(&self, request: &FacilitatorRequest) -> SettleAnswer {
        let begun = Instant::now();
        let answer = self.inner.settle(request).await;
        let answered = matches!(answer, SettleAnswer::Settled(_) | SettleAnswer::Refused(_));
        self.count("settle", answered, begun);
        self.learn(match &answer {
            SettleAnswer::Settled(_) | SettleAnswer::Refused(_) => Health::Well,
            SettleAnswer::Unknown(fault) | SettleAnswer::NotSent(fault) => health(fault),
        });
        answer
    }

    fn fitness(&self) -> Fitness {
        if self.breaker.lock().waits(self.now()).is_some() {
            Fitness::Failing
        } else {
            self.inner.fitness()
        }
    }

    fn is_healthy(&self) -> bool {
        self.is_healthy.load(Ordering::Relaxed)
    }

    fn breaker(&self) -> Stage {
        self.breaker.lock().stage(self.now())
    }

    fn verify_retries(&self) -> u32 {
        self.inner.verify_retries()
    }

    async fn supported(&self) -> Result<Supported, FacilitatorFault> {
        self.inner.supported().await
    }
}

/// A client error without a verdict lies with the one request, which a stranger wrote: it must not
/// take the facilitator away from everybody else.
fn health(fault: &FacilitatorFault) -> Health {
    match fault {
        FacilitatorFault::Status {
            status,
            retry_after_s,
        } if *status >= 500 || matches!(status, 408 | 429) => Health::Failing(Failure {
            retry_after: retry_after_s.map(Duration::from_secs),
        }),
        FacilitatorFault::Status { .. }
        | FacilitatorFault::Saturated
        | FacilitatorFault::Open { .. } => Health::Unsaid,
        FacilitatorFault::Pending => Health::Well,
        FacilitatorFault::Connect(_)
        | FacilitatorFault::Timeout(_)
        | FacilitatorFault::Broken(_)
        | FacilitatorFault::Junk(_)
        | FacilitatorFault::TooLarge(_) => Health::Failing(Failure::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x402::message::SettlementResponse;
    use std::collections::VecDeque;

    /// Answers from a script; what is not scripted is good.
    struct Scripted {
        name: Arc<str>,
        faults: Mutex<VecDeque<FacilitatorFault>>,
    }

    #[async_trait]
    impl Facilitator for Scripted {
        fn name(&self) -> &Arc<str> {
            &self.name
        }

        async fn verify(&self, _: &FacilitatorRequest) -> VerifyAnswer {
            match self.faults.lock().pop_front() {
                Some(fault) => VerifyAnswer::Unavailable(fault),
                None => VerifyAnswer::Valid { payer: None },
            }
        }

        async fn settle(&self, _: &FacilitatorRequest) -> SettleAnswer {
            match self.faults.lock().pop_front() {
                Some(fault) => SettleAnswer::Unknown(fault),
                None => SettleAnswer::Settled(SettlementResponse::default()),
            }
        }

        async fn supported(&self) -> Result<Supported, FacilitatorFault> {
            Ok(Supported::default())
        }
    }

    fn guarded(faults: Vec<FacilitatorFault>) -> Guarded<Scripted> {
        let settings = BreakerSettings {
            failures: 2,
            open_for: Duration::from_secs(5),
        };
        let inner = Scripted {
            name: "f".into(),
            faults: Mutex::new(faults.into()),
        };
        Guarded::new(inner, settings)
    }

    fn status(status: u16, retry_after_s: Option<u64>) -> FacilitatorFault {
        FacilitatorFault::Status {
            status,
            retry_after_s,
        }
    }

    fn request() -> FacilitatorRequest {
        FacilitatorRequest { body: "{}".into() }
    }

    /// What a third call of `/verify` gives after these two faults.
    #[track_caller]
    fn check(faults: [FacilitatorFault; 2], is_open: bool) {
        let told = format!("{faults:?}");
        let guarded = guarded(faults.into());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let answer = runtime.block_on(async {
            guarded.verify(&request()).await;
            guarded.verify(&request()).await;
            guarded.verify(&request()).await
        });
        let open = matches!(
            answer,
            VerifyAnswer::Unavailable(FacilitatorFault::Open { .. })
        );
        assert_eq!(open, is_open, "{told}");
    }

    #[test]
    fn only_faults_of_the_facilitator_open_the_breaker() {
        let broken = || FacilitatorFault::Broken("reset".to_owned());
        check([broken(), broken()], true);
        check([status(500, None), FacilitatorFault::Timeout(1)], true);
        check([status(429, None), status(408, None)], true);
        check([status(400, None), status(403, None)], false);
        check([FacilitatorFault::Saturated, broken()], false);
        check([broken(), FacilitatorFault::Pending], false);
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_after_is_honoured_and_told() {
        let guarded = guarded(vec![status(503, Some(30))]);
        guarded.verify(&request()).await;
        tokio::time::advance(Duration::from_millis(29_500)).await;
        let answer = guarded.verify(&request()).await;
        assert!(
            matches!(
                answer,
                VerifyAnswer::Unavailable(FacilitatorFault::Open { retry_after_s: 1 })
            ),
            "{answer:?}"
        );
        assert_eq!(guarded.fitness(), Fitness::Failing);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(guarded.fitness(), Fitness::Well, "a probe may be made");
        let answer = guarded.verify(&request()).await;
        assert!(matches!(answer, VerifyAnswer::Valid { .. }), "{answer:?}");
    }

    #[tokio::test]
    async fn a_settlement_passes_an_open_breaker_and_closes_it() {
        let guarded = guarded(vec![status(500, None), status(500, None)]);
        guarded.verify(&request()).await;
        guarded.verify(&request()).await;
        assert_eq!(guarded.fitness(), Fitness::Failing);
        let answer = guarded.settle(&request()).await;
        assert!(matches!(answer, SettleAnswer::Settled(_)), "{answer:?}");
        assert_eq!(guarded.fitness(), Fitness::Well);
    }
}
