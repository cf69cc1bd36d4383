//! How the process ends: requests in flight are finished within a limit, settlements are recorded,
//! and who signals again ends it sooner.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::server::{ExecutionPhase, ShutdownSignal, ShutdownSignalWatch};
use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::Receiver;
use tokio::sync::watch;

use crate::app::upgrade::Upgrade;
use crate::app::{StartError, manager};
use crate::clock::{Clock, SystemClock};
use crate::gate::Settler;
use crate::ledger::sqlite::presence::Presence;
use crate::ledger::{Filter, Ledger, LedgerError, Move};
use crate::otlp::Spans;
use crate::proxy::Handshakes;
use crate::settlement::State;

/// How long, after the last request, settlements in flight may take before the process ends.
const SETTLEMENTS_GRACE: Duration = Duration::from_secs(75);

/// How long a wall that ends serves who has connected already, but said nothing yet: hanging up on them
/// would cost them a request.
const LINGER: Duration = Duration::from_millis(300);

/// How long a wall that ends waits for TLS handshakes that had begun: what follows one is a request.
const HANDSHAKES: Duration = Duration::from_secs(10);

/// How often it is looked whether all is done.
const TICK: Duration = Duration::from_millis(20);

/// Requests are finished; the first SIGTERM asks for that.
const FINISH: usize = 1;

/// Requests are cut off and settlements recorded; the first SIGINT asks for that.
const CUT_OFF: usize = 2;

/// What must be done before the process may end.
#[derive(Clone)]
pub(super) struct Ending {
    settler: Arc<Settler>,
    pub(super) ledger: Arc<dyn Ledger>,
    /// Requests under way.
    under_way: Arc<AtomicUsize>,
    /// TLS handshakes under way.
    handshakes: Handshakes,
    /// Traces that wait to be exported.
    spans: Option<Spans>,
    runtime: Handle,
    /// How far the signals so far have gone; beyond [`CUT_OFF`] nobody waits for anything.
    urgency: Arc<watch::Sender<usize>>,
    upgrade: Upgrade,
    /// This process among the users of a ledger file.
    presence: Option<Arc<Presence>>,
}

/// Tells pingora of the first signal, also of one that came before it listened, or that another process
/// has taken the place of this one. pingora's own upgrade, through a socket in `/tmp`, is not used.
struct FirstSignal {
    urgency: watch::Receiver<usize>,
    retired: watch::Receiver<bool>,
}

#[async_trait]
impl ShutdownSignalWatch for FirstSignal {
    async fn recv(&self) -> ShutdownSignal {
        let (mut urgency, mut retired) = (self.urgency.clone(), self.retired.clone());
        let asked = async move {
            // The sender lives as long as the process.
            let first = urgency.wait_for(|urgency| *urgency > 0).await;
            first.map_or(CUT_OFF, |first| *first)
        };
        let replaced = async move {
            if retired.wait_for(|retired| *retired).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            asked = asked => match asked {
                FINISH => ShutdownSignal::GracefulTerminate,
                _ => ShutdownSignal::FastShutdown,
            },
            () = replaced => ShutdownSignal::GracefulTerminate,
        }
    }
}

impl Ending {
    /// Nothing was signalled so far.
    pub(super) fn new(
        (settler, ledger): (Arc<Settler>, Arc<dyn Ledger>),
        (under_way, handshakes, spans): (Arc<AtomicUsize>, Handshakes, Option<Spans>),
        payments: &Runtime,
        upgrade: Upgrade,
        presence: Option<Arc<Presence>>,
    ) -> Self {
        Self {
            settler,
            ledger,
            under_way,
            handshakes,
            spans,
            runtime: payments.handle().clone(),
            urgency: Arc::new(watch::Sender::new(0)),
            upgrade,
            presence,
        }
    }

    /// Counts the signals, from now on.
    pub(super) fn hear_signals(&self) -> Result<(), StartError> {
        let _within = self.runtime.enter();
        let failed = |cause| StartError::Io {
            what: "cannot hear signals".to_owned(),
            cause,
        };
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut quit = signal(SignalKind::quit()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let this = self.clone();
        self.runtime.spawn(async move {
            loop {
                let least = tokio::select! {
                    _ = terminate.recv() => FINISH,
                    _ = quit.recv() => FINISH,
                    _ = interrupt.recv() => CUT_OFF,
                };
                let urgency = this.urgency().saturating_add(1).max(least);
                this.urgency.send_replace(urgency);
                if urgency > CUT_OFF {
                    // What is not recorded yet is on record as unknown, and found out at the next start.
                    tracing::warn!(
                        "ending at once; settlements under way are left to the next start"
                    );
                    std::process::exit(1);
                }
                tracing::info!(
                    again = urgency == CUT_OFF,
                    "asked to end; another signal ends it sooner"
                );
            }
        });
        Ok(())
    }

    fn urgency(&self) -> usize {
        *self.urgency.borrow()
    }

    /// For pingora.
    pub(super) fn first_signal(&self) -> Box<dyn ShutdownSignalWatch> {
        Box::new(FirstSignal {
            urgency: self.urgency.subscribe(),
            retired: self.upgrade.retired(),
        })
    }

    /// pingora sleeps through its whole grace period: ends the process as soon as nothing is under
    /// way, or when a second signal says that requests need not be finished.
    pub(super) fn watch(self, mut phase: Receiver<ExecutionPhase>) {
        std::thread::spawn(move || {
            while let Ok(now) = phase.blocking_recv() {
                if matches!(now, ExecutionPhase::ShutdownStarted) {
                    self.upgrade.accepting_ends();
                    manager::stopping();
                }
                if matches!(now, ExecutionPhase::ShutdownGracePeriod) {
                    self.end_early();
                }
            }
        });
    }

    fn end_early(&self) {
        let begun = Instant::now();
        let mut busy = begun;
        while self.urgency() < CUT_OFF && busy.elapsed() < LINGER {
            let shakes = self.handshakes.under_way() > 0 && begun.elapsed() < HANDSHAKES;
            if shakes || self.under_way() > 0 || self.settler.tasks() > 0 {
                busy = Instant::now();
            }
            std::thread::sleep(TICK);
        }
        if self.under_way() == 0 {
            tracing::info!("nothing is under way any more; ending");
        } else {
            tracing::warn!(
                requests = self.under_way(),
                "requests are cut off; those that were not settled are not charged"
            );
        }
        self.wait_for_settlements();
        if self.under_way() > 0
            && let Err(error) = self.runtime.block_on(self.give_back_claims())
        {
            tracing::warn!(%error, "claims are given back at the next start");
        }
        self.leave();
        std::process::exit(self.code());
    }

    /// 0, unless the process that took the place of this one is not there: then nobody is the wall, and
    /// whoever looks after this one should know.
    pub(super) fn code(&self) -> i32 {
        i32::from(self.upgrade.is_orphaned())
    }

    /// The last thing. A settlement that is still under way keeps what it has in hand until the process
    /// ends: another wall would ask for it a second time, and each would believe an answer of its own.
    pub(super) fn leave(&self) {
        if let Some(spans) = &self.spans {
            self.runtime.block_on(spans.flush());
        }
        if self.settler.tasks() > 0 {
            return;
        }
        self.runtime.block_on(self.ledger.leave());
        if let Some(presence) = &self.presence {
            presence.end();
        }
    }

    /// The claims of requests that are cut off: nothing will drop them. Walls that share a ledger, and
    /// the one that takes the place of this one, do it for one that has left.
    async fn give_back_claims(&self) -> Result<(), LedgerError> {
        if self.ledger.is_shared() {
            return Ok(());
        }
        let claimed = Filter {
            states: vec![State::Claimed],
            ..Filter::default()
        };
        for record in self.ledger.list(claimed).await? {
            let released = Move::Released {
                reason: "wall_ended".into(),
            };
            match self
                .ledger
                .advance(record.id, released, SystemClock.now())
                .await
            {
                // It was settled meanwhile, or given back.
                Ok(()) | Err(LedgerError::IllegalMove { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    /// Until all is on record, within a limit. No settlement begins any more: the process would end
    /// in the middle of it.
    pub(super) fn wait_for_settlements(&self) {
        self.settler.close();
        let since = Instant::now();
        while self.settler.tasks() > 0 && since.elapsed() < SETTLEMENTS_GRACE {
            std::thread::sleep(TICK);
        }
    }
}
