//! A span for each request, to an OpenTelemetry collector: OTLP over HTTP, protobuf.
//!
//! Nobody waits for it. Spans stand in a bounded queue; what does not fit, and what the collector does
//! not take, is dropped and counted. Built with the feature `otlp` only; without it the configuration
//! refuses `otlp_endpoint`, and nothing here is ever made.

#[cfg(feature = "otlp")]
mod export;

use std::fmt::Write as _;
use std::time::Duration;

use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::metrics;

/// As many spans may wait. One takes about 1 KiB.
const QUEUE_MAX: usize = 4096;

/// How long an ending process waits for the last spans to be taken.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(3);

/// Why traces cannot be exported.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OtlpError {
    /// Built without the feature.
    #[error("this farewall was built without OpenTelemetry (feature `otlp`)")]
    NotBuiltIn,
    /// No client for the collector.
    #[error("no HTTP client: {0}")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The place of a request in a trace. Rule: W3C Trace Context, section 3.2.2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TraceContext {
    /// Of the whole trace; not zero.
    pub trace_id: [u8; 16],
    /// Of this request's span; not zero.
    pub span_id: [u8; 8],
    /// The span that asked, when it said so.
    pub parent: Option<[u8; 8]>,
    /// Whether it is recorded: as whoever asked has decided, else yes.
    pub is_sampled: bool,
}

impl TraceContext {
    /// The value of `traceparent` that says that this span asks.
    #[must_use]
    pub fn traceparent(&self) -> String {
        let mut text = String::with_capacity(55);
        let hex = |text: &mut String, bytes: &[u8]| {
            for byte in bytes {
                // Writing to a String cannot fail.
                let _ = write!(text, "{byte:02x}");
            }
        };
        text.push_str("00-");
        hex(&mut text, &self.trace_id);
        text.push('-');
        hex(&mut text, &self.span_id);
        text.push_str(if self.is_sampled { "-01" } else { "-00" });
        text
    }
}

/// What is said of a request. Amounts are text: no number of OTLP holds them all.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Attribute {
    /// A text.
    Text(String),
    /// A small number, such as a status.
    Number(i64),
}

/// A request that has ended.
#[derive(Clone, Debug)]
pub struct RequestSpan {
    /// Where it belongs.
    pub trace: TraceContext,
    /// Few different ones: method and rule.
    pub name: String,
    /// When it began and ended, in nanoseconds since 1970.
    pub time: (u64, u64),
    /// Names as in OpenTelemetry's semantic conventions, or beginning with `farewall.`.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// Whether the wall or the upstream failed; that a client was refused is no failure.
    pub is_failure: bool,
    /// The phases that it went through, each with its beginning and end.
    pub phases: Vec<(&'static str, (u64, u64))>,
}

#[cfg_attr(
    not(feature = "otlp"),
    allow(dead_code, reason = "without the feature nobody reads the queue")
)]
enum Message {
    Ended(Box<RequestSpan>),
    /// Everything before is to be sent at once, and then this be answered.
    Flush(oneshot::Sender<()>),
}

/// Where spans are handed in. Clones are one queue.
#[derive(Clone)]
pub struct Spans(mpsc::Sender<Message>);

impl Spans {
    /// Hands a span in; drops and counts it when too many wait. Never waits.
    pub fn hand_in(&self, span: RequestSpan) {
        if self.0.try_send(Message::Ended(Box::new(span))).is_err() {
            metrics::spans_dropped(1);
        }
    }

    /// Waits until what was handed in has been sent, for at most three seconds.
    pub async fn flush(&self) {
        let flushed = async {
            let (done, is_done) = oneshot::channel();
            if self.0.send(Message::Flush(done)).await.is_ok() {
                // An error means that the exporter has gone, and nothing is left to wait for.
                is_done.await.ok();
            }
        };
        if timeout(FLUSH_TIME_MAX, flushed).await.is_err() {
            tracing::warn!("the collector does not take the last traces; ending without");
        }
    }
}

/// Starts the exporter on `runtime`; `None` when there is no collector.
///
/// # Errors
///
/// [`OtlpError`], also when the feature is missing.
pub fn start(endpoint: Option<&str>, runtime: &Handle) -> Result<Option<Spans>, OtlpError> {
    let Some(endpoint) = endpoint else {
        return Ok(None);
    };
    let (spans, queue) = mpsc::channel(QUEUE_MAX);
    run(endpoint, queue, runtime)?;
    Ok(Some(Spans(spans)))
}

#[cfg(feature = "otlp")]
fn run(endpoint: &str, queue: mpsc::Receiver<Message>, runtime: &Handle) -> Result<(), OtlpError> {
    let exporter = export::Exporter::new(endpoint)?;
    runtime.spawn(exporter.run(queue));
    Ok(())
}

#[cfg(not(feature = "otlp"))]
fn run(_: &str, _: mpsc::Receiver<Message>, _: &Handle) -> Result<(), OtlpError> {
    Err(OtlpError::NotBuiltIn)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span() -> RequestSpan {
        RequestSpan {
            trace: TraceContext {
                trace_id: [0xab; 16],
                span_id: [1; 8],
                parent: None,
                is_sampled: true,
            },
            name: "GET quote".to_owned(),
            time: (1, 2),
            attributes: Vec::new(),
            is_failure: false,
            phases: Vec::new(),
        }
    }

    #[test]
    fn a_traceparent_has_trace_span_and_flags() {
        let text = "00-abababababababababababababababab-0101010101010101-01";
        assert_eq!(span().trace.traceparent(), text);
    }

    #[test]
    fn a_full_otlp_queue_drops_and_keeps_nobody_waiting() {
        let (sender, mut queue) = mpsc::channel(1);
        let spans = Spans(sender);
        spans.hand_in(span());
        spans.hand_in(span());
        assert!(matches!(queue.try_recv(), Ok(Message::Ended(_))));
        assert!(queue.try_recv().is_err());
    }
}
