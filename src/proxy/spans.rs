//! The span of a request, made where its access line is written. It says what that line says.

use std::time::{Duration, Instant};

use pingora::http::RequestHeader;

use crate::clock::unix_nanos;
use crate::metrics::PHASES;
use crate::otlp::{Attribute, RequestSpan, Spans};
use crate::proxy::context::RequestCtx;

/// Hands the span in, when the request is one whose trace is recorded.
pub(super) fn export(
    spans: &Spans,
    request: &RequestHeader,
    ctx: &RequestCtx,
    status: u16,
    elapsed: Duration,
) {
    let Some(trace) = ctx.trace.filter(|trace| trace.is_sampled) else {
        return;
    };
    let (now, ended) = (Instant::now(), unix_nanos());
    let at = |then: Instant| ended.saturating_sub(nanos(now.saturating_duration_since(then)));
    let phases = PHASES.into_iter().filter_map(|phase| {
        let begun = at(ctx.phases.begun(phase)?);
        let took = Duration::from_micros(ctx.phases.micros(phase)?);
        Some((phase.as_str(), (begun, begun.saturating_add(nanos(took)))))
    });
    let method = standard(ctx.original_method.as_ref().unwrap_or(&request.method));
    let rule = ctx.rule.as_deref().unwrap_or("-");
    let text = |value: &dyn std::fmt::Display| Attribute::Text(value.to_string());
    let mut attributes = vec![
        ("http.request.method", text(&method)),
        ("farewall.request_id", text(&ctx.request_id)),
        ("farewall.rule", text(&rule)),
        ("farewall.outcome", text(&ctx.outcome.0)),
    ];
    // 0: the client left before there was an answer.
    if status > 0 {
        let status = Attribute::Number(status.into());
        attributes.push(("http.response.status_code", status));
    }
    if let Some(bought) = &ctx.bought {
        attributes.extend([
            ("farewall.payment", text(&bought.payment)),
            ("farewall.payer", text(&bought.payer.as_str())),
            ("farewall.accept", text(&bought.accept)),
            ("farewall.amount", text(&bought.amount)),
        ]);
    }
    spans.hand_in(RequestSpan {
        trace,
        name: format!("{method} {rule}"),
        time: (ended.saturating_sub(nanos(elapsed)), ended),
        attributes,
        is_failure: status >= 500,
        phases: phases.collect(),
    });
}

/// A span has a bounded size, and strangers do not make up its name. Rule: OpenTelemetry's conventions
/// for HTTP, `http.request.method`.
fn standard(method: &http::Method) -> &str {
    match method.as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "PATCH" | "TRACE"
        | "CONNECT" | "QUERY") => known,
        _ => "_OTHER",
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
