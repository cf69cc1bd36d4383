//! Crashes: the real binary on a real ledger file is killed again and again under paid traffic, and
//! after each kill every promise of DESIGN section 4 is held against what three independent books
//! say: the ledger, the facilitator's, and what the buyers saw.
//!
//! It needs the failpoints, so a plain `cargo test` leaves it out:
//!
//! ```text
//! FAREWALL_KILLS=200 cargo test --features failpoints --test crash
//! ```
//!
//! `FAREWALL_KILLS` is how often (default 30), `FAREWALL_SEED` which choices (printed at the start;
//! what two processes do in which order stays theirs), `FAREWALL_REPORT` a file for a line of result.

#![allow(
    unreachable_pub,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that panics has failed, which is what it is for"
)]

mod book;
mod buyers;
mod disk;
mod moving;
mod plan;
mod process;

#[allow(
    dead_code,
    unused_imports,
    reason = "shared with tests/it, which uses all of it"
)]
#[path = "../it/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::book::Book;
use crate::buyers::{BUYERS, Market};
use crate::plan::Plan;
use crate::process::{Site, Wall};
use crate::support::report;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Past the capture of test output: who runs this for minutes wants to see it.
fn say(line: &str) {
    let mut past_the_capture = std::io::stderr().lock();
    writeln!(past_the_capture, "{line}").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_payment_is_lost_or_taken_twice_however_often_the_wall_is_killed() {
    let kills = number("FAREWALL_KILLS").unwrap_or(30);
    let seed = number("FAREWALL_SEED").unwrap_or_else(rand::random);
    say(&format!("crash: {kills} kills, FAREWALL_SEED={seed}"));
    let mut random = StdRng::seed_from_u64(seed);
    let since = Instant::now();
    let site = Site::open().await;
    let market = Market::open(&site);
    let mut book = Book::new(&site, &market);
    let buyers: Vec<_> = (0..BUYERS)
        .map(|n| tokio::spawn(Arc::clone(&market).buy(StdRng::seed_from_u64(seed ^ n))))
        .collect();
    let mut steps = BTreeMap::new();
    for n in 0..kills {
        let plan = Plan::choose(n, &mut random);
        let wall = Wall::start(&site, plan.kill_at().as_deref()).await;
        if wall.is_up() {
            book.check_nothing_is_left_claimed();
        }
        market.open_doors(wall.is_up());
        let died_there = wall.end(&plan, &mut random).await;
        market.open_doors(false);
        if let Some(step) = plan.step() {
            *steps.entry(step.name()).or_insert(0) += u64::from(died_there);
        }
        book.check(n % 20 == 19);
        let violations = market.violations();
        assert!(
            violations.is_empty(),
            "after kill {n} ({plan:?}), FAREWALL_SEED={seed}:\n{}\n{}",
            violations.join("\n"),
            site.log_tail(),
        );
    }
    let wall = Wall::start(&site, None).await;
    assert!(wall.is_up());
    book.check_nothing_is_left_claimed();
    market.close();
    market.open_doors(true);
    for buyer in buyers {
        let ended = tokio::time::timeout(Duration::from_secs(60), buyer).await;
        ended.expect("every purchase ends").unwrap();
    }
    let left = book.settle_accounts().await;
    let violations = market.violations();
    report(
        "kills survived, SQLite",
        usize::try_from(kills).unwrap(),
        violations.len(),
    );
    say(&format!(
        "crash: {kills} kills in {:.1} s, {} violations\n{left}\nat steps: {steps:?}",
        since.elapsed().as_secs_f32(),
        violations.len()
    ));
    assert!(
        violations.is_empty(),
        "FAREWALL_SEED={seed}:\n{}\n{}",
        violations.join("\n"),
        site.log_tail()
    );
    if kills >= 4 * plan::steps().len() as u64 {
        let missed: Vec<_> = steps.iter().filter(|(_, hits)| **hits == 0).collect();
        assert!(missed.is_empty(), "never killed at: {missed:?}");
        assert_eq!(steps.len(), plan::steps().len());
    }
}

/// A moment within the bounds.
fn moment(random: &mut StdRng, ms: std::ops::Range<u64>) -> Duration {
    Duration::from_micros(random.random_range(ms.start * 1000..ms.end * 1000))
}
