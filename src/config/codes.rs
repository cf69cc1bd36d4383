//! Every code that a complaint about a configuration may have, described in `docs/complaints.md`.

use super::diagnostic::Severity;

/// What stops the start, or a reload; in the order of the alphabet. A
/// [`Diagnostic`](super::diagnostic::Diagnostic) with another code does not get through the tests.
pub static ERRORS: [&str; 58] = [
    "ambiguous-price",
    "ambiguous-rules",
    "bad-accept",
    "bad-address",
    "bad-contact",
    "bad-filter",
    "bad-header",
    "bad-host",
    "bad-host-pattern",
    "bad-include",
    "bad-method",
    "bad-name",
    "bad-network",
    "bad-origin",
    "bad-path",
    "bad-path-pattern",
    "bad-prefix",
    "bad-price",
    "bad-range",
    "bad-recipient",
    "bad-server",
    "bad-url",
    "bad-value",
    "cannot-apply",
    "contradiction",
    "duplicate-address",
    "duplicate-header",
    "duplicate-name",
    "empty-list",
    "head-without-get",
    "listed-twice",
    "mainnet-through-sandbox",
    "missing-key",
    "missing-section",
    "missing-table",
    "needs-restart",
    "no-file",
    "no-upstream",
    "not-built-in",
    "not-supported",
    "out-of-range",
    "price-too-precise",
    "price-unpayable",
    "price-zero",
    "router",
    "secret-file",
    "secret-syntax",
    "secret-variable",
    "settles-after-delivery",
    "syntax",
    "trusts-everybody",
    "unknown-accept",
    "unknown-asset",
    "unknown-key",
    "unknown-name",
    "unknown-network",
    "unreadable-file",
    "wrong-type",
];

/// What the operator should look at; in the order of the alphabet.
pub static WARNINGS: [&str; 29] = [
    "absent-file",
    "challenge-port",
    "free-host",
    "free-method",
    "free-under-priced",
    "include-empty",
    "large-challenge",
    "literal-secret",
    "long-description",
    "no-effect",
    "no-rules",
    "open-admin",
    "origin-without-certificate",
    "overrides-table",
    "plain-facilitator",
    "plain-origin",
    "price-above-cap",
    "proof-may-expire",
    "refused-spelling",
    "settles-after-delivery",
    "shadow",
    "test-money-too",
    "tls-unverified",
    "trusts-everybody",
    "unknown-token",
    "unmatched-free",
    "unreachable-rule",
    "unused",
    "unused-filter",
];

/// Whether it is listed.
pub(super) fn is_known(severity: Severity, code: &str) -> bool {
    match severity {
        Severity::Error => ERRORS.binary_search(&code).is_ok(),
        Severity::Warning => WARNINGS.binary_search(&code).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_in_order_and_nothing_else_is_known() {
        assert!(ERRORS.is_sorted() && WARNINGS.is_sorted());
        assert!(ERRORS.iter().all(|code| is_known(Severity::Error, code)));
        assert!(
            WARNINGS
                .iter()
                .all(|code| is_known(Severity::Warning, code))
        );
        assert!(!is_known(Severity::Error, "bad-thing") && !is_known(Severity::Error, "unused"));
    }
}
