//! Asking a running wall to take over a changed configuration, or to be replaced, and its answer.
//!
//! What is done then is `app`'s business. Requests come in any number, from a signal, the control
//! socket or the admin API; they are served one after the other, and those that wait together get
//! one answer.

pub mod upgrade;
pub mod control;

use std::fmt;

use serde::Serialize;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::config::diagnostic::{Diagnostic, summary};
use crate::route::changes::Change;

/// So many requests wait at once; more wait for a place.
const WAITING_MAX: usize = 32;

/// What a reload came to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What it means for prices, the most alarming first.
    pub changes: Vec<Change>,
    /// What the operator should look at.
    pub warnings: Vec<Diagnostic>,
}

/// Why the old configuration stays.
#[derive(Clone, Debug, Error)]
pub enum ReloadError {
    /// The new one cannot be taken over; at least one of these is an error.
    #[error("{}", Listed(.0))]
    Refused(Vec<Diagnostic>),
    /// Another process takes the place of this one, and may have read the file already.
    #[error("the wall is being replaced by a new process; reload when that is over")]
    BeingReplaced,
    /// The wall is ending.
    #[error("the wall is ending")]
    Ending,
}

impl ReloadError {
    /// What is wrong, with places.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Refused(diagnostics) => diagnostics,
            Self::BeingReplaced | Self::Ending => &[],
        }
    }
}

struct Listed<'a>(&'a [Diagnostic]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in self.0 {
            write!(f, "{diagnostic}\n\n")?;
        }
        f.write_str(&summary(self.0))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for warning in &self.warnings {
            write!(f, "{warning}\n\n")?;
        }
        for change in &self.changes {
            writeln!(f, "{change}")?;
        }
        match self.changes.len() {
            0 => f.write_str("reloaded; nothing has changed that matters for prices"),
            1 => f.write_str("reloaded; 1 change"),
            n => write!(f, "reloaded; {n} changes"),
        }
    }
}

/// The answer to a request.
pub type Answer = Result<Report, ReloadError>;

/// Asks for reloads. Clones ask the same wall.
#[derive(Clone, Debug)]
pub struct Handle(mpsc::Sender<Option<oneshot::Sender<Answer>>>);

/// The other end of [`Handle`]s.
#[derive(Debug)]
pub struct Requests(mpsc::Receiver<Option<oneshot::Sender<Answer>>>);

/// Requests that are answered together.
#[derive(Debug)]
pub struct Batch(Vec<oneshot::Sender<Answer>>);

/// A handle and its other end.
#[must_use]
pub fn channel() -> (Handle, Requests) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Handle(sender), Requests(receiver))
}

impl Handle {
    /// Reads the configuration again and takes it over whole, or not at all. What is read is never
    /// older than this call.
    ///
    /// # Errors
    ///
    /// [`ReloadError`]: the old configuration stays.
    pub async fn reload(&self) -> Answer {
        let (sender, receiver) = oneshot::channel();
        let sent = self.0.send(Some(sender)).await;
        sent.map_err(|_| ReloadError::Ending)?;
        receiver.await.unwrap_or(Err(ReloadError::Ending))
    }

    /// The same for somebody who does not wait: the answer is in the log.
    pub fn nudge(&self) {
        // When there is no place, a reload that has not begun yet is waited for already.
        drop(self.0.try_send(None));
    }
}

impl Requests {
    /// All requests that wait, at least one; `None` when there is no handle any more.
    pub async fn next(&mut self) -> Option<Batch> {
        let mut batch = Batch(self.0.recv().await?.into_iter().collect());
        while let Ok(another) = self.0.try_recv() {
            batch.0.extend(another);
        }
        Some(batch)
    }
}

impl Batch {
    /// Answers them all.
    pub fn answer(self, answer: &Answer) {
        for asker in self.0 {
            // Who has gone away reads the log.
            drop(asker.send(answer.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_that_wait_together_get_one_answer() {
        let (handle, mut requests) = channel();
        for _ in 0..WAITING_MAX + 5 {
            handle.nudge();
        }
        assert!(requests.next().await.unwrap().0.is_empty());
        let askers: Vec<_> = (0..3)
            .map(|_| {
                let handle = handle.clone();
                tokio::spawn(async move { handle.reload().await })
            })
            .collect();
        while handle.0.capacity() > WAITING_MAX - 3 {
            tokio::task::yield_now().await;
        }
        let batch = requests.next().await.unwrap();
        assert_eq!(batch.0.len(), 3);
        batch.answer(&Err(ReloadError::Refused(vec![Diagnostic::error(
            "no-file", "b",
        )])));
        for asker in askers {
            let answer = asker.await.unwrap();
            assert_eq!(answer.unwrap_err().diagnostics()[0].code, "no-file");
        }
        drop(requests);
        assert!(matches!(handle.reload().await, Err(ReloadError::Ending)));
    }
}
