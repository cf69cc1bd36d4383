//! Old claims, a small batch at a time, in the transaction of whoever else writes.
//!
//! The pages of deleted rows are used for new ones, so a file that is pruned stops growing. It does not
//! shrink by itself: that would cost every write, and is what `VACUUM` of SQLite is for.

use rusqlite::{Connection, OptionalExtension, params};

use super::file::Place;
use super::rows;
use crate::clock::UnixSeconds;
use crate::ledger::LedgerError;
use crate::ledger::upkeep::{BATCH_ROWS, Batch, Cursor, over};

/// Of a claim that was made before `?1`: whether its row may go.
fn may_go() -> String {
    format!(
        "({} AND changed_at < ?1
          AND (state <> 'delivered' OR (valid_before < ?1 AND nonce NOT LIKE 'opaque:%'))
          AND NOT EXISTS (SELECT 1 FROM note WHERE note.claim = claim.id))",
        over()
    )
}

/// What [`prune`] would delete in all.
pub(super) fn prunable(
    connection: &Connection,
    place: &Place,
    end: UnixSeconds,
) -> Result<u64, LedgerError> {
    let sql = format!(
        "SELECT count(*) FROM claim WHERE claimed_at < ?1 AND {}",
        may_go()
    );
    connection
        .query_row(&sql, params![rows::stored(end)], |row| row.get::<_, i64>(0))
        .map(|count| u64::try_from(count).unwrap_or(0))
        .map_err(|cause| place.failed(cause))
}

/// Deletes what may go of the next rows after `from`, oldest first.
pub(super) fn prune(
    connection: &Connection,
    place: &Place,
    end: UnixSeconds,
    from: Cursor,
) -> Result<Batch, LedgerError> {
    let slice = format!(
        "SELECT claimed_at, id, {} FROM claim
         WHERE claimed_at < ?1 AND (claimed_at, id) > (?2, ?3)
         ORDER BY claimed_at, id LIMIT {BATCH_ROWS}",
        may_go()
    );
    let work = || -> rusqlite::Result<Batch> {
        let mut statement = connection.prepare_cached(&slice)?;
        let values = params![rows::stored(end), rows::stored(from.claimed_at), from.id];
        let seen = statement
            .query_map(values, |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get(2)?))
            })?
            .collect::<rusqlite::Result<Vec<(i64, i64, bool)>>>()?;
        let mut delete = connection.prepare_cached("DELETE FROM claim WHERE id = ?1")?;
        let mut batch = Batch::default();
        for (_, id, _) in seen.iter().filter(|(_, _, may_go)| *may_go) {
            let gone = delete.execute(params![id])?;
            batch.rows = batch
                .rows
                .saturating_add(u64::try_from(gone).unwrap_or(u64::MAX));
        }
        let is_full = u32::try_from(seen.len()).is_ok_and(|seen| seen >= BATCH_ROWS);
        batch.next = seen
            .last()
            .filter(|_| is_full)
            .map(|(claimed_at, id, _)| Cursor {
                claimed_at: UnixSeconds(u64::try_from(*claimed_at).unwrap_or(0)),
                id: *id,
            });
        Ok(batch)
    };
    work().map_err(|cause| place.failed(cause))
}

/// Empties the settle request in the next finished rows of older versions.
pub(super) fn compact(connection: &Connection, place: &Place) -> Result<Batch, LedgerError> {
    let next = "SELECT done_to, min(done_to + ?1, up_to), up_to FROM upkeep
        WHERE task = 'compact' AND done_to < up_to";
    let empty = format!(
        "UPDATE claim SET settle_request = ''
         WHERE id > ?1 AND id <= ?2 AND settle_request <> '' AND {}",
        over()
    );
    let work = || -> rusqlite::Result<Batch> {
        let ids = connection
            .prepare_cached(next)?
            .query_row(params![BATCH_ROWS], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get(2)?))
            })
            .optional()?;
        let Some((done_to, to_do, up_to)): Option<(i64, i64, i64)> = ids else {
            return Ok(Batch::default());
        };
        let emptied = connection
            .prepare_cached(&empty)?
            .execute(params![done_to, to_do])?;
        connection
            .prepare_cached("UPDATE upkeep SET done_to = ?1 WHERE task = 'compact'")?
            .execute(params![to_do])?;
        Ok(Batch {
            rows: u64::try_from(emptied).unwrap_or(u64::MAX),
            next: (to_do < up_to).then_some(Cursor {
                claimed_at: UnixSeconds(0),
                id: to_do,
            }),
        })
    };
    work().map_err(|cause| place.failed(cause))
}
