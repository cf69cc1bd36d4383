//! What was tried, for the table of `tests/faults.sh`.

use std::io::Write as _;

/// Adds a line to the file named by `FAREWALL_REPORT`: what, how often, violations. Without that
/// variable it does nothing. Call it before the assertion, so that a failure is in the table.
pub fn report(what: &str, count: usize, violations: usize) {
    let Ok(path) = std::env::var("FAREWALL_REPORT") else {
        return;
    };
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create(true).append(true).open(path).unwrap();
    // One write a line: other tests append to the same file.
    let line = format!("{what}\t{count}\t{violations}\n");
    file.write_all(line.as_bytes()).unwrap();
}

/// A test whose violations are panics: the first one ends it, and is reported.
pub struct Trial(Option<&'static str>);

impl Trial {
    pub fn of(what: &'static str) -> Self {
        Self(Some(what))
    }

    /// It was tried so often, and held.
    pub fn held(mut self, count: usize) {
        if let Some(what) = self.0.take() {
            report(what, count, 0);
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(what) = self.0.take() {
            report(what, 0, 1);
        }
    }
}
