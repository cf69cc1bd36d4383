//! Under a service manager: sockets that it keeps, readiness, watchdog, and the units that we ship.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Method;

use crate::support::http2::{self, Http2};
use crate::support::protocol::Say;
use crate::support::wall::{BINARY, farewall, free_address};
use crate::support::{Setup, Signer, Wall, client, eventually, offer, send};

/// A wall that was started as systemd starts one. It ends with this.
struct Managed(Child);

impl Drop for Managed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Managed {
    /// With this configuration, these sockets, and these variables.
    fn start(config: &Path, sockets: &[&TcpListener], vars: &[(&str, &str)]) -> Self {
        let mut command = managed(config, sockets);
        command.envs(vars.iter().copied());
        Self(command.stderr(Stdio::null()).spawn().unwrap())
    }

    fn terminate(mut self) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.unwrap().success());
        assert_eq!(self.0.wait().unwrap().code(), Some(0));
    }
}

/// The shell puts the descriptors where sd_listen_fds(3) says, and becomes the wall.
fn managed(config: &Path, sockets: &[&TcpListener]) -> Command {
    let script = match sockets.len() {
        0 => "exec \"$0\" run --config \"$1\"",
        1 => "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" run --config \"$1\" 3<&0 </dev/null",
        _ => {
            "LISTEN_FDS=2 LISTEN_PID=$$ exec \"$0\" run --config \"$1\" 3<&0 4>&1 </dev/null >/dev/null"
        }
    };
    let mut command = Command::new("sh");
    command.args(["-c", script, BINARY, config.to_str().unwrap()]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let descriptor = |nth: usize| {
        let socket: &TcpListener = sockets.get(nth)?;
        Some(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())))
    };
    if let Some(first) = descriptor(0) {
        command.stdin(first);
    }
    if let Some(second) = descriptor(1) {
        command.stdout(second);
    }
    command
}

/// A wall that has ended, for its configuration, its origin and its facilitator.
async fn ended(setup: Setup) -> Wall {
    let mut wall = setup.start().await;
    wall.kill();
    wall
}

/// A response over a connection that was made before.
fn answer(mut connection: std::net::TcpStream) -> String {
    use std::io::{Read, Write};
    let request = "GET /health HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_behind_a_socket_that_the_manager_keeps_refuses_nobody() {
    let wall = ended(Setup::default()).await;
    let kept = TcpListener::bind(wall.address).unwrap();
    let early = std::net::TcpStream::connect(wall.address).unwrap();
    let first = Managed::start(&wall.config, &[&kept], &[]);
    assert!(
        answer(early).starts_with("HTTP/1.1 200"),
        "it waited for the wall"
    );
    let proof = Signer::new().proof(&offer(2000));
    let slow = wall
        .request(Method::GET, "/v1/slow?ms=700")
        .header("PAYMENT-SIGNATURE", &proof);
    let under_way = tokio::spawn(send(slow));
    eventually("the origin works", || wall.origin.hits("/v1/slow") == 1);
    first.terminate();
    let paid = under_way.await.unwrap();
    assert_eq!(
        (paid.status, paid.receipt()["success"].as_bool()),
        (200, Some(true)),
        "what was under way was finished"
    );
    let between = std::net::TcpStream::connect(wall.address).unwrap();
    let second = Managed::start(&wall.config, &[&kept], &[]);
    assert!(answer(between).starts_with("HTTP/1.1 200"));
    assert_eq!(
        wall.get("/v1/quote").await.status,
        402,
        "the next wall sells on"
    );
    second.terminate();
    assert_eq!(wall.states(), ["delivered"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_go_on_while_walls_replace_one_another() {
    let wall = ended(Setup::default()).await;
    let kept = TcpListener::bind(wall.address).unwrap();
    let mut managed = Managed::start(&wall.config, &[&kept], &[]);
    let (stop, bought) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut buyers = Vec::new();
    for _ in 0..6 {
        let (stop, bought) = (Arc::clone(&stop), Arc::clone(&bought));
        let url = wall.url("/v1/quote");
        // A connection for each request: one that is kept open may be closed by either side.
        let client = reqwest::Client::builder().pool_max_idle_per_host(0);
        let client = client.build().unwrap();
        buyers.push(tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let proof = Signer::new().proof(&offer(1000));
                let request = client.get(&url).header("PAYMENT-SIGNATURE", proof);
                let answer = request
                    .send()
                    .await
                    .expect("nobody is refused or hung up on");
                assert_eq!(answer.status(), 200);
                assert!(answer.headers().contains_key("payment-response"));
                answer.bytes().await.expect("the whole answer");
                bought.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    for _ in 0..4 {
        let before = bought.load(Ordering::SeqCst);
        eventually("it sells", || bought.load(Ordering::SeqCst) > before + 20);
        managed.terminate();
        managed = Managed::start(&wall.config, &[&kept], &[]);
    }
    let before = bought.load(Ordering::SeqCst);
    eventually("the last one sells", || {
        bought.load(Ordering::SeqCst) > before + 20
    });
    stop.store(true, Ordering::SeqCst);
    for buyer in buyers {
        buyer.await.unwrap();
    }
    managed.terminate();
    let (bought, states) = (bought.load(Ordering::SeqCst), wall.states());
    assert!(
        states.iter().all(|state| state == "delivered"),
        "{states:?}"
    );
    assert_eq!(states.len(), bought, "each payment once");
    assert_eq!(wall.sandbox.stats().settled, u64::try_from(bought).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_several_sockets_goes_to_its_own_listener() {
    let other = free_address();
    let setup = Setup {
        listen: format!("[[listen]]\naddress = \"{other}\"\nh2c = true"),
        ..Setup::default()
    };
    let wall = ended(setup).await;
    let (one, two) = (
        TcpListener::bind(wall.address).unwrap(),
        TcpListener::bind(other).unwrap(),
    );
    // Handed over in another order than the configuration has them.
    let _managed = Managed::start(&wall.config, &[&two, &one], &[]);
    for address in [wall.address, other] {
        let got = send(client().get(format!("http://{address}/health"))).await;
        assert_eq!(got.status, 200, "{address}");
    }
    let knowing = Http2::plain(other).await;
    let say = Say::new("GET", "/health");
    let (response, _) = knowing.begin(say.request("http")).await;
    assert_eq!(http2::answer(response).await.unwrap().status, 200, "h2c");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_no_listener_names_is_a_clear_error() {
    let wall = ended(Setup::default()).await;
    let stray = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = managed(&wall.config, &[&stray]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{told}");
    let address = stray.local_addr().unwrap().to_string();
    assert!(
        told.contains(&address) && told.contains("no [[listen]] has this address"),
        "{told}"
    );
}

/// Where the wall sends what systemd wants to know.
struct Notifications {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Notifications {
    fn at(wall: &Wall) -> Self {
        let path = wall.file("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        Self { socket, path }
    }

    #[track_caller]
    fn next(&self) -> String {
        let mut buffer = [0; 256];
        let length = self
            .socket
            .recv(&mut buffer)
            .expect("the wall said nothing");
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    }

    fn has_more(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let more = self.socket.recv(&mut [0; 256]).is_ok();
        self.socket.set_nonblocking(false).unwrap();
        more
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_when_it_accepts_alive_while_it_runs_and_says_that_it_ends() {
    let wall = ended(Setup::default()).await;
    let manager = Notifications::at(&wall);
    let socket = manager.path.to_str().unwrap();
    let vars = [("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", "60000")];
    let managed = Managed::start(&wall.config, &[], &vars);
    assert_eq!(manager.next(), "READY=1");
    let connection = std::net::TcpStream::connect(wall.address);
    assert!(answer(connection.unwrap()).starts_with("HTTP/1.1 200"));
    for _ in 0..5 {
        assert_eq!(manager.next(), "WATCHDOG=1");
    }
    managed.terminate();
    while manager.next() != "STOPPING=1" {}
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_tells_the_manager_which_process_to_look_after() {
    let wall = ended(Setup::default()).await;
    let manager = Notifications::at(&wall);
    let socket = manager.path.to_str().unwrap();
    let vars = [("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", "60000")];
    let kept = TcpListener::bind(wall.address).unwrap();
    let mut managed = Managed::start(&wall.config, &[&kept], &vars);
    assert_eq!(manager.next(), "READY=1");
    let pid = managed.0.id().to_string();
    let sent = Command::new("kill").args(["-USR2", &pid]).status();
    assert!(sent.unwrap().success());
    let named = loop {
        match manager.next().as_str() {
            "WATCHDOG=1" => {}
            other => break other.to_owned(),
        }
    };
    let new = named.strip_prefix("MAINPID=").expect("the new process");
    assert_ne!(new, pid);
    assert_eq!(manager.next(), "READY=1");
    assert_eq!(managed.0.wait().unwrap().code(), Some(0));
    let connection = std::net::TcpStream::connect(wall.address);
    assert!(answer(connection.unwrap()).starts_with("HTTP/1.1 200"));
    // The old one said no more: neither that it lives nor that it ends.
    for _ in 0..3 {
        assert_eq!(manager.next(), "WATCHDOG=1");
    }
    let sent = Command::new("kill").args(["-TERM", new]).status();
    assert!(sent.unwrap().success());
    while manager.next() != "STOPPING=1" {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_without_its_ledger_is_never_ready() {
    let running = Wall::start().await;
    // The same ledger on another address: it is in use.
    let text = fs::read_to_string(&running.config).unwrap();
    let config = running.file("second.toml");
    let own = running.address.to_string();
    fs::write(&config, text.replace(&own, &free_address().to_string())).unwrap();
    let manager = Notifications::at(&running);
    let mut command = managed(&config, &[]);
    command.env("NOTIFY_SOCKET", &manager.path);
    assert_eq!(command.output().unwrap().status.code(), Some(4));
    assert!(!manager.has_more());
}

/// `systemd-analyze`, or `None` where there is none; CI has it.
fn systemd_analyze(args: &[&str]) -> Option<Output> {
    match Command::new("systemd-analyze").args(args).output() {
        Ok(output) => Some(output),
        Err(error) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI needs the package systemd: {error}"
            );
            eprintln!("SKIPPED: systemd-analyze is not installed ({error})");
            None
        }
    }
}

fn unit(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("systemd")
        .join(name)
}

/// The worst that we accept, in tenths.
const EXPOSURE_TENTHS_MAX: &str = "15";

#[test]
fn the_service_is_hardly_exposed() {
    let threshold = format!("--threshold={EXPOSURE_TENTHS_MAX}");
    let file = unit("farewall.service");
    let args = ["security", "--offline=true", "--no-pager", &threshold];
    let Some(output) = systemd_analyze(&[&args[..], &[file.to_str().unwrap()]].concat()) else {
        return;
    };
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    let verdict = told.lines().last().unwrap();
    println!("{verdict}");
    assert!(
        verdict.contains("Overall exposure level for farewall.service: "),
        "{told}"
    );
}

#[test]
fn systemd_finds_no_fault_in_the_units() {
    let folder = tempfile::tempdir().unwrap();
    let mut copies = Vec::new();
    for name in ["farewall.service", "farewall.socket"] {
        let text = fs::read_to_string(unit(name)).unwrap();
        let installed = text.replace("=farewall ", &format!("={BINARY} "));
        let copy = folder.path().join(name);
        fs::write(&copy, installed).unwrap();
        copies.push(copy.to_str().unwrap().to_owned());
    }
    let args = ["verify", "--man=no", &copies[0], &copies[1]];
    let Some(output) = systemd_analyze(&args) else {
        return;
    };
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.is_empty(), "{told}");
}

#[test]
fn the_units_run_what_the_program_understands_and_listen_where_the_default_does() {
    let service = fs::read_to_string(unit("farewall.service")).unwrap();
    let started: Vec<_> = service
        .lines()
        .filter_map(|line| {
            line.strip_prefix("ExecStart")?
                .split_once('=')
                .map(|(_, c)| c)
        })
        .collect();
    assert_eq!(started.len(), 2, "{started:?}");
    for command in started {
        let mut words = command.split_whitespace();
        assert_eq!(words.next(), Some("farewall"));
        let given: Vec<_> = words.collect();
        assert_eq!(given[1..], ["--config", "/etc/farewall/farewall.toml"]);
        let help = farewall(&[given[0], "--help"]);
        assert!(String::from_utf8_lossy(&help.stdout).contains("--config"));
    }
    let socket = fs::read_to_string(unit("farewall.socket")).unwrap();
    let listens: Vec<SocketAddr> = socket
        .lines()
        .filter_map(|line| line.strip_prefix("ListenStream="))
        .map(|address| address.parse().unwrap())
        .collect();
    let default = fs::read_to_string(unit("../conf/farewall.toml")).unwrap();
    assert_eq!(listens.len(), 1);
    assert!(default.contains(&format!("[[listen]]\naddress = \"{}\"", listens[0])));
}
