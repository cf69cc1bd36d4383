//! What a collector gets: real OTLP over HTTP, decoded with OpenTelemetry's own types.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use reqwest::Method;

use crate::support::wall::free_address;
use crate::support::{Setup, Signer, client, eventually, offer, send};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

impl Collector {
    /// A collector, and the `[log]` that sends to it.
    async fn start() -> (Self, Setup) {
        let collector = Self::default();
        let app = Router::new()
            .route("/v1/traces", post(take))
            .with_state(collector.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let setup = to(&listener.local_addr().unwrap().to_string());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (collector, setup)
    }

    fn spans(&self) -> Vec<Span> {
        self.0.lock().unwrap().clone()
    }

    /// The spans of requests, without their phases.
    fn requests(&self) -> Vec<Span> {
        let is_request = |span: &Span| span.kind == i32::from(SpanKind::Server);
        self.spans().into_iter().filter(is_request).collect()
    }
}

async fn take(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    for resource in request.resource_spans {
        let attributes = resource.resource.unwrap().attributes;
        assert!(attributes.iter().any(|a| a.key == "service.name"));
        for scope in resource.scope_spans {
            collector.0.lock().unwrap().extend(scope.spans);
        }
    }
}

fn to(collector: &str) -> Setup {
    Setup {
        top: format!("[log]\notlp_endpoint = \"http://{collector}\"\n"),
        ..Setup::default()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[track_caller]
fn value(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|a| a.key == key)?;
    Some(match found.value.clone()?.value? {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => panic!("{key}: {other:?}"),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_request_is_a_span_of_the_callers_trace_with_its_phases_below() {
    let (collector, setup) = Collector::start().await;
    let wall = setup.start().await;
    let signer = Signer::new();
    let request = wall
        .request(Method::GET, "/v1/quote")
        .header("PAYMENT-SIGNATURE", signer.proof(&offer(1000)))
        .header("tracestate", "a=b")
        .header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
    let answer = send(request).await;
    assert_eq!(answer.status, 200);
    eventually("the span is there", || collector.requests().len() == 1);
    let span = collector.requests().remove(0);
    assert_eq!(hex(&span.trace_id), TRACE);
    assert_eq!(hex(&span.parent_span_id), PARENT);
    assert_eq!(span.name, "GET quote");
    assert_eq!(span.status, None);
    let payment = wall.ledger()[0]["payment"].as_str().unwrap().to_owned();
    let payer = signer.address.to_checksum(None);
    for (key, want) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("farewall.rule", "quote"),
        ("farewall.outcome", "paid"),
        ("farewall.amount", "1000"),
        ("farewall.accept", "base-sepolia-usdc"),
        ("farewall.payer", &payer),
        ("farewall.payment", &payment),
        (
            "farewall.request_id",
            answer.header("x-request-id").unwrap(),
        ),
    ] {
        assert_eq!(value(&span, key).as_deref(), Some(want), "{key}");
    }

    let below: Vec<Span> = collector
        .spans()
        .into_iter()
        .filter(|s| s.span_id != span.span_id)
        .collect();
    let names: Vec<&str> = below.iter().map(|phase| phase.name.as_str()).collect();
    assert_eq!(names, ["verify", "claim", "upstream", "settle"]);
    for phase in &below {
        assert_eq!(phase.parent_span_id, span.span_id, "{}", phase.name);
        assert_eq!(hex(&phase.trace_id), TRACE, "{}", phase.name);
        assert!(phase.start_time_unix_nano <= phase.end_time_unix_nano);
    }
    let begun: Vec<u64> = below
        .iter()
        .map(|phase| phase.start_time_unix_nano)
        .collect();
    assert!(begun.is_sorted(), "one after the other: {begun:?}");

    let seen = wall.origin.last();
    let passed = format!("00-{TRACE}-{}-01", hex(&span.span_id));
    assert_eq!(seen.header("traceparent"), Some(passed.as_str()));
    assert_eq!(seen.header("tracestate"), Some("a=b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_trace_begins_one_and_an_unsampled_one_is_left_alone() {
    let (collector, setup) = Collector::start().await;
    let wall = setup.start().await;
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    let request = wall.request(Method::GET, "/health");
    let request = request.header("traceparent", &unsampled);
    assert_eq!(send(request).await.status, 200);
    let seen = wall.origin.last();
    assert_eq!(seen.header("traceparent"), Some(unsampled.as_str()));

    assert_eq!(wall.get("/v1/quote").await.status, 402);
    eventually("the later span is there", || {
        !collector.requests().is_empty()
    });
    let spans = collector.requests();
    assert_eq!(spans.len(), 1, "{spans:?}");
    assert_eq!(
        value(&spans[0], "farewall.outcome").as_deref(),
        Some("payment_required")
    );
    assert_eq!(value(&spans[0], "farewall.payer"), None);
    assert_ne!(hex(&spans[0].trace_id), TRACE);
    assert_ne!(spans[0].trace_id, vec![0; 16]);
    assert!(spans[0].parent_span_id.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_at_the_end_is_sent_before_the_process_ends() {
    let (collector, setup) = Collector::start().await;
    let mut wall = setup.start().await;
    for _ in 0..3 {
        assert_eq!(wall.get("/health").await.status, 200);
    }
    let (status, _) = wall.terminate();
    assert!(status.success());
    assert_eq!(collector.requests().len(), 3, "not a moment later");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_traces_and_nothing_else() {
    let admin = free_address();
    let wall = Setup {
        admin: Some(admin),
        ..to(&free_address().to_string())
    };
    let mut wall = wall.start().await;
    let proof = Signer::new().proof(&offer(1000));
    assert_eq!(wall.pay("/v1/quote", &proof).await.status, 200);
    let dropped = || async {
        let metrics = client().get(format!("http://{admin}/metrics"));
        send(metrics).await.body
    };
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !dropped()
        .await
        .contains("\nfarewall_spans_dropped_total 1\n")
    {
        assert!(std::time::Instant::now() < end, "{}", dropped().await);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(wall.log().contains("the collector does not take traces"));
    let (status, _) = wall.terminate();
    assert!(status.success());
}
