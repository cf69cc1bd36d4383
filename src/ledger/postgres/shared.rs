//! Responses that walls keep for one another: a table without a log, bounded by each wall for itself.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Core;
use super::claims::execute;
use crate::chain::PaymentKey;
use crate::ledger::{Fingerprint, LedgerError, SharedResponse};

/// The bytes that this wall has in the table, about: what it put there and has not expired.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_max: usize,
    spent: Mutex<Spent>,
}

#[derive(Debug, Default)]
struct Spent {
    bytes: usize,
    entries: VecDeque<(Instant, usize)>,
}

impl Budget {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
            spent: Mutex::default(),
        }
    }

    /// Takes `bytes` for `lifetime`, if there is room. Entries leave in the order they came.
    fn take(&self, bytes: usize, lifetime: Duration) -> bool {
        let now = Instant::now();
        let mut spent = self.spent.lock();
        while let Some((end, size)) = spent.entries.front().copied() {
            if end > now {
                break;
            }
            spent.entries.pop_front();
            spent.bytes = spent.bytes.saturating_sub(size);
        }
        let total = spent.bytes.saturating_add(bytes);
        let Some(end) = now
            .checked_add(lifetime)
            .filter(|_| total <= self.bytes_max)
        else {
            return false;
        };
        spent.bytes = total;
        spent.entries.push_back((end, bytes));
        true
    }
}

impl Core {
    pub(super) async fn share_response(&self, shared: &SharedResponse) -> Result<(), LedgerError> {
        if !self.budget.take(shared.bytes.len(), shared.lifetime) {
            return Ok(());
        }
        let sql = "INSERT INTO farewall.kept (payment, fingerprint, response, expires_at)
            VALUES ($1, $2, $3, clock_timestamp() + $4::bigint * interval '1 millisecond')
            ON CONFLICT (payment, fingerprint)
            DO UPDATE SET response = excluded.response, expires_at = excluded.expires_at";
        let lifetime = i64::try_from(shared.lifetime.as_millis()).unwrap_or(i64::MAX);
        let client = self.connection().await?;
        let (payment, fingerprint) = (shared.payment.0.as_slice(), shared.fingerprint.0.as_slice());
        execute(
            &client,
            sql,
            &[&payment, &fingerprint, &shared.bytes, &lifetime],
        )
        .await
        .map(drop)
        .map_err(|fault| self.place.failed(fault))
    }

    pub(super) async fn shared_response(
        &self,
        payment: PaymentKey,
        fingerprint: Fingerprint,
    ) -> Result<Option<SharedResponse>, LedgerError> {
        let sql = "SELECT response,
                (extract(epoch FROM expires_at - clock_timestamp()) * 1000)::bigint
            FROM farewall.kept
            WHERE payment = $1 AND fingerprint = $2 AND expires_at > clock_timestamp()";
        let failed = |cause: tokio_postgres::Error| self.place.failed(cause);
        let client = self.connection().await?;
        let statement = client.prepare_cached(sql).await.map_err(failed)?;
        let keys = (payment.0.as_slice(), fingerprint.0.as_slice());
        let row = client.query_opt(&statement, &[&keys.0, &keys.1]).await;
        let Some(row) = row.map_err(failed)? else {
            return Ok(None);
        };
        let left: i64 = row.try_get(1).map_err(failed)?;
        Ok(Some(SharedResponse {
            payment,
            fingerprint,
            bytes: row.try_get(0).map_err(failed)?,
            lifetime: Duration::from_millis(u64::try_from(left).unwrap_or(0)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_kept_than_the_budget_allows_at_one_time() {
        let budget = Budget::new(10);
        assert!(budget.take(6, Duration::ZERO));
        assert!(
            budget.take(10, Duration::from_secs(60)),
            "the first is over"
        );
        assert!(!budget.take(1, Duration::from_secs(60)));
    }
}
