//! Replacing this wall by a new process: a new version, or a configuration that needs a restart.
//!
//! The new process is given the sockets and the lock of the ledger, and opens everything else itself. Not
//! before it accepts connections does this one stop doing so; then it finishes what it has begun, and ends.
//! Whatever goes wrong before that changes nothing here.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::retry_on_intr;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

use crate::app::manager;
use crate::app::passing::{FORMAT, Line, Place, Word};
use crate::clock::Clock;
use crate::ledger::Ledger;
use crate::ledger::sqlite::presence::Presence;
use crate::reload::upgrade::{Orders, Replaced, UpgradeError};

/// How long the new process may take until it accepts connections: it asks facilitators meanwhile.
const START: Duration = Duration::from_secs(60);

/// How long it may take to answer after that.
const ANSWER: Duration = Duration::from_secs(10);

/// How often it is tried to give back what a new process that failed had claimed, and the time between.
const GIVING_BACK_MAX: usize = 10;
const PAUSE: Duration = Duration::from_secs(1);

/// What is handed over.
#[derive(Debug, Default)]
pub(super) struct Kit {
    pub(super) places: Vec<(Place, OwnedFd)>,
    /// The ledger server, if that is the ledger.
    pub(super) server: Option<String>,
}

#[derive(Debug, Default)]
struct Progress {
    /// `None` once this wall stops accepting, for whatever reason.
    kit: Option<Kit>,
    /// The process that is starting.
    child: Option<Child>,
    /// Kept open: its end tells the new wall that this one has ended.
    line: Option<Line>,
}

/// How far it is. Shared with what ends the process.
#[derive(Clone, Debug)]
pub(super) struct Upgrade {
    progress: Arc<Mutex<Progress>>,
    retired: Arc<watch::Sender<bool>>,
    under_way: Arc<AtomicBool>,
    /// Whether the process that took the place of this one was lost while this one still finishes.
    lost: Arc<AtomicBool>,
}

impl Upgrade {
    pub(super) fn new(kit: Kit) -> Self {
        let progress = Progress {
            kit: Some(kit),
            ..Progress::default()
        };
        Self {
            progress: Arc::new(Mutex::new(progress)),
            retired: Arc::new(watch::Sender::new(false)),
            under_way: Arc::new(AtomicBool::new(false)),
            lost: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Whether nobody is the wall: the process that took the place of this one has crashed.
    pub(super) fn is_orphaned(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Looks after the new process for as long as this one lives. Blocks.
    ///
    /// Its end is looked at and not taken note of (reaped): this process ends soon, and then the service
    /// manager inherits what is left, learns that the main process failed, and starts the service again.
    fn look_after(&self, pid: Pid) {
        let end = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let Ok(Some(ended)) = retry_on_intr(|| waitid(WaitId::Pid(pid), end)) else {
            return;
        };
        let pid = pid.as_raw_nonzero();
        if ended.exit_status() == Some(0) {
            tracing::info!(pid, "the process that took the place of this one has ended");
            return;
        }
        let (code, signal) = (ended.exit_status(), ended.terminating_signal());
        tracing::error!(
            pid,
            code,
            signal,
            "the process that took the place of this one was lost; nobody accepts connections"
        );
        self.lost.store(true, Ordering::SeqCst);
    }

    /// Whether another process has taken the place of this one.
    pub(super) fn retired(&self) -> watch::Receiver<bool> {
        self.retired.subscribe()
    }

    /// Set while this wall is being replaced, and afterwards.
    pub(super) fn under_way(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.under_way)
    }

    /// This wall stops accepting. A process that is about to take its place is ended: who asks for the
    /// end of the wall means both.
    pub(super) fn accepting_ends(&self) {
        let mut progress = self.progress.lock();
        progress.kit = None;
        if let Some(child) = &mut progress.child {
            // When it is gone already, all the better.
            drop(child.kill());
        }
    }
}

/// Replaces this wall.
pub(super) struct Upgrader {
    pub(super) upgrade: Upgrade,
    /// Where the configuration is read from; `None` when it came from nowhere.
    pub(super) config: Option<PathBuf>,
    pub(super) presence: Option<Arc<Presence>>,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) clock: Arc<dyn Clock>,
    /// Whether the wall before this one still ends.
    pub(super) beside: Arc<AtomicBool>,
    /// What answers operators, and leaves that to the new process.
    pub(super) operators: Vec<AbortHandle>,
    pub(super) starter: Arc<Starter>,
    pub(super) runtime: Handle,
}

/// A thread for starting processes: they inherit from the thread that starts them how nice it is, and those that
/// do payments are nicer than a wall should be.
pub(super) struct Starter(SyncSender<Work>);

type Work = Box<dyn FnOnce() + Send>;

impl Starter {
    /// Must be called by a thread that is as nice as the processes are to be.
    pub(super) fn new() -> io::Result<Self> {
        let (orders, arriving) = sync_channel::<Work>(1);
        let work = move || arriving.into_iter().for_each(|work: Work| work());
        let thread = std::thread::Builder::new().name("starter".to_owned());
        thread.spawn(work).map(|_| Self(orders))
    }

    /// Does `work` in that thread; `None` when that has ended.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (to, done) = oneshot::channel();
        let runtime = Handle::current();
        let work = move || {
            let _entered = runtime.enter();
            drop(to.send(work()));
        };
        self.0.send(Box::new(work)).ok()?;
        done.await.ok()
    }
}

/// Serves orders, one after the other.
pub(super) async fn run(upgrader: Upgrader, mut orders: Orders) {
    let program = program();
    let upgrader = Arc::new(upgrader);
    while let Some(order) = orders.next().await {
        let (upgrader, default) = (Arc::clone(&upgrader), program.clone());
        let named = order.program.clone();
        let starter = Arc::clone(&upgrader.starter);
        let work = starter.run(move || match named.map_or(default, Ok) {
            Ok(program) => upgrader.replace(&program),
            Err(kind) => Err(UpgradeError::NoProgram(kind)),
        });
        let answer = work.await.unwrap_or(Err(UpgradeError::Ending));
        match &answer {
            Ok(replaced) => tracing::info!(
                pid = replaced.pid,
                version = replaced.version,
                "another process has taken the place of this one, which finishes what it has begun"
            ),
            Err(error) => tracing::error!(%error, "not replaced; this wall goes on"),
        }
        order.answer(answer);
    }
}

/// What this process was started as: what stands there at the time of an upgrade is the new version.
fn program() -> Result<PathBuf, io::ErrorKind> {
    let named = std::env::args_os().next().map(PathBuf::from);
    let has_place = |named: &PathBuf| named.components().count() > 1;
    let found = match named.filter(has_place) {
        // Not resolved: a link may lead to the new version by then.
        Some(named) => std::path::absolute(named),
        None => on_the_path().map_or_else(std::env::current_exe, Ok),
    };
    found.map_err(|error| error.kind())
}

/// Where a shell, or a service manager, finds what was started by its name alone.
fn on_the_path() -> Option<PathBuf> {
    let name = std::env::args_os().next()?;
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders)
        .map(|folder| folder.join(&name))
        .find(|found| found.is_absolute() && found.is_file())
}

impl Upgrader {
    fn replace(&self, program: &Path) -> Result<Replaced, UpgradeError> {
        let Some(config) = &self.config else {
            return Err(UpgradeError::NoFile);
        };
        if self.upgrade.progress.lock().kit.is_none() {
            return Err(UpgradeError::Ending);
        }
        if std::process::id() == 1 {
            return Err(UpgradeError::FirstProcess);
        }
        if self.beside.load(Ordering::SeqCst) {
            return Err(UpgradeError::NotOver);
        }
        self.upgrade.under_way.store(true, Ordering::SeqCst);
        if let Some(presence) = &self.presence {
            // Before anybody else writes to the ledger.
            presence.set_company(true);
        }
        let replaced = self.start(program, config).and_then(|line| {
            let version = self.await_ready(&line)?;
            self.retire(line).map(|pid| Replaced { pid, version })
        });
        replaced.inspect_err(|_| self.go_on())
    }

    /// Starts the new process, and hands over what it needs.
    fn start(&self, program: &Path, config: &Path) -> Result<Line, UpgradeError> {
        let (line, theirs) = Line::pair().map_err(|e| UpgradeError::Broken(e.kind()))?;
        let mut progress = self.upgrade.progress.lock();
        let Progress { kit, child, .. } = &mut *progress;
        let Some(kit) = kit else {
            return Err(UpgradeError::Ending);
        };
        let started = Command::new(program)
            .args(["run", "--take-over", "--config"])
            .arg(config)
            .stdin(Stdio::from(theirs))
            // These were for this process.
            .env_remove("WATCHDOG_PID")
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_FDNAMES")
            .spawn();
        *child = Some(started.map_err(|cause| UpgradeError::Start {
            program: program.to_owned(),
            cause: cause.kind(),
        })?);
        let offer = Word::Offer {
            format: FORMAT,
            places: kit.places.iter().map(|(place, _)| place.clone()).collect(),
            wall: self.presence.as_ref().map(|wall| wall.id()),
            server: kit.server.clone(),
        };
        let given = line
            .say(&offer)
            .and_then(|()| kit.places.iter().try_for_each(|(_, fd)| line.give(fd)));
        given.map_err(|error| UpgradeError::Broken(error.kind()))?;
        Ok(line)
    }

    /// Waits until the new process accepts connections, and then until it answers operators.
    fn await_ready(&self, line: &Line) -> Result<String, UpgradeError> {
        let heard = |patience| match line.hear(Some(patience)) {
            Ok(Word::Failed { why }) => Err(UpgradeError::Refused(why)),
            Ok(word) => Ok(word),
            Err(error) => Err(UpgradeError::Broken(error.kind())),
        };
        let Word::Ready { version } = heard(START)? else {
            return Err(UpgradeError::Broken(io::ErrorKind::InvalidData));
        };
        let said = line.say(&Word::Go);
        said.map_err(|error| UpgradeError::Broken(error.kind()))?;
        match heard(ANSWER)? {
            Word::Serving => Ok(version),
            Word::Offer { .. }
            | Word::Ready { .. }
            | Word::Failed { .. }
            | Word::Go
            | Word::Main => Err(UpgradeError::Broken(io::ErrorKind::InvalidData)),
        }
    }

    /// The point of no return.
    fn retire(&self, line: Line) -> Result<u32, UpgradeError> {
        let mut progress = self.upgrade.progress.lock();
        let Progress { kit, child, .. } = &mut *progress;
        let (Some(_), Some(new)) = (kit.take(), child.take()) else {
            return Err(UpgradeError::Ending);
        };
        let pid = new.id();
        // First the service manager: what a process says that it does not know is not heard.
        manager::hand_over_to(pid);
        // When that one is gone by now, it is a crash of the wall.
        drop(line.say(&Word::Main));
        progress.line = Some(line);
        drop(progress);
        for operator in &self.operators {
            operator.abort();
        }
        self.upgrade.retired.send_replace(true);
        let (upgrade, new) = (self.upgrade.clone(), Pid::from_child(&new));
        std::thread::spawn(move || upgrade.look_after(new));
        Ok(pid)
    }

    /// As if nothing had been: ends the new process, and gives back what it had claimed.
    fn go_on(&self) {
        let child = self.upgrade.progress.lock().child.take();
        if let Some(mut child) = child {
            // It may have ended already.
            drop(child.kill());
            if let Err(error) = child.wait() {
                tracing::error!(%error, "cannot tell whether the new process has ended");
                return;
            }
        }
        for _ in 0..GIVING_BACK_MAX {
            let given_back = self.ledger.release_abandoned(self.clock.now());
            match self.runtime.block_on(given_back) {
                Ok(0) => break,
                Ok(released) => {
                    tracing::warn!(released, "claims of the new process were given back");
                    break;
                }
                Err(error) => tracing::error!(%error, "claims of the new process stay for now"),
            }
            std::thread::sleep(PAUSE);
        }
        if let Some(presence) = &self.presence {
            presence.set_company(false);
        }
        self.upgrade.under_way.store(false, Ordering::SeqCst);
    }
}
