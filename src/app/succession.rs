//! Taking the place of a wall that runs: its sockets, its ledger, its name with the service manager.
//!
//! That wall started this process and goes on serving until this one does. When it ends, or is ended, at
//! any moment, this one goes on alone; when this one fails, that one does.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::app::passing::{FORMAT, Line, Place, Word};
use crate::app::sockets::{Inherited, SocketError};
use crate::app::{StartError, manager};
use crate::clock::Clock;
use crate::config::settings::{LedgerSettings, Settings};
use crate::ledger::Ledger;
use crate::ledger::postgres::PostgresReader;
use crate::ledger::sqlite::presence::Presence;

/// How long the old wall may take to say the next word.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked whether the old wall has ended, once it hung up.
const LOOK: Duration = Duration::from_millis(20);

/// How long it takes to try again when the ledger fails.
const PAUSE: Duration = Duration::from_secs(1);

/// The wall whose place is taken.
#[derive(Debug)]
pub(super) struct Predecessor {
    line: Arc<Line>,
    /// That of its ledger file.
    lock: Option<OwnedFd>,
    /// Its number in the ledger file.
    wall: Option<i64>,
    /// Its ledger server.
    server: Option<String>,
}

/// Tells the old wall why this process gives up.
#[derive(Clone, Debug, Default)]
pub struct Reporter(Option<Arc<Line>>);

impl Reporter {
    /// Nothing happens where there is no old wall.
    pub fn failed(&self, why: &str) {
        if let Some(line) = &self.0 {
            // It hears of the end in any case.
            drop(line.say_failed(why));
        }
    }
}

impl Inherited {
    /// What the wall that started this process hands over on the standard input. To be called once,
    /// before anything else is opened.
    ///
    /// # Errors
    ///
    /// [`SocketError::NoPredecessor`], when nobody does.
    pub fn from_predecessor() -> Result<(Self, Reporter), SocketError> {
        receive().map_err(SocketError::NoPredecessor)
    }
}

fn receive() -> io::Result<(Inherited, Reporter)> {
    let line = Arc::new(Line::standard_input()?);
    let Word::Offer {
        format: FORMAT,
        places,
        wall,
        server,
    } = line.hear(Some(PATIENCE))?
    else {
        let why = "it is of a version that this one cannot replace";
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    };
    let mut inherited = Inherited::default();
    let mut lock = None;
    for place in places {
        let descriptor = line.take()?;
        match place {
            Place::Tcp(address) => {
                inherited.tcp.insert(address, descriptor.into());
            }
            Place::Unix(path) => {
                inherited.unix.insert(path, descriptor.into());
            }
            Place::LedgerLock => lock = Some(descriptor),
        }
    }
    inherited.predecessor = Some(Predecessor {
        line: Arc::clone(&line),
        lock,
        wall,
        server,
    });
    Ok((inherited, Reporter(Some(line))))
}

/// This process among the users of a ledger file; `None` for a server, which knows its walls itself.
pub(super) fn presence(
    settings: &Settings,
    predecessor: Option<&mut Predecessor>,
) -> Result<Option<Arc<Presence>>, StartError> {
    let present = match (&settings.ledger, predecessor) {
        (LedgerSettings::File(path), None) => Presence::alone(path)?,
        (LedgerSettings::File(path), Some(old)) => {
            let lock = old.lock.take().ok_or(StartError::OtherLedger)?;
            Presence::beside(path, lock)?
        }
        (LedgerSettings::Server(_), None) => return Ok(None),
        (LedgerSettings::Server(server), Some(old)) => {
            // A payment that one ledger knows would be new to the other.
            if old.server.as_deref() != Some(&*server.place) {
                return Err(StartError::OtherLedger);
            }
            // Its tables are not changed under a wall that works with them.
            PostgresReader::open(server, settings.server.ca_file.as_deref())?;
            return Ok(None);
        }
    };
    Ok(Some(Arc::new(present)))
}

/// Whether this process serves operators yet: the old wall does so until this one serves buyers.
pub(super) type Begun = watch::Receiver<bool>;

/// Takes the place of the old wall, as soon as every listener accepts.
pub(super) struct Succession {
    predecessor: Predecessor,
    begin: Arc<watch::Sender<bool>>,
    /// Whether the old wall lives.
    beside: Arc<AtomicBool>,
    presence: Option<Arc<Presence>>,
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    runtime: Handle,
}

/// What the parts of a wall know of a succession.
pub(super) struct Beside {
    pub(super) begin: Arc<watch::Sender<bool>>,
    pub(super) beside: Arc<AtomicBool>,
}

impl Beside {
    /// Whether there is a wall whose place is taken.
    pub(super) fn new(is_successor: bool) -> Self {
        Self {
            begin: Arc::new(watch::Sender::new(!is_successor)),
            beside: Arc::new(AtomicBool::new(is_successor)),
        }
    }
}

impl Succession {
    pub(super) fn new(
        predecessor: Predecessor,
        state: &Beside,
        presence: Option<Arc<Presence>>,
        (ledger, clock): (&Arc<dyn Ledger>, &Arc<dyn Clock>),
        runtime: Handle,
    ) -> Self {
        Self {
            predecessor,
            begin: Arc::clone(&state.begin),
            beside: Arc::clone(&state.beside),
            presence,
            ledger: Arc::clone(ledger),
            clock: Arc::clone(clock),
            runtime,
        }
    }

    /// Blocks until this process is the wall; what the old one leaves behind is seen to afterwards.
    pub(super) fn take_over(self) {
        match self.agree() {
            Ok(()) => tracing::info!("took the place of the wall before this one"),
            // Either it has ended, or it ends this process.
            Err(error) => {
                tracing::warn!(%error, "the wall before this one broke off; going on without it");
            }
        }
        self.begin.send_replace(true);
        std::thread::spawn(move || self.outlive());
    }

    fn agree(&self) -> io::Result<()> {
        let line = &self.predecessor.line;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        line.say(&Word::Ready { version })?;
        expect(&line.hear(Some(PATIENCE))?, |word| matches!(word, Word::Go))?;
        self.begin.send_replace(true);
        line.say(&Word::Serving)?;
        expect(&line.hear(Some(PATIENCE))?, |word| {
            matches!(word, Word::Main)
        })
    }

    /// Waits for the end of the old wall, and gives back what it still had in hand.
    fn outlive(self) {
        while self.predecessor.line.hear(None).is_ok() {}
        if let (Some(presence), Some(wall)) = (&self.presence, self.predecessor.wall) {
            // It hung up in the middle of ending: its locks may be let go of a moment later.
            while !presence.has_ended(wall) {
                std::thread::sleep(LOOK);
            }
            loop {
                let given_back = self.ledger.release_abandoned(self.clock.now());
                match self.runtime.block_on(given_back) {
                    Ok(0) => break,
                    Ok(released) => {
                        tracing::warn!(
                            released,
                            "claims of the wall before this one were given back; \
                             nothing was charged for them"
                        );
                        break;
                    }
                    Err(error) => {
                        tracing::error!(%error, "cannot give back what the wall before this one held");
                        std::thread::sleep(PAUSE);
                    }
                }
            }
            presence.set_company(false);
        }
        self.beside.store(false, Ordering::SeqCst);
        tracing::info!("the wall before this one has ended");
    }
}

fn expect(word: &Word, is_expected: impl FnOnce(&Word) -> bool) -> io::Result<()> {
    match is_expected(word) {
        true => Ok(()),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// For the service manager: this process looks after the service from now on.
pub(super) async fn succeed(succession: Option<Succession>) {
    if let Some(succession) = succession {
        let taken = tokio::task::spawn_blocking(|| succession.take_over());
        if taken.await.is_err() {
            tracing::error!("taking the place of the wall before this one broke off");
        }
    }
    manager::ready();
}
