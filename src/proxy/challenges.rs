//! What is answered on the socket of `[acme]`, in plain HTTP: the ACME server's challenges, and to
//! everybody else where the wall is.
//!
//! There is no upstream here, so nothing can be had for nothing. Not even the gate is asked: every
//! other request is told to come to `public_origin`, and meets it there.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use pingora::apps::{HttpServerApp, ReusedHttpStream};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;

use crate::acme::Tokens;
use crate::proxy::{Generation, watched};

/// Where an ACME server looks. Rule: RFC 8555, section 8.3.
const CHALLENGES: &[u8] = b"/.well-known/acme-challenge/";

/// How long a client may take to read an answer.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// Answers challenges.
pub struct Challenges {
    /// Those under way.
    pub tokens: Arc<Tokens>,
    /// Says where the wall is.
    pub in_force: Arc<ArcSwap<Generation>>,
}

/// What one request gets.
#[derive(Debug, Eq, PartialEq)]
enum Answer {
    Challenge(String),
    Elsewhere(String),
    Nothing,
}

impl Challenges {
    fn answer(&self, method: &Method, target: &[u8]) -> Answer {
        let in_force = self.in_force.load();
        if target.len() > in_force.target_bytes_max {
            return Answer::Nothing;
        }
        answer(&self.tokens, &in_force.seller.public_origin, method, target)
    }
}

/// `target` is what stands in the request line.
fn answer(tokens: &Tokens, origin: &str, method: &Method, target: &[u8]) -> Answer {
    if let Some(token) = target.strip_prefix(CHALLENGES) {
        let is_read = *method == Method::GET || *method == Method::HEAD;
        let token = std::str::from_utf8(token).ok().filter(|_| is_read);
        let answer = token.and_then(|token| tokens.answer(token));
        return answer.map_or(Answer::Nothing, Answer::Challenge);
    }
    // Without its leading slash, a target could become a part of the host.
    let is_path = target.first() == Some(&b'/') && target.iter().all(u8::is_ascii_graphic);
    match std::str::from_utf8(target) {
        Ok(target) if is_path && origin.starts_with("https://") => {
            Answer::Elsewhere(format!("{origin}{target}"))
        }
        Ok(_) | Err(_) => Answer::Nothing,
    }
}

impl Answer {
    /// Status and headers, and the body.
    fn response(self) -> pingora::Result<(ResponseHeader, String)> {
        let (status, location, body) = match self {
            Self::Challenge(answer) => (200, None, answer),
            Self::Elsewhere(location) => (308, Some(location), String::new()),
            Self::Nothing => (404, None, String::new()),
        };
        let mut head = ResponseHeader::build(status, Some(4))?;
        head.insert_header("Content-Length", body.len())?;
        head.insert_header("Cache-Control", "no-store")?;
        if let Some(location) = location {
            head.insert_header("Location", location)?;
        } else {
            head.insert_header("Content-Type", "application/octet-stream")?;
        }
        Ok((head, body))
    }
}

#[async_trait]
impl HttpServerApp for Challenges {
    /// One request a connection. Errors are the client's, who may be anybody: they are not logged.
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        _: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if !session.read_request().await.ok()? {
            return None;
        }
        watched::head_was_read(None);
        session.set_keepalive(None);
        let request = session.req_header();
        let is_head = request.method == Method::HEAD;
        let answer = self.answer(&request.method, request.raw_path());
        let (head, body) = answer.response().ok()?;
        let body = Bytes::from(if is_head { String::new() } else { body });
        // Who does not read is let go: its place is one of those that buyers need.
        let written = write(session, head, body);
        tokio::time::timeout(WRITE_MAX, written).await.ok()?.ok()?;
        None
    }
}

async fn write(
    mut session: ServerSession,
    head: ResponseHeader,
    body: Bytes,
) -> pingora::Result<()> {
    session.write_response_header(Box::new(head)).await?;
    if !body.is_empty() {
        session.write_response_body(body, true).await?;
    }
    session.finish().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: Method, target: &str, want: &str) {
        let tokens = Tokens::default();
        let answer = answer(
            &tokens,
            "https://api.example.com",
            &method,
            target.as_bytes(),
        );
        let got = match answer {
            Answer::Challenge(answer) => answer,
            Answer::Elsewhere(location) => location,
            Answer::Nothing => "nothing".to_owned(),
        };
        assert_eq!(got, want, "{target}");
    }

    #[test]
    fn every_other_request_is_sent_to_the_public_origin_or_gets_nothing() {
        let get = || Method::GET;
        check(
            get(),
            "/v1/quote?a=b",
            "https://api.example.com/v1/quote?a=b",
        );
        check(Method::POST, "/", "https://api.example.com/");
        check(
            get(),
            "//evil.example/",
            "https://api.example.com//evil.example/",
        );
        check(
            get(),
            "/.well-known/other",
            "https://api.example.com/.well-known/other",
        );
        for target in [
            "@evil.example/",
            ".evil.example/",
            "http://evil.example/",
            "*",
            "",
            "/a b",
            "/a\r\nSet-Cookie: a=b",
            "/é",
            "/.well-known/acme-challenge/",
            "/.well-known/acme-challenge/unknown",
            "/.well-known/acme-challenge/../../v1/quote",
        ] {
            check(get(), target, "nothing");
        }
        let plain = answer(&Tokens::default(), "http://a.example", &get(), b"/a");
        assert_eq!(plain, Answer::Nothing, "it would lead back here");
    }
}
