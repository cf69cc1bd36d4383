//! Asking a running wall to be replaced by a new process, and its answer.

use std::io::ErrorKind;
use std::path::PathBuf;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

/// So many orders wait at once.
const WAITING_MAX: usize = 4;

/// What took the place of the wall.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Replaced {
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
}

/// Why the wall was not replaced. It goes on as before.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UpgradeError {
    /// The wall is ending, or was replaced already.
    #[error("this wall is ending")]
    Ending,
    /// The wall before this one still finishes its requests.
    #[error(
        "the upgrade before is not over: the process that was replaced still finishes requests"
    )]
    NotOver,
    /// The process with number 1 takes its machine or container with it when it ends.
    #[error(
        "the first process of a machine or container cannot be replaced; start another container"
    )]
    FirstProcess,
    /// There is no file to read.
    #[error("this wall was not started from a file")]
    NoFile,
    /// Where the program is cannot be found out.
    #[error("cannot tell where the program is ({0}); name it with --program")]
    NoProgram(ErrorKind),
    /// The program cannot be started.
    #[error("cannot start {}: {cause}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        cause: ErrorKind,
    },
    /// The new process says why it does not start.
    #[error("the new process does not start:\n{0}")]
    Refused(String),
    /// The new process ended, or said nothing in time.
    #[error("the new process broke off ({0}); its log says more")]
    Broken(ErrorKind),
    /// Too many asked.
    #[error("too many upgrades are waiting")]
    Busy,
}

/// One order.
#[derive(Debug)]
pub struct Order {
    /// The program to start; the one that the wall was started as, when `None`.
    pub program: Option<PathBuf>,
    answer: Option<oneshot::Sender<Result<Replaced, UpgradeError>>>,
}

impl Order {
    /// Answers it. Who has gone away reads the log.
    pub fn answer(self, answer: Result<Replaced, UpgradeError>) {
        if let Some(asker) = self.answer {
            drop(asker.send(answer));
        }
    }
}

/// Asks for upgrades. Clones ask the same wall.
#[derive(Clone, Debug)]
pub struct Upgrades(mpsc::Sender<Order>);

/// The other end of [`Upgrades`].
#[derive(Debug)]
pub struct Orders(mpsc::Receiver<Order>);

/// A handle and its other end.
#[must_use]
pub fn channel() -> (Upgrades, Orders) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Upgrades(sender), Orders(receiver))
}

impl Upgrades {
    /// Starts the program as a new process that takes the place of this one.
    ///
    /// # Errors
    ///
    /// [`UpgradeError`]: this wall goes on.
    pub async fn replace(&self, program: Option<PathBuf>) -> Result<Replaced, UpgradeError> {
        let (sender, receiver) = oneshot::channel();
        let answer = Some(sender);
        let order = Order { program, answer };
        self.0.try_send(order).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => UpgradeError::Busy,
            mpsc::error::TrySendError::Closed(_) => UpgradeError::Ending,
        })?;
        receiver.await.unwrap_or(Err(UpgradeError::Ending))
    }

    /// The same for somebody who does not wait: the answer is in the log.
    pub fn nudge(&self) {
        let order = Order {
            program: None,
            answer: None,
        };
        // When there is no place, some wait already.
        drop(self.0.try_send(order));
    }
}

impl Orders {
    /// The next order; `None` when there is no handle any more.
    pub async fn next(&mut self) -> Option<Order> {
        self.0.recv().await
    }
}
