//! The access line: one a request, at its end. Costs a comparison when nobody hears it.

use std::error::Error;
use std::time::Duration;

use http::HeaderMap;

use crate::metrics::{Phase, Phases};
use crate::proxy::context::{Bought, RequestId};
use crate::proxy::trace;

/// What the line says.
pub(super) struct Line<'a> {
    pub(super) request_id: &'a RequestId,
    /// Of the request, where its trace may be named.
    pub(super) headers: Option<&'a HeaderMap>,
    pub(super) method: &'a str,
    /// Its name; none governs what is not found.
    pub(super) rule: Option<&'a str>,
    pub(super) outcome: &'static str,
    /// 0 when the client left before there was one.
    pub(super) status: u16,
    pub(super) bought: Option<&'a Bought>,
    pub(super) phases: &'a Phases,
    pub(super) elapsed: Duration,
    pub(super) error: Option<&'a dyn Error>,
}

impl Line<'_> {
    /// Writes it. Times are in microseconds; what did not happen is left out.
    pub(super) fn write(&self) {
        let took = |phase| self.phases.micros(phase);
        tracing::info!(
            target: "farewall::access",
            request_id = %self.request_id,
            trace_id = self.headers.and_then(trace::trace_id),
            method = %self.method,
            rule = self.rule.unwrap_or("-"),
            outcome = self.outcome,
            status = self.status,
            payer = self.bought.map(|b| b.payer.as_str()),
            payment = self.bought.map(|b| tracing::field::display(b.payment)),
            accept = self.bought.map(|b| &*b.accept),
            amount = self.bought.map(|b| tracing::field::display(b.amount)),
            micros = u64::try_from(self.elapsed.as_micros()).unwrap_or(u64::MAX),
            challenge_us = took(Phase::Challenge),
            verify_us = took(Phase::Verify),
            claim_us = took(Phase::Claim),
            upstream_us = took(Phase::Upstream),
            settle_us = took(Phase::Settle),
            error = self.error.map(tracing::field::display),
            "request"
        );
    }
}
