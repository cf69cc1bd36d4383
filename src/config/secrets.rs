//! Secrets stay out of the configuration: `${NAME}` and `file:path` inside its strings.
//!
//! - `${NAME}` anywhere in a string is replaced by the environment variable; `$${` means `${`.
//! - A string that starts with `file:` is replaced by that file's content without surrounding white
//!   space. The path may itself hold `${NAME}`, and is relative to the file it is written in.
//!
//! Nothing that was put in is read again, so a value cannot smuggle in another reference.

use std::io;
use std::path::Path;

/// Where a configuration finds what is not in its text.
pub(super) trait Surroundings {
    /// An environment variable, if it is set and valid Unicode.
    fn variable(&self, name: &str) -> Option<String>;

    /// The text of a file of at most [`FILE_BYTES_MAX`].
    ///
    /// # Errors
    ///
    /// Whatever keeps the file from being read; `InvalidData` when it is no text or too large.
    fn read(&self, path: &Path) -> io::Result<String>;

    /// The names of the files in a folder.
    ///
    /// # Errors
    ///
    /// Whatever keeps the folder from being read.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
}

/// The most that is read of one file: 16 MiB, room for far more than 10,000 rules.
pub(super) const FILE_BYTES_MAX: u64 = 16 << 20;

/// Why a reference in a string cannot be followed. Says the name, never a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct SecretError {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) help: &'static str,
}

/// What a string became.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Expanded {
    pub(super) value: String,
    /// Whether anything came from outside the file.
    pub(super) is_secret: bool,
}

/// Follows the references of one string.
pub(super) fn expand(
    raw: &str,
    folder: &Path,
    around: &dyn Surroundings,
) -> Result<Expanded, SecretError> {
    let Some(path) = raw.strip_prefix("file:") else {
        return variables(raw, around);
    };
    let path = variables(path, around)?.value;
    let wrong = |what: &str| SecretError {
        code: "secret-file",
        message: format!("`{raw}` cannot be used: {what}"),
        help: "the file must be readable by the user that runs farewall, and hold the value alone",
    };
    let text = around
        .read(&folder.join(path))
        .map_err(|error| wrong(&error.to_string()))?;
    match text.trim() {
        "" => Err(wrong("the file is empty")),
        value => Ok(Expanded {
            value: value.to_owned(),
            is_secret: true,
        }),
    }
}

fn variables(raw: &str, around: &dyn Surroundings) -> Result<Expanded, SecretError> {
    let mut value = String::with_capacity(raw.len());
    let mut is_secret = false;
    let mut rest = raw;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(literal) = before.strip_suffix('$') {
            value.push_str(literal);
            value.push_str("${");
            rest = after;
            continue;
        }
        value.push_str(before);
        let (name, after) = after
            .split_once('}')
            .filter(|(name, _)| is_name(name))
            .ok_or_else(|| SecretError {
                code: "secret-syntax",
                message: "`${` must be followed by the name of an environment variable and `}`"
                    .to_owned(),
                help: "write `${NAME}`, with letters, digits and `_`; `$${` stands for `${` itself",
            })?;
        value.push_str(&variable(name, around)?);
        is_secret = true;
        rest = after;
    }
    value.push_str(rest);
    Ok(Expanded { value, is_secret })
}

fn variable(name: &str, around: &dyn Surroundings) -> Result<String, SecretError> {
    let wrong = |what: &str| SecretError {
        code: "secret-variable",
        message: format!("the environment variable `{name}` is {what}"),
        help: "set it where farewall is started (systemd: Environment= or EnvironmentFile=)",
    };
    match around.variable(name) {
        None => Err(wrong("not set")),
        Some(value) if value.is_empty() => Err(wrong("empty")),
        Some(value) => Ok(value),
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The machine's own environment and disk, with variables from `env`.
pub(super) struct Machine<'a> {
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
}

impl Surroundings for Machine<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name)
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        use std::io::Read;
        let mut text = String::new();
        let limit = FILE_BYTES_MAX.saturating_add(1);
        std::fs::File::open(path)?
            .take(limit)
            .read_to_string(&mut text)?;
        if u64::try_from(text.len()).is_ok_and(|length| length <= FILE_BYTES_MAX) {
            Ok(text)
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "larger than 16 MiB",
            ))
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }
}

/// Variables alone: what is parsed from text touches no disk.
pub(super) struct Diskless<'a> {
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
}

impl Surroundings for Diskless<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name)
    }

    fn read(&self, _path: &Path) -> io::Result<String> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "no files are read here",
        ))
    }

    fn list(&self, _folder: &Path) -> io::Result<Vec<String>> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "no files are read here",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Fixed;

    impl Surroundings for Fixed {
        fn variable(&self, name: &str) -> Option<String> {
            match name {
                "KEY" => Some("k3y".to_owned()),
                "DIR" => Some("/run/secrets".to_owned()),
                "SLY" => Some("${KEY} file:/etc/key".to_owned()),
                "EMPTY" => Some(String::new()),
                _ => None,
            }
        }

        fn read(&self, path: &Path) -> io::Result<String> {
            match path.to_str() {
                Some("/etc/key" | "/run/secrets/key" | "conf/key") => Ok(" ${KEY}\n".to_owned()),
                Some("/etc/empty") => Ok("\n".to_owned()),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        }

        fn list(&self, _folder: &Path) -> io::Result<Vec<String>> {
            Ok(Vec::new())
        }
    }

    #[track_caller]
    fn check(raw: &str, want: Result<&str, &str>) {
        let got = expand(raw, Path::new("conf"), &Fixed);
        let got = got.as_ref().map(|e| e.value.as_str()).map_err(|e| e.code);
        assert_eq!(got, want, "{raw}");
    }

    #[test]
    fn variables_are_put_in_wherever_they_stand() {
        check("$0.001", Ok("$0.001"));
        check("Bearer ${KEY}!", Ok("Bearer k3y!"));
        check("${KEY}${KEY}", Ok("k3yk3y"));
        check("$${KEY} ${KEY}", Ok("${KEY} k3y"));
        check("a$b$", Ok("a$b$"));
    }

    #[test]
    fn what_was_put_in_is_not_read_again() {
        check("${SLY}", Ok("${KEY} file:/etc/key"));
        check("file:/etc/key", Ok("${KEY}"));
    }

    #[test]
    fn files_are_trimmed_and_found_relative_to_the_configuration() {
        check("file:key", Ok("${KEY}"));
        check("file:${DIR}/key", Ok("${KEY}"));
        check("see file:/etc/key", Ok("see file:/etc/key"));
    }

    #[test]
    fn what_is_missing_or_empty_is_an_error() {
        check("${NOPE}", Err("secret-variable"));
        check("${EMPTY}", Err("secret-variable"));
        check("file:/etc/empty", Err("secret-file"));
        check("file:/etc/nope", Err("secret-file"));
        check("file:${NOPE}", Err("secret-variable"));
        for raw in ["${KEY", "${}", "${a b}", "${1A}", "${"] {
            check(raw, Err("secret-syntax"));
        }
    }

    proptest! {
        #[test]
        fn text_without_references_stays_as_it_is(raw in "[^$]{0,40}") {
            prop_assume!(!raw.starts_with("file:"));
            let got = expand(&raw, Path::new(""), &Fixed).unwrap();
            prop_assert_eq!(got.value, raw);
            prop_assert!(!got.is_secret);
        }

        #[test]
        fn no_text_makes_it_panic(raw in "[${}A-Z:fileé]{0,40}") {
            let _ = expand(&raw, Path::new(""), &Fixed);
        }
    }
}
