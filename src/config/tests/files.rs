//! Secrets and included files.

use super::*;

#[test]
fn a_secret_is_put_in_and_never_shown() {
    let env = |name: &str| (name == "KEY").then(|| "s3cret value".to_owned());
    let text = BASE.replace(
        "f.example\"",
        "f.example\"\nheaders = { Authorization = \"Bearer ${KEY}\" }",
    );
    let loaded = parse(&text, "site.toml", &env).unwrap();
    let sent = [("authorization".to_owned(), "Bearer s3cret value".to_owned())];
    assert_eq!(loaded.settings.facilitators["f"].headers.settle, sent);
    assert_eq!(loaded.warnings, []);
    assert!(!format!("{loaded:?}").contains("s3cret"));
    // Put wherever a string may stand, the value is never part of the complaint.
    let places = [
        ("https://a.example", "bad-origin"),
        ("https://f.example", "bad-url"),
        ("base-sepolia", "unknown-network"),
        (
            "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
            "bad-recipient",
        ),
        ("http://127.0.0.1:9000", "bad-server"),
    ];
    for (value, code) in places {
        let report = parse(&BASE.replace(value, "${KEY}"), "site.toml", &env).unwrap_err();
        assert_eq!(report.diagnostics[0].code, code);
        let text = report.to_string();
        assert!(
            text.contains("${KEY}") && !text.contains("s3cret"),
            "{text}"
        );
    }
    let rule = |keys: &str| format!("{BASE}[[rule]]\nname = \"a\"\npath = \"/a\"\n{keys}\n");
    for keys in [
        "price = \"${KEY}\"",
        "price = \"$1\"\nsettle = \"${KEY}\"",
        "price = \"$1\"\naccept = [\"${KEY}\"]",
        "free = true\nupstream = \"${KEY}\"",
        "free = true\nmethods = [\"${KEY}\"]",
        "free = true\nhost = \"${KEY}\"",
    ] {
        let report = parse(&rule(keys), "site.toml", &env)
            .unwrap_err()
            .to_string();
        assert!(
            report.contains("${KEY}") && !report.contains("s3cret"),
            "{report}"
        );
    }
}

#[test]
fn a_missing_secret_is_one_error_where_it_is_used() {
    check_instead(
        "https://f.example",
        "https://${HOST}",
        ("secret-variable", 4, 7, "\"https://${HOST}\""),
    );
    check_instead(
        "https://f.example",
        "file:/nowhere",
        ("secret-file", 4, 7, "\"file:/nowhere\""),
    );
}

#[test]
fn a_secret_that_is_written_out_is_warned_about_and_starred() {
    let text = BASE.replace(
        "f.example\"",
        "f.example\"\nheaders = { Authorization = \"Bearer abc\" }",
    );
    let found = diagnostics(&text);
    assert_eq!(found.len(), 1);
    let shown = found[0].to_string();
    assert!(shown.starts_with("warning[literal-secret]"), "{shown}");
    assert!(
        shown.contains("headers = { Authorization = ************ }"),
        "{shown}"
    );
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

#[test]
fn included_files_add_rules_in_the_order_of_their_names() {
    let main = format!(
        "include = [\"rules.d/*.toml\", \"one.toml\"]\n{BASE}{}",
        free_rule("main")
    );
    let folder = folder(&[
        ("site.toml", &main),
        ("one.toml", &free_rule("one")),
        ("rules.d/b.toml", &free_rule("b")),
        (
            "rules.d/a.toml",
            &format!(
                "{}[upstream.other]\nurl = \"file:secret\"\n",
                free_rule("a").replace("free", "upstream = \"api\"\nfree")
            ),
        ),
        ("rules.d/.hidden.toml", "not toml"),
        ("rules.d/a.toml.bak", "not toml"),
        ("rules.d/secret", "http://10.0.0.1\n"),
    ]);
    let loaded = load(&folder.path().join("site.toml"));
    let report = loaded.unwrap_err();
    // Two upstreams now: the rules that name none must choose.
    assert_eq!(report.diagnostics.len(), 3, "{report}");
    let main = main.replace("free = true", "free = true\nupstream = \"api\"");
    fs::write(folder.path().join("site.toml"), main).unwrap();
    for name in ["one.toml", "rules.d/b.toml"] {
        let path = folder.path().join(name);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, text + "upstream = \"api\"\n").unwrap();
    }
    let settings = load(&folder.path().join("site.toml")).unwrap().settings;
    let names: Vec<_> = settings.rules.iter().map(|rule| &*rule.name).collect();
    assert_eq!(names, ["main", "a", "b", "one"]);
    assert_eq!(settings.upstreams["other"].servers[0].host, "10.0.0.1");
    assert!(settings.rules[1].at.file.ends_with("rules.d/a.toml"));
    assert_eq!(
        (settings.rules[1].at.line, settings.rules[1].at.column),
        (3, 8)
    );
    let LedgerSettings::File(path) = &settings.ledger else {
        panic!("no url was written")
    };
    assert_eq!(*path, folder.path().join("farewall.db"));
}

#[test]
fn a_name_in_two_files_is_an_error_that_names_both_places() {
    let twice = format!("{}[upstream.api]\nurl = \"http://b\"\n", free_rule("main"));
    let folder = folder(&[
        (
            "site.toml",
            &format!("include = [\"b.toml\"]\n{BASE}{}", free_rule("main")),
        ),
        ("b.toml", &twice),
    ]);
    let report = load(&folder.path().join("site.toml")).unwrap_err();
    let found: Vec<_> = report
        .diagnostics
        .iter()
        .map(|d| {
            let place = d.place.as_ref().unwrap();
            (d.code, place.file.ends_with("b.toml"), place.line)
        })
        .collect();
    assert_eq!(
        found,
        [("duplicate-name", true, 2), ("duplicate-name", true, 5)]
    );
    let text = report.to_string();
    assert!(
        text.contains("site.toml:12:8") && text.contains("site.toml:9:11"),
        "{text}"
    );
}

#[test]
fn included_files_hold_only_what_can_be_shared() {
    let folder = folder(&[
        (
            "site.toml",
            &format!("include = [\"b.toml\", \"c*.toml\", \"nope.toml\"]\n{BASE}"),
        ),
        ("b.toml", "include = [\"x.toml\"]\n[server]\n[[listen]]\n"),
    ]);
    let report = load(&folder.path().join("site.toml")).unwrap_err();
    let codes: Vec<_> = report.diagnostics.iter().map(|d| d.code).collect();
    let unknown = "unknown-key";
    assert_eq!(
        codes,
        [
            "unreadable-file",
            unknown,
            unknown,
            unknown,
            "include-empty"
        ],
        "{report}"
    );
}
