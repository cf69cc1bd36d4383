//! What can be wrong with a facilitator, on demand: a script of misdeeds that tests write.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// At most so many entries wait in a script; further ones are refused.
pub const SCRIPT_ENTRIES_MAX: usize = 256;

/// One entry of the script: what to do, where, how often.
///
/// As JSON: `{"kind": "hang", "ms": 5000, "scope": "settle", "times": 2}`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Misbehaviour {
    /// What to do.
    #[serde(flatten)]
    pub kind: Misdeed,
    /// Where; default both. A misdeed that only `/settle` can commit is never committed elsewhere.
    #[serde(default)]
    pub scope: Scope,
    /// How many calls it befalls; default 1.
    #[serde(default = "once")]
    pub times: u64,
}

/// What a facilitator can do wrong.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Misdeed {
    /// Does nothing for so long, then answers 500. Nothing is verified or settled.
    Hang {
        /// Milliseconds.
        ms: u64,
    },
    /// Answers this status with a text. Nothing is verified or settled.
    Status {
        /// 100 to 999; anything else is 500.
        status: u16,
    },
    /// Answers 200 with a web page. Nothing is verified or settled.
    Junk,
    /// Does its work, then sends the answer in two halves with this pause between them.
    SlowBody {
        /// Milliseconds.
        ms: u64,
    },
    /// `/settle`: settles, then breaks the connection in the middle of the answer.
    LoseAnswerAfterSettling,
    /// `/settle`: settles, then says nothing for so long, then answers 500.
    HangAfterSettling {
        /// Milliseconds.
        ms: u64,
    },
    /// `/settle`: settles, then claims that it failed.
    LieRefusedAfterSettling,
    /// `/settle`: settles nothing, and claims success without a transaction.
    SuccessWithoutTransaction,
    /// `/settle`: settles, and says `settlement_pending` with the transaction. A later call with the
    /// same signature gets the success.
    Pending,
    /// `/verify`: says no, for this reason.
    RejectVerify {
        /// Reason code.
        reason: String,
    },
    /// `/settle`: says no, for this reason. Nothing is settled.
    RejectSettle {
        /// Reason code.
        reason: String,
    },
}

/// Which calls a misdeed befalls.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// `/verify`.
    Verify,
    /// `/settle`.
    Settle,
    /// Either.
    #[default]
    Both,
}

/// The two calls.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Call {
    Verify,
    Settle,
}

/// Entries in the order in which they were written; the first that fits a call befalls it.
#[derive(Debug, Default)]
pub(super) struct Script(VecDeque<Misbehaviour>);

impl Script {
    /// Puts an entry at the end; `false` when the script is full.
    pub(super) fn add(&mut self, entry: Misbehaviour) -> bool {
        let has_room = self.0.len() < SCRIPT_ENTRIES_MAX;
        if has_room && entry.times > 0 {
            self.0.push_back(entry);
        }
        has_room
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// What befalls this call, counted.
    pub(super) fn next(&mut self, call: Call) -> Option<Misdeed> {
        let at = self.0.iter().position(|entry| entry.befalls(call))?;
        let entry = self.0.get_mut(at)?;
        entry.times = entry.times.saturating_sub(1);
        let kind = entry.kind.clone();
        if entry.times == 0 {
            self.0.remove(at);
        }
        Some(kind)
    }
}

impl Misbehaviour {
    /// `kind` wherever it can be committed, once.
    #[must_use]
    pub const fn once(kind: Misdeed) -> Self {
        Self::times(kind, 1)
    }

    /// `kind` wherever it can be committed, `times` times.
    #[must_use]
    pub const fn times(kind: Misdeed, times: u64) -> Self {
        let scope = Scope::Both;
        Self { kind, scope, times }
    }

    /// The same, for these calls only.
    #[must_use]
    pub const fn only(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    fn befalls(&self, call: Call) -> bool {
        let in_scope = match self.scope {
            Scope::Verify => call == Call::Verify,
            Scope::Settle => call == Call::Settle,
            Scope::Both => true,
        };
        let possible = match self.kind {
            Misdeed::Hang { .. }
            | Misdeed::Status { .. }
            | Misdeed::Junk
            | Misdeed::SlowBody { .. } => true,
            Misdeed::RejectVerify { .. } => call == Call::Verify,
            Misdeed::LoseAnswerAfterSettling
            | Misdeed::HangAfterSettling { .. }
            | Misdeed::LieRefusedAfterSettling
            | Misdeed::SuccessWithoutTransaction
            | Misdeed::Pending
            | Misdeed::RejectSettle { .. } => call == Call::Settle,
        };
        in_scope && possible
    }
}

const fn once() -> u64 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_fitting_entry_befalls_a_call_as_often_as_it_says() {
        let mut script = Script::default();
        let status = Misdeed::Status { status: 503 };
        script.add(Misbehaviour::times(Misdeed::Pending, 2));
        script.add(Misbehaviour::once(status.clone()).only(Scope::Verify));
        script.add(Misbehaviour::once(Misdeed::Junk));
        assert_eq!(script.next(Call::Verify), Some(status));
        assert_eq!(script.next(Call::Settle), Some(Misdeed::Pending));
        assert_eq!(script.next(Call::Verify), Some(Misdeed::Junk));
        assert_eq!(script.next(Call::Settle), Some(Misdeed::Pending));
        assert_eq!(script.next(Call::Settle), None);
    }

    #[test]
    fn an_entry_is_read_from_json_with_defaults() {
        let read = |json| serde_json::from_value::<Misbehaviour>(json);
        assert_eq!(
            read(json!({"kind": "lose_answer_after_settling"})).unwrap(),
            Misbehaviour::once(Misdeed::LoseAnswerAfterSettling)
        );
        assert_eq!(
            read(json!({"kind": "hang", "ms": 5, "scope": "settle", "times": 2})).unwrap(),
            Misbehaviour::times(Misdeed::Hang { ms: 5 }, 2).only(Scope::Settle)
        );
        assert!(read(json!({"kind": "steal"})).is_err());
    }

    #[test]
    fn a_full_script_takes_no_more() {
        let mut script = Script::default();
        for _ in 0..SCRIPT_ENTRIES_MAX {
            assert!(script.add(Misbehaviour::once(Misdeed::Junk)));
        }
        assert!(!script.add(Misbehaviour::once(Misdeed::Junk)));
    }
}
