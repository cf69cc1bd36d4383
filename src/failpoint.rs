//! The named steps of a payment's life, at which a test can end the process. In a build without the
//! feature `failpoints` this is nothing, and a release build with it does not compile.
//!
//! With the feature, `FAREWALL_KILL_AT=settling` in the environment makes the process send itself
//! SIGKILL when it comes to that step for the first time, `settling:3` for the third: no unwinding,
//! no destructors, nothing flushed. `tests/crash` is who does that.

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!("the feature `failpoints` is for tests; a release build must not contain it");

/// A step of a payment's life, or of the process around it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// At the start: the ledger is open, and claims of the process before are not yet given back.
    Opened,
    /// The payment is reserved in memory.
    Reserved,
    /// The proof is verified.
    Verified,
    /// The claim is durable.
    Claimed,
    /// The upstream answered well; the intent to settle is not written yet.
    BeforeSettling,
    /// The intent to settle is durable; the facilitator is not asked yet.
    Settling,
    /// The facilitator answered; its answer is not written yet.
    Answered,
    /// The settlement is durable.
    Settled,
    /// The response is released; its first byte is not written yet.
    BeforeFirstByte,
    /// A part of the response's body is about to be written.
    MidBody,
    /// The last byte is written; the delivery is not on record yet.
    BeforeDelivered,
    /// The delivery is durable.
    Delivered,
    /// A claim is to be given back; that is not on record yet.
    BeforeReleased,
    /// That the claim was given back is durable.
    Released,
    /// Writes are applied; their transaction is not committed yet.
    BeforeCommit,
    /// A transaction is committed; nobody was told.
    Committed,
    /// The reconciler learnt that an unknown settlement is paid; that is not written yet.
    Reconciling,
    /// What the reconciler learnt is durable.
    Reconciled,
    /// The reconciler is going to ask another facilitator; that is not written yet.
    Moving,
    /// That another facilitator is going to be asked is durable; it is not asked yet.
    Moved,
}

/// All steps, in the order of a payment's life.
pub const STEPS: [Step; 20] = [
    Step::Opened,
    Step::Reserved,
    Step::Verified,
    Step::Claimed,
    Step::BeforeSettling,
    Step::Settling,
    Step::Answered,
    Step::Settled,
    Step::BeforeFirstByte,
    Step::MidBody,
    Step::BeforeDelivered,
    Step::Delivered,
    Step::BeforeReleased,
    Step::Released,
    Step::BeforeCommit,
    Step::Committed,
    Step::Reconciling,
    Step::Reconciled,
    Step::Moving,
    Step::Moved,
];

impl Step {
    /// Its name in `FAREWALL_KILL_AT`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Reserved => "reserved",
            Self::Verified => "verified",
            Self::Claimed => "claimed",
            Self::BeforeSettling => "before_settling",
            Self::Settling => "settling",
            Self::Answered => "answered",
            Self::Settled => "settled",
            Self::BeforeFirstByte => "before_first_byte",
            Self::MidBody => "mid_body",
            Self::BeforeDelivered => "before_delivered",
            Self::Delivered => "delivered",
            Self::BeforeReleased => "before_released",
            Self::Released => "released",
            Self::BeforeCommit => "before_commit",
            Self::Committed => "committed",
            Self::Reconciling => "reconciling",
            Self::Reconciled => "reconciled",
            Self::Moving => "moving",
            Self::Moved => "moved",
        }
    }
}

/// Says that the process has come to `step`. Nothing, without the feature.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn reach(_step: Step) {}

/// Says that the process has come to `step`: it may be its last.
#[cfg(feature = "failpoints")]
pub fn reach(step: Step) {
    fail::fail_point!(step.name());
}

/// Nothing, without the feature.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn arm() {}

/// Reads `FAREWALL_KILL_AT`. Call it once, at the start.
///
/// # Panics
///
/// When it names no step: a test that kills nothing must not pass.
#[cfg(feature = "failpoints")]
pub fn arm() {
    use std::sync::atomic::{AtomicU64, Ordering};

    let Ok(order) = std::env::var("FAREWALL_KILL_AT") else {
        return;
    };
    let (name, count) = order.split_once(':').unwrap_or((&order, "1"));
    let known = STEPS.iter().any(|step| step.name() == name);
    let count: Option<u64> = count.parse().ok().filter(|count| *count > 0);
    let (true, Some(count)) = (known, count) else {
        panic!("FAREWALL_KILL_AT={order} names no step");
    };
    let left = AtomicU64::new(count);
    let armed = fail::cfg_callback(name, move || {
        if left.fetch_sub(1, Ordering::SeqCst) == 1 {
            kill_this_process();
        }
    });
    assert!(armed.is_ok(), "FAREWALL_KILL_AT={order}: {armed:?}");
}

#[cfg(feature = "failpoints")]
fn kill_this_process() {
    use rustix::process::{Signal, getpid, kill_process};

    let _ = kill_process(getpid(), Signal::KILL);
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_a_name_of_its_own() {
        let mut names: Vec<_> = STEPS.iter().map(|step| step.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STEPS.len());
    }
}
