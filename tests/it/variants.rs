//! More ways to ask for a priced path than anybody should know, against an origin that forgives all
//! of them. Nobody pays here, so whatever reaches the priced handler is a leak.

mod framing;
mod headers;
mod paths;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;

use crate::support::http2::raw_headers;
use crate::support::lenient::{Hit, Lenient};
use crate::support::raw::raw_bytes;
use crate::support::{Setup, Signer, Wall, eventually, offer};

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

async fn wall(lenient: &Lenient, top: &str) -> Wall {
    let setup = Setup {
        top: top.to_owned(),
        upstream_url: Some(format!("http://{}", lenient.address)),
        ..Setup::rules(RULES)
    };
    let listen = "h2c = true".to_owned();
    Setup { listen, ..setup }.start().await
}

async fn send_all(address: SocketAddr, corpus: &[Variant]) {
    stream::iter(corpus)
        .for_each_concurrent(AT_ONCE, |variant| async move {
            raw_bytes(address, &variant.bytes, QUIET).await;
        })
        .await;
}

/// The corpus through a wall: nothing may arrive at the priced handler.
async fn check(top: &str) {
    let lenient = Lenient::start().await;
    let wall = wall(&lenient, top).await;
    let corpus = corpus();
    println!("{} request variants with {top:?}", corpus.len());
    assert!(corpus.len() >= 500, "only {}", corpus.len());
    send_all(wall.address, &corpus).await;
    assert_no_leak(&lenient.hits(), &corpus);
    let proof = Signer::new().proof(&offer(1000));
    assert_eq!(wall.pay("/v1/secret", &proof).await.status, 200);
    eventually("a paid request arrives", || {
        lenient.hits().iter().any(|hit| hit.payment.is_some())
    });
}

#[track_caller]
fn assert_no_leak(hits: &[Hit], corpus: &[Variant]) {
    let leaks: Vec<String> = hits
        .iter()
        .map(|hit| {
            let number = hit.variant.parse::<usize>().ok();
            let sent = number.and_then(|n| corpus.get(n)).map(|v| v.what.as_str());
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

#[tokio::test(flavor = "multi_thread")]
async fn no_variant_reaches_a_priced_handler_unpaid() {
    check("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_where_everything_else_is_free() {
    check("unmatched = \"free\"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_over_http2() {
    for top in ["", "unmatched = \"free\""] {
        let lenient = Lenient::start().await;
        let wall = wall(&lenient, top).await;
        let mut paths = paths::all();
        paths.extend(paths::odd_for_http2());
        println!("{} path variants over h2c with {top:?}", paths.len());
        let address = wall.address;
        stream::iter(&paths)
            .for_each_concurrent(AT_ONCE, |path| async move {
                let fields: [(&[u8], &[u8]); 4] = [
                    (b":method", b"GET"),
                    (b":scheme", b"http"),
                    (b":authority", b"a.example"),
                    (b":path", path.as_bytes()),
                ];
                raw_headers(address, &fields).await;
            })
            .await;
        assert_no_leak(&lenient.hits(), &[]);
    }
}

/// The corpus is worth something only if this origin would have been fooled.
#[tokio::test(flavor = "multi_thread")]
async fn most_variants_reach_the_handler_where_there_is_no_wall() {
    let lenient = Lenient::start().await;
    let corpus = corpus();
    send_all(lenient.address, &corpus).await;
    let reached: BTreeSet<String> = lenient.hits().into_iter().map(|hit| hit.variant).collect();
    println!(
        "{} of {} variants fool the origin",
        reached.len(),
        corpus.len()
    );
    assert!(
        reached.len() >= 500,
        "only {} of {}",
        reached.len(),
        corpus.len()
    );
}
