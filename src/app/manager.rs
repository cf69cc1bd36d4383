//! What the service manager is told (systemd, `Type=notify`): ready, alive, stopping.
//!
//! Where nobody asks (`NOTIFY_SOCKET` is not set) nothing is sent. See sd_notify(3).
//!
//! Only one process of a service is heard. A wall that was replaced says who is, and nothing after that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::runtime::Handle;

use crate::app::listening::Accepts;
use crate::app::succession::{Succession, succeed};

/// Whether another process speaks for the service.
static IS_REPLACED: AtomicBool = AtomicBool::new(false);

/// Says that the wall is ready when so many services accept connections, and then, as often as the
/// manager's watchdog asks for, that it is alive.
///
/// Alive means that every runtime that serves, and the one that this runs on, has run a task. The
/// ledger and the facilitators are not asked: that they are away is no reason to be restarted.
pub(super) async fn report((mut accepting, services): Accepts, succession: Option<Succession>) {
    let mut runtimes = Vec::new();
    while runtimes.len() < services {
        let Some(runtime) = accepting.recv().await else {
            tracing::error!("a listener ended before it accepted anything");
            return;
        };
        runtimes.push(runtime);
    }
    tracing::info!("ready: every listener accepts connections");
    succeed(succession).await;
    let Some(patience) = sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero())
    else {
        return;
    };
    // Three times as often as needed: one that is late is no death.
    let often = patience.checked_div(3).unwrap_or(patience);
    let mut ticks = tokio::time::interval(often.max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        if !all_run(&runtimes).await {
            return;
        }
        tell(NotifyState::Watchdog);
    }
}

/// Waits until every runtime has run a task; `false` when one has ended.
async fn all_run(runtimes: &[Handle]) -> bool {
    for runtime in runtimes {
        if runtime.spawn(async {}).await.is_err() {
            return false;
        }
    }
    true
}

/// Says that the wall is ready.
pub(super) fn ready() {
    tell(NotifyState::Ready);
}

/// Says that another process is the wall. The last word of this one.
pub(super) fn hand_over_to(pid: u32) {
    tell(NotifyState::MainPid(pid));
    IS_REPLACED.store(true, Ordering::SeqCst);
}

/// Says that the wall is ending.
pub(super) fn stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    if IS_REPLACED.load(Ordering::SeqCst) {
        return;
    }
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager cannot be told how the wall does");
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::mpsc;
    use std::task::{Context, Waker};

    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn a_runtime_that_hangs_keeps_the_watchdog_from_being_told_otherwise() {
        let well = Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let hanging = Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let (hangs, is_hanging) = mpsc::channel();
        let (release, until) = mpsc::channel::<()>();
        hanging.spawn(async move {
            hangs.send(()).unwrap();
            until.recv().unwrap();
        });
        is_hanging.recv().unwrap();
        let runtimes = [well.handle().clone(), hanging.handle().clone()];
        assert!(well.block_on(all_run(&runtimes[..1])));
        let mut both = pin!(all_run(&runtimes));
        // The one that is well has answered by then, and the other cannot have.
        for _ in 0..1000 {
            let mut context = Context::from_waker(Waker::noop());
            assert!(both.as_mut().poll(&mut context).is_pending());
            std::thread::yield_now();
        }
        release.send(()).unwrap();
        assert!(well.block_on(both));
    }

    #[test]
    fn a_runtime_that_has_ended_ends_the_watching() {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let ended = runtime.handle().clone();
        runtime.shutdown_background();
        let well = Builder::new_current_thread().build().unwrap();
        assert!(!well.block_on(all_run(&[ended])));
    }
}
