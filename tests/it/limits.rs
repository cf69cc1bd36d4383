//! Everything has a limit.

use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::frames::Frames;
use crate::support::http2::answer;
use crate::support::protocol::{Everywhere, Protocol, Say};
use crate::support::raw::read_response;
use crate::support::wall::BINARY;
use crate::support::{Setup, Signer, Wall, eventually, offer, raw_request, send};

/// Far below the idle time of a connection, far above what a busy machine needs.
const LONG: Duration = Duration::from_secs(30);

fn small_bodies() -> Setup {
    Setup {
        limits: "request_body_bytes_max = 1000\ntarget_bytes_max = 200".to_owned(),
        ..Setup::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_413_and_costs_nothing() {
    let wall = small_bodies().start().await;
    let proof = Signer::new().proof(&offer(2000));
    let declared = wall
        .request(Method::POST, "/v1/echo")
        .header("PAYMENT-SIGNATURE", &proof)
        .body("x".repeat(1001));
    assert_eq!(send(declared).await.status, 413);
    assert_eq!(wall.sandbox.stats().verify_calls, 0);
    let chunked = format!(
        "POST /v1/echo HTTP/1.1\r\nHost: a\r\nPAYMENT-SIGNATURE: {proof}\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n",
        "x".repeat(1001)
    );
    assert_eq!(
        raw_request(wall.address, chunked.as_bytes()).await.status,
        413
    );
    assert_eq!(wall.sandbox.stats().settle_calls, 0);
    assert_eq!(wall.states(), ["released"]);
    let fits = wall
        .request(Method::POST, "/v1/echo")
        .header("PAYMENT-SIGNATURE", &proof)
        .body("x".repeat(1000));
    assert_eq!(send(fits).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_over_the_limit_is_414() {
    let wall = small_bodies().start().await;
    let query = "q".repeat(200 - "/health?".len());
    assert_eq!(wall.get(&format!("/health?{query}")).await.status, 200);
    assert_eq!(wall.get(&format!("/health?{query}q")).await.status, 414);
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_in_verification_are_bounded() {
    let setup = Setup {
        limits: "unverified_proofs_max = 1".to_owned(),
        ..Setup::default()
    };
    let wall: Wall = setup.start().await;
    wall.sandbox.misbehave(farewall::sandbox::Misbehaviour {
        kind: farewall::sandbox::Misdeed::SlowBody { ms: 800 },
        scope: farewall::sandbox::Scope::Verify,
        times: 1,
    });
    let (one, two) = (
        Signer::new().proof(&offer(1000)),
        Signer::new().proof(&offer(1000)),
    );
    let (first, second) = tokio::join!(wall.pay("/v1/quote", &one), async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        wall.pay("/v1/quote", &two).await
    });
    assert_eq!((first.status, second.status), (200, 503));
    assert!(second.header("retry-after").is_some());
    assert_eq!(wall.pay("/v1/quote", &two).await.status, 200);
}

/// Shaking hands is not enough: whoever got that far must begin to speak.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_does_not_begin_with_http2_in_time_is_closed() {
    let setup = Setup {
        limits: "header_timeout_ms = 700".to_owned(),
        ..Setup::default()
    };
    let all = Everywhere::with(setup).await;
    let good = all.http2(Protocol::Http2Tls).await;
    let whole = Frames::request(b"GET", b"https", b"api.example", b"/health").bytes();
    for (protocol, sent) in [
        (Protocol::Http2Tls, 0),
        (Protocol::Http2Tls, 1),
        (Protocol::Http2Tls, 23),
        (Protocol::H2c, 0),
        (Protocol::H2c, 23),
        (Protocol::Http1Tls, 0),
    ] {
        let mut stream = all.connect(protocol).await;
        stream.write_all(&whole[..sent]).await.unwrap();
        stream.flush().await.unwrap();
        let mut rest = Vec::new();
        let end = tokio::time::timeout(LONG, stream.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "{protocol:?} is held after {sent} bytes");
    }
    assert_eq!(all.wall.origin.seen().len(), 0);
    // Who began in time may rest now.
    let say = Say::new("GET", "/health").request("https");
    assert_eq!(good.send(say).await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_next_request_is_closed_in_time() {
    let setup = Setup {
        limits: "idle_timeout_ms = 700".to_owned(),
        ..Setup::default()
    };
    let wall = setup.start().await;
    for sent in [
        "GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /v1/quote HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
        "POST /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(wall.address).await.unwrap();
        for _ in 0..2 {
            stream.write_all(sent.as_bytes()).await.unwrap();
            let status = read_response(&mut stream, false).await.status;
            assert!(matches!(status, 200 | 402), "{sent:?}: {status}");
        }
        let mut rest = Vec::new();
        let end = tokio::time::timeout(LONG, stream.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "held after {sent:?}");
        assert_eq!(rest, b"", "{sent:?}");
    }
}

/// pingora keeps the time between two pieces of a body in HTTP/1 only; in HTTP/2 the request ends
/// when the origin, which gets nothing either, has not answered in its own time.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_over_http2_ends_in_time_and_costs_nothing() {
    let setup = Setup {
        upstream: "read_timeout_ms = 700".to_owned(),
        ..Setup::default()
    };
    let all = Everywhere::with(setup).await;
    for protocol in [Protocol::H2c, Protocol::Http2Tls] {
        let connection = all.http2(protocol).await;
        let proof = Signer::new().proof(&offer(2000));
        let say = Say::new("POST", "/v1/echo").with("payment-signature", &proof);
        let request = say.request(protocol.scheme());
        let (response, mut stream) = connection.begin_upload(request).await;
        stream
            .send_data(Bytes::from_static(b"half"), false)
            .unwrap();
        let ended = tokio::time::timeout(LONG, answer(response)).await;
        let ended = ended.expect("it is held");
        assert!(
            !ended.is_ok_and(|answer| answer.status < 400),
            "{protocol:?}"
        );
        eventually("given back", || all.wall.states()[0] == "released");
    }
    assert_eq!(all.wall.sandbox.stats().settle_calls, 0);
}

/// The soft limit is the wall's to raise; what is missing beyond the hard one, it says.
#[tokio::test(flavor = "multi_thread")]
async fn a_wall_takes_the_files_that_it_needs_and_says_when_they_are_too_few() {
    for (limit, enough) in [("-S -n 300", true), ("-n 300", false)] {
        let setup = Setup {
            limits: "connections_max = 100\nconnections_per_client_max = 100".to_owned(),
            ..Setup::default()
        };
        let mut wall = setup.start().await;
        wall.kill();
        let before = wall.log().len();
        let log = std::fs::OpenOptions::new()
            .append(true)
            .open(wall.file("log"))
            .unwrap();
        let mut child = Command::new("sh")
            .args(["-c", &format!("ulimit {limit} && exec \"$0\" \"$@\"")])
            .args([BINARY, "run", "--config", wall.config.to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        eventually("the wall listens", || {
            std::net::TcpStream::connect(wall.address).is_ok()
        });
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        let said = wall.log()[before..].to_owned();
        assert_eq!(said.contains("files may run out"), !enough, "{said}");
        if let Ok(limits) = limits {
            let files = limits
                .lines()
                .find(|line| line.starts_with("Max open files"));
            let soft = files.unwrap().split_whitespace().nth(3).unwrap();
            assert_eq!(soft, if enough { "456" } else { "300" });
        }
    }
}
