//! The access line: one a request, at its end. Costs a comparison when nobody hears it.

use std::time::Duration;

use pingora::Error;
use pingora::http::RequestHeader;

use crate::metrics::Phase;
use crate::proxy::context::RequestCtx;
use crate::proxy::trace;

/// Writes the line. Times are in microseconds; what did not happen is left out.
pub(super) fn log(
    request: &RequestHeader,
    ctx: &RequestCtx,
    status: u16,
    elapsed: Duration,
    error: Option<&Error>,
) {
    let bought = ctx.bought.as_ref();
    let took = |phase| ctx.phases.micros(phase);
    tracing::info!(
        target: "farewall::access",
        request_id = %ctx.request_id,
        trace_id = trace::trace_id(&request.headers),
        method = %ctx.original_method.as_ref().unwrap_or(&request.method),
        rule = ctx.rule.as_deref().unwrap_or("-"),
        outcome = ctx.outcome.0,
        status,
        payer = bought.map(|b| b.payer.as_str()),
        payment = bought.map(|b| tracing::field::display(b.payment)),
        accept = bought.map(|b| &*b.accept),
        amount = bought.map(|b| tracing::field::display(b.amount)),
        micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
        challenge_us = took(Phase::Challenge),
        verify_us = took(Phase::Verify),
        claim_us = took(Phase::Claim),
        upstream_us = took(Phase::Upstream),
        settle_us = took(Phase::Settle),
        error = error.map(tracing::field::display),
        "request"
    );
}
