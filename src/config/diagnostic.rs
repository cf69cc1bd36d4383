//! One complaint about a configuration, for people (with the line and a caret) and for programs (JSON).
//!
//! It quotes the operator's own text, with `${NAME}` as written: the value of a secret never appears.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::config::codes;
use crate::config::settings::Location;

/// How bad it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The wall does not start.
    Error,
    /// It starts, but this is hardly what the operator wants.
    Warning,
}

/// One complaint: what is wrong, where, and how to mend it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Stable name in kebab-case, such as `unknown-key`.
    pub code: &'static str,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// Where it is written; `None` when it has no place, or when only [`Self::key`] is known yet.
    #[serde(flatten)]
    pub place: Option<Place>,
    /// Dotted key that it is about, such as `upstream.api.tls_verify`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// A stretch of one line of a configuration file.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Place {
    /// File as given by the operator.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
    /// How many characters the caret marks, at least 1.
    pub length: usize,
    /// The whole line as written; empty while it is not known.
    pub source: String,
}

impl Diagnostic {
    /// Something that stops the start.
    #[must_use]
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message.into())
    }

    /// Something that the operator should look at.
    #[must_use]
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message.into())
    }

    fn new(severity: Severity, code: &'static str, message: String) -> Self {
        debug_assert!(
            codes::is_known(severity, code),
            "{code} is not in config::codes"
        );
        Self {
            severity,
            code,
            message,
            place: None,
            key: None,
            help: None,
        }
    }

    /// The same with a way to mend it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same, about this declaration. [`Loaded::locate`](crate::config::Loaded::locate) adds the line.
    #[must_use]
    pub fn at(mut self, location: &Location) -> Self {
        self.place = Some(Place {
            file: Arc::clone(&location.file),
            line: location.line,
            column: location.column,
            length: 1,
            source: String::new(),
        });
        self
    }

    /// The same, about this dotted key. [`Loaded::locate`](crate::config::Loaded::locate) finds its place.
    #[must_use]
    pub fn about(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Whether it stops the start.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// Several lines, without a final newline:
///
/// ```text
/// error[unknown-key]: unknown key `prcie` in [[rule]] "weather"
///   --> conf/site.toml:12:1
///    |
/// 12 | prcie = "$0.01"
///    | ^^^^^
///    = help: did you mean `price`?
/// ```
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}[{}]: {}",
            self.severity,
            self.code,
            printable(&self.message)
        )?;
        let mut gutter = String::from(" ");
        if let Some(place) = &self.place {
            let number = place.line.to_string();
            gutter = " ".repeat(number.len());
            write!(f, "\n{gutter}--> {}:{number}:{}", place.file, place.column)?;
            if !place.source.is_empty() {
                let before = place.column.saturating_sub(1);
                let indent: String = place
                    .source
                    .chars()
                    .take(before)
                    .map(|c| if c == '\t' { '\t' } else { ' ' })
                    .collect();
                let caret = "^".repeat(place.length.max(1));
                write!(f, "\n{gutter} |\n{number} | {}", printable(&place.source))?;
                write!(f, "\n{gutter} | {indent}{caret}")?;
            }
        }
        if let Some(help) = &self.help {
            write!(f, "\n{gutter} = help: {}", printable(help))?;
        }
        Ok(())
    }
}

/// Text without characters that would steer a terminal. Tabs stay, so that carets line up.
fn printable(text: &str) -> String {
    let steers = |c: char| c.is_control() && c != '\t';
    text.chars()
        .map(|c| if steers(c) { '\u{fffd}' } else { c })
        .collect()
}

/// `1 error and 2 warnings`, `2 errors`, `no errors`.
#[must_use]
pub fn summary(diagnostics: &[Diagnostic]) -> String {
    let errors = diagnostics.iter().filter(|d| d.is_error()).count();
    let warnings = diagnostics.len().saturating_sub(errors);
    let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    match (errors, warnings) {
        (0, 0) => "no errors, no warnings".to_owned(),
        (0, w) => format!("no errors, {}", plural(w, "warning")),
        (e, 0) => plural(e, "error"),
        (e, w) => format!("{} and {}", plural(e, "error"), plural(w, "warning")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(source: &str, column: usize, length: usize) -> Diagnostic {
        let mut diagnostic = Diagnostic::error("bad-value", "it is bad").help("mend it");
        diagnostic.place = Some(Place {
            file: "a.toml".into(),
            line: 12,
            column,
            length,
            source: source.to_owned(),
        });
        diagnostic
    }

    #[test]
    fn the_caret_stands_under_what_is_wrong() {
        let want = "error[bad-value]: it is bad\n  --> a.toml:12:5\n   |\n12 | a = oops\n   |     ^^^^\n   = help: mend it";
        assert_eq!(placed("a = oops", 5, 4).to_string(), want);
        let tabbed = placed("\ta = oops", 6, 4).to_string();
        assert!(tabbed.contains("\n   | \t    ^^^^\n"), "{tabbed}");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let text = placed("a = \u{1b}[2J", 1, 1).to_string();
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn json_is_flat_and_leaves_out_what_is_not_known() {
        let json = serde_json::to_value(placed("a = oops", 5, 4)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "severity": "error", "code": "bad-value", "message": "it is bad",
                "file": "a.toml", "line": 12, "column": 5, "length": 4, "source": "a = oops",
                "help": "mend it",
            })
        );
        let bare = serde_json::to_value(Diagnostic::warning("unused", "y")).unwrap();
        assert_eq!(
            bare,
            serde_json::json!({"severity": "warning", "code": "unused", "message": "y"})
        );
    }

    #[test]
    fn the_summary_counts() {
        let error = Diagnostic::error("syntax", "b");
        let warning = Diagnostic::warning("unused", "b");
        assert_eq!(summary(&[]), "no errors, no warnings");
        assert_eq!(
            summary(std::slice::from_ref(&warning)),
            "no errors, 1 warning"
        );
        assert_eq!(summary(&[error.clone(), error.clone()]), "2 errors");
        assert_eq!(
            summary(&[error, warning.clone(), warning]),
            "1 error and 2 warnings"
        );
    }
}
