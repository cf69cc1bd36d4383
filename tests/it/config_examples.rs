//! Every configuration that we show is one that works.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::support::wall::BINARY;

/// What a `toml,fragment` block of the README is written under: one origin, one facilitator, one
/// way of being paid, and a free rule, so that a fragment may be a `[[rule]]`, an `[accept.…]`, a
/// `[facilitator.…]` or an `[upstream.…]` alone.
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

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn check(config: &Path) -> (Output, Value) {
    let output = std::process::Command::new(BINARY)
        .args(["check", "--json", "--config"])
        .arg(config)
        // What the README takes from the environment.
        .env("FACILITATOR_KEY", "key-of-a-test")
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

/// The fenced blocks of the README: where, what stands behind the fence, and the text.
fn blocks(readme: &str) -> Vec<(usize, &str, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, &str, String)> = None;
    for (at, line) in readme.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => open = Some((at + 1, info, String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some((_, _, text))) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    blocks
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
fn every_configuration_in_the_readme_passes_check() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let mut checked = 0;
    for (line, info, text) in blocks(&readme) {
        let what = format!("README.md:{line}");
        match info {
            "toml" => check_text(&what, &text),
            "toml,fragment" => check_text(&what, &format!("{PRELUDE}{text}")),
            _ => {
                assert!(
                    !info.starts_with("toml"),
                    "{what}: write toml or toml,fragment"
                );
                continue;
            }
        }
        checked += 1;
    }
    assert!(checked > 0, "the README shows no configuration");
}

#[test]
fn the_prelude_alone_is_a_configuration() {
    check_text("the prelude", PRELUDE);
}
