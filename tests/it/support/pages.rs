//! The pages of the documentation, taken apart: fences, headings, links.

use std::path::{Path, PathBuf};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// One page.
pub(crate) struct Page {
    /// Relative to the root.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// What stands between two fences.
#[derive(Debug)]
pub(crate) struct Block {
    /// Of the opening fence, from 1.
    pub(crate) line: usize,
    /// What stands behind the opening fence.
    pub(crate) info: String,
    pub(crate) text: String,
}

/// Every page in the root and below `docs`.
pub(crate) fn pages() -> Vec<Page> {
    let (mut files, mut folders) = (Vec::new(), vec![root().join("docs")]);
    let is_page = |path: &Path| path.extension().is_some_and(|e| e == "md");
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if is_page(&path) {
                files.push(path);
            }
        }
    }
    let top = std::fs::read_dir(root()).unwrap();
    files.extend(
        top.map(|entry| entry.unwrap().path())
            .filter(|p| is_page(p)),
    );
    files.sort();
    let page = |file: PathBuf| Page {
        path: file
            .strip_prefix(root())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned(),
        text: std::fs::read_to_string(&file).unwrap(),
    };
    files.into_iter().map(page).collect()
}

/// One page by its path.
pub(crate) fn page(path: &str) -> Page {
    let mut pages = pages().into_iter();
    let found = pages.find(|page| page.path == path);
    found.unwrap_or_else(|| panic!("there is no {path}"))
}

impl Page {
    /// Its fenced blocks. Those in a list are indented; their text is not.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<(usize, Block)> = None;
        for (at, line) in self.text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            match (line.trim_start().strip_prefix("```"), &mut open) {
                (Some(info), None) => {
                    let block = Block {
                        line: at + 1,
                        info: info.to_owned(),
                        text: String::new(),
                    };
                    open = Some((indent, block));
                }
                (Some(_), Some(_)) => blocks.extend(open.take().map(|(_, block)| block)),
                (None, Some((indent, block))) => {
                    block.text.push_str(line.get(*indent..).unwrap_or(""));
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a fence is not closed", self.path);
        blocks
    }

    /// Its lines outside of fences.
    pub(crate) fn prose(&self) -> Vec<&str> {
        let mut inside = false;
        let keep = |line: &&str| {
            let is_fence = line.trim_start().starts_with("```");
            inside ^= is_fence;
            !inside && !is_fence
        };
        self.text.lines().filter(keep).collect()
    }

    /// Its headings: depth and text.
    pub(crate) fn headings(&self) -> Vec<(usize, &str)> {
        let lines = self.prose().into_iter();
        lines
            .filter_map(|line| {
                let text = line.trim_start_matches('#');
                let depth = line.len() - text.len();
                (depth > 0 && text.starts_with(' ')).then(|| (depth, text.trim()))
            })
            .collect()
    }

    /// The anchors of its headings, as GitHub makes them.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let mut anchors: Vec<String> = Vec::new();
        for (_, heading) in self.headings() {
            let kept = heading
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            let plain: String = kept.collect::<String>().to_lowercase().replace(' ', "-");
            let (mut anchor, mut times) = (plain.clone(), 0);
            while anchors.contains(&anchor) {
                times += 1;
                anchor = format!("{plain}-{times}");
            }
            anchors.push(anchor);
        }
        anchors
    }

    /// What its links point to.
    pub(crate) fn links(&self) -> Vec<String> {
        let mut links = Vec::new();
        for line in self.prose() {
            // Not in `code`.
            let spoken: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
            for (at, _) in spoken.match_indices("](") {
                let target = &spoken[at + 2..];
                let end = target
                    .find(')')
                    .unwrap_or_else(|| panic!("{}: {line}", self.path));
                links.push(target[..end].to_owned());
            }
        }
        links
    }

    /// The section under a heading, to the next of the same depth or above.
    pub(crate) fn section(&self, heading: &str) -> String {
        let depth_of = |line: &str| line.len() - line.trim_start_matches('#').len();
        let lines = self.prose();
        let is_it =
            |line: &&str| line.trim_start_matches('#').trim() == heading && depth_of(line) > 0;
        let at = lines.iter().position(is_it);
        let at = at.unwrap_or_else(|| panic!("{}: no section {heading}", self.path));
        let depth = depth_of(lines[at]);
        let rest = lines[at + 1..].iter();
        let inner = rest.take_while(|line| !(1..=depth).contains(&depth_of(line)));
        inner.map(|line| format!("{line}\n")).collect()
    }
}
