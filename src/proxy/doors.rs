//! The two doors of a request: what the gate is asked before the upstream, and before the first byte of a response.

use std::net::SocketAddr;
use std::time::Instant;

use http::header::{CONTENT_LENGTH, HOST};
use pingora::http::ResponseHeader;
use pingora::prelude::Session;
use pingora::{Error, ErrorType, Result};

use crate::failpoint::{Step, reach};
use crate::gate::{Admission, Ask, Delivery, Refusal, Release};
use crate::kept::Recorder;
use crate::metrics::Phase;
use crate::proxy::answers::{can_withhold, content_length};
use crate::proxy::context::{Outcome, Recording, RequestCtx, Stage};
use crate::proxy::headers::ClientIdentity;
use crate::proxy::{Wall, context, headers, respond};
use crate::target::{CanonicalHost, CanonicalTarget, Scheme, split_absolute_form};
use crate::throttle::Client;

impl Wall {
    /// Reads host and path in their canonical form, or refuses.
    pub(super) fn read_target(
        &self,
        session: &Session,
        ctx: &mut RequestCtx,
        scheme: Scheme,
    ) -> Result<(), Refusal> {
        let request = session.req_header();
        if request.method == http::Method::CONNECT || request.method == http::Method::TRACE {
            return Err(Refusal::MethodNotAllowed);
        }
        let absolute = split_absolute_form(request.raw_path())?;
        let mut hosts = request.headers.get_all(HOST).iter();
        let (host, second) = (hosts.next().map(http::HeaderValue::as_bytes), hosts.next());
        if second.is_some() {
            return Err(Refusal::BadRequest("more than one Host header"));
        }
        let authority = match &absolute {
            Some(absolute) => Some(absolute.authority),
            None => request.uri.authority().map(|a| a.as_str().as_bytes()),
        };
        let named = authority
            .or(host)
            .ok_or(Refusal::BadRequest("no Host header"))?;
        let canonical = CanonicalHost::parse(named, scheme)?;
        if let Some(host) = host.filter(|_| authority.is_some())
            && CanonicalHost::parse(host, scheme)? != canonical
        {
            return Err(Refusal::BadRequest(
                "the Host header differs from the authority",
            ));
        }
        let origin_form = match &absolute {
            Some(absolute) => &absolute.path_and_query,
            None => request.raw_path(),
        };
        ctx.target = Some(CanonicalTarget::parse(
            origin_form,
            ctx.rules.target_bytes_max,
        )?);
        ctx.host = Some(canonical);
        Ok(())
    }

    /// The first door: asks with what the request says of itself.
    pub(super) async fn ask_gate(
        &self,
        session: &mut Session,
        ctx: &RequestCtx,
    ) -> Result<Admission, Refusal> {
        let has_body = !session.as_downstream_mut().is_body_empty();
        let identity = client(session, ctx);
        let request = session.req_header();
        let address = headers::address_of(request, &identity, &ctx.rules.trusted_proxies);
        let (Some(host), Some(target)) = (&ctx.host, &ctx.target) else {
            return Err(Refusal::Internal("the target was not read"));
        };
        let ask = Ask {
            method: request.method.as_str(),
            host,
            target,
            proof: headers::proof(request),
            idempotency_key: headers::idempotency_key(request),
            has_body,
            content_length: request
                .headers
                .get(CONTENT_LENGTH)
                .and_then(|v| v.to_str().ok()?.parse().ok()),
            client: Client::at(address),
            phases: &ctx.phases,
            delivery: Delivery::Here,
        };
        ctx.rules.gate.admit(&ask).await
    }

    /// The second door: settles, and lets the response pass, or puts our answer in its place.
    pub(super) async fn release(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestCtx,
    ) -> Result<()> {
        let Stage::Paid(paid) = &mut ctx.stage else {
            return Ok(());
        };
        let status = response.status.as_u16();
        let kept_bytes_max = paid.purchase().route.kept_response_bytes_max;
        let bodyless = session.req_header().method == http::Method::HEAD
            || matches!(status, 204 | 205 | 304)
            || content_length(response) == Some(0);
        // A part of a resource must not answer a retry that asks for another part.
        let keepable = status < 400 && !matches!(status, 206 | 304);
        let recording = keepable.then(|| Recording {
            status,
            headers: context::kept_headers(response),
            recorder: Recorder::new(kept_bytes_max),
            complete: bodyless,
        });
        let begun = Instant::now();
        let gate = &ctx.rules.gate;
        let released = gate.release(paid, status, ctx.body.digest()).await;
        if status < 400 {
            ctx.phases.add(Phase::Settle, begun.elapsed());
        }
        match released {
            Ok(Release::Uncharged) => {
                ctx.outcome = Outcome("upstream_error");
                response.insert_header("Cache-Control", "no-store")
            }
            Ok(Release::Charged(receipt)) => {
                ctx.outcome = Outcome(if status < 400 {
                    "paid"
                } else {
                    "paid_upstream_error"
                });
                ctx.recording = recording;
                reach(Step::BeforeFirstByte);
                headers::make_private(response)?;
                match receipt {
                    Some(receipt) => respond::set_receipt(response, &receipt, paid.purchase()),
                    None => Ok(()),
                }
            }
            Err(refusal) => {
                // Unknown: when the money turns out to have moved, this is what it bought.
                ctx.recording = recording.filter(|_| paid.may_be_kept());
                let collectable = ctx.recording.is_some() && !bodyless;
                if collectable && can_withhold(session, response, kept_bytes_max) {
                    return self.withhold(session, response, ctx, &refusal);
                }
                ctx.refusal = Some(refusal);
                Error::e_explain(ErrorType::HTTPStatus(402), "not released")
            }
        }
    }
}

/// Who asks, as far as the connection says.
pub(super) fn client(session: &Session, ctx: &RequestCtx) -> ClientIdentity {
    ClientIdentity::new(
        peer_of(session),
        is_tls(session),
        &ctx.rules.trusted_proxies,
    )
}

/// The other end of the connection.
pub(super) fn peer_of(session: &Session) -> Option<SocketAddr> {
    session.client_addr().and_then(|a| a.as_inet()).copied()
}

/// Whether the connection is encrypted.
pub(super) fn is_tls(session: &Session) -> bool {
    session
        .digest()
        .is_some_and(|digest| digest.ssl_digest.is_some())
}
