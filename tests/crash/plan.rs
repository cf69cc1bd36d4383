//! When and how the wall is killed.

use std::time::Duration;

use farewall::failpoint::{STEPS, Step};

/// The steps of a wall with one facilitator; those of the others are in `moving.rs`.
pub fn steps() -> Vec<Step> {
    let of_several = |step: &Step| matches!(step, Step::Moving | Step::Moved);
    STEPS.into_iter().filter(|step| !of_several(step)).collect()
}

use rand::Rng;
use rand::rngs::StdRng;

use crate::moment;

/// One kill.
#[derive(Debug)]
pub enum Plan {
    /// At some moment after it began to serve.
    After(Duration),
    /// At some moment after it was asked to end.
    Ending { served: Duration, ending: Duration },
    /// By itself, when it comes to a step for the n-th time.
    At { step: Step, count: u64 },
}

impl Plan {
    /// Every second kill is at a named step, each in turn.
    pub fn choose(n: u64, random: &mut StdRng) -> Self {
        if n % 2 == 1 {
            let steps = steps();
            let step = steps[usize::try_from(n / 2).unwrap() % steps.len()];
            let most = match step {
                Step::Opened | Step::Reconciling | Step::Reconciled => 1,
                Step::BeforeCommit | Step::Committed => 40,
                Step::BeforeReleased | Step::Released => 3,
                _ => 12,
            };
            let count = random.random_range(1..=most);
            return Self::At { step, count };
        }
        match random.random_range(0..16) {
            // Long enough for the reconciler to have looked at what is unknown.
            0 => Self::After(moment(random, 1000..1300)),
            1 | 2 => Self::Ending {
                served: moment(random, 20..200),
                ending: moment(random, 0..60),
            },
            _ => Self::After(moment(random, 0..250)),
        }
    }

    pub const fn step(&self) -> Option<Step> {
        match self {
            Self::At { step, .. } => Some(*step),
            Self::After(_) | Self::Ending { .. } => None,
        }
    }

    /// `FAREWALL_KILL_AT`.
    pub fn kill_at(&self) -> Option<String> {
        match self {
            Self::At { step, count } => Some(format!("{}:{count}", step.name())),
            Self::After(_) | Self::Ending { .. } => None,
        }
    }
}
