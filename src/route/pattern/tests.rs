use super::*;

#[track_caller]
fn check(text: &str, want: Result<&[&str], &str>) {
    let got = PathPattern::parse(text).map(|p| {
        assert_eq!(p.as_str(), text);
        p.forms().into_iter().map(|f| f.shape).collect::<Vec<_>>()
    });
    match (got, want) {
        (Ok(got), Ok(want)) => assert_eq!(got, want, "{text}"),
        (Err(got), Err(want)) => {
            let got = format!("{got}; {}", got.help());
            assert!(got.contains(want), "{text}: {got:?} lacks {want:?}");
        }
        (got, want) => panic!("{text}: {got:?}, not {want:?}"),
    }
}

#[test]
fn a_pattern_governs_its_trailing_slash_twin_and_its_bare_prefix() {
    check("/", Ok(&["/"]));
    check("/a", Ok(&["/a", "/a/"]));
    check("/a/", Ok(&["/a/", "/a"]));
    check("/a/{id}", Ok(&["/a/{p}", "/a/{p}/"]));
    check("/a/{id}/b/", Ok(&["/a/{p}/b/", "/a/{p}/b"]));
    check("/{*rest}", Ok(&["/{*r}", "/"]));
    check("/files/{*rest}", Ok(&["/files/{*r}", "/files/", "/files"]));
    check("/{a}/{*rest}", Ok(&["/{p}/{*r}", "/{p}/", "/{p}"]));
    check("/caf%C3%A9", Ok(&["/caf%C3%A9", "/caf%C3%A9/"]));
}

#[test]
fn what_could_mean_two_things_is_no_pattern() {
    for (text, want) in [
        ("", "does not start with a slash"),
        ("a", "write \"/a\""),
        ("//", "empty segment"),
        ("/a//b", "empty segment"),
        ("/a//", "empty segment"),
        ("/a?b", "paths only"),
        ("/a#b", "paths only"),
        ("/img-{id}.png", "whole segment"),
        ("/{a}{b}", "whole segment"),
        ("/{a", "whole segment"),
        ("/a}", "whole segment"),
        ("/{}", "no parameter"),
        ("/{*}", "no parameter"),
        ("/{a-b}", "no parameter"),
        ("/{**a}", "no parameter"),
        ("/{a}/{a}", "appears twice"),
        ("/{a}/{*a}", "appears twice"),
        ("/{*rest}/a", "last segment"),
        ("/{*rest}/", "last segment"),
        ("/a/*", "{*rest}"),
        ("/a/**", "{*rest}"),
        ("/%61", "write \"a\""),
        ("/caf%c3%a9", "write \"caf%C3%A9\""),
        ("/café", "write \"caf%C3%A9\""),
        ("/a b", "write \"a%20b\""),
        ("/..", "dot segments"),
        ("/a/%2e", "encoded dot segments"),
        ("/a;b", "path parameters"),
        ("/a%2fb", "encoded slash"),
        ("/a\\b", "percent-encoded"),
    ] {
        check(text, Err(want));
    }
    let parameters: String = (0..17).map(|i| format!("/{{p{i}}}")).collect();
    check(&parameters, Err("at most 16 parameters"));
    check(&format!("/{}", "a".repeat(2048)), Err("2048 bytes"));
}

#[test]
fn sixteen_parameters_are_taken_by_the_router_too() {
    let text: String = (0..16).map(|i| format!("/{{p{i}}}")).collect();
    let forms = PathPattern::parse(&text).unwrap().forms();
    let mut router = matchit::Router::new();
    for form in forms {
        router.insert(form.shape, ()).unwrap();
    }
}

#[test]
fn a_loose_reading_forgets_case_escapes_and_trailing_slashes() {
    for (path, want) in [
        ("/", "/"),
        ("/a", "/a"),
        ("/A/b/", "/a/b"),
        ("/a%21", "/a!"),
        ("/a%20", "/a"),
        ("/a.", "/a"),
        ("/a...", "/a"),
        ("/CAF%C3%89", "/café"),
        ("/%C5%BFecret", "/secret"),
        ("/%E2%84%AAey", "/key"),
        ("/%20", "/"),
        ("/a%25", "/a%"),
    ] {
        assert_eq!(loose(path), want, "{path}");
        assert_eq!(is_loose(path), path == want, "{path}");
    }
}

#[test]
fn host_patterns() {
    let parse = |text| HostPattern::parse(Some(text));
    let any_depth = parse("*.example.com").unwrap();
    assert!(any_depth.matches("a.example.com"));
    assert!(any_depth.matches("a.b.example.com"));
    assert!(!any_depth.matches("example.com"));
    assert!(!any_depth.matches(".example.com"));
    assert!(!any_depth.matches("badexample.com"));
    assert!(parse("example.com").unwrap().matches("example.com"));
    assert!(!parse("example.com").unwrap().matches("a.example.com"));
    assert!(HostPattern::parse(None).unwrap().matches(""));
    for text in [
        "",
        "*",
        "*.",
        "*.*.com",
        "a.*.com",
        "Example.com",
        "example.com.",
        "a:80",
        "a/b",
        "u@a",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn head_goes_with_get() {
    let parse = |methods: &[&str]| {
        let methods: Vec<String> = methods.iter().map(|m| (*m).to_owned()).collect();
        Methods::parse(&methods)
    };
    assert_eq!(parse(&[]), Some(Methods::Any));
    assert_eq!(parse(&["HEAD"]), None);
    assert_eq!(parse(&["POST", "HEAD"]), None);
    let named = parse(&["POST", "HEAD", "GET", "GET"]).unwrap();
    assert_eq!(named.to_string(), "GET, POST");
    assert!(named.contains("HEAD"));
    assert!(!named.contains("get"));
    assert!(!parse(&["POST"]).unwrap().contains("HEAD"));
}

#[test]
fn a_loose_path_ends_where_an_escaped_query_begins() {
    for (path, want) in [
        ("/v1/secret%3Fx", Some("/v1/secret")),
        ("/v1/secret%23", Some("/v1/secret")),
        ("/v1/secret%EF%BC%9Bx/y", Some("/v1/secret/y")),
        ("/v1/secret", None),
        ("/v1/s%20t", None),
    ] {
        assert_eq!(loose_cut(path).as_deref(), want, "{path}");
    }
    assert_eq!(loose("/v1/%EF%BD%93ecret"), "/v1/secret");
    assert_eq!(loose("/v1/se%E2%80%8Bcret"), "/v1/secret");
}
