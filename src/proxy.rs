//! pingora's `ProxyHttp`: translates a session, decides nothing.
//!
//! One door: every request passes `request_filter`, and so [`Gate::admit`], whatever its method,
//! version or framing. Later phases read `RequestCtx`; without an admission there is no peer. Only a
//! plain request that has not paid may be refused earlier: `quick` can do nothing else.

mod access;
mod answers;
mod body;
mod challenges;
pub mod code;
mod context;
mod cors;
mod door;
mod doors;
mod forward_auth;
mod head;
mod handshakes;
mod headers;
mod held;
mod quick;
mod respond;
mod spans;
mod trace;
mod watched;
mod wire;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use http::header::HOST;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::{HttpPeer, Session};
use pingora::proxy::{FailToProxy, ProxyHttp};
use pingora::{Error, ErrorSource, ErrorType, Result};

use crate::config::settings::{CorsSettings, ForwardAuthSettings, IpRange};
use crate::failpoint::{Step, reach};
use crate::gate::{Admission, Ending, Gate, Refusal, UpstreamFailure};
use crate::metrics::{self, Phase, RuleMeter};
use crate::otlp::Spans;
use crate::proxy::context::{BodyMeter, Bought, Outcome, RequestCtx, RequestId, Stage, Substitute};
use crate::proxy::doors::{client, is_tls};
use crate::route::shadow;
use crate::target::Scheme;
use crate::upstream::Upstreams;

pub use crate::proxy::challenges::Challenges;
pub use crate::proxy::door::{Connections, Door, DoorLimits};
pub use crate::proxy::handshakes::Handshakes;
pub use crate::proxy::respond::Seller;

/// The proxy in front of the upstreams. Clones are one wall: each kind of listener has its own.
#[derive(Clone)]
pub struct Wall {
    /// The configuration that new requests begin with.
    pub in_force: Arc<ArcSwap<Generation>>,
    /// Requests under way: a shutdown waits for them.
    pub under_way: Arc<AtomicUsize>,
    /// Who asks here whether requests may pass; `None` where the wall forwards them itself.
    pub forward_auth: Option<Arc<ForwardAuthSettings>>,
    /// Who gets a trace of each request.
    pub spans: Option<Spans>,
}

/// All that one configuration says about requests. A request keeps the one that it began with.
pub struct Generation {
    /// Decides.
    pub gate: Gate,
    /// Where admitted requests go.
    pub upstreams: Arc<Upstreams>,
    /// What challenges say about the seller.
    pub seller: Seller,
    /// What browsers may do.
    pub cors: CorsSettings,
    /// Whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpRange>,
    /// Bytes of path and query.
    pub target_bytes_max: usize,
    /// Between two reads of a request body.
    pub body_timeout: Duration,
    /// For one piece of a response over HTTP/2, where a client may read and yet take nothing of one stream.
    pub stream_timeout: Duration,
}

#[async_trait]
impl ProxyHttp for Wall {
    // On the heap: pingora moves it from future to future.
    type CTX = Box<RequestCtx>;

    fn new_ctx(&self) -> Self::CTX {
        let under_way = context::UnderWay::count(&self.under_way);
        Box::new(RequestCtx::new(self.in_force.load_full(), under_way))
    }

    // No compression module: bytes pass as the origin made them.
    fn init_downstream_modules(&self, _: &mut pingora::modules::http::HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, _: &mut Self::CTX) -> Result<()> {
        watched::head_was_read(body::wire_bytes(session.req_header()));
        // Each pipelined request is read only after the answer before it, and passes the same gate.
        session.as_downstream_mut().set_pipelining_enabled(true);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<bool> {
        ctx.started = Some(Instant::now());
        ctx.request_id = RequestId::random();
        ctx.trace = self
            .spans
            .as_ref()
            .map(|_| trace::begin(session.req_header()));
        set_timeouts(session, &ctx.rules);
        let request = session.req_header();
        ctx.allow_origin = cors::allowed_origin(&ctx.rules.cors, request);
        if let Some(asked) = &self.forward_auth {
            let answered = Box::pin(self.answer_ask(session, ctx, asked)).await;
            return answered.map(|()| true);
        }
        let scheme = if is_tls(session) {
            Scheme::Https
        } else {
            Scheme::Http
        };
        let target = self.read_target(session, ctx, scheme);
        let request = session.req_header();
        let preflight = cors::is_preflight(&request.method, request);
        if preflight && target.is_ok() && session.as_downstream_mut().is_body_empty() {
            return Box::pin(self.answer_preflight(session, ctx)).await;
        }
        let admission = match target {
            Ok(()) => self.ask_gate(session, ctx).await,
            Err(refusal) => Err(refusal),
        };
        match admission {
            Ok(Admission::Free(route)) => {
                ctx.rule = Some(route.rule.clone());
                ctx.meter = Some(Arc::clone(&route.meter));
                ctx.outcome = Outcome("free");
                ctx.upstream = ctx.rules.upstreams.get(&route.upstream).cloned();
                ctx.body = BodyMeter::new(route.request_body_bytes_max, false);
                ctx.stage = Stage::Free;
                Ok(false)
            }
            Ok(Admission::Paid(paid)) => {
                let route = &paid.purchase().route;
                ctx.rule = Some(route.rule.clone());
                ctx.meter = Some(Arc::clone(&route.meter));
                ctx.bought = Some(Bought::of(&paid));
                ctx.upstream = ctx.rules.upstreams.get(&route.upstream).cloned();
                ctx.body = BodyMeter::new(route.request_body_bytes_max, true);
                if session.as_downstream_mut().is_body_empty() {
                    ctx.body.push(None, true);
                }
                ctx.stage = Stage::Paid(paid);
                // On HTTP/1.1 what is claimed runs to its end, or the upstream could be made to work
                // for nothing by hanging up; what is settled meanwhile can be collected later. A
                // reset HTTP/2 stream ends at once: the gate counts how often.
                session.as_downstream_mut().set_abort_on_close(false);
                // 103 and its like could carry something of the response before it is settled.
                session.as_downstream_mut().set_ignore_info_resp(true);
                Ok(false)
            }
            Ok(Admission::Shadow(shadow)) => {
                ctx.rule = Some(shadow.route.rule.clone());
                ctx.meter = Some(Arc::clone(&shadow.route.meter));
                ctx.outcome = Outcome(shadow.outcome);
                ctx.upstream = ctx.rules.upstreams.get(&shadow.route.upstream).cloned();
                ctx.body = BodyMeter::new(shadow.route.request_body_bytes_max, false);
                ctx.shadow = Some(shadow.told);
                ctx.stage = Stage::Free;
                Ok(false)
            }
            Ok(Admission::Replay(replay)) => Box::pin(self.replay(session, ctx, &replay)).await,
            Err(refusal) => Box::pin(self.refuse(session, ctx, &refusal))
                .await
                .map(|()| true),
        }
    }

    async fn upstream_peer(&self, _: &mut Session, ctx: &mut Self::CTX) -> Result<Box<HttpPeer>> {
        match ctx.stage {
            Stage::Free | Stage::Paid(_) => {}
            Stage::New | Stage::Answered => {
                return Error::e_explain(ErrorType::InternalError, "no admission, no upstream");
            }
        }
        ctx.forwarded = Some(Instant::now());
        ctx.body.restart();
        let peer = ctx.upstream.as_ref().and_then(|upstream| upstream.peer());
        peer.ok_or_else(|| Error::explain(ErrorType::ConnectNoRoute, "no healthy server").into_up())
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        if ctx.body.push(body.as_ref(), end) {
            return Ok(());
        }
        Error::e_explain(ErrorType::HTTPStatus(413), "request body over the limit")
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        let (Some(upstream), Some(host), Some(target)) = (&ctx.upstream, &ctx.host, &ctx.target)
        else {
            return Error::e_explain(
                ErrorType::InternalError,
                "no admission, no upstream request",
            );
        };
        let client = client(session, ctx);
        let keep_conditional = match &ctx.stage {
            Stage::Paid(paid) => paid.purchase().route.forward_conditional,
            Stage::Free | Stage::New | Stage::Answered => true,
        };
        let mut parts = headers::take_apart(request);
        headers::strip_request(&mut parts.headers, client.trusted, keep_conditional);
        trace::strip_malformed(&mut parts.headers);
        if let Some(context) = ctx.trace.as_ref().filter(|context| context.is_sampled) {
            let value = headers::value(&context.traceparent())?;
            parts.headers.insert(&trace::TRACEPARENT, value);
        }
        let authority = host.authority();
        headers::set_forwarding(&mut parts.headers, &client, &authority)?;
        let host = upstream.host().unwrap_or(&authority);
        if parts.headers.get(HOST).is_none_or(|had| had != host) {
            parts.headers.insert(HOST, headers::value(host)?);
        }
        let id = ctx.request_id.header()?;
        parts.headers.insert(&headers::X_REQUEST_ID, id);
        if let Stage::Paid(paid) = &mut ctx.stage {
            headers::set_payment(&mut parts.headers, paid)?;
            paid.mark_sent();
        }
        for (name, value) in upstream.headers() {
            parts.headers.insert(name, value.clone());
        }
        *request = RequestHeader::from(parts);
        // The bytes that were matched are the bytes that are forwarded (DESIGN, invariant 5).
        let path = upstream.path_for(target);
        if request.raw_path() != path.as_bytes() {
            request.set_raw_path(path.as_bytes())?;
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        headers::strip_response(response);
        if response.status.as_u16() == 101 {
            return Error::e_explain(ErrorType::InvalidHTTPHeader, "upstream switched protocols")
                .map_err(Error::into_up);
        }
        if response.status.is_informational() {
            return Ok(());
        }
        let took = ctx.forwarded.map(|asked| asked.elapsed());
        if let Some(took) = took {
            ctx.phases.add(Phase::Upstream, took);
        }
        let late = ctx
            .upstream
            .as_ref()
            .zip(took)
            .is_some_and(|(upstream, took)| took > upstream.total_timeout());
        if late {
            return Error::e_explain(ErrorType::ReadTimedout, "upstream over its total time")
                .map_err(Error::into_up);
        }
        response.insert_header("X-Request-Id", ctx.request_id.header()?)?;
        let Stage::Paid(_) = ctx.stage else {
            if let Some(told) = &ctx.shadow {
                response.insert_header(shadow::HEADER, told)?;
            }
            // What is free is the origin's own business, CORS included.
            return Ok(());
        };
        Box::pin(self.release(session, response, ctx)).await?;
        cors::expose(response, ctx.allow_origin.as_deref())
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Self::CTX,
    ) -> Result<Option<Duration>> {
        if let Some(recording) = &mut ctx.recording {
            body.iter().for_each(|chunk| recording.recorder.push(chunk));
            recording.complete |= end;
            reach(Step::MidBody);
        }
        match std::mem::take(&mut ctx.substitute) {
            Substitute::None => {}
            Substitute::Pending(ours) => {
                *body = Some(ours);
                ctx.substitute = Substitute::Written;
            }
            Substitute::Written => {
                *body = None;
                ctx.substitute = Substitute::Written;
            }
        }
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _: &mut Session,
        trailers: &mut HeaderMap,
        ctx: &mut Self::CTX,
    ) -> Result<Option<Bytes>> {
        // Trailers are not kept, and a response without them is not the one that was sold.
        ctx.recording = None;
        match ctx.substitute {
            Substitute::None => headers::strip_trailers(trailers),
            Substitute::Pending(_) | Substitute::Written => trailers.clear(),
        }
        Ok(None)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Self::CTX,
    ) -> FailToProxy {
        let mut refusal = ctx.refusal.take().unwrap_or_else(|| refusal_of(error));
        if let Stage::Paid(paid) = &mut ctx.stage {
            ctx.rules.gate.give_back(paid, "upstream_failed").await;
            if let Refusal::Upstream(failure) = refusal {
                refusal = paid.failed(failure);
            }
        }
        let begun = session
            .response_written()
            .is_some_and(|r| !r.status.is_informational());
        if begun || is_client_gone(error) {
            ctx.outcome = Outcome(if begun { "broken_off" } else { "client_left" });
            return FailToProxy {
                error_code: 0,
                can_reuse_downstream: false,
            };
        }
        let written = self.refuse(session, ctx, &refusal).await.is_ok();
        let status = session
            .response_written()
            .map_or(500, |r| r.status.as_u16());
        FailToProxy {
            error_code: if written { status } else { 0 },
            can_reuse_downstream: false,
        }
    }

    fn suppress_error_log(&self, _: &Session, _: &Self::CTX, _: &Error) -> bool {
        // `logging` writes one line a request, with the cause.
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Self::CTX) {
        let status = session.response_written().map_or(0, |r| r.status.as_u16());
        if let Stage::Paid(paid) = std::mem::take(&mut ctx.stage) {
            let request_body = ctx.body.digest();
            let response = ctx
                .recording
                .take()
                .zip(request_body)
                .and_then(|(r, body)| r.finish(body));
            let substituted = !matches!(ctx.substitute, Substitute::None);
            let delivered = error.is_none() && (200..400).contains(&status) && !substituted;
            ctx.rules.gate.finish(
                paid,
                Ending {
                    delivered,
                    client_left: error.is_some_and(is_client_gone),
                    response,
                },
            );
        }
        let elapsed = ctx.started.map(|s| s.elapsed()).unwrap_or_default();
        match (&ctx.meter, &ctx.rule) {
            (Some(meter), _) => metrics::request(meter, ctx.outcome.0, status, elapsed),
            (None, Some(rule)) => {
                metrics::request(&RuleMeter::new(rule), ctx.outcome.0, status, elapsed);
            }
            (None, None) => metrics::request(RuleMeter::none(), ctx.outcome.0, status, elapsed),
        }
        metrics::phases(&ctx.phases);
        let request = session.req_header();
        access::Line {
            request_id: &ctx.request_id,
            headers: Some(&request.headers),
            method: ctx
                .original_method
                .as_ref()
                .unwrap_or(&request.method)
                .as_str(),
            rule: ctx.rule.as_deref(),
            outcome: ctx.outcome.0,
            status,
            bought: ctx.bought.as_ref(),
            phases: &ctx.phases,
            elapsed,
            error: error.map(|error| error as _),
        }
        .write();
        if let Some(spans) = &self.spans {
            spans::export(spans, session.req_header(), ctx, status, elapsed);
        }
    }
}

fn set_timeouts(session: &mut Session, rules: &Generation) {
    let is_http2 = session.is_http2();
    let downstream = session.as_downstream_mut();
    downstream.set_read_timeout(Some(rules.body_timeout));
    // HTTP/1 has one stream: the door sees when nothing of it is taken.
    if is_http2 {
        downstream.set_write_timeout(Some(rules.stream_timeout));
    }
}

fn is_client_gone(error: &Error) -> bool {
    *error.esource() == ErrorSource::Downstream
        && matches!(
            error.etype(),
            ErrorType::WriteError
                | ErrorType::ReadError
                | ErrorType::ConnectionClosed
                | ErrorType::WriteTimedout
                | ErrorType::ReadTimedout
        )
}

fn refusal_of(error: &Error) -> Refusal {
    match (error.etype(), error.esource()) {
        (ErrorType::HTTPStatus(413), _) => Refusal::BodyTooLarge,
        (
            ErrorType::ReadTimedout | ErrorType::WriteTimedout | ErrorType::ConnectTimedout,
            ErrorSource::Upstream,
        ) => Refusal::Upstream(UpstreamFailure::Timeout),
        (ErrorType::ConnectNoRoute | ErrorType::ConnectRefused | ErrorType::ConnectError, _) => {
            Refusal::Upstream(UpstreamFailure::Unreachable)
        }
        (_, ErrorSource::Upstream) => Refusal::Upstream(UpstreamFailure::Broken),
        (_, ErrorSource::Downstream) => Refusal::BadRequest("the request could not be read"),
        (_, ErrorSource::Internal | ErrorSource::Unset) => Refusal::Internal("proxy error"),
    }
}
