//! SECURITY.md names the tests that carry its promises: they must exist, and be tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// A name of at least three words in snake case is meant to be a test.
fn is_test_name(text: &str) -> bool {
    text.matches('_').count() >= 2
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("node_modules") {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The functions behind a test attribute.
fn tests_in(text: &str) -> Vec<String> {
    let mut tests = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ") {
            let name = rest.split(['(', '<']).next().unwrap_or_default();
            if std::mem::take(&mut is_test) {
                tests.push(name.to_owned());
            }
        }
    }
    tests
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let page = std::fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let named: BTreeSet<&str> = quoted(&page).filter(|text| is_test_name(text)).collect();
    assert!(named.len() >= 60, "{}", named.len());
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    rust_files(&root().join("tests"), &mut files);
    let tests: BTreeSet<String> = files
        .iter()
        .flat_map(|path| tests_in(&std::fs::read_to_string(path).unwrap()))
        .collect();
    let missing: Vec<_> = named
        .iter()
        .filter(|name| !tests.contains(**name))
        .collect();
    assert!(missing.is_empty(), "no such test: {missing:#?}");
    for path in quoted(&page).filter(|text| text.contains('/') && text.ends_with(".sh")) {
        assert!(root().join(path).exists(), "{path}");
    }
}
