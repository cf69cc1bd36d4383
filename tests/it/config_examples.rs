//! Every configuration that we show is one that works.

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use toml::Table;

use crate::support::pages::{pages, root};
use crate::support::wall::BINARY;

/// What a `toml,fragment` block of a page is put into: one origin, one facilitator, one way of being
/// paid, and a rule that sells, so that a fragment may be one table, or a few keys of one.
const PRELUDE: &str = r#"
[server]
public_origin = "https://api.example.com"
[facilitator.prelude]
url = "https://facilitator.example"
[accept.prelude]
network = "base-sepolia"
pay_to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
facilitators = ["prelude"]
[upstream.prelude]
url = "http://127.0.0.1:9000"
[[rule]]
name = "prelude"
path = "/prelude"
price = "$0.001"
accept = ["prelude"]
upstream = "prelude"
"#;

fn check(config: &Path) -> (Output, Value) {
    let output = std::process::Command::new(BINARY)
        .args(["check", "--json", "--config"])
        .arg(config)
        // What the pages take from the environment.
        .env("FACILITATOR_KEY", "key-of-a-test")
        .env("PGPASSWORD", "password-of-a-test")
        .env("RPC_URL", "https://rpc.example")
        .output()
        .unwrap();
    let answer = serde_json::from_slice(&output.stdout).unwrap();
    (output, answer)
}

#[track_caller]
fn check_text(what: &str, text: &str) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("farewall.toml");
    std::fs::write(&config, text).unwrap();
    let (output, answer) = check(&config);
    assert!(output.status.success(), "{what}: {answer:#}");
}

/// The prelude with a fragment in it: tables are joined, key by key, and lists of tables follow one
/// another.
fn joined(what: &str, fragment: &str) -> String {
    fn join(into: &mut Table, from: Table) {
        for (key, value) in from {
            match (into.get_mut(&key), value) {
                (Some(toml::Value::Table(inner)), toml::Value::Table(more)) => join(inner, more),
                (Some(toml::Value::Array(list)), toml::Value::Array(more)) => list.extend(more),
                (_, value) => {
                    into.insert(key, value);
                }
            }
        }
    }
    let mut whole: Table = PRELUDE.parse().unwrap();
    let fragment: Table = fragment
        .parse()
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    join(&mut whole, fragment);
    toml::to_string(&whole).unwrap()
}

#[test]
fn every_file_in_conf_passes_check_without_a_warning() {
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(root().join("conf")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let (output, answer) = check(&path);
        assert!(output.status.success(), "{}: {answer:#}", path.display());
        assert_eq!(answer["warnings"], 0, "{}: {answer:#}", path.display());
        seen.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    for name in ["demo.toml", "farewall.toml", "full.toml"] {
        assert!(seen.iter().any(|s| s == name), "conf/{name} is missing");
    }
}

#[test]
fn every_configuration_in_the_documentation_passes_check() {
    let mut checked = 0;
    for page in pages() {
        for block in page.blocks() {
            let what = format!("{}:{}", page.path, block.line);
            match block.info.as_str() {
                "toml" => check_text(&what, &block.text),
                "toml,fragment" => check_text(&what, &joined(&what, &block.text)),
                // Whether it is a kind at all is asked in `docs_run`.
                _ => continue,
            }
            checked += 1;
        }
    }
    assert!(checked > 5, "{checked}");
}

#[test]
fn the_prelude_alone_is_a_configuration() {
    check_text("the prelude", PRELUDE);
}
