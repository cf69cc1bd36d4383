//! W3C trace context: a valid `traceparent` passes on to the upstream as it is, anything else is
//! dropped together with its `tracestate`. Only where traces are exported does the wall take part in
//! them: then the upstream is told that its parent is the wall's span.
//!
//! Rule: W3C Trace Context, sections 3.2.2 and 3.3.1.

use http::{HeaderMap, HeaderName};
use pingora::http::RequestHeader;

use crate::otlp::TraceContext;

pub(super) static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The trace id of a request: 32 lower-case hexadecimal digits; `None` without a valid header.
pub(super) fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(&TRACEPARENT).iter();
    let value = values.next()?.to_str().ok()?;
    // Two of them: nobody knows which one is meant.
    if values.next().is_some() {
        return None;
    }
    parse(value)
}

/// The place of a request in a trace: that of its valid `traceparent`, else the root of a new one.
pub(super) fn begin(request: &RequestHeader) -> TraceContext {
    let parent = trace_id(&request.headers).and_then(|trace| {
        let value = request.headers.get(&TRACEPARENT)?.to_str().ok()?;
        let mut rest = value.splitn(5, '-').skip(2);
        let (parent, flags) = (rest.next()?, rest.next()?);
        Some((
            u128::from_str_radix(trace, 16).ok()?.to_be_bytes(),
            u64::from_str_radix(parent, 16).ok()?.to_be_bytes(),
            u8::from_str_radix(flags, 16).ok()? & 1 == 1,
        ))
    });
    // Zero is no id.
    let span_id = rand::random::<u64>().max(1).to_be_bytes();
    match parent {
        Some((trace_id, parent, is_sampled)) => TraceContext {
            trace_id,
            span_id,
            parent: Some(parent),
            is_sampled,
        },
        None => TraceContext {
            trace_id: rand::random::<u128>().max(1).to_be_bytes(),
            span_id,
            parent: None,
            is_sampled: true,
        },
    }
}

/// Removes a trace context that is not valid.
pub(super) fn strip_malformed(headers: &mut HeaderMap) {
    if trace_id(headers).is_none() {
        headers.remove(&TRACEPARENT);
        headers.remove(&TRACESTATE);
    }
}

/// `version-traceid-parentid-flags`; later versions may go on after another `-`.
fn parse(value: &str) -> Option<&str> {
    let is_hex = |text: &str, length: usize| {
        text.len() == length
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let is_id = |text: &str, length| is_hex(text, length) && text.bytes().any(|b| b != b'0');
    let mut parts = value.splitn(5, '-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let (parent, flags, more) = (parts.next()?, parts.next()?, parts.next());
    let version_known = match version {
        "00" => more.is_none(),
        "ff" => false,
        later => is_hex(later, 2),
    };
    (version_known && is_id(trace, 32) && is_id(parent, 16) && is_hex(flags, 2)).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[track_caller]
    fn check(value: &str, is_valid: bool) {
        assert_eq!(parse(value), is_valid.then_some(TRACE), "{value}");
    }

    #[test]
    fn a_traceparent_is_read_to_the_letter() {
        check(&format!("00-{TRACE}-00f067aa0ba902b7-01"), true);
        check(&format!("cc-{TRACE}-00f067aa0ba902b7-01-what-later"), true);
        check(&format!("cc-{TRACE}-00f067aa0ba902b7-01"), true);
        check(&format!("00-{TRACE}-00f067aa0ba902b7-01-more"), false);
        check(&format!("ff-{TRACE}-00f067aa0ba902b7-01"), false);
        check(&format!("00-{TRACE}-0000000000000000-01"), false);
        check(
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            false,
        );
        check(
            &format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            false,
        );
        check(&format!("00-{TRACE}-00f067aa0ba902b7"), false);
        check("", false);
    }

    #[test]
    fn a_request_takes_its_place_in_the_trace_that_it_names_or_begins_one() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        let root = begin(&request);
        assert_eq!((root.parent, root.is_sampled), (None, true));
        for (flags, is_sampled) in [("01", true), ("00", false), ("03", true)] {
            let value = format!("00-{TRACE}-00f067aa0ba902b7-{flags}");
            request.insert_header("traceparent", &value).unwrap();
            let child = begin(&request);
            assert_eq!(child.parent, Some(0x00f0_67aa_0ba9_02b7_u64.to_be_bytes()));
            assert_eq!(child.is_sampled, is_sampled, "{flags}");
            let passed = child.traceparent();
            assert!(passed.starts_with(&format!("00-{TRACE}-")), "{passed}");
            assert_eq!(parse(&passed), Some(TRACE));
            assert_ne!(passed, value);
        }
    }

    #[test]
    fn of_two_trace_contexts_none_is_passed_on() {
        let value = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let mut headers = HeaderMap::new();
        headers.append(&TRACEPARENT, value.parse().unwrap());
        headers.append(&TRACESTATE, "a=b".parse().unwrap());
        strip_malformed(&mut headers);
        assert_eq!(headers.len(), 2);
        headers.append(&TRACEPARENT, value.parse().unwrap());
        strip_malformed(&mut headers);
        assert!(headers.is_empty(), "{headers:?}");
    }
}
