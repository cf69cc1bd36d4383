//! The answers that the wall gives itself, in place of an upstream's: refusals, preflights, replays,
//! and what stands in for a response that is withheld.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::prelude::Session;

use crate::config::settings::AskingProxy;
use crate::gate::{Refusal, Replay};
use crate::metrics::Phase;
use crate::proxy::code::Code;
use crate::proxy::context::{Bought, Outcome, RequestCtx, Stage, Substitute, digest_of};
use crate::proxy::{Wall, body, cors, headers, respond};

impl Wall {
    /// Rewrites the response to our answer; the upstream's body goes to the recording only.
    pub(super) fn withhold(
        &self,
        session: &Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestCtx,
        refusal: &Refusal,
    ) -> Result<()> {
        tracing::warn!(request_id = %ctx.request_id, cause = %refusal, "response withheld");
        let answer = respond::answer(refusal, &ctx.rules.seller)?;
        ctx.outcome = Outcome(answer.outcome);
        *response = answer.head;
        response.insert_header("X-Request-Id", ctx.request_id.header()?)?;
        // With a length, pingora would stop reading the upstream once ours is written.
        response.remove_header("Content-Length");
        if !session.is_http2() {
            response.insert_header("Transfer-Encoding", "chunked")?;
        }
        ctx.substitute = Substitute::Pending(answer.body);
        Ok(())
    }

    pub(super) async fn refuse(
        &self,
        session: &mut Session,
        ctx: &mut RequestCtx,
        refusal: &Refusal,
    ) -> Result<()> {
        if let Refusal::Payment { purchase, .. } = refusal {
            ctx.rule = Some(purchase.route.rule.clone());
            ctx.meter = Some(Arc::clone(&purchase.route.meter));
        } else if let Refusal::RateLimited { rule, .. }
        | Refusal::Denied { rule }
        | Refusal::SettlesAfterDelivery { rule }
        | Refusal::NothingOffered { rule } = refusal
        {
            ctx.rule = Some(Arc::clone(rule));
        }
        let begun = Instant::now();
        let answer = respond::answer(refusal, &ctx.rules.seller)?;
        ctx.outcome = Outcome(answer.outcome);
        if answer.outcome == Code::PaymentRequired.as_str() {
            ctx.phases.add(Phase::Challenge, begun.elapsed());
        }
        if answer.head.status.is_server_error() {
            tracing::warn!(request_id = %ctx.request_id, cause = %refusal, "request refused");
        } else {
            tracing::debug!(request_id = %ctx.request_id, cause = %refusal, "request refused");
        }
        let mut head = answer.head;
        if head.status.is_server_error() && self.is_asked_by_envoy() {
            // Envoy would make a bare 403 of it, and lose the word that something may have been paid.
            head.set_status(409)?;
        }
        self.write(session, ctx, head, answer.body).await
    }

    fn is_asked_by_envoy(&self) -> bool {
        let asked = self.forward_auth.as_deref();
        asked.is_some_and(|asked| asked.asked_by == AskingProxy::Envoy)
    }

    pub(super) async fn write(
        &self,
        session: &mut Session,
        ctx: &RequestCtx,
        mut head: ResponseHeader,
        body: Bytes,
    ) -> Result<()> {
        head.insert_header("X-Request-Id", ctx.request_id.header()?)?;
        cors::expose(&mut head, ctx.allow_origin.as_deref())?;
        body::drain_small(session).await;
        let bodyless = session.req_header().method == http::Method::HEAD || body.is_empty();
        session
            .write_response_header(Box::new(head), bodyless)
            .await?;
        if !bodyless {
            session.write_response_body(Some(body), true).await?;
        }
        Ok(())
    }

    pub(super) async fn answer_preflight(
        &self,
        session: &mut Session,
        ctx: &mut RequestCtx,
    ) -> Result<bool> {
        ctx.stage = Stage::Answered;
        let Some(origin) = ctx.allow_origin.clone() else {
            return self
                .refuse(session, ctx, &Refusal::OriginNotAllowed)
                .await
                .map(|()| true);
        };
        ctx.outcome = Outcome("preflight");
        let mut head = cors::preflight(&ctx.rules.cors, session.req_header(), &origin)?;
        head.insert_header("X-Request-Id", ctx.request_id.header()?)?;
        body::drain_small(session).await;
        session.write_response_header(Box::new(head), true).await?;
        Ok(true)
    }

    /// Answers from the kept response, when the request is the one that it answered.
    pub(super) async fn replay(
        &self,
        session: &mut Session,
        ctx: &mut RequestCtx,
        replay: &Replay,
    ) -> Result<bool> {
        ctx.stage = Stage::Answered;
        ctx.rule = Some(replay.purchase.route.rule.clone());
        ctx.meter = Some(Arc::clone(&replay.purchase.route.meter));
        ctx.bought = Some(Bought::of_replay(replay));
        let limit = replay.purchase.route.request_body_bytes_max;
        let digest = if session.as_downstream_mut().is_body_empty() {
            Some(digest_of(b""))
        } else {
            body::digest(session, limit, ctx.rules.body_timeout).await?
        };
        let Some(digest) = digest else {
            return self
                .refuse(session, ctx, &Refusal::BodyTooLarge)
                .await
                .map(|()| true);
        };
        if !replay.is_for(digest) {
            let refusal = replay.refused();
            return self.refuse(session, ctx, &refusal).await.map(|()| true);
        }
        ctx.outcome = Outcome("replayed");
        let mut head = ResponseHeader::build(replay.kept.status, Some(replay.kept.headers.len()))?;
        for (name, value) in &replay.kept.headers {
            head.append_header(name.clone(), value.as_slice())?;
        }
        if !head.headers.contains_key("content-length")
            && !matches!(replay.kept.status, 204 | 205 | 304)
        {
            head.insert_header("Content-Length", replay.kept.body.len().to_string())?;
        }
        head.insert_header("Idempotency-Replayed", "true")?;
        headers::make_private(&mut head)?;
        if let Some(receipt) = &replay.receipt {
            respond::set_receipt(&mut head, receipt, &replay.purchase)?;
        }
        let written = self
            .write(session, ctx, head, replay.kept.body.clone())
            .await;
        ctx.rules.gate.finish_replay(replay, written.is_ok());
        written.map(|()| true)
    }
}

pub(super) fn content_length(response: &ResponseHeader) -> Option<u64> {
    response
        .headers
        .get(CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Whether our answer can take the place of this response while its body is read to the end: it is
/// known to be small, from an HTTP/1.1 origin, and our own need not say its length.
pub(super) fn can_withhold(
    session: &Session,
    response: &ResponseHeader,
    kept_bytes_max: u64,
) -> bool {
    let small = content_length(response).is_some_and(|length| length <= kept_bytes_max);
    let client = session.req_header().version;
    small
        && response.version == http::Version::HTTP_11
        && matches!(client, http::Version::HTTP_11 | http::Version::HTTP_2)
}
