//! Answers another proxy that asks whether a request may pass. The gate is the same one; what is
//! different is where the request is read from, and that the leave to pass is all that is delivered.
//!
//! An answer below 400 means "may pass" and nothing else does, but for preflights: they never reach
//! an origin, and are marked for each proxy in the way in which it can pass them back.
//!
//! Rules: Caddy `forward_auth`, Traefik `ForwardAuth` (any 2xx may pass), Envoy `ext_authz` over HTTP
//! (200 may pass), nginx `X-Accel-Redirect` (what has it may pass). docs/forward-auth.md has them side by side.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Method};
use pingora::http::ResponseHeader;
use pingora::prelude::Session;
use pingora::{Error, ErrorType, Result};

use crate::config::settings::{AskingProxy, ForwardAuthSettings};
use crate::gate::{Admission, Ask, Delivery, Paid, Refusal, Release};
use crate::proxy::context::{Bought, Outcome, RequestCtx, Stage};
use crate::proxy::doors::{is_tls, peer_of};
use crate::proxy::headers::ClientIdentity;
use crate::proxy::{Wall, body, cors, headers, respond};
use crate::route::shadow;
use crate::target::{CanonicalHost, CanonicalTarget, Scheme};
use crate::throttle::Client;

/// The named location that nginx is sent to with a request that may pass.
const NGINX_PASS: &str = "@farewall_pass";

/// Marks the answer to a preflight where its status cannot say "answered", with the status to give.
const PREFLIGHT: &str = "X-Farewall-Preflight";

impl Wall {
    /// Decides about the request that is asked about.
    pub(super) async fn answer_ask(
        &self,
        session: &mut Session,
        ctx: &mut RequestCtx,
        asked: &ForwardAuthSettings,
    ) -> Result<()> {
        let (peer, tls) = (peer_of(session), is_tls(session));
        let identity = ClientIdentity::new(peer, tls, &asked.trusted);
        if !identity.trusted {
            let peer = peer.map(|p| p.ip());
            tracing::warn!(
                ?peer,
                "a forward-auth listener was asked by an untrusted peer"
            );
            return self.refuse(session, ctx, &Refusal::PeerNotTrusted).await;
        }
        if headers::has_disguise(session.req_header()) {
            // The proxy forwards it, and takes out what it knows only by its right name.
            let refusal =
                Refusal::BadRequest("a header is spelled so that it may be taken for another");
            return self.refuse(session, ctx, &refusal).await;
        }
        let method = match self.read_original(session, ctx, asked.asked_by) {
            Ok(method) => method,
            Err(refusal) => return self.refuse(session, ctx, &refusal).await,
        };
        ctx.original_method = Some(method.clone());
        if cors::is_preflight(&method, session.req_header()) {
            return self.answer_asked_preflight(session, ctx, asked).await;
        }
        let known = [asked.trusted.as_slice(), &ctx.rules.trusted_proxies].concat();
        let request = session.req_header();
        let address = headers::address_of(request, &identity, &known);
        let admission = match (&ctx.host, &ctx.target) {
            (Some(host), Some(target)) => {
                let ask = Ask {
                    method: method.as_str(),
                    host,
                    target,
                    proof: headers::proof(request),
                    idempotency_key: headers::idempotency_key(request),
                    // The proxy keeps it: neither its length nor its content is known here.
                    has_body: false,
                    content_length: None,
                    client: Client::at(address),
                    phases: &ctx.phases,
                    delivery: Delivery::Elsewhere,
                };
                ctx.rules.gate.admit(&ask).await
            }
            (None, _) | (_, None) => Err(Refusal::Internal("the target was not read")),
        };
        self.answer_admission(session, ctx, admission, asked).await
    }

    async fn answer_admission(
        &self,
        session: &mut Session,
        ctx: &mut RequestCtx,
        admission: Result<Admission, Refusal>,
        asked: &ForwardAuthSettings,
    ) -> Result<()> {
        let free = match admission {
            Ok(Admission::Paid(paid)) => {
                return self.let_paid_pass(session, ctx, paid, asked).await;
            }
            Ok(Admission::Free(route)) => {
                ctx.outcome = Outcome("free");
                route
            }
            Ok(Admission::Shadow(shadow)) => {
                ctx.outcome = Outcome(shadow.outcome);
                ctx.shadow = Some(shadow.told);
                shadow.route
            }
            Ok(Admission::Replay(replay)) => {
                let refusal = replay.not_delivered_here();
                return self.refuse(session, ctx, &refusal).await;
            }
            Err(refusal) => return self.refuse(session, ctx, &refusal).await,
        };
        ctx.stage = Stage::Answered;
        ctx.rule = Some(free.rule.clone());
        ctx.meter = Some(Arc::clone(&free.meter));
        let mut head = may_pass(asked)?;
        if let Some(told) = &ctx.shadow {
            head.insert_header(shadow::HEADER, told)?;
        }
        self.write(session, ctx, head, Bytes::new()).await
    }

    /// Gives leave for a payment that is settled. Once it is written, the payment is used up.
    async fn let_paid_pass(
        &self,
        session: &mut Session,
        ctx: &mut RequestCtx,
        mut paid: Box<Paid>,
        asked: &ForwardAuthSettings,
    ) -> Result<()> {
        ctx.rule = Some(paid.purchase().route.rule.clone());
        ctx.meter = Some(Arc::clone(&paid.purchase().route.meter));
        ctx.bought = Some(Bought::of(&paid));
        if !paid.is_settled() {
            ctx.rules.gate.give_back(&mut paid, "not_settled").await;
            let refusal = Refusal::Internal("admitted elsewhere without a settlement");
            return self.refuse(session, ctx, &refusal).await;
        }
        let receipt = match ctx.rules.gate.release(&mut paid, 200, None).await {
            Ok(Release::Charged(receipt)) => receipt,
            Ok(Release::Uncharged) => None,
            Err(refusal) => return self.refuse(session, ctx, &refusal).await,
        };
        let mut head = may_pass(asked)?;
        for (name, value) in headers::payment(&paid) {
            head.insert_header(name, value)?;
        }
        if asked.asked_by == AskingProxy::Nginx {
            headers::make_private(&mut head)?;
        }
        if let Some(receipt) = receipt {
            respond::set_receipt(&mut head, &receipt, paid.purchase())?;
        }
        body::drain_small(session).await;
        // A proxy that has given up waiting lets nothing pass: what is paid stays owed, and the same
        // payment collects it.
        if is_gone(session) {
            ctx.stage = Stage::Paid(paid);
            return Error::e_explain(ErrorType::ConnectionClosed, "the asking proxy is gone")
                .map_err(Error::into_down);
        }
        paid.mark_sent();
        ctx.outcome = Outcome("paid");
        // Closed in `logging`, as delivered when all of it was written.
        ctx.stage = Stage::Paid(paid);
        self.write(session, ctx, head, Bytes::new()).await
    }

    /// A preflight is answered by the wall, through the proxy. It never passes: behind "may pass"
    /// an origin would be asked for nothing.
    async fn answer_asked_preflight(
        &self,
        session: &mut Session,
        ctx: &mut RequestCtx,
        asked: &ForwardAuthSettings,
    ) -> Result<()> {
        match asked.asked_by {
            AskingProxy::Nginx | AskingProxy::Envoy => {
                self.answer_preflight(session, ctx).await.map(drop)
            }
            AskingProxy::Caddy | AskingProxy::Traefik => {
                let Some(origin) = ctx.allow_origin.clone() else {
                    return self.refuse(session, ctx, &Refusal::OriginNotAllowed).await;
                };
                ctx.stage = Stage::Answered;
                ctx.outcome = Outcome("preflight");
                let mut head = cors::preflight(&ctx.rules.cors, session.req_header(), &origin)?;
                head.set_status(403)?;
                head.insert_header("Content-Length", "0")?;
                head.insert_header(PREFLIGHT, "204")?;
                ctx.allow_origin = None;
                self.write(session, ctx, head, Bytes::new()).await
            }
        }
    }

    /// Reads method, host and target of the original request. The target must be in its canonical
    /// spelling already: the proxy forwards what it has, and what is matched must be what is forwarded.
    fn read_original(
        &self,
        session: &Session,
        ctx: &mut RequestCtx,
        asked_by: AskingProxy,
    ) -> Result<Method, Refusal> {
        let request = session.req_header();
        let (method, target): (Method, &[u8]) = match asked_by {
            AskingProxy::Nginx | AskingProxy::Caddy | AskingProxy::Traefik => {
                let original = Original::read(&request.headers)?;
                ctx.host = Some(CanonicalHost::parse(original.host, original.scheme)?);
                let bytes_max = ctx.rules.target_bytes_max;
                ctx.target = Some(CanonicalTarget::parse(original.target, bytes_max)?);
                (original.method, original.target)
            }
            AskingProxy::Envoy => {
                let by_tls = if is_tls(session) {
                    Scheme::Https
                } else {
                    Scheme::Http
                };
                let said = one(&request.headers, "x-forwarded-proto").and_then(scheme);
                self.read_target(session, ctx, said.unwrap_or(by_tls))?;
                (request.method.clone(), request.raw_path())
            }
        };
        if method == Method::CONNECT || method == Method::TRACE {
            return Err(Refusal::MethodNotAllowed);
        }
        let canonical = ctx.target.as_ref().map(ToString::to_string);
        if canonical.is_none_or(|canonical| canonical.as_bytes() != target) {
            return Err(Refusal::BadRequest(
                "the request target is not in its canonical spelling",
            ));
        }
        Ok(method)
    }
}

/// The request that is asked about, as the proxy describes it.
struct Original<'a> {
    method: Method,
    scheme: Scheme,
    host: &'a [u8],
    target: &'a [u8],
}

impl<'a> Original<'a> {
    fn read(headers: &'a HeaderMap) -> Result<Self, Refusal> {
        let missing = "the proxy must say X-Forwarded-Method, -Proto, -Host and -Uri, each once";
        let one = |name| one(headers, name).ok_or(Refusal::BadRequest(missing));
        let method = Method::from_bytes(one("x-forwarded-method")?);
        Ok(Self {
            method: method.map_err(|_| Refusal::BadRequest("X-Forwarded-Method is no method"))?,
            scheme: scheme(one("x-forwarded-proto")?).ok_or(Refusal::BadRequest(
                "X-Forwarded-Proto is neither http nor https",
            ))?,
            host: one("x-forwarded-host")?,
            target: one("x-forwarded-uri")?,
        })
    }
}

/// The value of a header that is there once.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.as_bytes();
    values.next().is_none().then_some(value)
}

/// Traefik says `ws` and `wss` of a WebSocket's handshake.
fn scheme(text: &[u8]) -> Option<Scheme> {
    match text {
        b"http" | b"ws" => Some(Scheme::Http),
        b"https" | b"wss" => Some(Scheme::Https),
        _ => None,
    }
}

/// "May pass." The answer itself is never to be kept.
fn may_pass(asked: &ForwardAuthSettings) -> Result<ResponseHeader> {
    let mut head = ResponseHeader::build(200, Some(12))?;
    head.insert_header("Content-Length", "0")?;
    match asked.asked_by {
        AskingProxy::Nginx => {
            head.insert_header("X-Accel-Redirect", NGINX_PASS)?;
            // nginx adds Cache-Control to the origin's response: that is kept for what is paid.
            head.insert_header("X-Accel-Expires", "0")?;
        }
        AskingProxy::Caddy | AskingProxy::Traefik | AskingProxy::Envoy => {
            head.insert_header("Cache-Control", "no-store")?;
        }
    }
    Ok(head)
}

/// Whether the other end has closed, as far as that is known now.
fn is_gone(session: &mut Session) -> bool {
    let idle = session.as_downstream_mut().read_body_or_idle(true);
    matches!(idle.now_or_never(), Some(Err(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(named: &[(&'static str, &'static str)]) -> HeaderMap {
        let named = named.iter();
        named
            .map(|(name, value)| {
                let value = http::HeaderValue::from_static(value);
                (http::HeaderName::from_static(name), value)
            })
            .fold(HeaderMap::new(), |mut all, (name, value)| {
                all.append(name, value);
                all
            })
    }

    const WHOLE: [(&str, &str); 4] = [
        ("x-forwarded-method", "POST"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "api.example.com"),
        ("x-forwarded-uri", "/v1/a?b"),
    ];

    #[test]
    fn the_original_request_is_read_from_all_four_headers() {
        let all = headers(&WHOLE);
        let original = Original::read(&all).unwrap();
        assert_eq!(original.method, Method::POST);
        assert_eq!(original.scheme, Scheme::Https);
        assert_eq!(original.host, b"api.example.com");
        assert_eq!(original.target, b"/v1/a?b");
    }

    #[test]
    fn what_is_missing_or_said_twice_is_not_guessed() {
        for (at, (name, value)) in WHOLE.iter().enumerate() {
            let mut without = WHOLE.to_vec();
            without.remove(at);
            assert!(Original::read(&headers(&without)).is_err(), "no {name}");
            let mut twice = WHOLE.to_vec();
            twice.push((name, value));
            assert!(Original::read(&headers(&twice)).is_err(), "two of {name}");
        }
        for (name, value) in [
            ("x-forwarded-proto", "gopher"),
            ("x-forwarded-method", "G T"),
        ] {
            let mut bad = WHOLE.to_vec();
            bad.retain(|(had, _)| *had != name);
            bad.push((name, value));
            assert!(Original::read(&headers(&bad)).is_err(), "{name}: {value}");
        }
    }

    #[test]
    fn only_nginx_is_told_where_to_go_on() {
        for asked_by in [
            AskingProxy::Nginx,
            AskingProxy::Caddy,
            AskingProxy::Traefik,
            AskingProxy::Envoy,
        ] {
            let trusted = Vec::new();
            let head = may_pass(&ForwardAuthSettings { asked_by, trusted }).unwrap();
            assert_eq!(head.status, 200, "{asked_by:?}: Envoy takes nothing else");
            let redirected = head.headers.contains_key("x-accel-redirect");
            assert_eq!(redirected, asked_by == AskingProxy::Nginx, "{asked_by:?}");
        }
    }
}
