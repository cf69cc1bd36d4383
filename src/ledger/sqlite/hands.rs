//! In whose hands a claim is, while a wall is being replaced and after one has ended.
//!
//! What a process that lives has in hand, no other touches: neither is a claim given back, nor a
//! settlement asked about, nor a debt collected twice at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::file::Place;
use super::presence::{Presence, is_gone, one_name};
use super::rows;
use crate::clock::UnixSeconds;
use crate::ledger::{ClaimId, LedgerError};

/// The reason of claims that a crash or a stop left behind.
const WALL_RESTARTED: &str = "wall_restarted";
/// The same, when another process went on meanwhile.
const WALL_LOST: &str = "wall_lost";

/// This process among those that use the ledger.
pub(super) struct Hands {
    ledger: PathBuf,
    place: Place,
    presence: Option<Arc<Presence>>,
    /// The newest claim of earlier processes.
    last_of_others: i64,
}

impl Hands {
    pub(super) fn of(
        connection: &Connection,
        (ledger, place): (&Path, &Place),
        presence: Option<Arc<Presence>>,
    ) -> Result<Self, LedgerError> {
        let newest = "SELECT coalesce(max(id), 0) FROM claim";
        let last_of_others = connection
            .query_row(newest, [], |row| row.get(0))
            .map_err(|cause| place.failed(cause))?;
        Ok(Self {
            ledger: one_name(ledger),
            place: place.clone(),
            presence,
            last_of_others,
        })
    }

    /// The number that new claims get; none where the process is no wall.
    pub(super) fn own(&self) -> Option<i64> {
        self.presence.as_ref().map(|wall| wall.id())
    }

    pub(super) fn has_company(&self) -> bool {
        self.presence
            .as_ref()
            .is_some_and(|wall| wall.has_company())
    }

    /// Whether nobody who lives has what is in the hands of this number.
    fn is_free(&self, wall: Option<i64>) -> bool {
        wall.is_none_or(|wall| is_gone(&self.ledger, wall))
    }

    /// The numbers of processes that have ended and have something in this state, as a list in SQL.
    fn gone(&self, connection: &Connection, state: &str) -> rusqlite::Result<String> {
        let sql = "SELECT DISTINCT wall FROM claim WHERE state = ?1 AND wall IS NOT NULL";
        let mut statement = connection.prepare_cached(sql)?;
        let walls = statement
            .query_map(params![state], |row| row.get::<_, i64>(0))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let others = walls.into_iter().filter(|wall| Some(*wall) != self.own());
        let gone = others.filter(|wall| self.is_free(Some(*wall)));
        let gone: Vec<_> = gone.map(|wall| wall.to_string()).collect();
        Ok(gone.join(","))
    }

    /// [`crate::ledger::Ledger::release_abandoned`].
    pub(super) fn release_abandoned(
        &self,
        connection: &Connection,
        now: UnixSeconds,
    ) -> Result<u64, LedgerError> {
        let reason = match self.has_company() {
            true => WALL_LOST,
            false => WALL_RESTARTED,
        };
        let work = || {
            let gone = self.gone(connection, "claimed")?;
            let sql = format!(
                "UPDATE claim SET state = 'released', reason = ?1, changed_at = ?2,
                    settle_request = ''
                 WHERE state = 'claimed' AND (wall IN ({gone}) OR (wall IS NULL AND id <= ?3))"
            );
            let values = params![reason, rows::stored(now), self.last_of_others];
            connection.execute(&sql, values)
        };
        self.counted(work())
    }

    /// Takes the unknown settlements of processes that have ended in hand.
    pub(super) fn adopt(&self, connection: &Connection) -> Result<u64, LedgerError> {
        let work = || {
            let gone = self.gone(connection, "settling")?;
            let sql = format!(
                "UPDATE claim SET wall = ?1
                 WHERE state = 'settling' AND (wall IN ({gone}) OR wall IS NULL)"
            );
            connection.execute(&sql, params![self.own()])
        };
        self.counted(work())
    }

    /// Takes a debt in hand. `false`: another process has it, or it is none any more.
    pub(super) fn take_owed(
        &self,
        connection: &Connection,
        id: ClaimId,
    ) -> Result<bool, LedgerError> {
        let work = || {
            let sql = "SELECT wall FROM claim WHERE id = ?1 AND state = 'settled'";
            let found: Option<Option<i64>> = connection
                .prepare_cached(sql)?
                .query_row(params![id.0], |row| row.get(0))
                .optional()?;
            let Some(wall) = found.filter(|wall| *wall == self.own() || self.is_free(*wall)) else {
                return Ok(false);
            };
            if wall != self.own() {
                connection
                    .prepare_cached("UPDATE claim SET wall = ?2 WHERE id = ?1")?
                    .execute(params![id.0, self.own()])?;
            }
            Ok(true)
        };
        work().map_err(|cause: rusqlite::Error| self.place.failed(cause))
    }

    /// Gives a debt out of hand: whoever is asked for it next may take it.
    pub(super) fn let_go(&self, connection: &Connection, id: ClaimId) -> Result<(), LedgerError> {
        let sql = "UPDATE claim SET wall = NULL WHERE id = ?1 AND state = 'settled' AND wall = ?2";
        connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(params![id.0, self.own()]))
            .map(|_| ())
            .map_err(|cause| self.place.failed(cause))
    }

    fn counted(&self, rows: rusqlite::Result<usize>) -> Result<u64, LedgerError> {
        rows.map(|rows| u64::try_from(rows).unwrap_or(u64::MAX))
            .map_err(|cause| self.place.failed(cause))
    }
}
