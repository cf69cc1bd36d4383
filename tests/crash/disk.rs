//! Disks that fail: full for a while, and read-only.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use farewall::sandbox::SandboxOptions;
use reqwest::Response;
use rustix::process::{Resource, Rlimit, geteuid, prlimit};

use crate::process::{Site, Wall};
use crate::say;
use crate::support::wall::BINARY;
use crate::support::{Signer, offer};

/// A wall whose disk the test can fill: no file may grow past a size that is set from outside.
struct Full {
    site: Site,
    wall: Wall,
}

impl Full {
    async fn start(sandbox: SandboxOptions) -> Self {
        let site = Site::open_with(sandbox).await;
        // The signal would end the process; ignored, the write fails as on a full disk.
        let command = site.command("sh", &["-c", "trap '' XFSZ; exec \"$@\"", "sh", BINARY]);
        let wall = Wall::spawn(&site, command).await;
        assert!(wall.is_up());
        Self { site, wall }
    }

    fn set_full(&self, full: bool) {
        let limit = Rlimit {
            current: full.then_some(0),
            maximum: None,
        };
        prlimit(Some(self.wall.pid()), Resource::Fsize, limit).unwrap();
    }

    async fn get(&self, target: &str, proof: &str) -> (u16, String) {
        answer(
            crate::support::client()
                .get(self.site.url(target))
                .header("PAYMENT-SIGNATURE", proof)
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    /// Asks until it is served, which must be soon.
    async fn get_at_last(&self, target: &str, proof: &str) {
        for _ in 0..100 {
            let (status, text) = self.get(target, proof).await;
            match status {
                200 => return,
                409 | 503 => tokio::time::sleep(Duration::from_millis(50)).await,
                _ => panic!("{status}: {text}"),
            }
        }
        panic!("never served\n{}", self.site.log_tail());
    }

    fn settled(&self) -> u64 {
        self.site.sandbox.stats().settled
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never came true: {what}");
}

async fn answer(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    (status, response.text().await.unwrap())
}

fn proof() -> String {
    let offer = offer(2000);
    Signer::new().proof(&offer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_sale_before_anything_is_asked_and_heals() {
    let full = Full::start(SandboxOptions::default()).await;
    assert_eq!(full.get("/v1/quote", &proof()).await.0, 200);
    full.set_full(true);
    let (proof, asked) = (proof(), full.site.origin.hits("/v1/quote"));
    for _ in 0..3 {
        let (status, text) = full.get("/v1/quote", &proof).await;
        assert_eq!(status, 503, "{text}");
        assert!(text.contains("nothing was charged"), "{text}");
    }
    assert_eq!(full.site.origin.hits("/v1/quote"), asked);
    assert_eq!(full.settled(), 1);
    full.set_full(false);
    assert_eq!(full.get("/v1/quote", &proof).await.0, 200);
    assert_eq!(full.settled(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_while_the_origin_works_charges_nobody_and_frees_the_payment() {
    let full = Full::start(SandboxOptions::default()).await;
    let proof = proof();
    let fill = async {
        until("the origin works", || {
            full.site.origin.hits("/v1/slow") == 1
        })
        .await;
        full.set_full(true);
    };
    let ((status, text), ()) = tokio::join!(full.get("/v1/slow?ms=700", &proof), fill);
    assert_eq!(status, 503, "{text}");
    assert_eq!(full.site.sandbox.stats().settle_calls, 0);
    full.set_full(false);
    full.get_at_last("/v1/slow?ms=700", &proof).await;
    assert_eq!(full.settled(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_while_the_money_moves_delays_the_answer_and_loses_nothing() {
    let full = Full::start(SandboxOptions {
        settle_delay: Duration::from_millis(500),
        ..SandboxOptions::default()
    })
    .await;
    let proof = proof();
    let fill = async {
        until("the money moves", || {
            full.site.sandbox.stats().settle_calls == 1
        })
        .await;
        full.set_full(true);
        until("it has moved", || full.settled() == 1).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        full.set_full(false);
    };
    let ((status, text), ()) = tokio::join!(full.get("/v1/quote", &proof), fill);
    assert_eq!(status, 200, "{text}\n{}", full.site.log_tail());
    assert_eq!(full.site.sandbox.stats().settle_calls, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_before_a_failed_response_still_frees_the_payment() {
    let full = Full::start(SandboxOptions::default()).await;
    let proof = proof();
    let fill = async {
        until("the origin works", || {
            full.site.origin.hits("/v1/dead") == 1
        })
        .await;
        full.set_full(true);
        tokio::time::sleep(Duration::from_millis(900)).await;
        full.set_full(false);
    };
    let target = "/v1/dead?ms=500";
    let ((status, _), ()) = tokio::join!(full.get(target, &proof), fill);
    assert_eq!(status, 500);
    let (status, text) = full.get(target, &proof).await;
    assert_eq!(status, 500, "the payment is free again: {text}");
    assert_eq!(full.site.sandbox.stats().settle_calls, 0);
}

/// Who the wall runs as, so that permissions mean something.
struct User(Vec<&'static str>);

impl User {
    /// `None`, loudly, where that is not possible.
    fn unprivileged(site: &Site) -> Option<Self> {
        if !geteuid().is_root() {
            return Some(Self(Vec::new()));
        }
        let arguments = vec!["--reuid=65534", "--regid=65534", "--clear-groups"];
        let directory = site.state();
        let parent = directory.parent().unwrap();
        for path in [parent, directory.as_path(), site.config().as_path()] {
            chown(path, Some(65_534), Some(65_534)).unwrap();
        }
        let works = std::process::Command::new("setpriv")
            .args(&arguments)
            .args([BINARY, "--version"])
            .output()
            .is_ok_and(|output| output.status.success());
        if !works {
            say("SKIPPED: read-only ledgers: root cannot run the wall as another user here");
        }
        works.then_some(Self(arguments))
    }

    fn command(&self, site: &Site) -> tokio::process::Command {
        if self.0.is_empty() {
            return site.command(BINARY, &[]);
        }
        let arguments: Vec<_> = self.0.iter().copied().chain([BINARY]).collect();
        site.command("setpriv", &arguments)
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_cannot_be_written_is_refused_at_the_start_and_left_alone() {
    let site = Site::open().await;
    let Some(user) = User::unprivileged(&site) else {
        return;
    };
    check_refused(&site, &user, 0o555, None).await;
    assert!(!site.ledger().exists());
    set_mode(&site.state(), 0o755);
    let wall = Wall::spawn(&site, user.command(&site)).await;
    assert!(wall.is_up(), "{}", site.log());
    wall.kill().await;
    for (directory, file) in [(0o755, 0o444), (0o555, 0o444), (0o555, 0o644)] {
        let before = std::fs::read(site.ledger()).unwrap();
        check_refused(&site, &user, directory, Some(file)).await;
        assert_eq!(std::fs::read(site.ledger()).unwrap(), before);
    }
    set_mode(&site.state(), 0o755);
    assert!(Wall::spawn(&site, user.command(&site)).await.is_up());
}

async fn check_refused(site: &Site, user: &User, directory: u32, file: Option<u32>) {
    set_mode(&site.state(), 0o755);
    if let Some(mode) = file {
        for entry in std::fs::read_dir(site.state()).unwrap() {
            let path = entry.unwrap().path();
            // What the kill left behind would keep a log that can be written.
            if path == site.ledger() {
                set_mode(&path, mode);
            } else {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
    set_mode(&site.state(), directory);
    let said = site.log().len();
    let wall = Wall::spawn(site, user.command(site)).await;
    let log = site.log()[said..].to_owned();
    assert!(!wall.is_up(), "{directory:o} {file:?}: it serves");
    assert_eq!(wall.wait().await.code(), Some(4), "{log}");
    let named = log.contains("error: ") && log.contains(site.ledger().to_str().unwrap());
    assert!(named, "{log}");
    assert!(!log.contains("panicked"), "{log}");
}
