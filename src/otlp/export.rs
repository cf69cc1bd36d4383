//! From the queue to the collector: batches, each sent once.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::{Attribute, Message, OtlpError, RequestSpan};
use crate::metrics;

/// A batch is sent when it has so many requests,
const BATCH_MAX: usize = 512;

/// or this long after its first one.
const BATCH_TIME: Duration = Duration::from_secs(1);

/// How long a collector may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// The flag `sampled`. Rule: OTLP `Span.flags`, the low 8 bits are those of W3C.
const SAMPLED: u32 = 1;

pub(super) struct Exporter {
    client: reqwest::Client,
    url: String,
    is_failing: bool,
}

impl Exporter {
    pub(super) fn new(endpoint: &str) -> Result<Self, OtlpError> {
        let client = reqwest::Client::builder()
            .timeout(SEND_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| OtlpError::Client(error.into()))?;
        Ok(Self {
            client,
            url: format!("{endpoint}/v1/traces"),
            is_failing: false,
        })
    }

    /// Until nobody can hand in any more.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        while let Some((batch, flush)) = next_batch(&mut queue).await {
            if !batch.is_empty() {
                self.send(batch).await;
            }
            if let Some(done) = flush {
                // Whoever waited may have gone.
                done.send(()).ok();
            }
        }
    }

    async fn send(&mut self, batch: Vec<RequestSpan>) {
        let requests = batch.len();
        let body = request(batch).encode_to_vec();
        let sent = self
            .client
            .post(&self.url)
            .header("Content-Type", "application/x-protobuf")
            .body(body)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status);
        match sent {
            Ok(_) => {
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("the collector takes traces again");
                }
            }
            Err(error) => {
                metrics::spans_dropped(requests);
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(%error, "the collector does not take traces; they are dropped");
                }
            }
        }
    }
}

/// What waits now or comes soon, and whom to tell when it was sent; `None` at the end.
async fn next_batch(
    queue: &mut mpsc::Receiver<Message>,
) -> Option<(Vec<RequestSpan>, Option<oneshot::Sender<()>>)> {
    let mut batch = Vec::new();
    let mut next = Some(queue.recv().await?);
    let now = Instant::now();
    let end = now.checked_add(BATCH_TIME).unwrap_or(now);
    while let Some(message) = next {
        match message {
            Message::Ended(span) => batch.push(*span),
            Message::Flush(done) => return Some((batch, Some(done))),
        }
        if batch.len() >= BATCH_MAX {
            break;
        }
        next = timeout_at(end, queue.recv()).await.ok().flatten();
    }
    Some((batch, None))
}

fn request(batch: Vec<RequestSpan>) -> ExportTraceServiceRequest {
    let resource = Resource {
        attributes: vec![
            text("service.name", "farewall"),
            text("service.version", env!("CARGO_PKG_VERSION")),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "farewall".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans: batch.into_iter().flat_map(spans).collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

/// The span of a request, and one for each of its phases.
fn spans(request: RequestSpan) -> Vec<Span> {
    let trace = request.trace;
    let whole = Span {
        trace_id: trace.trace_id.to_vec(),
        span_id: trace.span_id.to_vec(),
        parent_span_id: trace.parent.map(Vec::from).unwrap_or_default(),
        flags: SAMPLED,
        name: request.name,
        kind: SpanKind::Server.into(),
        start_time_unix_nano: request.time.0,
        end_time_unix_nano: request.time.1,
        attributes: request.attributes.into_iter().map(attribute).collect(),
        status: request.is_failure.then(|| Status {
            code: StatusCode::Error.into(),
            ..Status::default()
        }),
        ..Span::default()
    };
    // Derived from the request's own id, which is random: no two spans of a trace are alike.
    let id = u64::from_be_bytes(trace.span_id);
    let phases = request.phases.into_iter().zip(1_u64..);
    let phases = phases.map(|((name, time), nth)| {
        let id = id.rotate_left(8).wrapping_add(nth).max(1);
        Span {
            trace_id: trace.trace_id.to_vec(),
            span_id: id.to_be_bytes().to_vec(),
            parent_span_id: trace.span_id.to_vec(),
            flags: SAMPLED,
            name: name.to_owned(),
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: time.0,
            end_time_unix_nano: time.1,
            ..Span::default()
        }
    });
    std::iter::once(whole).chain(phases).collect()
}

fn attribute((key, value): (&'static str, Attribute)) -> KeyValue {
    match value {
        Attribute::Text(value) => text(key, &value),
        Attribute::Number(number) => key_value(key, Value::IntValue(number)),
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    key_value(key, Value::StringValue(value.to_owned()))
}

fn key_value(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}
