//! How does a payment's cost grow with the ledger behind it, and what does tidying up add?
//!
//! Ledgers of the given sizes are filled with rows as they are once payments are over, then payments run
//! through them: look-up, claim, settling, settled, delivered. The times are those of the claim, which
//! every request waits for. One line of CSV for each cell, on the standard output:
//!
//! ```text
//! cargo bench --bench ledger_growth -- --dir /var/tmp/growth --fill --rows 10000,100000,1000000
//! cargo bench --bench ledger_growth -- --dir /var/tmp/growth --rows 0,10000,100000,1000000
//! cargo bench --bench ledger_growth -- --store postgres --rows 0,100000 --clients 1,8,64
//! ```
//!
//! Ten million rows are about 8 GB. Without `--dir` a temporary directory is filled and deleted.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark may stop at anything odd, and measures in floats"
)]

#[path = "ledger_growth/fill.rs"]
mod fill;
#[path = "../tests/it/support/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests use the rest")]
mod postgres;
mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use farewall::chain::{PayTo, Payer, PaymentKey};
use farewall::clock::{Clock, UnixSeconds};
use farewall::config::ledger::parse_url;
use farewall::ledger::postgres::PostgresLedger;
use farewall::ledger::sqlite::SqliteLedger;
use farewall::ledger::{ClaimAnswer, Fingerprint, Ledger, Move, NewClaim};
use farewall::retention::Retention;
use tokio::runtime::Runtime;

/// A settle request of the usual size.
const SETTLE_REQUEST_BYTES: usize = 1700;

struct Options {
    store: String,
    rows: Vec<u64>,
    clients: Vec<usize>,
    connections: usize,
    seconds: u64,
    dir: Option<PathBuf>,
    fill: bool,
    pruning: Vec<bool>,
}

impl Options {
    fn read() -> Self {
        let words: Vec<String> = std::env::args().collect();
        let after = |name: &str| {
            let at = words.iter().position(|word| word == name)?;
            words.get(at + 1).cloned()
        };
        let list = |name: &str, default: &str| -> Vec<u64> {
            let text = after(name).unwrap_or_else(|| default.to_owned());
            text.split(',').map(|n| n.parse().unwrap()).collect()
        };
        Self {
            store: after("--store").unwrap_or_else(|| "sqlite".to_owned()),
            rows: list("--rows", "0,10000"),
            clients: list("--clients", "1,64")
                .into_iter()
                .map(|n| usize::try_from(n).unwrap())
                .collect(),
            connections: list("--connections", "8")[0] as usize,
            seconds: list("--seconds", "4")[0],
            dir: after("--dir").map(PathBuf::from),
            fill: words.iter().any(|word| word == "--fill"),
            pruning: list("--pruning", "0,1").iter().map(|n| *n == 1).collect(),
        }
    }
}

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> UnixSeconds {
        support::NOW
    }
}

fn template() -> NewClaim {
    let offer = support::quote().offers[0].clone();
    NewClaim {
        payment: PaymentKey([0; 32]),
        fingerprint: Fingerprint([0; 32]),
        rule: "r0".into(),
        accept: offer.accept.clone(),
        scheme: offer.scheme.clone(),
        network: offer.network.clone(),
        asset: offer.asset.clone(),
        amount: offer.amount,
        payer: Payer::verbatim("0x70997970C51812dc3A010C7d01b50e0d17dc79C8"),
        pay_to: PayTo::verbatim(offer.pay_to.as_str()),
        nonce: "eip3009:0x0000000000000000000000000000000000000000000000000000000000000000".into(),
        valid_before: support::NOW.plus(300),
        request: "GET api.example.com/v1/r0/7".into(),
        settle_request: "x".repeat(SETTLE_REQUEST_BYTES).into(),
    }
}

/// One payment that goes well; returns how long its claim took.
async fn life(ledger: &dyn Ledger, template: &NewClaim) -> Duration {
    let now = support::NOW;
    let key: [u8; 32] = rand::random();
    let new = NewClaim {
        payment: PaymentKey(key),
        fingerprint: Fingerprint(key),
        ..template.clone()
    };
    assert!(ledger.find(new.payment).await.unwrap().is_none());
    let since = Instant::now();
    let ClaimAnswer::Claimed(claim) = ledger.claim(new, now).await.unwrap() else {
        panic!("held");
    };
    let took = since.elapsed();
    let settling = Move::Settling {
        facilitator: "main".into(),
    };
    let settled = Move::Settled {
        facilitator: None,
        transaction: fill::TRANSACTION.into(),
        receipt: fill::RECEIPT.into(),
        payer: None,
        body: None,
    };
    for step in [settling, settled, Move::Delivered] {
        ledger.advance(claim.id(), step, now).await.unwrap();
    }
    took
}

/// CPU microseconds: of this process, and of the whole machine.
fn cpu() -> (f64, f64) {
    let field = |text: &str, from: usize, to: usize| -> f64 {
        let words: Vec<&str> = text.split_whitespace().collect();
        words[from..to]
            .iter()
            .map(|n| n.parse::<f64>().unwrap())
            .sum()
    };
    let own = std::fs::read_to_string("/proc/self/stat").unwrap();
    let own = own.rsplit_once(')').unwrap().1.to_owned();
    let all = std::fs::read_to_string("/proc/stat").unwrap();
    let all = all.lines().next().unwrap().to_owned();
    let idle = field(&all, 4, 6);
    let tick_us = 10_000.0;
    (
        field(&own, 11, 13) * tick_us,
        (field(&all, 1, 9) - idle) * tick_us,
    )
}

struct Measured {
    took: Vec<Duration>,
    cpu_us: (f64, f64),
    elapsed: Duration,
    pruned: u64,
}

/// So many clients, one payment after the other each, while old rows are deleted or not.
fn run(
    runtime: &Runtime,
    ledger: &Arc<dyn Ledger>,
    (clients, pruning): (usize, bool),
    length: Duration,
) -> Measured {
    let over = Arc::new(AtomicBool::new(false));
    let pruned = Arc::new(AtomicU64::new(0));
    let pruner = pruning.then(|| {
        let (over, pruned) = (Arc::clone(&over), Arc::clone(&pruned));
        let retention = Retention::new(Arc::clone(ledger), Arc::new(Fixed), Some(2));
        runtime.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let walk = tokio::time::timeout(Duration::from_secs(1), retention.walk());
                let _ = walk.await;
                pruned.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let template = Arc::new(template());
    let (before, since) = (cpu(), Instant::now());
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (ledger, over) = (Arc::clone(ledger), Arc::clone(&over));
            let template = Arc::clone(&template);
            runtime.spawn(async move {
                let mut took = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    took.push(life(&*ledger, &template).await);
                }
                took
            })
        })
        .collect();
    std::thread::sleep(length);
    over.store(true, Ordering::Relaxed);
    let mut took: Vec<Duration> = Vec::new();
    for task in tasks {
        took.extend(runtime.block_on(task).unwrap());
    }
    let (elapsed, after) = (since.elapsed(), cpu());
    if let Some(pruner) = pruner {
        runtime.block_on(pruner).unwrap();
    }
    took.sort_unstable();
    Measured {
        took,
        cpu_us: (after.0 - before.0, after.1 - before.1),
        elapsed,
        pruned: pruned.load(Ordering::Relaxed),
    }
}

/// A ledger of a size, and how to ask how often it flushed the disk and how large it is.
struct Subject {
    ledger: Arc<dyn Ledger>,
    flushes: Box<dyn Fn() -> u64>,
    rows_now: Box<dyn Fn() -> u64>,
    mib: Box<dyn Fn() -> u64>,
}

fn measure(runtime: &Runtime, options: &Options, rows: u64, subject: &Subject) {
    let length = Duration::from_secs(options.seconds);
    // What the first payments find cold is not what is asked.
    run(runtime, &subject.ledger, (8, false), Duration::from_secs(1));
    for clients in &options.clients {
        for pruning in &options.pruning {
            let (flushes, left) = ((subject.flushes)(), (subject.rows_now)());
            let got = run(runtime, &subject.ledger, (*clients, *pruning), length);
            let n = got.took.len();
            let at = |share: f64| got.took[((n as f64) * share) as usize].as_micros();
            let flushes = (subject.flushes)() - flushes;
            let pruned = match (got.pruned, *pruning) {
                (_, false) => 0,
                (_, true) => (left + n as u64).saturating_sub((subject.rows_now)()),
            };
            println!(
                "{},{rows},{clients},{},{},{},{},{:.0},{:.0},{:.0},{:.1},{pruned},{}",
                options.store,
                u8::from(*pruning),
                at(0.5),
                at(0.99),
                got.took[n - 1].as_micros(),
                got.cpu_us.0 / n as f64,
                got.cpu_us.1 / n as f64,
                n as f64 / got.elapsed.as_secs_f64(),
                n as f64 / flushes.max(1) as f64,
                (subject.mib)(),
            );
        }
    }
}

fn sqlite(runtime: &Runtime, options: &Options, dir: &Path) {
    for rows in &options.rows {
        let path = dir.join(format!("growth-{rows}.db"));
        if !path.exists() {
            fill::sqlite(&path, *rows);
        }
        if options.fill {
            continue;
        }
        let ledger = Arc::new(SqliteLedger::open(&path).unwrap());
        let (counted, file) = (Arc::clone(&ledger), path.clone());
        let subject = Subject {
            ledger,
            flushes: Box::new(move || counted.commits().unwrap_or(0)),
            rows_now: Box::new(move || fill::sqlite_rows(&file)),
            mib: Box::new(move || std::fs::metadata(&path).unwrap().len() >> 20),
        };
        measure(runtime, options, *rows, &subject);
    }
}

fn postgres_server(runtime: &Runtime, options: &Options) {
    let Some(cluster) =
        postgres::Cluster::start_with("fsync = on\nmax_wal_size = '4GB'\nshared_buffers = '512MB'")
    else {
        return;
    };
    let cluster = Arc::new(cluster);
    for rows in &options.rows {
        let name = format!("growth{rows}");
        let mut server = parse_url(&cluster.database(&name), Path::new("")).unwrap();
        server.connections_max = options.connections;
        let connecting = PostgresLedger::connect(&server, None, 0);
        let ledger = runtime.block_on(connecting).unwrap();
        if *rows > 0 {
            cluster.sql(&name, &fill::postgres(*rows));
            cluster.sql(&name, "VACUUM ANALYZE farewall.claim");
            cluster.sql(&name, "CHECKPOINT");
        }
        let ask = |sql: &'static str| {
            let (cluster, name) = (Arc::clone(&cluster), name.clone());
            Box::new(move || cluster.sql(&name, sql).parse::<u64>().unwrap())
        };
        let subject = Subject {
            ledger: Arc::new(ledger),
            flushes: ask("SELECT wal_sync FROM pg_stat_wal") as Box<dyn Fn() -> u64>,
            rows_now: ask("SELECT count(*) FROM farewall.claim"),
            mib: ask("SELECT pg_database_size(current_database()) >> 20"),
        };
        measure(runtime, options, *rows, &subject);
        runtime.block_on(subject.ledger.leave());
        drop(subject);
        std::thread::sleep(Duration::from_millis(300));
        cluster.sql("postgres", &format!("DROP DATABASE {name} WITH (FORCE)"));
    }
}

fn main() {
    let options = Options::read();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    if !options.fill {
        println!(
            "store,rows,clients,pruning,p50_us,p99_us,max_us,cpu_us,machine_cpu_us,payments_per_s,\
             payments_per_flush,pruned,mib"
        );
    }
    match options.store.as_str() {
        "postgres" => postgres_server(&runtime, &options),
        _ => match &options.dir {
            Some(dir) => sqlite(&runtime, &options, dir),
            None => sqlite(&runtime, &options, tempfile::tempdir().unwrap().path()),
        },
    }
}
