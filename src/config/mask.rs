//! What is starred out of every line and message that is shown: secrets that stand in the text itself.
//!
//! Judged by the text alone, because a file with a mistake in it may not be readable as anything
//! else: the user information of a URL, and the value behind a name that sounds like a secret.

use std::ops::Range;

/// Words in the names of headers and keys whose values nobody should see.
const SECRET_WORDS: [&str; 7] = [
    "authorization",
    "cookie",
    "key",
    "token",
    "secret",
    "password",
    "credential",
];

/// Whether a header or key of this name, in any case, holds a secret. `tls_key` is a file's name.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name != "tls_key" && SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// The text with every secret in it starred out, character by character.
pub(super) fn starred(text: &str) -> String {
    let hidden = hidden(text);
    if hidden.is_empty() {
        return text.to_owned();
    }
    let is_hidden = |at: usize| hidden.iter().any(|range| range.contains(&at));
    text.char_indices()
        .map(|(at, c)| if is_hidden(at) { '*' } else { c })
        .collect()
}

/// Where the secrets of a text are, in bytes.
pub(super) fn hidden(text: &str) -> Vec<Range<usize>> {
    let urls = text.match_indices("://").filter_map(|(at, mark)| {
        let start = at.saturating_add(mark.len());
        let rest = text.get(start..)?;
        let scheme = text.get(..at)?;
        let is_part = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let scheme_at = scheme.trim_end_matches(is_part);
        // Within quotes it reaches to the next one, with all that its password is made of.
        let quote = scheme_at
            .chars()
            .next_back()
            .filter(|c| "\"'`".contains(*c));
        let end = match quote {
            Some(quote) => rest.find(quote),
            None => rest.find(|c: char| c.is_whitespace() || "\"'`".contains(c)),
        };
        let rest = rest.get(..end.unwrap_or(rest.len()))?;
        let scheme = scheme.get(scheme_at.len()..)?.to_ascii_lowercase();
        let end = match scheme.as_str() {
            // Its parameters may hold a password under a name that is written in escapes.
            "postgres" | "postgresql" => rest.len(),
            _ => rest.rfind('@')?,
        };
        Some(start..start.saturating_add(end))
    });
    let values = text.match_indices('=').filter_map(|(at, _)| {
        let name = text.get(..at)?.trim_end().trim_end_matches(['"', '\'']);
        let is_part = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        let name = name.rsplit(|c| !is_part(c)).next()?;
        if !is_secret_name(name) {
            return None;
        }
        let after = text.get(at.saturating_add(1)..)?;
        let value = after.trim_start();
        let start = text.len().saturating_sub(value.len());
        let length = value_length(value);
        let refers = value.get(..length).is_some_and(|v| {
            v.contains("${") || v.trim_start_matches(['"', '\'']).starts_with("file:")
        });
        (!refers).then(|| start..start.saturating_add(length))
    });
    urls.chain(values).collect()
}

/// How far a value reaches; whatever is not closed reaches to the end.
fn value_length(value: &str) -> usize {
    let Some(first) = value.chars().next() else {
        return 0;
    };
    let end = match first {
        '"' | '\'' => {
            let mut escaped = false;
            value
                .char_indices()
                .skip(1)
                .find(|(_, c)| {
                    let closes = *c == first && !escaped;
                    escaped = *c == '\\' && !escaped && first == '"';
                    closes
                })
                .map(|(at, _)| at.saturating_add(1))
        }
        '[' | '{' => None,
        _ => value.find(|c: char| c.is_whitespace() || "\"'`,}&".contains(c)),
    };
    end.unwrap_or(value.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        assert_eq!(starred(text), want);
    }

    #[test]
    fn values_behind_secret_names_are_starred_to_their_end() {
        check("api_key = \"abc\" # x", "api_key = ***** # x");
        check(
            "h = { A-Token = \"a\\\"b\", B = \"c\" }",
            "h = { A-Token = ******, B = \"c\" }",
        );
        check("\"X-Key\" = 'a\\', b = 1", "\"X-Key\" = ****, b = 1");
        check("Authorization = [\"abc\"] }", "Authorization = *********");
        check("password = \"abc", "password = ****");
        check("https://a?key=abc&b=1\"", "https://a?key=***&b=1\"");
        check("SECRET=", "SECRET=");
    }

    #[test]
    fn the_user_information_of_a_url_is_starred() {
        check(
            "url = \"https://u:p@a.example/b\"",
            "url = \"https://***@a.example/b\"",
        );
        check(
            "\"http://u:p/q@r@a\" is no URL",
            "\"http://*******@a\" is no URL",
        );
        check("https://a.example/b", "https://a.example/b");
        check("'http://u:a, b@c' x@y", "'http://******@c' x@y");
    }

    #[test]
    fn of_the_url_of_a_database_nothing_is_shown() {
        check("\"postgres://u:p@h/d\" # x", "\"postgres://*******\" # x");
        check(
            "POSTGRESQL://h/d?p%61ssword=s",
            "POSTGRESQL://****************",
        );
        check("'Postgres://u:a,b c@h'", "'Postgres://*********'");
    }

    #[test]
    fn references_and_names_of_files_are_shown() {
        for text in [
            "Authorization = \"Bearer ${KEY}\"",
            "X-Key = \"file:/etc/key\"",
            "tls_key = \"tls/key.pem\"",
            "name = \"weather\"",
        ] {
            check(text, text);
        }
    }
}
