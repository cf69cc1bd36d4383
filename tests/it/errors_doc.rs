//! Every code that the program gives has its section in the documentation, and no section is about
//! another.

use std::collections::BTreeSet;
use std::path::Path;

use farewall::admin::Problem;
use farewall::cli::{EXIT_CONFIG, EXIT_NO, EXIT_OUTSIDE};
use farewall::config::codes;
use farewall::proxy::code::Code;
use farewall::x402::reason::Reason;

use crate::support::pages::{Page, page, root};

/// The headings of the sections below one heading.
fn sections(page: &Page, above: &str) -> BTreeSet<String> {
    let text = page.section(above);
    let headings = text.lines().filter_map(|line| line.strip_prefix("### "));
    let all: Vec<String> = headings.map(str::to_owned).collect();
    let set: BTreeSet<String> = all.iter().cloned().collect();
    assert_eq!(all.len(), set.len(), "{above}: a section twice");
    set
}

#[track_caller]
fn compare(page: &Page, above: &str, wanted: BTreeSet<String>, points: &[&str]) {
    let found = sections(page, above);
    let missing: Vec<_> = wanted.difference(&found).collect();
    let idle: Vec<_> = found.difference(&wanted).collect();
    assert!(
        missing.is_empty(),
        "{}, {above}: no section for {missing:#?}",
        page.path
    );
    assert!(
        idle.is_empty(),
        "{}, {above}: nothing has the code {idle:#?}",
        page.path
    );
    let text = page.section(above);
    for section in text.split("### ").skip(1) {
        for point in points {
            let line = section
                .lines()
                .find_map(|l| l.strip_prefix(&format!("* {point}: ")));
            assert!(
                line.is_some_and(|line| line.len() > 3),
                "no {point} in {section}"
            );
        }
    }
}

const POINTS: [&str; 4] = ["Means", "Cause", "Cure", "Money"];

#[test]
fn every_answer_of_the_wall_has_a_section_with_its_status() {
    let heading = |code: &Code| {
        let statuses: Vec<_> = code.statuses().iter().map(u16::to_string).collect();
        format!("`{}` ({})", code.as_str(), statuses.join(", "))
    };
    let wanted = Code::ALL.iter().map(heading).collect();
    compare(
        &page("docs/errors.md"),
        "Answers to clients",
        wanted,
        &POINTS,
    );
}

#[test]
fn every_reason_of_the_wall_has_a_section() {
    let mut wanted: BTreeSet<_> = Reason::ALL
        .iter()
        .map(|r| format!("`{}`", r.as_str()))
        .collect();
    // The one that holds what was sent.
    wanted.insert("`Unsupported x402 version: N`".to_owned());
    compare(&page("docs/errors.md"), "Reasons in a 402", wanted, &POINTS);
}

#[test]
fn every_problem_of_the_admin_api_has_a_section() {
    let page = page("docs/errors.md");
    let found = sections(&page, "Answers of the admin API");
    let bare = |heading: &String| heading.split(" (").next().unwrap().to_owned();
    let found: BTreeSet<_> = found.iter().map(bare).collect();
    let wanted: BTreeSet<_> = Problem::ALL
        .iter()
        .map(|p| format!("`{}`", p.as_str()))
        .collect();
    assert_eq!(found, wanted);
    let same = sections(&page, "Answers of the admin API");
    compare(&page, "Answers of the admin API", same, &POINTS);
}

#[test]
fn every_exit_code_has_a_section() {
    // clap's own is 2.
    let codes = [EXIT_NO, 2, EXIT_CONFIG, EXIT_OUTSIDE];
    let wanted = codes.iter().map(|code| format!("`{code}`")).collect();
    compare(&page("docs/errors.md"), "Exit codes", wanted, &POINTS);
}

#[test]
fn every_complaint_has_a_section() {
    let complaints = page("docs/complaints.md");
    for (above, codes) in [
        ("Errors", &codes::ERRORS[..]),
        ("Warnings", &codes::WARNINGS[..]),
    ] {
        let wanted = codes.iter().map(|code| format!("`{code}`")).collect();
        compare(&complaints, above, wanted, &["Cause", "Cure"]);
    }
    assert!(complaints.text.contains("\nMoney: none moves"));
}

/// The text of each line that is logged as an error.
fn logged(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            logged(&path, found);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for call in text.split("tracing::error!(").skip(1) {
            let mut depth = 1;
            let end = call.find(|c| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                depth == 0
            });
            let call = &call[..end.unwrap()];
            let told = call.rsplit('"').nth(1);
            found.insert(
                told.unwrap_or_else(|| panic!("{path:?}: {call}"))
                    .to_owned(),
            );
        }
    }
}

#[test]
fn every_error_in_the_log_has_a_section() {
    let mut wanted = BTreeSet::new();
    logged(&root().join("src"), &mut wanted);
    assert!(wanted.len() > 15, "{wanted:#?}");
    compare(&page("docs/errors.md"), "Lines in the log", wanted, &POINTS);
}

/// The code that says what is wrong is never text made on the way: `Diagnostic` refuses others while
/// tests run, and this finds those that no test has met.
#[test]
fn every_code_of_a_complaint_in_the_source_is_listed() {
    let mut files = vec![root().join("src")];
    let mut seen = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(
                std::fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for (opening, codes) in [
            ("Diagnostic::error(", &codes::ERRORS[..]),
            ("Diagnostic::warning(", &codes::WARNINGS[..]),
        ] {
            for call in text.split(opening).skip(1) {
                let Some(rest) = call.trim_start().strip_prefix('"') else {
                    continue;
                };
                let code = rest.split('"').next().unwrap();
                assert!(codes.contains(&code), "{path:?}: {code}");
                seen += 1;
            }
        }
    }
    assert!(seen > 40, "{seen}");
}
