//! Strangers in great numbers: memory stays bounded, buyers are served, facilitators are spared.
//!
//! Each attacker has a loopback address of its own, since limits are by address. Everything is bounded
//! in number and in time. The many connections are held by processes of their own, so that no limit
//! on open files is shared with the wall or this one.

mod crowd;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use self::crowd::Crowd;
use crate::support::wall::RULES;
use crate::support::{Setup, Signer, Wall, offer, raw_request, report, send};

/// Connections at once; fewer prove nothing.
const CONNECTIONS_MIN: usize = 10_000;
/// What the wall needs beside them: origin, facilitator, ledger, and those that are being closed.
const FILES_BESIDE: usize = 1_500;
/// How long the flood lasts.
const FLOOD: Duration = Duration::from_secs(8);
/// What the wall may take at the most: 10,500 connections at about 30 KiB each, which is what pingora
/// takes for one between two requests, the tables of the limits, and the program, unoptimised.
const RSS_KIB_MAX: usize = 450 * 1024;
/// A price above what every account of the sandbox has: its buyers have empty wallets.
const DEAR: &str = r#"
[[rule]]
name = "dear"
path = "/dear"
price = "$5000"
"#;

/// How many files a process may open here when it asks for it.
fn files_max() -> usize {
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    usize::try_from(most).unwrap_or(usize::MAX)
}

fn rss_kib(wall: &Wall) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", wall.pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let number = line.unwrap().split_whitespace().next().unwrap();
    number.parse().unwrap()
}

fn open_files(wall: &Wall) -> usize {
    let folder = std::fs::read_dir(format!("/proc/{}/fd", wall.pid()));
    folder.map_or(0, Iterator::count)
}

/// The address of the nth attacker.
fn attacker(nth: usize) -> Ipv4Addr {
    let [high, low] = u16::try_from(nth).unwrap().to_be_bytes();
    Ipv4Addr::new(127, 240, high, 1 + low)
}

async fn connect(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

fn client_at(from: Ipv4Addr) -> Client {
    Client::builder()
        .local_address(std::net::IpAddr::V4(from))
        .no_proxy()
        .build()
        .unwrap()
}

/// Sends requests until the flood is over; returns how many, and how many statuses were unexpected.
async fn flood(
    wall: Arc<Wall>,
    over: Arc<AtomicBool>,
    from: Ipv4Addr,
    path: &'static str,
    allowed: &'static [u16],
    mut header: impl FnMut() -> Option<String> + Send,
) -> usize {
    let client = client_at(from);
    let mut sent = 0;
    while !over.load(Ordering::Relaxed) {
        let mut request = client.request(Method::GET, wall.url(path));
        if let Some(value) = header() {
            request = request.header("PAYMENT-SIGNATURE", value);
        }
        let Ok(answer) = request.send().await else {
            continue;
        };
        let status = answer.status().as_u16();
        assert!(allowed.contains(&status), "{path}: {status}");
        sent += 1;
    }
    sent
}

/// What came of a flood.
#[derive(Debug, Default)]
struct Course {
    paid: usize,
    unserved: usize,
    memory_kib: usize,
    files: usize,
}

/// Pays for one request after the other while the flood lasts.
async fn pay_all_the_while(wall: &Wall) -> Course {
    let (since, mut course) = (Instant::now(), Course::default());
    while since.elapsed() < FLOOD {
        let proof = Signer::new().proof(&offer(1000));
        let request = wall.request(Method::GET, "/v1/quote");
        let request = request.header("PAYMENT-SIGNATURE", proof);
        let answer = request.timeout(Duration::from_secs(20)).send().await;
        match answer.map(|answer| answer.status().as_u16()) {
            Ok(200) => course.paid += 1,
            other => {
                eprintln!("a buyer in the flood: {other:?}");
                course.unserved += 1;
            }
        }
        course.memory_kib = course.memory_kib.max(rss_kib(wall));
        course.files = course.files.max(open_files(wall));
    }
    course
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_everything_leaves_memory_bounded_and_buyers_served() {
    let files = files_max();
    if files < CONNECTIONS_MIN + FILES_BESIDE {
        eprintln!("SKIPPED: only {files} files may be open; try `ulimit -Hn 25000`");
        return;
    }
    let setup = Setup {
        rules: Some(format!("{RULES}{DEAR}")),
        limits: "refused_proofs_per_minute_per_client = 30\nconnections_max = 30000\n\
                 unverified_proofs_per_client_max = 20"
            .to_owned(),
        ..Setup::default()
    };
    let wall = Arc::new(setup.start().await);
    let calm = rss_kib(&wall);
    let crowds = Crowd::gather(wall.address);
    let over = Arc::new(AtomicBool::new(false));
    let run = || (Arc::clone(&wall), Arc::clone(&over));
    let mut floods = Vec::new();
    for nth in 0..4 {
        let ((w, o), from) = (run(), attacker(nth));
        let garbage = move || Some(format!("{nth}{}", "A".repeat(rand::random_range(0..4000))));
        floods.push(tokio::spawn(flood(
            w,
            o,
            from,
            "/v1/quote",
            &[402],
            garbage,
        )));
        let ((w, o), from) = (run(), attacker(10 + nth));
        floods.push(tokio::spawn(flood(w, o, from, "/v1/quote", &[402], || {
            None
        })));
        let ((w, o), from) = (run(), attacker(20 + nth));
        let empty = || Some(Signer::new().proof(&offer(5_000_000_000)));
        let allowed = &[402, 429, 503];
        floods.push(tokio::spawn(flood(w, o, from, "/dear", allowed, empty)));
    }
    let course = pay_all_the_while(&wall).await;
    over.store(true, Ordering::Relaxed);
    let mut strangers = 0;
    for flood in floods {
        strangers += flood.await.unwrap();
    }
    let (mut unexpected, mut addresses) = (0, 4);
    for crowd in crowds {
        addresses += crowd.empty_handed_addresses();
        unexpected += crowd.disperse();
    }
    let calls = usize::try_from(wall.sandbox.stats().verify_calls).unwrap();
    println!(
        "{strangers} requests of busy strangers, {calls} verify calls; {calm} KiB calm; {course:?}"
    );
    let too_much = usize::from(course.memory_kib >= RSS_KIB_MAX);
    report(
        "connections at once in a flood",
        course.files,
        course.unserved + unexpected + too_much,
    );
    assert_eq!((course.unserved, unexpected, too_much), (0, 0, 0));
    assert!(course.paid >= 5 && strangers >= 500, "{course:?}");
    assert!(course.files >= CONNECTIONS_MIN, "{course:?}");
    // Of each address of the empty-handed: a burst of 30, one in two seconds, and what was under way.
    let allowed = addresses * (30 + 20 + 20);
    assert!(calls <= course.paid + allowed, "{calls} calls, {course:?}");
    assert_eq!(wall.sandbox.stats().settled, course.paid as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_or_endless_head_is_answered_and_closed() {
    let setup = Setup {
        limits: "header_timeout_ms = 700\nrequest_header_bytes_max = 2000".to_owned(),
        ..Setup::default()
    };
    let wall = setup.start().await;
    let slow = raw_request(wall.address, b"GET /health HTTP/1.1\r\nX-Slow: ").await;
    assert_eq!(slow.status, 408);
    let head = |bytes: usize| {
        let rest = "GET /health HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        let filler = "y".repeat(bytes - rest);
        format!("GET /health HTTP/1.1\r\nHost: a\r\nX: {filler}\r\n\r\n")
    };
    let fits = raw_request(wall.address, head(2000).as_bytes()).await;
    assert_eq!(fits.status, 200);
    let over = format!("GET /health HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(6000));
    let over = raw_request(wall.address, over.as_bytes()).await;
    assert_eq!(over.status, 431);
    // Whole at once, but over the limit all the same.
    let whole = raw_request(wall.address, head(2001).as_bytes()).await;
    assert_eq!(whole.status, 431);
    assert_eq!(wall.get("/health").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_in_single_bytes_and_one_behind_another_are_served() {
    let wall = Wall::start().await;
    let mut stream = TcpStream::connect(wall.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut answer = vec![0; 64 * 1024];
    for _ in 0..3 {
        for byte in b"\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n" {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let read = stream.read(&mut answer).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
    }
    let post = "POST /v1/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
    assert_eq!(raw_request(wall.address, post.as_bytes()).await.status, 402);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_client_are_bounded_and_others_get_in() {
    let setup = Setup {
        limits: "connections_per_client_max = 3".to_owned(),
        ..Setup::default()
    };
    let wall = setup.start().await;
    let greedy = attacker(1);
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = connect(greedy, wall.address).await.unwrap();
        stream
            .write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        assert!(stream.read(&mut [0; 1000]).await.unwrap() > 0);
        held.push(stream);
    }
    let mut fourth = connect(greedy, wall.address).await.unwrap();
    assert!(
        matches!(fourth.read(&mut [0; 10]).await, Ok(0) | Err(_)),
        "closed"
    );
    assert_eq!(wall.get("/health").await.status, 200, "another address");
    drop(held.pop());
    let mut status = 0;
    for _ in 0..100 {
        let again = client_at(greedy).get(wall.url("/health")).send().await;
        status = again.map_or(0, |answer| answer.status().as_u16());
        if status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(status, 200, "a place is free again");
}

const LIMITED: &str = r#"
[[rule]]
name = "by-client"
path = "/by-client"
price = "$0.001"
rate_limit = { requests = 2, per_s = 3600 }
[[rule]]
name = "by-payer"
path = "/by-payer"
price = "$0.001"
rate_limit = { requests = 2, per_s = 3600, by = "payer" }
[[rule]]
name = "free"
path = "/free"
free = true
rate_limit = { requests = 3, per_s = 3600, by = "rule" }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_a_rules_rate_are_429_before_any_payment_work() {
    let setup = Setup {
        server: "trusted_proxies = [\"127.0.0.1\"]".to_owned(),
        ..Setup::rules(LIMITED)
    };
    let wall = setup.start().await;
    let from = |address: &str, path: &str, proof: Option<&str>| {
        let mut request = wall
            .request(Method::GET, path)
            .header("X-Forwarded-For", format!("forged, {address}"));
        if let Some(proof) = proof {
            request = request.header("PAYMENT-SIGNATURE", proof);
        }
        send(request)
    };
    let buyer = Signer::new();
    let one = "198.51.100.1";
    assert_eq!(from(one, "/by-client", None).await.status, 402);
    let proof = buyer.proof(&offer(1000));
    assert_eq!(from(one, "/by-client", Some(&proof)).await.status, 200);
    let good = buyer.proof(&offer(1000));
    let refused = from(one, "/by-client", Some(&good)).await;
    assert_eq!(
        (refused.status, refused.error().as_str()),
        (429, "rate_limited")
    );
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=1800).contains(&wait), "{wait}");
    assert_eq!(refused.header("payment-required"), None);
    assert_eq!(wall.sandbox.stats().verify_calls, 1, "no payment work");
    let elsewhere = from("198.51.100.2", "/by-client", Some(&good)).await;
    assert_eq!(elsewhere.status, 200, "the payment was not used");

    for _ in 0..5 {
        assert_eq!(from(one, "/by-payer", None).await.status, 402);
    }
    for (signer, status) in [
        (&buyer, 200),
        (&buyer, 200),
        (&buyer, 429),
        (&Signer::new(), 200),
    ] {
        let proof = signer.proof(&offer(1000));
        assert_eq!(from(one, "/by-payer", Some(&proof)).await.status, status);
    }
    for (address, status) in [(one, 200), (one, 200), ("198.51.100.3", 200), (one, 429)] {
        assert_eq!(from(address, "/free", None).await.status, status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn facilitator_calls_are_limited_by_client_and_payer_but_not_for_remembered_verdicts() {
    let setup = Setup {
        limits: "verify_calls_per_minute_per_client = 4\nverify_calls_per_minute_per_payer = 2"
            .to_owned(),
        ..Setup::default()
    };
    let wall = setup.start().await;
    let payer = Signer::new();
    let (one, two) = (payer.proof(&offer(2000)), payer.proof(&offer(2000)));
    assert_eq!(wall.pay("/v1/fail", &one).await.status, 500);
    assert_eq!(wall.pay("/v1/fail", &two).await.status, 500);
    let third = wall.pay("/v1/good", &payer.proof(&offer(2000))).await;
    assert_eq!(
        (third.status, third.error().as_str()),
        (429, "rate_limited")
    );
    assert!(third.header("retry-after").is_some());
    assert_eq!(
        wall.pay("/v1/good", &one).await.status,
        200,
        "verified before"
    );
    for status in [200, 200, 429] {
        let proof = Signer::new().proof(&offer(2000));
        assert_eq!(wall.pay("/v1/good", &proof).await.status, status);
    }
    assert_eq!(wall.sandbox.stats().verify_calls, 4);
    assert_eq!(
        wall.pay("/v1/good", &two).await.status,
        200,
        "verified before"
    );
}
