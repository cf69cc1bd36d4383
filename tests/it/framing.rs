//! Odd requests, byte by byte: each must pass the gate, or not pass at all.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::raw::{raw_bytes, read_response};
use crate::support::{RawResponse, Signer, Wall, offer, raw_request};

const QUIET: Duration = Duration::from_millis(700);

/// Sends a request and says how it was answered; the priced handler must not have been reached.
async fn refused(wall: &Wall, request: &str) -> RawResponse {
    let before = wall.origin.hits("/v1/quote");
    let answer = raw_request(wall.address, request.as_bytes()).await;
    assert_eq!(
        wall.origin.hits("/v1/quote"),
        before,
        "reached the origin: {request:?}"
    );
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn absolute_form_passes_the_same_gate() {
    let wall = Wall::start().await;
    for target in [
        "http://a.example/v1/quote",
        "HTTP://a.example/v1/quote",
        "https://a.example/v1/quote?x",
    ] {
        let answer = refused(
            &wall,
            &format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        )
        .await;
        assert_eq!(answer.status, 402, "{target}");
    }
    let free = raw_request(
        wall.address,
        b"GET http://a.example/health HTTP/1.1\r\nHost: a.example\r\n\r\n",
    )
    .await;
    assert_eq!(free.status, 200);
    assert_eq!(wall.origin.last().target, "/health");
    for target in [
        "ftp://a.example/v1/quote",
        "http:///v1/quote",
        "*",
        "v1/quote",
        "http://a.example@b/v1/quote",
    ] {
        let answer = refused(
            &wall,
            &format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        )
        .await;
        assert!(
            matches!(answer.status, 0 | 400),
            "{target}: {}",
            answer.status
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_differs_from_the_authority_or_comes_twice_is_refused() {
    let wall = Wall::start().await;
    for head in [
        "GET http://a.example/health HTTP/1.1\r\nHost: b.example\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET /health HTTP/1.1\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: user@a\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a:notaport\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a b\r\n\r\n",
    ] {
        let answer = raw_request(wall.address, head.as_bytes()).await;
        assert!(
            matches!(answer.status, 0 | 400),
            "{head:?}: {}",
            answer.status
        );
    }
    assert_eq!(wall.origin.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn method_override_does_not_change_what_is_priced_or_forwarded() {
    let wall = Wall::start().await;
    let answer = refused(&wall, "POST /v1/quote HTTP/1.1\r\nHost: a\r\nX-HTTP-Method-Override: GET\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(answer.status, 402);
    let answer = refused(
        &wall,
        "GET /health?_method=DELETE HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    .await;
    assert_eq!(answer.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_and_trace_are_not_served() {
    let wall = Wall::start().await;
    for head in [
        "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
        "TRACE /health HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(
            raw_request(wall.address, head.as_bytes()).await.status,
            405,
            "{head:?}"
        );
    }
    assert_eq!(wall.origin.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_neither_a_way_in_nor_forwarded() {
    let wall = Wall::start().await;
    for upgrade in ["websocket", "h2c", "h2c, websocket", "TLS/1.0"] {
        let head = |path: &str| {
            format!(
                "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\n\
             HTTP2-Settings: AAMAAABkAAQAAP__\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
        };
        assert_eq!(
            refused(&wall, &head("/v1/quote")).await.status,
            402,
            "{upgrade}"
        );
        assert_eq!(
            raw_request(wall.address, head("/health").as_bytes())
                .await
                .status,
            200,
            "{upgrade}"
        );
        let seen = wall.origin.last();
        assert_eq!(
            (seen.header("upgrade"), seen.header("http2-settings")),
            (None, None),
            "{upgrade}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicting_and_broken_framing_is_refused() {
    let wall = Wall::start().await;
    for (headers, body) in [
        ("Content-Length: 5\r\nContent-Length: 6", "hello"),
        ("Content-Length: 5, 6", "hello"),
        ("Content-Length: -1", ""),
        ("Content-Length: +5", "hello"),
        ("Content-Length: 0x5", "hello"),
        ("Content-Length: abc", ""),
        ("Transfer-Encoding: gzip", "hello"),
        ("Transfer-Encoding: chunked, identity", "0\r\n\r\n"),
        ("Transfer-Encoding: xchunked", "0\r\n\r\n"),
    ] {
        let request = format!("POST /health HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n{body}");
        let answer = raw_request(wall.address, request.as_bytes()).await;
        assert!(
            matches!(answer.status, 0 | 400),
            "{headers}: {}",
            answer.status
        );
    }
    assert_eq!(wall.origin.seen().len(), 0);
}

/// Whatever the origin makes of the framing, the smuggled request must not reach it unpaid.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_smuggled_behind_another() {
    let wall = Wall::start().await;
    let smuggled = "GET /v1/quote HTTP/1.1\r\nHost: a\r\n\r\n";
    for headers in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: \tchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: chunked\r\n Content-Length: 4",
        "X: y\nTransfer-Encoding: chunked",
        "Content-Length: 0\r\nContent-Length: 0",
        "Expect: 100-continue\r\nContent-Length: 0",
    ] {
        for body in ["0\r\n\r\n", "", "1\r\nZ\r\n0\r\n\r\n"] {
            let request =
                format!("POST /health HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n{body}{smuggled}");
            let answer =
                raw_bytes(wall.address, request.as_bytes(), Duration::from_millis(150)).await;
            assert!(
                answer.starts_with(b"HTTP/1.1 ") || answer.is_empty(),
                "{headers:?} {body:?}"
            );
            assert_eq!(wall.origin.hits("/v1/quote"), 0, "{headers:?} {body:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_pipelined_request_passes_the_gate_and_is_answered_in_order() {
    let wall = Wall::start().await;
    let free = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    let priced = "GET /v1/quote HTTP/1.1\r\nHost: a\r\n\r\n";
    let proof = Signer::new().proof(&offer(1000));
    let paid = format!("GET /v1/quote HTTP/1.1\r\nHost: a\r\nPAYMENT-SIGNATURE: {proof}\r\n\r\n");
    let all = format!("{free}{priced}{paid}{free}{priced}");
    let answers = raw_bytes(wall.address, all.as_bytes(), QUIET).await;
    let answers = String::from_utf8_lossy(&answers);
    let statuses: Vec<&str> = answers
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| &answers[at + 9..at + 12])
        .collect();
    assert_eq!(statuses, ["200", "402", "200", "200", "402"]);
    assert_eq!(wall.origin.hits("/v1/quote"), 1, "only what was paid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_in_two_pieces_behind_another_one_is_read_whole() {
    let wall = Wall::start().await;
    let first = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    let second = "GET /health HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nX-Two: 2\r\n\r\n";
    let third = "GET /v1/quote HTTP/1.1\r\nHost: a\r\n\r\n";
    for cut in 1..second.len() {
        let (begun, rest) = second.split_at(cut);
        let mut client = TcpStream::connect(wall.address).await.unwrap();
        let pieces = [format!("{first}{begun}"), format!("{rest}{third}")];
        client.write_all(pieces[0].as_bytes()).await.unwrap();
        // The wall has read what there is by the time it answers.
        assert_eq!(read_response(&mut client, false).await.status, 200);
        client.write_all(pieces[1].as_bytes()).await.unwrap();
        let (mut answers, mut statuses) = (Vec::new(), Vec::new());
        while statuses.len() < 2 {
            let read = timeout(Duration::from_secs(20), client.read_buf(&mut answers));
            assert_ne!(read.await.unwrap().unwrap(), 0, "cut before {rest:?}");
            let text = String::from_utf8_lossy(&answers);
            let found = text.match_indices("HTTP/1.1 ");
            statuses = found
                .filter_map(|(at, _)| Some(text.get(at + 9..at + 12)?.to_owned()))
                .collect();
        }
        assert_eq!(statuses, ["200", "402"], "cut before {rest:?}");
        let seen = wall.origin.last();
        for (name, value) in [("x-one", "1"), ("x-two", "2")] {
            let found = seen.headers.iter().find(|(n, _)| n.as_str() == name);
            assert!(
                found.is_some_and(|(_, v)| v == value),
                "cut before {rest:?}: {:?}",
                seen.headers
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expect_continue_gets_its_402_before_the_body_and_100_when_admitted() {
    let wall = Wall::start().await;
    let unpaid =
        "POST /v1/echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(refused(&wall, unpaid).await.status, 402);
    let proof = Signer::new().proof(&offer(2000));
    let paid = format!(
        "POST /v1/echo HTTP/1.1\r\nHost: a\r\nPAYMENT-SIGNATURE: {proof}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"
    );
    let answer = raw_request(wall.address, paid.as_bytes()).await;
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (200, b"hello".as_slice())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_do_not_carry_a_payment_or_an_identity() {
    let wall = Wall::start().await;
    let proof = Signer::new().proof(&offer(2000));
    let unpaid = format!(
        "POST /v1/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: PAYMENT-SIGNATURE\r\n\r\n\
         5\r\nhello\r\n0\r\nPAYMENT-SIGNATURE: {proof}\r\n\r\n"
    );
    assert_eq!(refused(&wall, &unpaid).await.status, 402);
    let free = "POST /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Farewall-Payer\r\n\r\n\
                5\r\nhello\r\n0\r\nX-Farewall-Payer: forged\r\n\r\n";
    assert_eq!(raw_request(wall.address, free.as_bytes()).await.status, 200);
    let seen = wall.origin.last();
    assert!(
        seen.headers
            .iter()
            .all(|(_, value)| !value.contains("forged"))
    );
    assert_eq!(seen.body.as_ref(), b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_cannot_nominate_the_walls_headers_away() {
    let wall = Wall::start().await;
    let proof = Signer::new().proof(&offer(1000));
    let request = format!(
        "GET /v1/quote HTTP/1.1\r\nHost: a\r\nConnection: X-Farewall-Payer, X-Farewall-Rule, PAYMENT-SIGNATURE\r\nPAYMENT-SIGNATURE: {proof}\r\n\r\n"
    );
    let answer = raw_request(wall.address, request.as_bytes()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(wall.origin.last().header("x-farewall-rule"), Some("quote"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpaid_post_keeps_its_connection() {
    let wall = Wall::start().await;
    let post = "POST /v1/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let answers = raw_bytes(wall.address, post.as_bytes(), QUIET).await;
    let text = String::from_utf8_lossy(&answers);
    assert!(text.starts_with("HTTP/1.1 402"));
    assert!(!text.to_lowercase().contains("connection: close"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_every_framing_follow_one_another_on_one_connection() {
    let wall = Wall::start().await;
    let get = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = "POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "POST /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let unpaid = "POST /v1/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let priced = "GET /v1/quote HTTP/1.1\r\nHost: a\r\n\r\n";
    // Who comes first decides how the connection waits for the next.
    let orders = [
        [get, post, get, priced, post, priced],
        [post, get, unpaid, get, chunked, get],
        [unpaid, priced, post, chunked, priced, get],
        [priced, priced, get, unpaid, post, chunked],
    ];
    for order in orders {
        let mut client = TcpStream::connect(wall.address).await.unwrap();
        for (nth, request) in order.iter().enumerate() {
            let (before, middle) = (wall.origin.seen().len(), request.len() / 2);
            // In one piece, in two, behind line ends that say nothing.
            let pieces = match nth % 3 {
                0 => vec![request.to_string()],
                1 => vec![request[..middle].to_owned(), request[middle..].to_owned()],
                _ => vec![format!("\r\n\r\n{request}")],
            };
            for piece in &pieces {
                client.write_all(piece.as_bytes()).await.unwrap();
                client.flush().await.unwrap();
            }
            let free = request.contains("/health");
            let answer = read_response(&mut client, false).await;
            let want = if free { 200 } else { 402 };
            assert_eq!(answer.status, want, "{nth}: {request:?} in {order:?}");
            let seen = wall.origin.seen();
            assert_eq!(seen.len(), before + usize::from(free), "{nth}: {request:?}");
            if free && request.starts_with("POST") {
                assert_eq!(wall.origin.last().body.as_ref(), b"hello");
            }
        }
    }
}
