//! The admin API: who may use it, what it shows, and that the books are the ledger's.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::support::wall::{BINARY, farewall, free_address};
use crate::support::{Answer, Cluster, Setup, Signer, Wall, client, eventually, offer, send};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A wall with an admin API.
struct Office {
    wall: Wall,
    admin: SocketAddr,
    _token: TempDir,
}

fn token_file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.token");
    std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    (folder, path)
}

impl Office {
    async fn start(setup: Setup) -> Self {
        let (folder, path) = token_file();
        let admin = free_address();
        let setup = Setup {
            admin: Some(admin),
            server: format!("admin_token_file = \"{}\"", path.display()),
            ..setup
        };
        Self {
            wall: setup.start().await,
            admin,
            _token: folder,
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = client().request(method, format!("http://{}{path}", self.admin));
        request.bearer_auth(TOKEN)
    }

    async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    #[track_caller]
    fn json(answer: &Answer) -> Value {
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Sells so many, at 2000 units each, and waits until all are delivered.
    async fn sell(&self, count: usize) {
        for n in 0..count {
            let proof = Signer::new().proof(&offer(2000));
            let answer = self.wall.pay(&format!("/v1/item{n}"), &proof).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        eventually("all are delivered", || {
            self.wall.states().iter().all(|state| state == "delivered")
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_file_only_health_readiness_and_metrics_are_served() {
    let admin = free_address();
    let setup = Setup {
        admin: Some(admin),
        ..Setup::default()
    };
    let _wall = setup.start().await;
    let get = |path: &str| {
        send(
            client()
                .get(format!("http://{admin}{path}"))
                .bearer_auth(""),
        )
    };
    for (path, status) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/openapi.json", 200),
        ("/v1/version", 404),
        ("/v1/payments", 404),
        ("/v1/config", 404),
        ("/ws/payments/", 404),
    ] {
        assert_eq!(get(path).await.status, status, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_described_path_answers_with_the_token_and_none_that_is_closed_without() {
    let office = Office::start(Setup::default()).await;
    office.sell(1).await;
    let url = |path: &str| format!("http://{}{path}", office.admin);
    let described = send(client().get(url("/openapi.json"))).await;
    let described = Office::json(&described);
    let mut closed = 0;
    for (path, methods) in described["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let path = path.replace("{id}", "1");
            let method: Method = method.to_uppercase().parse().unwrap();
            let is_open = operation["security"].as_array().is_some_and(Vec::is_empty);
            let bare = send(client().request(method.clone(), url(&path))).await;
            let wrong = client().request(method.clone(), url(&path));
            let wrong = send(wrong.bearer_auth("0123456789abcdef0123456789abcdee")).await;
            let want = if is_open { 200 } else { 401 };
            assert_eq!((bare.status, wrong.status), (want, want), "{method} {path}");
            closed += usize::from(!is_open);
            if path.starts_with("/ws/") {
                continue; // has no end; see below
            }
            let known = send(office.request(method.clone(), &path)).await;
            assert_eq!(known.status, 200, "{method} {path}: {known:?}");
        }
    }
    assert!(closed >= 12, "{closed}");
    assert_eq!(office.get("/v1/payments/99999").await.status, 404);
    assert_eq!(
        office.get("/v1/payments?limit=0").await.error(),
        "bad_query"
    );
    assert_eq!(office.get("/v1/payments?state=paid").await.status, 400);
    assert_eq!(office.get("/v1/payments?prcie=1").await.status, 400);
}

/// Walks all pages and compares with the ledger.
async fn pages_are_the_ledger(mut office: Office) {
    office.sell(5).await;
    let (mut seen, mut path) = (Vec::new(), "/v1/payments?limit=2".to_owned());
    loop {
        let page = Office::json(&office.get(&path).await);
        let payments = page["payments"].as_array().unwrap();
        assert!(payments.len() <= 2);
        seen.extend(payments.clone());
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/payments?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(Value::from(seen.clone()), Value::from(office.wall.ledger()));
    assert_eq!(seen.len(), 5);
    let payer = seen[3]["payer"].as_str().unwrap().to_lowercase();
    let of_one = Office::json(&office.get(&format!("/v1/payments?payer={payer}")).await);
    assert_eq!(of_one["payments"], Value::from(vec![seen[3].clone()]));
    let by_rule = Office::json(&office.get("/v1/revenue?by=rule&since=1d").await);
    let row = &by_rule["rows"][0];
    assert_eq!(row["rule"], "any");
    assert_eq!(row["sold"], 5);
    assert_eq!(row["revenue_atomic"], "10000");
    assert_eq!(row["revenue"], "0.01");
    assert_eq!(row["symbol"], "USDC");
    let (status, _) = office.wall.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(
        !office.wall.log().contains("panicked"),
        "{}",
        office.wall.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_are_the_ledger_whole_and_in_order() {
    pages_are_the_ledger(Office::start(Setup::default()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_are_the_shared_ledger_too() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    cluster.database("ledger");
    pages_are_the_ledger(Office::start(cluster.setup("ledger", "")).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_changed_is_not_sent_again() {
    let office = Office::start(Setup::default()).await;
    office.sell(1).await;
    let first = office.get("/v1/payments").await;
    let tag = first.header("etag").unwrap().to_owned();
    let again = |tag: String| {
        let request = office.request(Method::GET, "/v1/payments");
        send(request.header("if-none-match", tag))
    };
    let same = again(tag.clone()).await;
    assert_eq!((same.status, same.body.as_str()), (304, ""));
    assert_eq!(same.header("etag"), Some(tag.as_str()));
    office.sell(1).await;
    let changed = again(tag).await;
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag"), first.header("etag"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_configuration_is_taken_over_and_shown_and_a_mistake_is_not() {
    let log = "[log]\nfilter = \"info\"\nformat = \"json\"\n";
    let office = Office::start(Setup {
        rules: Some(format!("{}\n{log}", crate::support::wall::RULES)),
        own_log_filter: true,
        ..Setup::default()
    })
    .await;
    let reload = || send(office.request(Method::POST, "/v1/reload"));
    let price = || async {
        let rules = Office::json(&office.get("/v1/rules").await);
        rules["rules"][1]["prices"][0]["amount"].clone()
    };
    let lines = || office.wall.log().matches("farewall::access").count();
    assert_eq!(price().await, "0.001");
    assert_eq!(office.wall.get("/v1/quote").await.status, 402);
    eventually("the access line is written", || lines() == 1);
    let edit = |from, to| office.wall.edit(from, to);
    edit("price = \"$0.001\"", "price = \"$0.005\"");
    edit("filter = \"info\"", "filter = \"warn\"");
    edit("[accept.base-sepolia-usdc]", "[accept.usdc]");
    let answer = Office::json(&reload().await);
    assert_eq!(answer["ok"], true);
    let changes = answer["details"]["changes"].as_array().unwrap();
    assert!(!changes.is_empty(), "{answer}");
    assert_eq!(price().await, "0.005");
    let config = Office::json(&office.get("/v1/config").await);
    assert_eq!(config["rule"][1]["accept"][0]["amount_atomic"], "5000");
    assert_eq!(config["log"]["filter"], "warn");
    let shown = office.get("/metrics").await.body;
    assert!(shown.contains("farewall_accept_info{accept=\"usdc\""));
    assert!(!shown.contains("farewall_accept_info{accept=\"base-"));
    assert_eq!(office.wall.get("/v1/quote").await.status, 402);

    edit("price = \"$0.005\"", "prcie = \"$0.005\"");
    let refused = reload().await;
    assert_eq!(refused.status, 422, "{refused:?}");
    let refused: Value = serde_json::from_str(&refused.body).unwrap();
    assert_eq!(refused["ok"], false);
    let errors = refused["details"]["errors"].as_array().unwrap();
    assert!(
        errors.iter().any(|error| error["code"] == "unknown-key"),
        "{errors:?}"
    );
    assert_eq!(price().await, "0.005");
    edit("prcie = \"$0.005\"", "price = \"$0.005\"");
    edit("format = \"json\"", "format = \"text\"");
    let refused = reload().await;
    assert_eq!(refused.status, 422, "{refused:?}");
    let refused: Value = serde_json::from_str(&refused.body).unwrap();
    assert_eq!(refused["details"]["errors"][0]["key"], "log.format");
    assert_eq!(lines(), 1, "nobody hears them any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_is_shown_without_its_secrets() {
    let office = Office::start(Setup {
        facilitator: "headers = { Authorization = \"Bearer tops3cret\" }".to_owned(),
        upstream: "headers = { X-Api-Key = \"tops3cret\" }".to_owned(),
        ..Setup::default()
    })
    .await;
    let answer = office.get("/v1/config").await;
    let config = Office::json(&answer);
    assert!(!answer.body.contains("tops3cret"), "{config:#}");
    assert!(!answer.body.contains(TOKEN), "{config:#}");
    assert_eq!(
        config["facilitator"]["sandbox"]["settle_headers"]["authorization"],
        "***"
    );
    assert_eq!(config["server"]["public_origin"], "https://api.example.com");
    let rules = Office::json(&office.get("/v1/rules").await);
    let quote = &rules["rules"][1];
    assert_eq!(quote["name"], "quote");
    assert_eq!(quote["prices"][0]["amount"], "0.001");
    assert_eq!(quote["prices"][0]["amount_atomic"], "1000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_is_given_for_what_was_paid_as_json_and_as_a_page() {
    let office = Office::start(Setup::default()).await;
    office.sell(1).await;
    let proof = Signer::new().proof(&offer(2000));
    assert_eq!(office.wall.pay("/v1/fail", &proof).await.status, 500);
    let receipt = Office::json(&office.get("/v1/payments/1/receipt").await);
    assert_eq!(receipt["amount"], "0.002 USDC");
    let bought = receipt["bought"].as_str().unwrap();
    assert!(
        bought.starts_with("GET ") && bought.ends_with("/v1/item0"),
        "{bought}"
    );
    let page = office.get("/v1/payments/1/receipt?format=html").await;
    assert!(page.body.contains("<h1>Receipt 1</h1>"), "{}", page.body);
    let transaction = receipt["transaction"].as_str().unwrap();
    assert!(page.body.contains(transaction), "{}", page.body);
    let unpaid = office.get("/v1/payments/2/receipt").await;
    assert_eq!((unpaid.status, unpaid.error().as_str()), (404, "not_paid"));
    let csv = office.get("/v1/revenue?by=day&format=csv").await;
    assert!(
        csv.body
            .starts_with("day,network,asset,sold,revenue_atomic"),
        "{}",
        csv.body
    );
    assert!(
        csv.body.contains(",1,2000,0.002,USDC,0,1,0,0\r\n"),
        "{}",
        csv.body
    );
    let reconciled = send(office.request(Method::POST, "/v1/reconcile")).await;
    assert_eq!(Office::json(&reconciled)["unknown"], 0);
}

/// The text messages of a WebSocket, by hand: a server's frames are not masked.
async fn next_text(stream: &mut TcpStream) -> Value {
    loop {
        let mut head = [0; 2];
        stream.read_exact(&mut head).await.unwrap();
        let length = match head[1] {
            126 => u64::from(stream.read_u16().await.unwrap()),
            127 => stream.read_u64().await.unwrap(),
            short => u64::from(short),
        };
        let mut body = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        if head[0] & 0x0f == 1 {
            return serde_json::from_slice(&body).unwrap();
        }
    }
}

async fn connect(office: &Office, path: &str, more: &str) -> TcpStream {
    let mut stream = TcpStream::connect(office.admin).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {TOKEN}\r\n{more}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn each_move_of_a_payment_is_told_live() {
    let office = Office::start(Setup::default()).await;
    let mut all = connect(&office, "/ws/payments/", UPGRADE).await;
    let mut money = connect(&office, "/ws/settlements/", UPGRADE).await;
    let accept = "Accept: text/event-stream\r\n";
    let mut stream = connect(&office, "/ws/settlements/", accept).await;
    office.sell(1).await;
    for state in ["claimed", "settling", "settled", "delivered"] {
        let told = next_text(&mut all).await;
        assert_eq!(told["state"], state);
        assert_eq!(told["payment"]["amount_atomic"], "2000");
        assert_eq!(told["payment"]["rule"], "any");
    }
    for state in ["settling", "settled"] {
        assert_eq!(next_text(&mut money).await["state"], state);
    }
    let mut text = String::new();
    while !(text.contains("\"settling\"") && text.contains("\"state\":\"settled\"")) {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).await.unwrap();
        assert!(read > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&chunk[..read]));
    }
    assert!(text.contains("event: move"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_serves_the_same_to_its_owner_alone() {
    let (folder, path) = token_file();
    let socket = folder.path().join("admin.sock");
    let setup = Setup {
        admin_text: Some(format!("unix:{}", socket.display())),
        server: format!("admin_token_file = \"{}\"", path.display()),
        ..Setup::default()
    };
    let mut wall = setup.start().await;
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for _ in 0..2 {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        let request = format!(
            "GET /v1/version HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {TOKEN}\r\n\
             Connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.contains("200 OK") && answer.contains("farewall"),
            "{answer}"
        );
        // A socket that a crash left behind is no obstacle.
        wall.kill();
        wall.restart();
    }
}

#[test]
fn a_token_that_everybody_may_read_stops_the_start() {
    let (folder, path) = token_file();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let config = folder.path().join("farewall.toml");
    let text = format!(
        "[server]\npublic_origin = \"https://a.example\"\nadmin_token_file = \"admin.token\"\n\
         admin = \"{}\"\n[[listen]]\naddress = \"{}\"\n[upstream.api]\nurl = \"http://127.0.0.1:9\"\n\
         [[rule]]\nname = \"a\"\npath = \"/a\"\nfree = true\n",
        free_address(),
        free_address(),
    );
    std::fs::write(&config, text).unwrap();
    let output = std::process::Command::new(BINARY)
        .args(["run", "--config", config.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("chmod 600"), "{said}");
    assert!(!said.contains(TOKEN), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_tells_the_ledgers_money_and_the_walls_conversion() {
    let office = Office::start(Setup::default()).await;
    office.sell(2).await;
    for _ in 0..8 {
        assert_eq!(office.wall.get("/v1/quote").await.status, 402);
    }
    let report = |more: &[&str]| {
        let config = office.wall.config.to_str().unwrap();
        let output = farewall(&[&["report", "--config", config], more].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let table = report(&["--by", "rule"]);
    let row = table.lines().find(|line| line.starts_with("any ")).unwrap();
    assert!(
        row.contains("0.004 USDC") && row.ends_with(&"█".repeat(30)),
        "{table}"
    );
    assert!(
        table.contains("8 challenges, 2 paid requests (25.0 %)"),
        "{table}"
    );
    let json: Value = serde_json::from_str(&report(&["--format", "json"])).unwrap();
    assert_eq!(json["rows"][0]["revenue_atomic"], "4000");
    assert_eq!(json["conversion_since_start"]["challenges"], "8");
    let csv = report(&["--by", "payer", "--format", "csv"]);
    assert_eq!(csv.lines().count(), 3, "{csv}");
    assert!(report(&["--since", "2999-01-01"]).starts_with("Nothing was claimed"));
}
