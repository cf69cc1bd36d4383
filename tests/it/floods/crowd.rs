//! Thousands of connections at once, each kind held by a process of its own: this binary, which is
//! told to run the one ignored test below.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{attacker, connect};
use crate::support::{Signer, offer};

/// So many from one address.
const EACH: usize = 500;
/// The variable that says what to do: kind and address of the wall.
const TASK: &str = "FAREWALL_FLOOD";

/// What a connection does, again and again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// A head that gets a byte now and then.
    SlowHead,
    /// Proofs that are none.
    Garbage,
    /// Good proofs of empty wallets.
    EmptyHanded,
    /// No proof at all.
    Challenge,
}

impl Kind {
    const ALL: [Self; 4] = [
        Self::SlowHead,
        Self::Garbage,
        Self::EmptyHanded,
        Self::Challenge,
    ];

    /// 10,500 in all: some are always being closed.
    const fn connections(self) -> usize {
        match self {
            Self::SlowHead => 4_500,
            Self::Garbage | Self::EmptyHanded | Self::Challenge => 2_000,
        }
    }

    fn number(self) -> usize {
        Self::ALL.iter().position(|kind| *kind == self).unwrap()
    }

    fn request(self) -> String {
        let (path, proof) = match self {
            Self::SlowHead => return "GET /v1/quote HTTP/1.1\r\nX-Slow: ".to_owned(),
            Self::Challenge => ("/v1/quote", String::new()),
            Self::Garbage => ("/v1/quote", "A".repeat(rand::random_range(0..4000))),
            Self::EmptyHanded => ("/dear", Signer::new().proof(&offer(5_000_000_000))),
        };
        let header = match proof.as_str() {
            "" => String::new(),
            proof => format!("PAYMENT-SIGNATURE: {proof}\r\n"),
        };
        format!("GET {path} HTTP/1.1\r\nHost: a\r\n{header}\r\n")
    }
}

/// A process that holds the connections of one kind until it is told to end.
pub(super) struct Crowd {
    kind: Kind,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Crowd {
    /// One of each kind; returns when all their connections are there.
    pub(super) fn gather(wall: SocketAddr) -> Vec<Self> {
        let start = |kind: Kind| {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "floods::crowd::holds_connections"])
                .args(["--ignored", "--nocapture"])
                .env(TASK, format!("{} {wall}", kind.number()))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let stdin = child.stdin.take();
            let stdout = BufReader::new(child.stdout.take().unwrap());
            Self {
                kind,
                child,
                stdin,
                stdout,
            }
        };
        let mut crowds: Vec<Self> = Kind::ALL.into_iter().map(start).collect();
        for crowd in &mut crowds {
            crowd.wait_for("all there");
        }
        crowds
    }

    /// From how many addresses proofs of empty wallets come.
    pub(super) fn empty_handed_addresses(&self) -> usize {
        match self.kind {
            Kind::EmptyHanded => self.kind.connections().div_ceil(EACH),
            Kind::SlowHead | Kind::Garbage | Kind::Challenge => 0,
        }
    }

    /// Ends it. Returns how many answers were none that such a client should get.
    pub(super) fn disperse(mut self) -> usize {
        drop(self.stdin.take());
        let line = self.wait_for("unexpected answers:");
        let count = line.rsplit(' ').next().unwrap().trim().parse();
        println!("{:?}: {}", self.kind, line.trim());
        count.unwrap()
    }

    #[track_caller]
    fn wait_for(&mut self, word: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.stdout.read_line(&mut line).unwrap();
            assert!(read > 0, "{:?} ended before {word:?}", self.kind);
            if line.contains(word) {
                return line;
            }
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a crowd fares.
#[derive(Default)]
struct Tally {
    held: AtomicUsize,
    answers: AtomicUsize,
    unexpected: AtomicUsize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "the flood starts it, as a process of its own"]
async fn holds_connections() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    let (number, wall) = task.split_once(' ').unwrap();
    let kind = Kind::ALL[number.parse::<usize>().unwrap()];
    let wall: SocketAddr = wall.parse().unwrap();
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let tally = Arc::new(Tally::default());
    for nth in 0..kind.connections() {
        let from = attacker(1000 + 100 * kind.number() + nth / EACH);
        let tally = Arc::clone(&tally);
        tokio::spawn(async move {
            loop {
                if let Ok(stream) = connect(from, wall).await {
                    tally.held.fetch_add(1, Ordering::Relaxed);
                    hold(stream, kind, &tally).await;
                    tally.held.fetch_sub(1, Ordering::Relaxed);
                }
            }
        });
    }
    // All at once would be held up by those that were closed meanwhile.
    while tally.held.load(Ordering::Relaxed) < kind.connections() * 98 / 100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("all there");
    let end = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
    let _ = end.await;
    println!(
        "{} held, {} answers; unexpected answers: {}",
        tally.held.load(Ordering::Relaxed),
        tally.answers.load(Ordering::Relaxed),
        tally.unexpected.load(Ordering::Relaxed)
    );
}

/// Until the wall closes it.
async fn hold(mut stream: TcpStream, kind: Kind, tally: &Tally) {
    let mut answer = vec![0; 8 * 1024];
    loop {
        if stream.write_all(kind.request().as_bytes()).await.is_err() {
            return;
        }
        if kind == Kind::SlowHead {
            return dribble(stream).await;
        }
        let Ok(read @ 1..) = stream.read(&mut answer).await else {
            return;
        };
        tally.answers.fetch_add(1, Ordering::Relaxed);
        let status = std::str::from_utf8(&answer[..read.min(12)]).unwrap_or_default();
        let refused = ["HTTP/1.1 402", "HTTP/1.1 429", "HTTP/1.1 503"].contains(&status);
        tally
            .unexpected
            .fetch_add(usize::from(!refused), Ordering::Relaxed);
        let pause = rand::random_range(3_000..10_000);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        // What is left of the answer.
        while stream.try_read(&mut answer).is_ok_and(|read| read > 0) {}
    }
}

/// A byte now and then, until the wall has had enough.
async fn dribble(mut stream: TcpStream) {
    let mut answer = [0; 1024];
    loop {
        let next = tokio::time::timeout(Duration::from_millis(500), stream.read(&mut answer));
        match next.await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) => return,
            Err(_) => {
                let _ = stream.try_write(b"x");
            }
        }
    }
}
