//! `include = ["rules.d/*.toml"]`: more files with facilitators, accepts, upstreams and rules.
//!
//! Relative to the including file; `*` in the file name only; in the order of their names. Included
//! files include nothing, so there are no cycles.

use std::path::{Path, PathBuf};

use super::diagnostic::Diagnostic;
use super::document::{self, Files, Span, Table, Value};
use super::keys;
use super::secrets::Surroundings;

/// The root table and those of all included files; `None` when one of them is no TOML.
pub(super) fn follow(
    files: &mut Files,
    root: Table,
    name: &str,
    around: &dyn Surroundings,
) -> Option<Vec<Table>> {
    let mut paths: Vec<(PathBuf, Span)> = Vec::new();
    for (pattern, at) in patterns(files, &root) {
        for path in matching(files, &pattern, at, around) {
            if path != Path::new(name) && !paths.iter().any(|(known, _)| *known == path) {
                paths.push((path, at));
            }
        }
    }
    let mut tables = Some(vec![root]);
    for (path, at) in paths {
        let Some(text) = text(files, &path, at, around) else {
            continue;
        };
        let table = document::read(files, &path.to_string_lossy(), &text, around);
        if let Some(table) = &table {
            only_included(files, table);
        }
        tables = tables.zip(table).map(|(mut tables, table)| {
            tables.push(table);
            tables
        });
    }
    tables
}

fn patterns(files: &Files, root: &Table) -> Vec<(String, Span)> {
    let Some(entry) = root.get("include") else {
        return Vec::new();
    };
    let wrong = |at: Span| {
        let diagnostic = Diagnostic::error("wrong-type", "`include` must be an array of strings");
        files.complain(at, diagnostic.help("write include = [\"rules.d/*.toml\"]"));
    };
    let Value::List(nodes) = &entry.node.value else {
        wrong(entry.node.at);
        return Vec::new();
    };
    let mut patterns = Vec::new();
    for node in nodes {
        if let Value::Text(text) = &node.value {
            patterns.push((text.value.clone(), node.at));
        } else if !matches!(node.value, Value::Broken) {
            wrong(node.at);
        }
    }
    patterns
}

fn matching(files: &Files, pattern: &str, at: Span, around: &dyn Surroundings) -> Vec<PathBuf> {
    let (folder, name) = pattern
        .rsplit_once('/')
        .map_or(("", pattern), |(folder, name)| {
            (if folder.is_empty() { "/" } else { folder }, name)
        });
    if folder.contains('*') || name.is_empty() {
        let wrong = Diagnostic::error("bad-include", "`*` can stand in the file name only");
        files.complain(
            at,
            wrong.help("write the folder out, as in \"rules.d/*.toml\""),
        );
        return Vec::new();
    }
    let folder = files.folder(at).join(folder);
    if !name.contains('*') {
        return vec![folder.join(name)];
    }
    match around.list(&folder) {
        Ok(mut names) => {
            names.retain(|candidate| !candidate.starts_with('.') && fits(name, candidate));
            names.sort();
            if names.is_empty() {
                let none = Diagnostic::warning("include-empty", "no file matches");
                files.complain(at, none.help("remove it, or put a file there"));
            }
            names.into_iter().map(|name| folder.join(name)).collect()
        }
        Err(error) => {
            let message = format!("cannot read the folder {}: {error}", folder.display());
            let wrong = Diagnostic::error("unreadable-file", message);
            files.complain(at, wrong.help("create it, or remove the include"));
            Vec::new()
        }
    }
}

/// Whether a name fits a pattern in which `*` stands for any characters.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let inner = name
        .strip_prefix(first)
        .and_then(|name| name.strip_suffix(last));
    inner.is_some_and(|mut inner| {
        middle.split('*').all(|part| match inner.split_once(part) {
            Some((_, after)) => {
                inner = after;
                true
            }
            None => false,
        })
    })
}

fn text(files: &Files, path: &Path, at: Span, around: &dyn Surroundings) -> Option<String> {
    around
        .read(path)
        .map_err(|error| {
            let message = format!("cannot read {}: {error}", path.display());
            let wrong = Diagnostic::error("unreadable-file", message);
            files.complain(
                at,
                wrong.help("included files must be there and be readable"),
            );
        })
        .ok()
}

fn only_included(files: &Files, table: &Table) {
    for entry in &table.entries {
        let key = entry.key.as_str();
        if keys::INCLUDED.contains(&key) {
            continue;
        }
        let unknown = Diagnostic::error(
            "unknown-key",
            format!("unknown key `{key}` in an included file"),
        );
        let help = if key == "include" {
            "included files include nothing; list all files in the main file".to_owned()
        } else if keys::TOP.keys.contains(&key) {
            format!("`{key}` belongs in the main file")
        } else {
            format!("the keys here are {}", keys::INCLUDED.join(", "))
        };
        files.complain(entry.at, unknown.help(help));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_of_a_file_name() {
        for (pattern, name, want) in [
            ("*.toml", "a.toml", true),
            ("*.toml", ".toml", true),
            ("*.toml", "a.toml.bak", false),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c", false),
            ("a*b*b", "ab", false),
            ("a*a", "a", false),
            ("*", "x", true),
            ("**", "x", true),
            ("a", "a", true),
        ] {
            assert_eq!(fits(pattern, name), want, "{pattern} {name}");
        }
    }
}
