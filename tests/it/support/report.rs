//! What was tried, for the table of `tests/faults.sh`.

use std::io::Write as _;

/// Adds a line to the file named by `FAREWALL_REPORT`: what, how often, violations. Without that
/// variable it does nothing. Call it before the assertion, so that a failure is in the table.
pub fn report(what: &str, count: u64, violations: usize) {
    let Ok(path) = std::env::var("FAREWALL_REPORT") else {
        return;
    };
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path);
    // One write a line: other tests append to the same file.
    let line = format!("{what}\t{count}\t{violations}\n");
    file.unwrap().write_all(line.as_bytes()).unwrap();
}
