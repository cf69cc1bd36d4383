//! More ways to ask for a priced path than anybody should know, against an origin that forgives all
//! of them. Nobody pays here, so whatever reaches the priced handler is a leak.

mod framing;
mod headers;
mod http2;
mod paths;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::frames::{Frames, RawEnd};
use crate::support::lenient::{Hit, Lenient};
use crate::support::protocol::{Everywhere, Protocol};
use crate::support::raw::raw_bytes;
use crate::support::{Setup, Signer, eventually, offer, report};

/// Priced rules with free ones all around them.
const RULES: &str = r#"
[[rule]]
name = "root"
path = "/"
free = true

[[rule]]
name = "public"
path = "/public/{*rest}"
free = true

[[rule]]
name = "open"
path = "/v1/open"
free = true

[[rule]]
name = "jobs-read"
methods = ["GET"]
path = "/v1/jobs"
free = true

[[rule]]
name = "jobs"
methods = ["POST", "PUT", "DELETE"]
path = "/v1/jobs"
price = "$0.001"

[[rule]]
name = "secret"
path = "/v1/secret"
price = "$0.001"

[[rule]]
name = "private"
path = "/v1/private/{*rest}"
price = "$0.001"
"#;

/// What the wall does with all that no rule names, and how that is called.
const OTHERWISE: [(&str, &str); 2] = [
    ("", "all else denied"),
    ("unmatched = \"free\"", "all else free"),
];

/// So many variants, at least, in each protocol.
const VARIANTS_MIN: usize = 2_000;
/// Connections at once.
const AT_ONCE: usize = 32;
/// When a peer says nothing for so long, it has understood that more is to come.
const QUIET: Duration = Duration::from_millis(300);

/// One way to ask.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Variant {
    what: String,
    bytes: Vec<u8>,
}

/// The whole corpus as bytes of HTTP/1.1, without duplicates.
fn corpus() -> Vec<Variant> {
    let mut seen = BTreeSet::new();
    let paths = paths::all()
        .into_iter()
        .map(|path| request("GET", &path, ""));
    paths
        .chain(paths::targets())
        .chain(headers::all())
        .chain(framing::all())
        .filter(|bytes| seen.insert(bytes.clone()))
        .enumerate()
        .map(|(n, bytes)| Variant {
            what: format!("{n}: {}", bytes.escape_ascii()),
            bytes: numbered(n, bytes),
        })
        .collect()
}

/// A request that asks for the connection to be closed behind it.
fn request(method: &str, target: &str, headers: &str) -> Vec<u8> {
    let close = "Connection: close\r\n";
    format!("{method} {target} HTTP/1.1\r\nHost: a.example\r\n{headers}{close}\r\n").into_bytes()
}

/// With its number in a header, to be found again at the origin.
fn numbered(n: usize, bytes: Vec<u8>) -> Vec<u8> {
    let host = b"Host: a.example\r\n";
    let Some(at) = bytes.windows(host.len()).position(|w| w == host) else {
        return bytes;
    };
    let (before, after) = bytes.split_at(at);
    [before, format!("X-Variant: {n}\r\n").as_bytes(), after].concat()
}

/// Those of HTTP/2, each with its number in a field.
fn http2_corpus() -> Vec<(String, Frames)> {
    let numbered = |(n, frames): (usize, Frames)| {
        let text = |(name, value): &(Vec<u8>, Vec<u8>)| {
            format!("{}={}", name.escape_ascii(), value.escape_ascii())
        };
        let fields: Vec<String> = frames.fields.iter().map(text).collect();
        let what = format!("{n}: {}", fields.join(" "));
        (what, frames.with(b"x-variant", n.to_string().as_bytes()))
    };
    http2::all().into_iter().enumerate().map(numbered).collect()
}

fn setup(lenient: &Lenient, top: &str, rules: &str) -> Setup {
    Setup {
        top: top.to_owned(),
        upstream_url: Some(format!("http://{}", lenient.address)),
        ..Setup::rules(rules)
    }
}

async fn send_all(address: SocketAddr, corpus: &[Variant]) {
    stream::iter(corpus)
        .for_each_concurrent(AT_ONCE, |variant| async move {
            raw_bytes(address, &variant.bytes, QUIET).await;
        })
        .await;
}

/// To the origin itself, which closes when there is no more to read.
async fn send_directly(address: SocketAddr, corpus: &[Vec<u8>]) {
    stream::iter(corpus)
        .for_each_concurrent(AT_ONCE, |bytes| async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let _ = stream.write_all(bytes).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
        .await;
}

/// How often which end came.
type Ends = BTreeMap<RawEnd, usize>;

async fn send_frames(all: &Everywhere, protocol: Protocol, corpus: &[(String, Frames)]) -> Ends {
    let ends = stream::iter(corpus)
        .map(|(_, frames)| async move { frames.send(all.connect(protocol).await).await });
    let count = |mut ends: Ends, end| {
        *ends.entry(end).or_default() += 1;
        std::future::ready(ends)
    };
    ends.buffer_unordered(AT_ONCE)
        .fold(Ends::new(), count)
        .await
}

/// The corpus through a wall: nothing may arrive at the priced handler.
async fn check((top, otherwise): (&str, &str)) {
    let lenient = Lenient::start().await;
    let wall = setup(&lenient, top, RULES).start().await;
    let corpus = corpus();
    println!("{} request variants, {otherwise}", corpus.len());
    assert!(corpus.len() >= VARIANTS_MIN, "only {}", corpus.len());
    send_all(wall.address, &corpus).await;
    let sent: Vec<&str> = corpus.iter().map(|variant| variant.what.as_str()).collect();
    assert_no_leak(Protocol::Http1, otherwise, &lenient.hits(), &sent);
    let proof = Signer::new().proof(&offer(1000));
    assert_eq!(wall.pay("/v1/secret", &proof).await.status, 200);
    eventually("a paid request arrives", || {
        lenient.hits().iter().any(|hit| hit.payment.is_some())
    });
}

/// The corpus of HTTP/2 through a wall that speaks it so.
async fn check_http2(protocol: Protocol, (top, otherwise): (&str, &str)) {
    let lenient = Lenient::start().await;
    let all = Everywhere::with(setup(&lenient, top, RULES)).await;
    let corpus = http2_corpus();
    assert!(corpus.len() >= VARIANTS_MIN, "only {}", corpus.len());
    let ends = send_frames(&all, protocol, &corpus).await;
    println!(
        "{} request variants over {protocol:?}, {otherwise}: {ends:?}",
        corpus.len()
    );
    let sent: Vec<&str> = corpus.iter().map(|(what, _)| what.as_str()).collect();
    assert_no_leak(protocol, otherwise, &lenient.hits(), &sent);
    let challenged = ends.get(&RawEnd::Response(402)).copied().unwrap_or(0);
    assert!(challenged >= 200, "most are not understood: {ends:?}");
    assert_eq!(ends.get(&RawEnd::Silence), None, "no answer: {ends:?}");
    let proof = Signer::new().proof(&offer(1000));
    let scheme = protocol.scheme().as_bytes();
    let paid = Frames::request(b"GET", scheme, b"a.example", b"/v1/secret")
        .with(b"payment-signature", proof.as_bytes());
    let end = paid.send(all.connect(protocol).await).await;
    assert_eq!(end, RawEnd::Response(200), "paid, in the same frames");
    let hits = lenient.hits();
    assert!(hits.iter().any(|hit| hit.payment.is_some()), "{hits:?}");
}

#[track_caller]
fn assert_no_leak(protocol: Protocol, otherwise: &str, hits: &[Hit], sent: &[&str]) {
    let name = match protocol {
        Protocol::Http1 => "HTTP/1.1",
        Protocol::H2c => "h2c",
        Protocol::Http1Tls => "HTTP/1.1 over TLS",
        Protocol::Http2Tls => "HTTP/2 over TLS",
    };
    let what = format!("request variants, {name}, {otherwise}");
    report(&what, sent.len(), hits.len());
    let leaks: Vec<String> = hits
        .iter()
        .map(|hit| {
            let number = hit.variant.parse::<usize>().ok();
            let sent = number.and_then(|n| sent.get(n));
            format!("{:?} read as {} from {sent:?}", hit.head, hit.reading)
        })
        .collect();
    assert!(
        leaks.is_empty(),
        "{} leaks:\n{}",
        leaks.len(),
        leaks.join("\n")
    );
}

/// Which variants came to the priced handler.
fn reached(lenient: &Lenient) -> BTreeSet<String> {
    lenient.hits().into_iter().map(|hit| hit.variant).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_variant_reaches_a_priced_handler_unpaid() {
    check(OTHERWISE[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_where_everything_else_is_free() {
    check(OTHERWISE[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_over_http2_without_tls() {
    for otherwise in OTHERWISE {
        check_http2(Protocol::H2c, otherwise).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_over_http2_with_tls() {
    for otherwise in OTHERWISE {
        check_http2(Protocol::Http2Tls, otherwise).await;
    }
}

/// The corpus is worth something only if this origin would have been fooled.
#[tokio::test(flavor = "multi_thread")]
async fn most_variants_reach_the_handler_where_there_is_no_wall() {
    let http1: Vec<Vec<u8>> = corpus().into_iter().map(|variant| variant.bytes).collect();
    let http2: Vec<Vec<u8>> = http2_corpus()
        .iter()
        .map(|(_, frames)| http2::downgraded(frames))
        .collect();
    for (corpus, min) in [(http1, 1_500), (http2, 2_000)] {
        let lenient = Lenient::start().await;
        send_directly(lenient.address, &corpus).await;
        let reached = reached(&lenient).len();
        println!("{reached} of {} variants fool the origin", corpus.len());
        assert!(reached >= min, "only {reached} of {}", corpus.len());
    }
}

/// And if its frames are such that a wall which sells nothing passes them on.
#[tokio::test(flavor = "multi_thread")]
async fn many_variants_of_http2_reach_the_handler_where_nothing_is_priced() {
    let lenient = Lenient::start().await;
    let rules = "[[rule]]\nname = \"root\"\npath = \"/\"\nfree = true";
    let setup = setup(&lenient, OTHERWISE[1].0, rules);
    let all = Everywhere::with(setup).await;
    let corpus = http2_corpus();
    let ends = send_frames(&all, Protocol::H2c, &corpus).await;
    let reached = reached(&lenient).len();
    println!("{reached} of {} variants pass: {ends:?}", corpus.len());
    assert!(
        reached >= 100,
        "only {reached} of {}: {ends:?}",
        corpus.len()
    );
}
