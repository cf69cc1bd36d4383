//! What was offered before the configuration changed: a challenge is good for as long as it says.
//!
//! Only asked when a proof does not answer what is offered now. Only the price is a former one:
//! whether the request is sold at all, and where it goes, is decided by the rules in force.

use std::sync::Arc;

use crate::clock::UnixSeconds;
use crate::proof::verify::Verifier;
use crate::route::price::{Offer, Quote};
use crate::route::{Access, RequestLine, RouteTable};

/// So many former tables are remembered; the oldest is forgotten first.
pub(super) const TABLES_MAX: usize = 16;

/// A table that is not in force any more.
pub(super) struct FormerTable {
    table: Arc<RouteTable>,
    /// Asks those that could be asked then.
    verifier: Arc<Verifier>,
    replaced_at: UnixSeconds,
    /// The last second of its longest challenge.
    until: UnixSeconds,
}

/// Former tables, the newest first.
#[derive(Default)]
pub(super) struct Former(Vec<FormerTable>);

/// What a request would have cost, as long as that is still honoured.
pub(super) struct FormerQuote {
    pub(super) quote: Arc<Quote>,
    pub(super) verifier: Arc<Verifier>,
}

impl Former {
    /// These and the table that `next` takes the place of.
    pub(super) fn followed_by(
        &self,
        (replaced, verifier): (&Arc<RouteTable>, &Arc<Verifier>),
        (next, current): (&RouteTable, &Verifier),
        now: UnixSeconds,
    ) -> Self {
        let mut tables = Vec::new();
        if let Some(longest) = replaced.longest_timeout_s()
            && !replaced.sells_like(next)
        {
            tables.push(FormerTable {
                table: Arc::clone(replaced),
                verifier: Arc::new(verifier.retired(current)),
                replaced_at: now,
                until: now.plus(longest),
            });
        }
        let earlier = self.0.iter().filter(|former| now <= former.until);
        tables.extend(earlier.map(|former| FormerTable {
            table: Arc::clone(&former.table),
            verifier: Arc::new(former.verifier.retired(current)),
            ..*former
        }));
        if tables.len() > TABLES_MAX {
            tracing::warn!(
                max = TABLES_MAX,
                "the configuration changes too often: the oldest prices are forgotten before their challenges end"
            );
            tables.truncate(TABLES_MAX);
        }
        Self(tables)
    }

    /// What this request was offered for, and still is: each way of paying until its own time is
    /// over, and nothing that is offered now or was found in a newer table.
    pub(super) fn quotes(
        &self,
        line: &RequestLine<'_>,
        current: &Quote,
        now: UnixSeconds,
    ) -> Vec<FormerQuote> {
        let mut tried: Vec<Arc<Offer>> = current.offers.clone();
        let mut found = Vec::new();
        for former in self.0.iter().filter(|former| now <= former.until) {
            let Access::Priced(route) = former.table.access(line) else {
                continue;
            };
            let quote = route.price.quote();
            let is_honoured = |offer: &&Arc<Offer>| {
                let seconds = offer.requirements.max_timeout_seconds;
                now <= former.replaced_at.plus(seconds)
                    && !tried
                        .iter()
                        .any(|one| one.requirements == offer.requirements)
            };
            let offers: Vec<_> = quote.offers.iter().filter(is_honoured).cloned().collect();
            if !offers.is_empty() {
                tried.extend(offers.iter().cloned());
                found.push(FormerQuote {
                    quote: Arc::new(Quote { offers }),
                    verifier: Arc::clone(&former.verifier),
                });
            }
        }
        found
    }
}
