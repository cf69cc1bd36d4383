use super::*;
use proptest::prelude::*;

use TargetError as E;

#[track_caller]
fn check(raw: &str, want: Result<&str, TargetError>) {
    let got = CanonicalTarget::parse(raw.as_bytes(), 8192).map(|t| t.to_string());
    assert_eq!(got, want.map(str::to_owned), "{raw:?}");
}

#[test]
fn equal_paths_get_one_spelling() {
    for (raw, canonical) in [
        ("/", "/"),
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("/A/b", "/A/b"),
        ("/%61", "/a"),
        ("/%41%5A%30%2D%5F%7E", "/AZ0-_~"),
        ("/%7euser", "/~user"),
        ("/a%2Eb", "/a.b"),
        ("/...", "/..."),
        ("/.well-known/x402", "/.well-known/x402"),
        ("/a..b/.c", "/a..b/.c"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/caf%C3%A9", "/caf%C3%A9"),
        ("/%f0%9f%92%b8", "/%F0%9F%92%B8"),
        ("/a%20b", "/a%20b"),
        ("/a%3ab", "/a%3Ab"),
        ("/a:b@c", "/a:b@c"),
        ("/a!$&'()*+,=", "/a!$&'()*+,="),
        ("/a%21", "/a%21"),
        ("/100%25", "/100%25"),
        ("/100%25/x", "/100%25/x"),
        ("/%25zz", "/%25zz"),
        ("/%25%25", "/%25%25"),
        ("/a?", "/a?"),
        ("/a?b=1&c=%2F..%2f;d", "/a?b=1&c=%2F..%2f;d"),
        ("/a?q={\"x\":[1|2]}\\^`", "/a?q={\"x\":[1|2]}\\^`"),
        ("/a?b?c", "/a?b?c"),
        ("/a?url=//x/../y", "/a?url=//x/../y"),
        ("/?method=GET", "/?method=GET"),
        ("/?x_method=GET", "/?x_method=GET"),
        ("/?a=_method", "/?a=_method"),
    ] {
        check(raw, Ok(canonical));
    }
}

#[track_caller]
fn refuse(table: &[(&str, TargetError)]) {
    for (raw, why) in table {
        check(raw, Err(*why));
    }
}

#[test]
fn separators_dots_and_characters_that_origins_mend_are_refused() {
    refuse(&[
        ("", E::NotOriginForm),
        ("*", E::NotOriginForm),
        ("a/b", E::NotOriginForm),
        ("?a", E::NotOriginForm),
        ("%2Fa", E::NotOriginForm),
        ("http://example.com/", E::NotOriginForm),
        ("example.com:443", E::NotOriginForm),
        ("/a\\b", E::ForbiddenCharacter),
        ("/.", E::DotSegment),
        ("/..", E::DotSegment),
        ("/./a", E::DotSegment),
        ("/a/../b", E::DotSegment),
        ("/a/..", E::DotSegment),
        ("/a/.?x", E::DotSegment),
        ("/%2e", E::EncodedDotSegment),
        ("/%2E%2e/a", E::EncodedDotSegment),
        ("/a/.%2e/b", E::EncodedDotSegment),
        ("/a/%2e./b", E::EncodedDotSegment),
        ("//", E::EmptySegment),
        ("//a", E::EmptySegment),
        ("/a//b", E::EmptySegment),
        ("/a//", E::EmptySegment),
        ("//example.com/a", E::EmptySegment),
        ("/a;b=1", E::PathParameter),
        ("/a/;/b", E::PathParameter),
        ("/a%3bb", E::PathParameter),
        ("/a%3B", E::PathParameter),
        ("/..;/a", E::PathParameter),
        ("/a b", E::ForbiddenCharacter),
        ("/a\"b", E::ForbiddenCharacter),
        ("/<a>", E::ForbiddenCharacter),
        ("/a^b", E::ForbiddenCharacter),
        ("/a`b", E::ForbiddenCharacter),
        ("/{id}", E::ForbiddenCharacter),
        ("/a|b", E::ForbiddenCharacter),
        ("/[a]", E::ForbiddenCharacter),
        ("/a#b", E::ForbiddenCharacter),
        ("/é", E::ForbiddenCharacter),
    ]);
}

#[test]
fn escapes_that_origins_decode_differently_are_refused() {
    refuse(&[
        ("/a%2fb", E::EncodedSlash),
        ("/a%2Fb", E::EncodedSlash),
        ("/%2f", E::EncodedSlash),
        ("/a%5cb", E::EncodedBackslash),
        ("/a%5Cb", E::EncodedBackslash),
        ("/a%00", E::EncodedNul),
        ("/%0a", E::ControlCharacter),
        ("/%0D%0a", E::ControlCharacter),
        ("/%7f", E::ControlCharacter),
        ("/%1F", E::ControlCharacter),
        ("/a\0", E::ControlCharacter),
        ("/a\tb", E::ControlCharacter),
        ("/a\x7f", E::ControlCharacter),
        ("/%", E::MalformedEscape),
        ("/%4", E::MalformedEscape),
        ("/%zz", E::MalformedEscape),
        ("/%4g", E::MalformedEscape),
        ("/%/41", E::MalformedEscape),
        ("/%u002f", E::MalformedEscape),
        ("/%+1", E::MalformedEscape),
        ("/%252f", E::DoubleEncoding),
        ("/%252e%252e/a", E::DoubleEncoding),
        ("/%2541", E::DoubleEncoding),
        ("/%25%32%66", E::DoubleEncoding),
        ("/%25%32f", E::DoubleEncoding),
        ("/%25252f", E::DoubleEncoding),
        ("/%25u002f", E::DoubleEncoding),
        ("/%ff", E::InvalidUtf8),
        ("/%c3", E::InvalidUtf8),
        ("/%c0%af", E::InvalidUtf8),
        ("/%c0%ae%c0%ae/", E::InvalidUtf8),
        ("/%e0%80%af", E::InvalidUtf8),
        ("/%ed%a0%80", E::InvalidUtf8),
        ("/%c3/%a9", E::InvalidUtf8),
    ]);
}

#[test]
fn a_query_keeps_its_bytes_but_may_not_override_the_method() {
    refuse(&[
        ("/a?b c", E::ForbiddenCharacter),
        ("/a?b#c", E::ForbiddenCharacter),
        ("/a?é", E::ForbiddenCharacter),
        ("/a?b\r\nX: y", E::ControlCharacter),
        ("/a/..%20/b", E::EncodedDotSegment),
        ("/a/%20../b", E::EncodedDotSegment),
        ("/a/.%C2%A0./b", E::EncodedDotSegment),
        ("/a/%EF%BC%8E%EF%BC%8E/b", E::EncodedDotSegment),
        ("/a/%E2%80%A5/b", E::EncodedDotSegment),
        ("/a/..%E2%80%8B/b", E::EncodedDotSegment),
        ("/a%EF%BC%8Fb", E::EncodedSlash),
        ("/a%E2%88%95b", E::EncodedSlash),
        ("/a%EF%BC%BCb", E::EncodedBackslash),
        ("/a%EF%BC%852f", E::DoubleEncoding),
        ("/a??_method=PUT", E::MethodOverride),
        ("/a?%255fmethod=PUT", E::MethodOverride),
        ("/a?%u005fmethod=PUT", E::MethodOverride),
        ("/a?_method%3dPUT", E::MethodOverride),
        ("/a?%ef%bc%bfmethod=PUT", E::MethodOverride),
        ("/a?_method=DELETE", E::MethodOverride),
        ("/a?x=1&_method=PUT", E::MethodOverride),
        ("/a?_METHOD=put", E::MethodOverride),
        ("/a?%5Fmethod=put", E::MethodOverride),
        ("/a?_m%65thod", E::MethodOverride),
        ("/a?x;_method=put", E::MethodOverride),
        ("/a?+_method=put", E::MethodOverride),
        ("/a?.method=put", E::MethodOverride),
        ("/a?%5Bmethod=put", E::MethodOverride),
        ("/a?_method[]=put", E::MethodOverride),
        ("/a?_method%00x=put", E::MethodOverride),
    ]);
}

#[test]
fn a_target_may_be_as_long_as_the_limit_and_no_longer() {
    assert!(CanonicalTarget::parse(b"/abc?d", 6).is_ok());
    assert_eq!(CanonicalTarget::parse(b"/abc?de", 6), Err(E::TooLong));
}

#[test]
fn absolute_form_is_taken_apart() {
    let split = |raw: &'static str| {
        split_absolute_form(raw.as_bytes()).map(|form| {
            form.map(|f| {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                (f.scheme, text(f.authority), text(&f.path_and_query))
            })
        })
    };
    let is = |scheme, host: &str, path: &str| Ok(Some((scheme, host.to_owned(), path.to_owned())));
    assert_eq!(split("http://h/a?b"), is(Scheme::Http, "h", "/a?b"));
    assert_eq!(split("HTTPS://u@h:1"), is(Scheme::Https, "u@h:1", "/"));
    assert_eq!(split("http://h?b=/c"), is(Scheme::Http, "h", "/?b=/c"));
    assert_eq!(split("http://h//a"), is(Scheme::Http, "h", "//a"));
    assert_eq!(split("http://h#a"), is(Scheme::Http, "h", "/#a"));
    assert_eq!(split("/a?u=http://h/"), Ok(None));
    assert_eq!(split("*"), Ok(None));
    assert_eq!(split("ftp://h/"), Err(E::AbsoluteForm));
    assert_eq!(split("://h/"), Err(E::AbsoluteForm));
    assert_eq!(split("http:///a"), Err(E::AbsoluteForm));
}

/// Pieces that make trouble when they meet.
fn tricky() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "/", "/", ".", "%2e", "%2F", "%5c", "%25", "%", "2", "5", "f", "e", "u", "a", "%61", "%32",
        "%c3", "%a9", "%C3%A9", "%00", ";", "%3b", "//", "?", "_method", "%5f", "&", "~", "%7E",
        "%20", "%40", "@", "A", "é", "\\", "#",
    ]);
    prop::collection::vec(piece, 0..10).prop_map(|pieces| {
        let mut raw = b"/".to_vec();
        pieces
            .iter()
            .for_each(|p| raw.extend_from_slice(p.as_bytes()));
        raw
    })
}

fn assert_harmless(path: &[u8]) {
    for segment in path.split(|&b| b == b'/') {
        assert!(segment != b"." && segment != b"..", "dot segment");
    }
    assert!(!path.windows(2).any(|w| w == b"//"), "empty segment");
    for bad in [b'\\', b';', 0, 0x7f, b'\r', b'\n'] {
        assert!(!path.contains(&bad), "{bad:#x}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn canonical_is_final_and_stays_harmless_however_often_it_is_decoded(raw in tricky()) {
        if let Ok(target) = CanonicalTarget::parse(&raw, 8192) {
            let again = CanonicalTarget::parse(target.to_string().as_bytes(), 8192);
            prop_assert_eq!(again.as_ref(), Ok(&target));
            let slashes = target.path.matches('/').count();
            let mut path = target.path.into_bytes();
            for _ in 0..5 {
                assert_harmless(&path);
                prop_assert_eq!(path.iter().filter(|b| **b == b'/').count(), slashes);
                path = unescape(&path);
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(raw in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = CanonicalTarget::parse(&raw, 64);
        let _ = split_absolute_form(&raw);
    }
}
