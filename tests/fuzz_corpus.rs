//! Every file of the fuzzers' corpus, as an ordinary test: what they once found stays found.

#![allow(
    unreachable_pub,
    missing_docs,
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a property that panics has failed, which is what it is for"
)]

#[path = "../fuzz/src/properties.rs"]
mod properties;

use std::path::Path;

/// Runs a property over the files of its corpus, of which there must be at least so many.
#[track_caller]
fn check(target: &str, files_min: usize, property: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let data = std::fs::read(&path).unwrap();
        let outcome = std::panic::catch_unwind(|| property(&data));
        assert!(outcome.is_ok(), "{} breaks a property", path.display());
        files += 1;
    }
    assert!(files >= files_min, "{files} files in {}", folder.display());
}

#[test]
fn payment_headers_answer_an_offer_or_are_refused() {
    check("payment", 70, properties::payment);
}

#[test]
fn headers_have_one_meaning() {
    check("header", 20, properties::header);
}

#[test]
fn canonical_targets_are_final_and_hide_nothing() {
    check("target", 30, properties::target);
}

#[test]
fn configurations_are_good_or_their_complaints_can_be_shown() {
    check("config", 20, properties::config);
}

#[test]
fn answers_of_facilitators_are_never_read_as_more_than_they_say() {
    check("facilitator", 25, properties::facilitator);
}
