//! What the documentation shows is true: each fence is of a kind that something tries, and links lead
//! somewhere. `tests/docs.sh` says who runs the commands; the configurations are in `config_examples`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use crate::support::pages::{Block, Page, page, pages, root};
use crate::support::wall::BINARY;

/// Commands that a reader would type: they stand in a fence that is run.
const COMMANDS: [&str; 14] = [
    "apt",
    "apt-get",
    "cargo",
    "chgrp",
    "chmod",
    "cp",
    "curl",
    "docker",
    "farewall",
    "install",
    "make",
    "psql",
    "sqlite3",
    "systemctl",
];

/// The word behind `sh` of a fence, and the script that runs all fences of that kind.
const SCRIPTS: [(&str, &str); 3] = [
    ("debian", "tests/debian.sh"),
    ("image", "tests/image.sh"),
    ("systemd", "tests/systemd.sh"),
];

#[derive(Debug, Eq, PartialEq)]
enum Kind {
    /// Run by `tests/docs.sh`.
    Commands,
    /// Run by this script.
    Script(&'static str),
    /// Run by `.ci/run` itself.
    Ci,
    /// Loaded by `config_examples`.
    Toml,
    /// Shown only.
    Shown,
}

fn kind(page: &Page, block: &Block) -> Kind {
    let place = format!("{}:{}", page.path, block.line);
    let info = block.info.as_str();
    match info {
        "sh" => Kind::Commands,
        "sh ci" => Kind::Ci,
        "toml" | "toml,fragment" => Kind::Toml,
        "text" | "json" | "mermaid" => {
            for line in block.text.lines() {
                let word = line
                    .trim_start_matches("$ ")
                    .split(' ')
                    .next()
                    .unwrap_or("");
                let is_command = line.split(' ').count() > 1 && COMMANDS.contains(&word);
                assert!(
                    !is_command,
                    "{place}: a command in a fence that nobody runs: {line}"
                );
            }
            Kind::Shown
        }
        other => {
            let word = other.strip_prefix("sh ");
            let script = SCRIPTS.iter().find(|(name, _)| word == Some(name));
            match script {
                Some((_, script)) => Kind::Script(script),
                None => panic!("{place}: nobody tries a fence of kind {other:?}"),
            }
        }
    }
}

/// Whether a line of `.ci/run` runs this command. CI may set variables before it and write more behind
/// it, so that it takes minutes and not hours, and may leave out an installation of what is there.
fn is_run_by(ci_line: &str, command: &str) -> bool {
    let line = ci_line.split_once(" || ").map_or(ci_line, |(_, then)| then);
    let is_variable = |word: &&str| {
        let name = word.split_once('=').map_or("", |(name, _)| name);
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
    };
    let words: Vec<&str> = line.split_whitespace().skip_while(is_variable).collect();
    let wanted: Vec<&str> = command.split_whitespace().collect();
    words.starts_with(&wanted)
}

#[test]
fn more_behind_a_command_is_still_that_command() {
    for line in [
        "make x",
        "A_B=1 make x",
        "make x --once",
        "command -v x >/dev/null || make x",
    ] {
        assert!(is_run_by(line, "make x"), "{line}");
    }
    for line in ["make", "make xy", "# make x", "echo make x", "a=1 make x"] {
        assert!(!is_run_by(line, "make x"), "{line}");
    }
}

/// The commands of a block without the comments behind them.
fn commands(block: &Block) -> impl Iterator<Item = &str> {
    let lines = block.text.lines().map(|line| match line.split_once(" #") {
        Some((command, _)) => command.trim(),
        None => line.trim(),
    });
    lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[test]
fn every_command_is_run_and_every_configuration_is_loaded() {
    let ci = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for page in pages() {
        for block in page.blocks() {
            let kind = kind(&page, &block);
            let by_ci = |command: &&str| match kind {
                Kind::Ci => true,
                Kind::Commands => command.starts_with("make "),
                Kind::Script(_) | Kind::Toml | Kind::Shown => false,
            };
            for command in commands(&block).filter(by_ci) {
                assert!(
                    ci.lines().any(|line| is_run_by(line, command)),
                    "{}:{}: .ci/run does not run: {command}",
                    page.path,
                    block.line
                );
            }
            *counts.entry(format!("{kind:?}")).or_default() += commands(&block).count();
        }
    }
    for (kind, lines) in &counts {
        println!("{lines:4} lines: {kind}");
    }
    assert!(counts["Commands"] > 50 && counts["Toml"] > 50, "{counts:?}");
}

/// What CI calls runs every page that has commands, without naming them one by one.
#[test]
fn ci_runs_the_commands_of_all_pages() {
    let ci = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(
        ci.lines()
            .any(|line| line == "tests/docs.sh target/release/farewall")
    );
    let script = std::fs::read_to_string(root().join("tests/docs.sh")).unwrap();
    assert!(script.contains("README.md SECURITY.md docs/*.md"));
    for (_, script) in SCRIPTS {
        assert!(ci.lines().any(|line| is_run_by(line, script)), "{script}");
    }
    for page in pages() {
        let rest = page.path.strip_prefix("docs/");
        let in_docs = rest.is_some_and(|rest| !rest.contains('/'));
        let in_root = ["README.md", "SECURITY.md"].contains(&page.path.as_str());
        for block in page.blocks() {
            let known = match kind(&page, &block) {
                Kind::Commands => in_docs || in_root,
                Kind::Script(_) => in_docs,
                Kind::Ci | Kind::Toml | Kind::Shown => true,
            };
            assert!(known, "{}:{} is not run", page.path, block.line);
        }
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut seen = 0;
    for from in pages() {
        let folder = Path::new(&from.path).parent().unwrap();
        for link in from.links() {
            if link.starts_with("https://") || link.starts_with("http://") {
                continue;
            }
            seen += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() {
                root().join(&from.path)
            } else {
                root().join(folder).join(file)
            };
            assert!(target.exists(), "{}: there is no {link}", from.path);
            if anchor.is_empty() {
                continue;
            }
            let text = std::fs::read_to_string(&target).unwrap();
            let path = target.display().to_string();
            let anchors = Page { path, text }.anchors();
            assert!(
                anchors.iter().any(|a| a == anchor),
                "{}: {link}\n{anchors:#?}",
                from.path
            );
        }
    }
    assert!(seen > 50, "{seen} links");
}

#[test]
fn the_index_names_every_page_once() {
    let index = page("docs/README.md");
    let named = index.links();
    for page in pages() {
        let Some(name) = page.path.strip_prefix("docs/") else {
            continue;
        };
        if name == "README.md" {
            continue;
        }
        let times = named.iter().filter(|link| *link == name).count();
        assert_eq!(times, 1, "{name} in docs/README.md");
    }
    let lines: BTreeSet<&str> = index
        .prose()
        .into_iter()
        .filter(|l| l.starts_with("* "))
        .collect();
    assert!(lines.iter().all(|line| line.contains("](")), "{lines:#?}");
}

/// The picture of the states is the one in the code.
#[test]
fn the_picture_of_the_ledger_shows_every_move_and_no_other() {
    use farewall::settlement::STATES;

    let ledger = page("docs/ledger.md");
    let blocks = ledger.blocks();
    let picture = blocks.iter().find(|block| block.info == "mermaid").unwrap();
    let mut drawn = BTreeSet::new();
    for line in picture.text.lines().skip(1) {
        let (from, rest) = line.trim().split_once(" --> ").unwrap();
        let to = rest.split(':').next().unwrap().trim();
        drawn.insert((from.to_owned(), to.to_owned()));
    }
    let mut real = BTreeSet::from([("[*]".to_owned(), "claimed".to_owned())]);
    for from in STATES {
        let next: Vec<_> = STATES
            .into_iter()
            .filter(|next| from.may_become(*next))
            .collect();
        for to in &next {
            real.insert((from.to_string(), to.to_string()));
        }
        if next.is_empty() {
            real.insert((from.to_string(), "[*]".to_owned()));
        }
    }
    assert_eq!(drawn, real);
    for state in STATES {
        let row = format!("| `{state}` |");
        assert!(ledger.text.contains(&row), "{row} is not in docs/ledger.md");
    }
}

fn help(command: &[&str]) -> String {
    let output = Command::new(BINARY)
        .args(command)
        .arg("--help")
        .output()
        .unwrap();
    assert!(output.status.success(), "there is no farewall {command:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that a help text lists.
fn listed(help: &str) -> Vec<&str> {
    let rest = help.split("Commands:\n").nth(1).unwrap_or("");
    let lines = rest.lines().take_while(|line| line.starts_with("  "));
    let words = lines.filter_map(|line| line.split_whitespace().next());
    words.filter(|word| *word != "help").collect()
}

/// A command of ours in the middle of a sentence is not run, but it exists, with its options.
#[test]
fn commands_within_sentences_exist_with_their_options() {
    let mut seen = 0;
    for page in pages() {
        let prose = page.prose().join("\n");
        let spans = prose.split('`').skip(1).step_by(2);
        for span in spans.filter_map(|span| span.strip_prefix("farewall ")) {
            let span = span.replace('\n', " ");
            let words: Vec<&str> = span.split_whitespace().collect();
            let is_command = |word: &&&str| word.bytes().all(|b| b.is_ascii_lowercase());
            let mut command: Vec<&str> = words.iter().take_while(is_command).copied().collect();
            command.truncate(if command.first() == Some(&"ledger") {
                2
            } else {
                1
            });
            if command.is_empty() {
                continue;
            }
            seen += 1;
            let help = help(&command);
            for option in words.iter().filter(|word| word.starts_with("--")) {
                let name = option.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
                assert!(help.contains(name), "{}: {span}", page.path);
            }
        }
    }
    assert!(seen > 40, "{seen}");
}

#[test]
fn the_readme_names_every_command() {
    let readme = page("README.md").text;
    let all = help(&[]);
    let commands = listed(&all);
    assert!(commands.len() > 10, "{commands:?}");
    for command in commands {
        assert!(
            readme.contains(&format!("`farewall {command}")),
            "{command}"
        );
    }
    let ledger = help(&["ledger"]);
    for command in listed(&ledger) {
        let is_named = readme.contains(&format!("`farewall ledger {command}"))
            || readme.contains(&format!("`{command}`"));
        assert!(is_named, "ledger {command}");
    }
}
