//! A new process takes the place of a wall that sells: nobody is refused, no payment is lost or taken
//! twice, and whatever goes wrong leaves a wall that serves.
//!
//! `FAREWALL_UPGRADES` is how many rounds the long test makes (default 10), `FAREWALL_SEED` which choices.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::Value;

use crate::support::wall::{BINARY, farewall, free_address};
use crate::support::{Setup, Signer, Wall, client, eventually, offer, send};

fn exists(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Who is reaped by nobody has ended too.
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").args([name, &pid.to_string()]).status();
    assert!(sent.unwrap().success());
}

/// A place, and whichever process is the wall there.
struct Site {
    wall: Wall,
    pid: u32,
    /// Processes that took over; the last ones are ended with this.
    successors: Vec<u32>,
}

impl Drop for Site {
    fn drop(&mut self) {
        for pid in &self.successors {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let own = self.wall.config.to_str().unwrap();
            if String::from_utf8_lossy(&command).contains(own) {
                signal("-KILL", *pid);
            }
        }
    }
}

impl Site {
    async fn open(setup: Setup) -> Self {
        let wall = setup.start().await;
        Self {
            pid: wall.pid(),
            wall,
            successors: Vec::new(),
        }
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        let config = self.wall.config.to_str().unwrap();
        command.args(["upgrade", "--json", config]).args(more);
        command
    }

    /// Orders an upgrade; again, while the process before still finishes.
    fn order(&self, more: &[&str]) -> Output {
        loop {
            let output = self.command(more).output().unwrap();
            let told = String::from_utf8_lossy(&output.stdout);
            if !told.contains("not over") {
                return output;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Takes note of a successful upgrade.
    #[track_caller]
    fn follow(&mut self, output: &Output) {
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{told}");
        let reply: Value = serde_json::from_str(&told).unwrap();
        let pid = reply["details"]["pid"].as_u64().unwrap();
        self.pid = u32::try_from(pid).unwrap();
        self.successors.push(self.pid);
    }

    #[track_caller]
    fn upgraded(&mut self, more: &[&str]) {
        let before = self.pid;
        let output = self.order(more);
        self.follow(&output);
        assert_ne!(self.pid, before);
    }

    #[track_caller]
    fn refused(&self) -> String {
        let output = self.order(&[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(exists(self.pid));
        let reply: Value = serde_json::from_slice(&output.stdout).unwrap();
        reply["text"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn ends(&mut self, pid: u32) {
        if pid == self.wall.pid() {
            assert_eq!(self.wall.wait().code(), Some(0));
        } else {
            eventually("it ends", || !exists(pid));
        }
    }

    /// A program that stops before it becomes the wall, until it is told to go on.
    fn hesitant(&self) -> Hesitant {
        let (program, pid) = (self.wall.file("hesitant"), self.wall.file("hesitant.pid"));
        let fifo = self.wall.file("hesitant.fifo");
        drop(std::fs::remove_file(&pid));
        drop(std::fs::remove_file(&fifo));
        assert!(
            Command::new("mkfifo")
                .arg(&fifo)
                .status()
                .unwrap()
                .success()
        );
        let script = format!(
            "#!/bin/sh\necho $$ > '{pid}.tmp'\nmv '{pid}.tmp' '{pid}'\nread -r _ < '{fifo}'\nexec '{BINARY}' \"$@\"\n",
            pid = pid.display(),
            fifo = fifo.display(),
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Hesitant { program, pid, fifo }
    }
}

struct Hesitant {
    program: PathBuf,
    pid: PathBuf,
    fifo: PathBuf,
}

impl Hesitant {
    fn order(&self, site: &Site) -> Child {
        let more = ["--program", self.program.to_str().unwrap()];
        let mut command = site.command(&more);
        command.stdout(Stdio::piped()).spawn().unwrap()
    }

    fn started(&self) -> u32 {
        eventually("it is started", || self.pid.exists());
        let text = std::fs::read_to_string(&self.pid).unwrap();
        text.trim().parse().unwrap()
    }

    fn go_on(&self) {
        std::fs::write(&self.fifo, "\n").unwrap();
    }
}

/// So often an unknown outcome is asked for. Without a chain to ask, the facilitator that has settled for
/// a process that was killed says only that the payment is used, which proves nothing.
const UNKNOWN_MAX: u32 = 30;

/// Buyers, each with one payment at a time.
struct Market {
    stop: AtomicBool,
    /// Whether somebody is killed: only then an answer may get lost.
    faults: AtomicBool,
    bought: AtomicUsize,
    /// Payments whose settlement was under way when somebody was killed: unknown for now.
    put_aside: AtomicUsize,
    violations: Mutex<Vec<String>>,
}

impl Market {
    fn open(site: &Site, buyers: usize) -> (Arc<Self>, Vec<tokio::task::JoinHandle<()>>) {
        let market = Arc::new(Self {
            stop: AtomicBool::new(false),
            faults: AtomicBool::new(false),
            bought: AtomicUsize::new(0),
            put_aside: AtomicUsize::new(0),
            violations: Mutex::default(),
        });
        let url = site.wall.url("/v1/quote");
        let buyers = (0..buyers)
            .map(|_| tokio::spawn(Arc::clone(&market).buy(url.clone())))
            .collect();
        (market, buyers)
    }

    async fn buy(self: Arc<Self>, url: String) {
        // A connection for each request: one that is kept open may be closed by either side.
        let client = reqwest::Client::builder().pool_max_idle_per_host(0);
        let client = client.timeout(Duration::from_secs(60)).build().unwrap();
        while !self.stop.load(Ordering::SeqCst) {
            let proof = Signer::new().proof(&offer(1000));
            let (mut was_lost, mut unknown) = (false, 0);
            loop {
                let request = client.get(&url).header("PAYMENT-SIGNATURE", &proof);
                let seen = match request.send().await {
                    Ok(answer) => {
                        let status = answer.status().as_u16();
                        let receipt = answer.headers().contains_key("payment-response");
                        match answer.bytes().await {
                            Ok(_) if status == 200 && receipt => Ok(()),
                            // It was delivered, and the answer got lost on its way.
                            Ok(_) if status == 402 && was_lost => Ok(()),
                            Ok(body) => Err(format!("{status} {}", String::from_utf8_lossy(&body))),
                            Err(error) => Err(format!("{status}, cut off: {error:?}")),
                        }
                    }
                    Err(error) => Err(format!("{error:?}")),
                };
                let Err(why) = seen else {
                    self.bought.fetch_add(1, Ordering::SeqCst);
                    break;
                };
                if !was_lost && !self.faults.load(Ordering::SeqCst) {
                    self.violations.lock().push(why);
                    return;
                }
                was_lost = true;
                unknown += u32::from(why.starts_with("503"));
                if unknown == UNKNOWN_MAX {
                    self.put_aside.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    #[track_caller]
    fn sells(&self) {
        let before = self.bought.load(Ordering::SeqCst);
        eventually("it sells", || {
            let violations = self.violations.lock();
            assert!(violations.is_empty(), "{violations:?}");
            drop(violations);
            self.bought.load(Ordering::SeqCst) > before + 12
        });
    }

    /// Ends the buying, and holds the ledger against the facilitator's book.
    async fn check(&self, buyers: Vec<tokio::task::JoinHandle<()>>, site: &Site) {
        self.stop.store(true, Ordering::SeqCst);
        for buyer in buyers {
            buyer.await.unwrap();
        }
        let violations = self.violations.lock();
        assert!(violations.is_empty(), "{violations:?}");
        let in_state = |wanted: &str| {
            let states = site.wall.states();
            states.iter().filter(|state| *state == wanted).count()
        };
        eventually("no claim is open", || in_state("claimed") == 0);
        let put_aside = self.put_aside.load(Ordering::SeqCst);
        eventually("the rest is known", || in_state("settling") <= put_aside);
        let mut paid = HashMap::<String, u64>::new();
        let (mut total, mut unknown) = (0, 0);
        for record in site.wall.ledger() {
            let state = record["state"].as_str().unwrap();
            assert!(
                matches!(state, "delivered" | "settled" | "released" | "settling"),
                "{record}"
            );
            unknown += u64::from(state == "settling");
            if matches!(state, "delivered" | "settled") {
                *paid
                    .entry(record["nonce"].as_str().unwrap().to_owned())
                    .or_default() += 1;
                total += record["amount_atomic"]
                    .as_str()
                    .unwrap()
                    .parse::<u64>()
                    .unwrap();
            }
        }
        assert!(
            paid.values().all(|times| *times == 1),
            "a payment was taken twice"
        );
        let (settled, paid) = (site.wall.sandbox.stats().settled, paid.len() as u64);
        let bought = self.bought.load(Ordering::SeqCst);
        println!("{paid} paid, {bought} bought, {unknown} unknown, {put_aside} put aside");
        assert!(
            (paid..=paid + unknown).contains(&settled),
            "{settled} settled"
        );
        assert!((bought as u64..=(bought + put_aside) as u64).contains(&paid));
        assert_eq!(total, 1000 * paid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_processes_take_over_under_load_and_nobody_is_refused() {
    let mut site = Site::open(Setup::default()).await;
    let (market, buyers) = Market::open(&site, 6);
    market.sells();
    let first = site.pid;
    site.upgraded(&[]);
    site.ends(first);
    market.sells();
    // Another path, and a configuration that a reload would refuse.
    let other = site.wall.file("farewall-next");
    std::os::unix::fs::symlink(BINARY, &other).unwrap();
    let more = free_address();
    site.wall.edit(
        "[limits]",
        &format!("[[listen]]\naddress = \"{more}\"\n[limits]"),
    );
    let second = site.pid;
    site.upgraded(&["--program", other.to_str().unwrap()]);
    assert_eq!(
        send(client().get(format!("http://{more}/health")))
            .await
            .status,
        200
    );
    market.sells();
    site.ends(second);
    // The new configuration is wrong: nothing changes, and its errors are told.
    site.wall.edit("price = \"$0.001\"", "prcie = \"$0.001\"");
    let told = site.refused();
    assert!(
        told.contains("did you mean `price`?") && told.contains("goes on as before"),
        "{told}"
    );
    market.sells();
    site.wall.edit("prcie = \"$0.001\"", "price = \"$0.001\"");
    // No program there.
    let output = site.order(&["--program", "/nowhere/farewall"]);
    assert_eq!(output.status.code(), Some(1));
    market.sells();
    site.upgraded(&[]);
    market.sells();
    market.check(buyers, &site).await;
    let stats = site.wall.sandbox.stats();
    assert_eq!(stats.settle_calls, stats.settled, "one settle a payment");
    let states = site.wall.states();
    assert!(
        states.iter().all(|state| state == "delivered"),
        "{states:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_is_finished_by_the_old_process_and_not_sold_twice_by_the_new_one() {
    let mut site = Site::open(Setup::default()).await;
    let proof = Signer::new().proof(&offer(2000));
    let slow = || {
        let request = site.wall.request(Method::GET, "/v1/slow?ms=2500");
        request.header("PAYMENT-SIGNATURE", &proof)
    };
    let first = tokio::spawn(send(slow()));
    eventually("the origin works", || {
        site.wall.origin.hits("/v1/slow") == 1
    });
    let copy = slow();
    let old = site.pid;
    site.upgraded(&[]);
    assert!(exists(old), "it finishes what it has begun");
    let told = site.command(&[]).output().unwrap();
    assert!(String::from_utf8_lossy(&told.stdout).contains("not over"));
    let copy = tokio::spawn(send(copy));
    let answer = first.await.unwrap();
    assert_eq!(
        (answer.status, answer.receipt()["success"].as_bool()),
        (200, Some(true))
    );
    // The new process waited for the old one's sale: the payment is spent.
    assert_eq!(copy.await.unwrap().status, 402);
    site.ends(old);
    assert_eq!(site.wall.states(), ["delivered"]);
    assert_eq!(site.wall.origin.hits("/v1/slow"), 1);
    assert_eq!(site.wall.sandbox.stats().settle_calls, 1);
    let next = Signer::new().proof(&offer(1000));
    assert_eq!(site.wall.pay("/v1/quote", &next).await.status, 200);
    signal("-TERM", site.pid);
    site.ends(site.pid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debt_of_a_rule_that_was_renamed_is_collected_while_both_processes_live() {
    let mut site = Site::open(Setup::default()).await;
    let proof = Signer::new().proof(&offer(3000));
    // Paid in advance, and the origin fails the first time that it is asked for anything.
    let answer = site.wall.pay("/before/flaky?fail=1", &proof).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(site.wall.states(), ["settled"]);
    let slow = site.wall.request(Method::GET, "/v1/slow?ms=60000");
    let slow = slow.header("PAYMENT-SIGNATURE", Signer::new().proof(&offer(2000)));
    let slow = tokio::spawn(send(slow));
    eventually("the origin works", || {
        site.wall.origin.hits("/v1/slow") == 1
    });
    site.wall.edit("name = \"before\"", "name = \"in-advance\"");
    let old = site.pid;
    site.upgraded(&[]);
    let answer = site.wall.pay("/before/flaky?fail=1", &proof).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(exists(old), "both live");
    assert_eq!(site.wall.origin.hits("/before/flaky"), 2);
    assert_eq!(site.wall.sandbox.stats().settled, 1);
    slow.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tls_handshake_that_has_begun_is_finished_and_its_request_served() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("c.pem"), folder.path().join("c.key"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = free_address();
    let listen = format!(
        "[[listen]]\naddress = \"{tls}\"\ntls_cert = \"{}\"\ntls_key = \"{}\"\n",
        cert.display(),
        key.display()
    );
    let setup = Setup {
        listen,
        ..Setup::default()
    };
    let mut site = Site::open(setup).await;
    let slow = tokio::net::TcpStream::connect(tls).await.unwrap();
    // One that fails: it must not be waited for.
    drop(tokio::net::TcpStream::connect(tls).await.unwrap());
    // Both were accepted when one that comes behind them is.
    drop(
        crate::certificates::connect(tls, "localhost", &[&made])
            .await
            .unwrap(),
    );
    let old = site.pid;
    site.upgraded(&[]);
    // Far longer than it waits for who has said nothing.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(exists(old), "a handshake is under way");
    let mut stream = crate::certificates::shake_hands(slow, "localhost", &[&made])
        .await
        .unwrap();
    assert_eq!(crate::certificates::ask(&mut stream).await, 200);
    drop(stream);
    site.ends(old);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_process_is_lost_while_the_old_one_finishes_and_that_is_told() {
    let mut site = Site::open(Setup::default()).await;
    let slow = site.wall.request(Method::GET, "/v1/slow?ms=3000");
    let slow = slow.header("PAYMENT-SIGNATURE", Signer::new().proof(&offer(2000)));
    let slow = tokio::spawn(send(slow));
    eventually("the origin works", || {
        site.wall.origin.hits("/v1/slow") == 1
    });
    let old = site.pid;
    site.upgraded(&[]);
    signal("-KILL", site.pid);
    eventually("it is told", || {
        let lost = "the process that took the place of this one was lost";
        site.wall.log().contains(lost)
    });
    assert!(exists(old), "it finishes what it has begun");
    assert_eq!(slow.await.unwrap().status, 200);
    assert_eq!(site.wall.wait().code(), Some(1), "nobody is the wall");
    assert_eq!(site.wall.states(), ["delivered"]);
    site.wall.restart();
    let proof = Signer::new().proof(&offer(1000));
    assert_eq!(site.wall.pay("/v1/quote", &proof).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_process_dies_in_mid_handover_and_the_new_one_serves() {
    let mut site = Site::open(Setup::default()).await;
    let (market, buyers) = Market::open(&site, 6);
    market.sells();
    let hesitant = site.hesitant();
    let mut order = hesitant.order(&site);
    let new = hesitant.started();
    market.faults.store(true, Ordering::SeqCst);
    site.wall.kill();
    order.wait().unwrap();
    site.successors.push(new);
    site.pid = new;
    hesitant.go_on();
    market.sells();
    eventually("it is alone", || {
        site.wall
            .log()
            .contains("the wall before this one has ended")
    });
    // What was lost on the way is presented again by then.
    market.sells();
    market.faults.store(false, Ordering::SeqCst);
    market.sells();
    site.upgraded(&[]);
    market.sells();
    market.check(buyers, &site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_process_dies_in_mid_handover_and_nobody_notices() {
    let mut site = Site::open(Setup::default()).await;
    let (market, buyers) = Market::open(&site, 6);
    market.sells();
    let hesitant = site.hesitant();
    let order = hesitant.order(&site);
    signal("-KILL", hesitant.started());
    let output = order.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("broke off"));
    market.sells();
    site.upgraded(&[]);
    market.sells();
    market.check(buyers, &site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn either_may_die_at_any_moment() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let rounds = number("FAREWALL_UPGRADES").unwrap_or(10);
    let seed = number("FAREWALL_SEED").unwrap_or_else(rand::random);
    println!("FAREWALL_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut site = Site::open(Setup::default()).await;
    let (market, buyers) = Market::open(&site, 6);
    let mut taken_over = 0;
    for round in 0..rounds {
        market.faults.store(false, Ordering::SeqCst);
        market.sells();
        let old = site.pid;
        eventually("the one before has ended", || {
            !site
                .successors
                .iter()
                .any(|pid| *pid != old && exists(*pid))
        });
        let hesitant = site.hesitant();
        let order = hesitant.order(&site);
        let new = hesitant.started();
        site.successors.push(new);
        let victim = match round % 3 {
            0 => Some(old),
            1 => Some(new),
            _ => None,
        };
        market.faults.store(victim.is_some(), Ordering::SeqCst);
        hesitant.go_on();
        if let Some(victim) = victim {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..600))).await;
            if exists(victim) {
                signal("-KILL", victim);
            }
        }
        let output = order.wait_with_output().unwrap();
        let is_taken_over = victim == Some(old) || output.status.code() == Some(0);
        if !is_taken_over {
            assert!(exists(old), "round {round}, FAREWALL_SEED={seed}");
            continue;
        }
        taken_over += 1;
        if old == site.wall.pid() {
            let _ = site.wall.wait();
        }
        eventually("the old one ends", || !exists(old));
        if victim == Some(new) {
            // As any crash of a wall.
            site.wall.restart();
            site.pid = site.wall.pid();
        } else {
            site.pid = new;
        }
        market.sells();
    }
    assert!(taken_over > 0);
    market.sells();
    market.faults.store(false, Ordering::SeqCst);
    market.check(buyers, &site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_ledger_needs_a_restart() {
    let site = Site::open(Setup::default()).await;
    site.wall
        .edit("path = \"ledger.db\"", "path = \"other.db\"\n");
    // Its control socket is named after the ledger.
    let control = site.wall.file("ledger.db.control");
    let output = site.order(&["--control", control.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("needs a restart"), "{told}");
    assert_eq!(site.wall.get("/v1/quote").await.status, 402);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_reach_the_new_process_where_they_reached_the_old_one() {
    let admin = free_address();
    let setup = Setup {
        admin: Some(admin),
        ..Setup::default()
    };
    let mut site = Site::open(setup).await;
    let url = format!("http://{admin}/readyz");
    assert_eq!(send(client().get(&url)).await.status, 200);
    let proof = Signer::new().proof(&offer(1000));
    assert_eq!(site.wall.pay("/v1/quote", &proof).await.status, 200);
    let old = site.pid;
    site.upgraded(&[]);
    assert_eq!(send(client().get(&url)).await.status, 200);
    site.ends(old);
    assert_eq!(send(client().get(&url)).await.status, 200);
    let config = site.wall.config.to_str().unwrap();
    assert_eq!(farewall(&["reload", config]).status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigquit_ends_the_wall_as_sigterm_does() {
    let mut wall = Wall::start().await;
    let proof = Signer::new().proof(&offer(2000));
    let request = wall.request(Method::GET, "/v1/slow?ms=700");
    let under_way = tokio::spawn(send(request.header("PAYMENT-SIGNATURE", proof)));
    eventually("the origin works", || wall.origin.hits("/v1/slow") == 1);
    signal("-QUIT", wall.pid());
    assert_eq!(under_way.await.unwrap().status, 200);
    assert_eq!(wall.wait().code(), Some(0));
    assert_eq!(wall.states(), ["delivered"]);
}
