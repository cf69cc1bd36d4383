//! A plain request that has not paid is answered before there is a session for it. From outside nobody
//! can tell.

use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::support::protocol::{Duplex, Everywhere, Protocol};
use crate::support::raw::{raw_bytes, read_response};
use crate::support::wall::RULES;
use crate::support::{Setup, Wall, eventually, send};

/// Says nothing, and is read by pingora only.
const LONG_WAY: &str = "traceparent: 00\r\n";

const LIMITED: &str = r#"
[[rule]]
name = "limited"
path = "/limited"
price = "$0.001"
rate_limit = { requests = 4, per_s = 3600, by = "rule" }
"#;

fn setup() -> Setup {
    Setup {
        rules: Some(format!("{RULES}{LIMITED}")),
        ..Setup::default()
    }
}

/// The lines with this text, in the order in which they were written.
fn lines(wall: &Wall, text: &str) -> Vec<Value> {
    let log = wall.log();
    let parsed = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    parsed
        .filter(|line: &Value| line["message"] == text)
        .collect()
}

/// An answer, without what differs from one to the next.
async fn answer(to: &mut (impl Duplex + ?Sized), request: &str) -> (String, Vec<u8>) {
    to.write_all(request.as_bytes()).await.unwrap();
    to.flush().await.unwrap();
    let is_head = request.starts_with("HEAD");
    let response = read_response(&mut { to }, is_head).await;
    let mut head = response.head.clone();
    for name in ["x-request-id", "date", "retry-after"] {
        let value = response.header(name).unwrap_or("(none)");
        assert!(
            name == "retry-after" || value.len() >= 29,
            "{name}: {value}"
        );
        head = head.replace(value, "...");
    }
    (head, response.body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_request_gets_the_same_bytes_either_way() {
    let all = Everywhere::with(setup()).await;
    for protocol in [Protocol::Http1, Protocol::Http1Tls] {
        let mut one = all.connect(protocol).await;
        let mut other = all.connect(protocol).await;
        for (method, target, more) in [
            ("GET", "/v1/quote", ""),
            ("GET", "/v1/quote?secret=1", "Accept: */*\r\n"),
            ("HEAD", "/v1/quote", "Connection: keep-alive\r\n"),
            ("POST", "/v1/echo", "Content-Length: 0\r\n"),
            ("DELETE", "/v1/a%7Eb", "User-Agent: x\r\nCookie: a=b\r\n"),
            ("GET", "/v1/caf%c3%a9", ""),
            ("PUT", "/before/x", "X-Forwarded-For: 10.0.0.1\r\n"),
            ("GET", "/limited", ""),
            ("GET", "/limited", ""),
            // The rate counts both: the fifth is one too many.
            ("GET", "/limited", ""),
            ("HEAD", "/limited", ""),
        ] {
            let before = lines(&all.wall, "request refused").len();
            let head = format!("{method} {target} HTTP/1.1\r\nHost: api.example\r\n{more}");
            let quick = answer(&mut *one, &format!("{head}\r\n")).await;
            let long = answer(&mut *other, &format!("{head}{LONG_WAY}\r\n")).await;
            assert_eq!(quick, long, "{method} {target}");
            eventually("both are written down", || {
                lines(&all.wall, "request").len() == before + 2
            });
            let refused = lines(&all.wall, "request refused");
            let early: Vec<_> = refused[before..]
                .iter()
                .map(|l| l.get("early").is_some())
                .collect();
            assert_eq!(early, [true, false], "{method} {target}");
            let mut access = lines(&all.wall, "request").split_off(before);
            for line in &mut access {
                for name in ["timestamp", "request_id", "micros", "challenge_us"] {
                    let had = line.as_object_mut().unwrap().remove(name);
                    assert!(had.is_some() || name == "challenge_us", "{name}: {line}");
                }
            }
            assert_eq!(access[0], access[1], "{method} {target}");
        }
        let passed = lines(&all.wall, "request");
        let limited = passed.iter().filter(|line| line["rule"] == "limited");
        let outcomes: Vec<_> = limited
            .map(|line| line["outcome"].as_str().unwrap())
            .collect();
        let (paid, late) = outcomes.split_at(4);
        assert_eq!(paid, ["payment_required"; 4]);
        assert!(
            late.iter().all(|outcome| *outcome == "rate_limited"),
            "{late:?}"
        );
    }
    assert_eq!(all.wall.origin.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_may_follow_one_another_in_one_write() {
    let wall = setup().start().await;
    let priced = "GET /v1/quote HTTP/1.1\r\nHost: a\r\n\r\n".to_owned();
    let long = priced.replace("\r\n\r\n", &format!("\r\n{LONG_WAY}\r\n"));
    let free = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = "POST /v1/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let last = "GET /v1/quote HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let all = [&priced, &priced, &long, &priced, post, free, &priced, last].concat();
    let quiet = std::time::Duration::from_secs(20);
    let answers = raw_bytes(wall.address, all.as_bytes(), quiet).await;
    let answers = String::from_utf8_lossy(&answers);
    let statuses: Vec<&str> = answers
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| &answers[at + 9..at + 12])
        .collect();
    let want = ["402", "402", "402", "402", "402", "200", "402", "402"];
    assert_eq!(statuses, want);
    assert_eq!(wall.origin.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_through_a_trusted_proxy_or_asks_for_what_is_free_goes_the_long_way() {
    let trusting = Setup {
        server: "trusted_proxies = [\"127.0.0.0/8\"]".to_owned(),
        ..setup()
    };
    let wall = trusting.start().await;
    assert_eq!(wall.get("/v1/quote").await.status, 402);
    let wall_of_shadows = Setup {
        rules: Some(RULES.replace("settle = \"before\"", "shadow = true")),
        ..Setup::default()
    };
    let shadows = wall_of_shadows.start().await;
    assert_eq!(shadows.get("/before/x").await.status, 200);
    assert_eq!(shadows.get("/health").await.status, 200);
    assert_eq!(shadows.get("/admin/x").await.status, 403);
    assert_eq!(shadows.get("/elsewhere").await.status, 404);
    let scripted = shadows.request(reqwest::Method::GET, "/v1/quote");
    assert_eq!(
        send(scripted.header("Origin", "https://a.example"))
            .await
            .status,
        402
    );
    for wall in [&wall, &shadows] {
        let refused = lines(wall, "request refused");
        assert!(!refused.is_empty());
        assert!(
            refused.iter().all(|l| l.get("early").is_none()),
            "{refused:?}"
        );
    }
}
