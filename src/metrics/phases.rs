//! Where the time of one request went.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A part of a request's life that may take long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// Making the 402.
    Challenge,
    /// Until there is a verdict on the proof.
    Verify,
    /// Until the claim is on disk.
    Claim,
    /// From asking the upstream to its response head.
    Upstream,
    /// Until the money has moved and that is on disk.
    Settle,
}

/// All phases, in the order of a request's life.
pub const PHASES: [Phase; 5] = [
    Phase::Challenge,
    Phase::Verify,
    Phase::Claim,
    Phase::Upstream,
    Phase::Settle,
];

impl Phase {
    /// The word in the metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Challenge => "challenge",
            Self::Verify => "verify",
            Self::Claim => "claim",
            Self::Upstream => "upstream",
            Self::Settle => "settle",
        }
    }

    pub(super) const fn index(self) -> usize {
        match self {
            Self::Challenge => 0,
            Self::Verify => 1,
            Self::Claim => 2,
            Self::Upstream => 3,
            Self::Settle => 4,
        }
    }
}

/// The time that each phase of one request took. A phase that happens again adds to the first.
#[derive(Debug, Default)]
pub struct Phases {
    micros: [AtomicU64; PHASES.len()],
    #[cfg(feature = "otlp")]
    begun: [std::sync::OnceLock<Instant>; PHASES.len()],
}

impl Phases {
    /// Waits for `work`, and notes how long that took.
    pub async fn time<T>(&self, phase: Phase, work: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let done = work.await;
        self.add(phase, begun.elapsed());
        done
    }

    /// Notes a time.
    pub fn add(&self, phase: Phase, took: Duration) {
        #[cfg(feature = "otlp")]
        if let Some(begun) = self.begun.get(phase.index()) {
            begun.get_or_init(|| {
                let now = Instant::now();
                now.checked_sub(took).unwrap_or(now)
            });
        }
        if let Some(micros) = self.micros.get(phase.index()) {
            // At least 1: zero means that it did not happen.
            let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
            micros.fetch_add(took, Ordering::Relaxed);
        }
    }

    /// Microseconds; `None` when it did not happen.
    #[must_use]
    pub fn micros(&self, phase: Phase) -> Option<u64> {
        let micros = self.micros.get(phase.index())?.load(Ordering::Relaxed);
        (micros > 0).then_some(micros)
    }

    /// When it first began. Known in builds with the feature `otlp`, where traces need it.
    #[must_use]
    pub fn begun(&self, phase: Phase) -> Option<Instant> {
        #[cfg(feature = "otlp")]
        return self.begun.get(phase.index())?.get().copied();
        #[cfg(not(feature = "otlp"))]
        {
            let _ = (self, phase);
            None
        }
    }
}
