//! The same gate for HTTP/1.1 and HTTP/2, with and without TLS.

use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol as Extended;
use http::{HeaderMap, HeaderValue, Method, Request};

use crate::support::frames::{RawEnd, raw_headers};
use crate::support::http2::answer;
use crate::support::protocol::{AUTHORITY, Everywhere, Protocol, Say};
use crate::support::{Signer, eventually, offer};

#[tokio::test(flavor = "multi_thread")]
async fn free_passes_priced_is_402_and_paid_is_200_with_a_receipt() {
    for protocol in Protocol::ALL {
        let all = Everywhere::start().await;
        let free = all.say(protocol, &Say::new("GET", "/health?a=1")).await;
        assert_eq!(free.status, 200, "{protocol:?}");
        assert_eq!(all.wall.origin.last().target, "/health?a=1");
        assert_eq!(all.wall.origin.last().header("host"), Some(AUTHORITY));
        let scheme = all.wall.origin.last();
        assert_eq!(scheme.header("x-forwarded-proto"), Some(protocol.scheme()));

        let unpaid = all.say(protocol, &Say::new("GET", "/v1/quote")).await;
        assert_eq!(unpaid.status, 402, "{protocol:?}");
        assert_eq!(unpaid.challenge()["accepts"][0], offer(1000).0);
        assert_eq!(all.wall.origin.seen().len(), 1, "{protocol:?}");

        let proof = Signer::new().proof(&offer(1000));
        let say = Say::new("GET", "/v1/quote").with("payment-signature", &proof);
        let paid = all.say(protocol, &say).await;
        assert_eq!(paid.status, 200, "{protocol:?}");
        assert_eq!(paid.receipt()["success"], true);
        assert_eq!(
            all.wall.origin.last().header("x-farewall-rule"),
            Some("quote")
        );
        eventually("delivered", || all.wall.states() == ["delivered"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_is_priced() {
    let all = Everywhere::start().await;
    for protocol in Protocol::ALL {
        for method in [
            "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PROPFIND", "X-OWN", "get",
        ] {
            let answer = all.say(protocol, &Say::new(method, "/v1/thing")).await;
            assert!(
                matches!(answer.status, 400 | 402 | 404 | 405 | 501),
                "{protocol:?} {method}: {}",
                answer.status
            );
            if method.chars().all(|c| c.is_ascii_uppercase()) {
                assert_eq!(answer.status, 402, "{protocol:?} {method}");
            }
            if method == "HEAD" {
                assert!(answer.header("payment-required").is_some(), "{protocol:?}");
                assert_eq!(answer.body, "", "{protocol:?}");
            }
        }
    }
    assert_eq!(all.wall.origin.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_paths_are_refused_or_priced_in_every_protocol() {
    let all = Everywhere::start().await;
    for protocol in Protocol::ALL {
        for (path, want) in [
            ("/v1/%71uote", 402),
            ("/v1/quote/", 402),
            ("/v1/quot%45", 402),
            ("/health/../v1/quote", 400),
            ("/health/%2e%2e/v1/quote", 400),
            ("/v1//quote", 400),
            ("//v1/quote", 400),
            ("/v1%2fquote", 400),
            ("/v1%5cquote", 400),
            ("/v1/quote%00", 400),
            ("/v1/quote;a=b", 400),
            ("/v1/quote%3ba", 400),
            ("/v1/%2571uote", 400),
            ("/v1/%zzquote", 400),
            ("/nothing/here", 404),
            ("/admin/x", 403),
        ] {
            let got = all.say(protocol, &Say::new("GET", path)).await.status;
            assert_eq!(got, want, "{protocol:?} {path}");
        }
    }
    assert_eq!(all.wall.origin.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn payment_headers_that_come_twice_are_refused() {
    let all = Everywhere::start().await;
    for protocol in Protocol::ALL {
        let (signer, price) = (Signer::new(), offer(1000));
        let (one, two) = (signer.proof(&price), signer.proof(&price));
        for (name, first, second) in [
            ("payment-signature", &one, &one),
            ("payment-signature", &one, &two),
            ("x-payment", &one, &two),
        ] {
            let say = Say::new("GET", "/v1/quote")
                .with(name, first)
                .with(name, second);
            let answer = all.say(protocol, &say).await;
            assert!(matches!(answer.status, 400 | 402), "{protocol:?} {name}");
        }
    }
    assert_eq!(all.wall.origin.seen().len(), 0);
    assert_eq!(all.wall.sandbox.stats().settle_calls, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_headers_do_not_arrive_on_any_route() {
    let all = Everywhere::start().await;
    for protocol in Protocol::ALL {
        let proof = Signer::new().proof(&offer(1000));
        let forged = |path| {
            Say::new("GET", path)
                .with("x-farewall-payer", "forged")
                .with("x-farewall-payment-id", "forged")
                .with("x_farewall_rule", "forged")
                .with("x-farewall-anything", "forged")
                .with("x-http-method-override", "forged")
                .with("x-original-url", "forged")
        };
        let free = all.say(protocol, &forged("/health")).await;
        let paid = forged("/v1/quote").with("payment-signature", &proof);
        let paid = all.say(protocol, &paid).await;
        assert_eq!((free.status, paid.status), (200, 200), "{protocol:?}");
        for seen in all.wall.origin.seen() {
            let mut values = seen.headers.iter().map(|(_, value)| value);
            assert!(
                values.all(|value| value != "forged"),
                "{protocol:?} {seen:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_differs_from_the_host_header_is_refused() {
    let all = Everywhere::start().await;
    for protocol in Protocol::ALL.into_iter().filter(|p| p.is_http2()) {
        let connection = all.http2(protocol).await;
        for host in [
            "other.example",
            "api.example:81",
            "api.example, b",
            "a b",
            "",
        ] {
            let mut request = Say::new("GET", "/health").request(protocol.scheme());
            let value = HeaderValue::from_str(host).unwrap();
            request.headers_mut().insert("host", value);
            if let Ok(answer) = connection.send(request).await {
                assert_eq!(answer.status, 400, "{protocol:?} {host:?}");
            }
        }
        assert_eq!(all.wall.origin.seen().len(), 0, "{protocol:?}");
    }
    let connection = all.http2(Protocol::H2c).await;
    let same = Say::new("GET", "/health")
        .with("host", AUTHORITY)
        .request("http");
    assert_eq!(connection.send(same).await.unwrap().status, 200);
    assert_eq!(all.wall.origin.last().header("host"), Some(AUTHORITY));
}

#[tokio::test(flavor = "multi_thread")]
async fn pseudo_headers_out_of_order_are_refused() {
    let all = Everywhere::start().await;
    let address = all.wall.address;
    let good: [(&[u8], &[u8]); 4] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"api.example"),
        (b":path", b"/v1/quote"),
    ];
    assert_eq!(raw_headers(address, &good).await, RawEnd::Response(402));
    let more: [&[(&[u8], &[u8])]; 14] = [
        &[(b":path", b"/health")],
        &[(b":method", b"OPTIONS")],
        &[(b":authority", b"b.example")],
        &[(b":status", b"200")],
        &[(b":protocol", b"websocket")],
        &[(b":odd", b"x")],
        &[(b"x-a", b"b"), (b":path", b"/health")],
        &[(b"X-Upper", b"b")],
        &[(b"connection", b"close")],
        &[(b"transfer-encoding", b"chunked")],
        &[(b"upgrade", b"websocket")],
        &[(b"te", b"gzip")],
        &[(b"host", b"b.example")],
        &[(b"x-a", b"b\r\nx-farewall-payer: forged")],
    ];
    for fields in more {
        for path in [b"/v1/quote".as_slice(), b"/health"] {
            let mut all_fields = good;
            all_fields[3].1 = path;
            let all_fields: Vec<_> = all_fields
                .into_iter()
                .chain(fields.iter().copied())
                .collect();
            raw_headers(address, &all_fields).await;
            assert_eq!(all.wall.origin.hits("/v1/quote"), 0, "{fields:?}");
        }
    }
    let forged = |seen: &crate::support::origin::Seen| {
        seen.headers
            .iter()
            .any(|(_, value)| value.contains("forged"))
    };
    assert!(!all.wall.origin.seen().iter().any(forged));
    for path in [
        b"".as_slice(),
        b"*",
        b"v1/quote",
        b"http://api.example/v1/quote",
        b"/v1/quote x",
        b"/v1\\quote",
        b"/v1/quote\0",
        b"/v1/quote#x",
        b"/health HTTP/1.1\r\nhost: a\r\n\r\nGET /v1/quote",
    ] {
        let mut fields = good;
        fields[3].1 = path;
        let end = raw_headers(address, &fields).await;
        let shown = String::from_utf8_lossy(path);
        assert_ne!(end, RawEnd::Response(200), "{shown:?}");
        assert_eq!(all.wall.origin.hits("/v1/quote"), 0, "{shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_and_extended_connect_are_refused() {
    let all = Everywhere::start().await;
    let address = all.wall.address;
    let connect: [&[(&[u8], &[u8])]; 3] = [
        &[
            (b":method", b"CONNECT"),
            (b":authority", b"api.example:443"),
        ],
        &[
            (b":method", b"CONNECT"),
            (b":protocol", b"websocket"),
            (b":scheme", b"http"),
            (b":authority", b"api.example"),
            (b":path", b"/v1/quote"),
        ],
        &[
            (b":method", b"CONNECT"),
            (b":scheme", b"http"),
            (b":authority", b"api.example"),
            (b":path", b"/health"),
        ],
    ];
    for fields in connect {
        let end = raw_headers(address, fields).await;
        assert!(
            matches!(end, RawEnd::Refused | RawEnd::Response(400 | 405 | 0)),
            "{fields:?}: {end:?}"
        );
    }
    for protocol in [Protocol::H2c, Protocol::Http2Tls] {
        let connection = all.http2(protocol).await;
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("{}://{AUTHORITY}/v1/quote", protocol.scheme()))
            .body(Bytes::new())
            .unwrap();
        request
            .extensions_mut()
            .insert(Extended::from_static("websocket"));
        if let Ok(answer) = connection.send(request).await {
            assert!(matches!(answer.status, 400 | 405), "{}", answer.status);
        }
    }
    assert_eq!(all.wall.origin.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_http2_carry_neither_a_payment_nor_an_identity() {
    let all = Everywhere::start().await;
    for protocol in [Protocol::H2c, Protocol::Http2Tls] {
        let proof = Signer::new().proof(&offer(2000));
        let connection = all.http2(protocol).await;
        let mut trailers = HeaderMap::new();
        trailers.insert("payment-signature", proof.parse().unwrap());
        trailers.insert("x-farewall-payer", "forged".parse().unwrap());
        for (path, want) in [("/v1/echo", 402), ("/health", 200)] {
            let mut say = Say::new("POST", path);
            say.body = "hello";
            let request = say.request(protocol.scheme());
            let sent = connection
                .send_with_trailers(request, Some(trailers.clone()))
                .await;
            if let Ok(answer) = sent {
                assert_eq!(answer.status, want, "{protocol:?} {path}");
            }
        }
        assert_eq!(all.wall.origin.hits("/v1/echo"), 0);
        for seen in all.wall.origin.seen() {
            assert!(seen.headers.iter().all(|(_, value)| value != "forged"));
            assert_eq!(seen.header("payment-signature"), None);
        }
    }
}

/// Hanging up in HTTP/2 is resetting a stream, and that breaks off the work for it. Nothing was
/// charged, then, or it was settled before: a debt, collected by the same proof where the work can
/// be repeated, else told with its receipt.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_stream_is_not_charged_or_can_be_collected() {
    let all = Everywhere::start().await;
    for (method, path, body) in [
        ("GET", "/v1/slow?ms=400", ""),
        ("POST", "/v1/slow?ms=500", "work"),
        ("GET", "/before/slow?ms=600", ""),
        ("POST", "/before/slow?ms=700", "work"),
    ] {
        for protocol in [Protocol::H2c, Protocol::Http2Tls] {
            let price = if path.starts_with("/before") {
                3000
            } else {
                2000
            };
            let proof = Signer::new().proof(&offer(price));
            let mut say = Say::new(method, path).with("payment-signature", &proof);
            say.body = body;
            let settled = all.wall.sandbox.stats().settled;
            let hits = all.wall.origin.seen().len();
            let connection = all.http2(protocol).await;
            let (response, mut stream) = connection.begin(say.request(protocol.scheme())).await;
            eventually("asked", || all.wall.origin.seen().len() > hits);
            stream.send_reset(h2::Reason::CANCEL);
            drop(response);
            eventually("an end", || {
                matches!(all.wall.states()[0].as_str(), "settled" | "released")
            });
            let state = all.wall.states()[0].clone();
            // Whatever the work came to must be kept before anybody asks for it again.
            tokio::time::sleep(Duration::from_millis(700)).await;
            let again = all.say(protocol, &say).await;
            let told = format!("{protocol:?} {method} {path} after {state}: {again:?}");
            assert!(
                matches!(again.status, 200 | 409),
                "{told}\n{:?}",
                all.wall.ledger()
            );
            assert_eq!(again.receipt()["success"], true, "{told}");
            assert_eq!(all.wall.sandbox.stats().settled, settled + 1, "{told}");
            if again.status == 409 {
                assert_eq!((method, state.as_str()), ("POST", "settled"), "{told}");
                assert_eq!(again.error(), "paid_response_lost");
            } else {
                assert_eq!(again.status, 200, "{told}");
                eventually("delivered", || all.wall.states()[0] == "delivered");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_one_connection_are_gated_one_by_one() {
    let all = Everywhere::start().await;
    let connection = all.http2(Protocol::H2c).await;
    let proofs: Vec<String> = (0..8).map(|_| Signer::new().proof(&offer(2000))).collect();
    let paths: Vec<String> = (0..8).map(|n| format!("/v1/slow?ms=200&n={n}")).collect();
    let mut streams = Vec::new();
    for (path, proof) in paths.iter().zip(&proofs) {
        let paid = Say::new("GET", path).with("payment-signature", proof);
        for say in [paid, Say::new("GET", path), Say::new("GET", "/health")] {
            streams.push(connection.begin(say.request("http")).await.0);
        }
    }
    let mut statuses = Vec::new();
    for stream in streams {
        statuses.push(answer(stream).await.unwrap().status);
    }
    assert_eq!(statuses, [200, 402, 200].repeat(8));
    assert_eq!(all.wall.origin.hits("/v1/slow"), 8);
    assert_eq!(all.wall.sandbox.stats().settled, 8);
}
