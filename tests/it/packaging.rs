//! What is shipped beside the program: the image's recipe, and the configuration of the package.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::wall::BINARY;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

/// The instructions of the Dockerfile: the word in capitals and the rest, continued lines joined.
fn instructions() -> Vec<(String, String)> {
    let text: String = read("Dockerfile")
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect();
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let (word, rest) = line.split_once(' ').unwrap();
            assert!(word.chars().all(|c| c.is_ascii_uppercase()), "{line}");
            (word.to_owned(), rest.trim().to_owned())
        })
        .collect()
}

/// The instructions after the last `FROM`, and that `FROM`.
fn image() -> (String, Vec<(String, String)>) {
    let all = instructions();
    let last = all.iter().rposition(|(word, _)| word == "FROM").unwrap();
    (all[last].1.clone(), all[last + 1..].to_vec())
}

#[test]
fn the_image_does_not_run_as_root() {
    let (_, image) = image();
    let users: Vec<_> = image.iter().filter(|(word, _)| word == "USER").collect();
    let [(_, user)] = users.as_slice() else {
        panic!("one USER: {users:?}");
    };
    let (uid, gid) = user.split_once(':').unwrap();
    for id in [uid, gid] {
        assert_ne!(id.parse::<u32>().unwrap(), 0, "{user}");
    }
    let state = image
        .iter()
        .find(|(word, rest)| word == "COPY" && rest.ends_with(" /var/lib/farewall"));
    let owner = format!("--chown={user} ");
    assert!(state.unwrap().1.contains(&owner), "its volume is its own");
}

#[test]
fn what_the_image_copies_exists_and_is_what_it_starts() {
    let (_, image) = image();
    let mut local = 0;
    for (word, rest) in instructions() {
        let words: Vec<_> = rest
            .split_whitespace()
            .filter(|w| !w.starts_with("--"))
            .collect();
        if word != "COPY" || rest.contains("--from=") {
            continue;
        }
        for source in &words[..words.len() - 1] {
            assert!(root().join(source).exists(), "COPY {source}");
            local += 1;
        }
    }
    assert!(local > 0, "nothing is copied into the build");
    let find = |name: &str| {
        image
            .iter()
            .find(|(word, _)| word == name)
            .unwrap()
            .1
            .clone()
    };
    let entry: Vec<String> = serde_json::from_str(&find("ENTRYPOINT")).unwrap();
    let copied = find("COPY");
    assert!(copied.contains("--from=build ") && copied.ends_with(&format!(" {}", entry[0])));
    let built = copied.split_whitespace().nth(1).unwrap();
    assert_eq!(built, "/build/target/release/farewall");
    let command: Vec<String> = serde_json::from_str(&find("CMD")).unwrap();
    let output = Command::new(BINARY).arg(&command[0]).arg("--help").output();
    let help = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(help.contains(&command[1]), "{help}");
}

#[test]
fn the_image_is_built_with_the_oldest_rust_that_we_support() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let oldest = manifest["package"]["rust-version"].as_str().unwrap();
    let from = format!("rust:{oldest}-bookworm AS build");
    assert_eq!(instructions()[0], ("FROM".to_owned(), from));
}

/// The image has what the packages libc6 and libgcc-s1 of Debian 12 hold.
#[test]
#[cfg(target_os = "linux")]
fn the_program_needs_no_library_that_the_image_does_not_have() {
    let (from, _) = image();
    assert!(from.starts_with("gcr.io/distroless/cc-debian12"), "{from}");
    let has = [
        "libc.so.6",
        "libdl.so.2",
        "libgcc_s.so.1",
        "libm.so.6",
        "libpthread.so.0",
        "librt.so.1",
    ];
    let output = Command::new("ldd").arg(BINARY).output().unwrap();
    let needs: BTreeSet<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| !name.starts_with("linux-vdso") && !name.contains("/ld-linux"))
        .map(str::to_owned)
        .collect();
    assert!(needs.contains("libc.so.6"), "{needs:?}");
    assert!(needs.iter().all(|n| has.contains(&n.as_str())), "{needs:?}");
}

#[test]
fn the_package_comes_with_the_first_configuration_and_its_ledger_where_the_service_may_write() {
    let state = read("systemd/farewall.service");
    assert!(state.contains("\nStateDirectory=farewall\n"));
    let ledger = "# What remembers every payment. The service may write nowhere else.\n\
                  [ledger]\npath = \"/var/lib/farewall/farewall.db\"\n\n";
    let next = "# Who checks payments";
    let expected = read("conf/farewall.toml")
        .replace(
            "is in full.toml beside this file.",
            "is in /usr/share/doc/farewall/full.toml.",
        )
        .replace(next, &format!("{ledger}{next}"));
    assert_eq!(read("conf/debian.toml"), expected);
}
