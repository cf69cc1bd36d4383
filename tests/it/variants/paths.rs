//! Spellings of the priced paths.

use super::request;

const PRICED: [&str; 2] = ["/v1/secret", "/v1/private/a"];

/// In place of one slash.
const SLASHES: &[&str] = &[
    "%2f",
    "%2F",
    "%252f",
    "%25252F",
    "%5c",
    "%5C",
    "%255c",
    "\\",
    "//",
    "///",
    "/./",
    "/%2e/",
    "/.%2f",
    "%u002f",
    "%u2215",
    "%uff0f",
    "%ef%bc%8f",
    "%e2%88%95",
    "%e2%81%84",
    "%c0%af",
    "%e0%80%af",
    "%c1%9c",
    "/%00/",
    "/;/",
    "/;a=b/",
    ";/",
    ";a=b/",
    "%3b/",
    "%3B/",
    "/x/../",
    "/x/%2e%2e/",
    "/x/.%2E/",
    "/x/..%2f",
    "/x/..;/",
    "/x/..%00/",
    "/x/..%20/",
    "/x/%20../",
    "/x/..%c2%a0/",
    "/x/..%e3%80%80/",
    "/x/%ef%bc%8e%ef%bc%8e/",
    "/x/%e2%80%a5/",
    "/x/%e2%80%a4%e2%80%a4/",
    "/x/%252e%252e/",
    "/x/%u002e%u002e/",
    "/x/%c0%ae%c0%ae/",
    "/%20/",
    "/%c2%a0/",
    "%20/",
    "%c2%a0/",
    "%09/",
    "./",
    ".../",
    "%2e/",
    "/.%20/",
    "/%20./",
    "/.../",
    "/..../",
    "/%ef%bc%8e/",
    "%e2%80%8b/",
    "/%e2%80%8b/",
    "/\\",
    "\\/",
    "\\\\",
    "/%5c",
    "%2f/",
    "/%2f",
    ":/",
    "/%0a/",
    "%0d%0a/",
    "/%7f/",
    "/%80/",
    "%/",
    "/%",
    "%2/",
    "/\t/",
    "/\u{b}/",
];

/// Behind the path.
const ENDS: &[&str] = &[
    "",
    "/",
    "//",
    "/.",
    "/./",
    "/..",
    "/x/..",
    "/%2e",
    "/x/%2e%2e",
    ".",
    "..",
    "...",
    "%2e",
    "%2E%2e",
    "%20",
    "%20%20",
    "+",
    "%09",
    "%0a",
    "%0d",
    "%0d%0a",
    "%00",
    "%00.png",
    "%2500",
    "?",
    "??",
    "?a",
    "?a=/../..",
    "#",
    "#x",
    "%3f",
    "%3Fx=1",
    "%253f",
    "%23",
    "%23x",
    "%2523",
    ";",
    ";x",
    ";a=b",
    ";.css",
    "%3b",
    "%3Bx",
    "%253b",
    "\\",
    "%5c",
    "%2f",
    "%2F%2F",
    "%c2%a0",
    "%e2%80%8b",
    "%ef%bb%bf",
    "%c2%ad",
    "%e3%80%80",
    "%e2%80%a6",
    "%e2%80%a4",
    "%ef%bc%8e",
    "%ef%bc%9f",
    "%ef%bc%83",
    "%ef%bc%9b",
    "%ef%bc%8f",
    ".%20",
    "%20.",
    "%20/",
    "/%20",
    "./",
    "/.%20",
    "%ff",
    "%",
    "%z",
    "%zz",
    "%4",
    "%u0000",
    "%u0020",
    "%u003f",
    "%1f",
    "%7f",
    "%80",
    "%c0%80",
    "\u{b}",
    "\u{7f}",
    "%85",
    "%c2%85",
    "%e1%9a%80",
    "%e2%80%a8",
    "%e2%80%a9",
    "%3f%2f..",
    "%23/..",
    "%20?x",
    "%2e?x",
    "?_method=POST",
    "?x=1;y=2",
    "%26a=b",
    "%5b%5d",
];

/// In front of the path, which begins with a slash.
const STARTS: &[&str] = &[
    "/",
    "//",
    "/.",
    "/./.",
    "/%2e",
    "/%2e/",
    "/..",
    "/%2e%2e",
    "/.%2e",
    "/../..",
    "/;",
    "/;a=b",
    "/%20",
    "/%09",
    "/%00",
    "/%c2%a0",
    "/\\",
    "\\",
    "/%5c",
    "/%2f",
    "/x/..",
    "/public/..",
    "/public/%2e%2e",
    "/public/%2e.",
    "/public/.%2E",
    "/public/..;",
    "/public/..;a=b",
    "/public/..%3b",
    "/public/..%00",
    "/public/..%20",
    "/public/%20..",
    "/public/%20..%20",
    "/public/..%09",
    "/public/..%c2%a0",
    "/public/..%e3%80%80",
    "/public/..%e2%80%a8",
    "/public/..%e2%80%8b",
    "/public/..+",
    "/public/..%3f",
    "/public/..%23",
    "/public/...",
    "/public/%ef%bc%8e%ef%bc%8e",
    "/public/.%ef%bc%8e",
    "/public/%e2%80%a5",
    "/public/%e2%80%a4%e2%80%a4",
    "/public/.%e2%80%a4",
    "/public/%c0%ae%c0%ae",
    "/public/%e0%80%ae.",
    "/public/%252e%252e",
    "/public/%25252e%25252e",
    "/public/%u002e%u002e",
    "/public/%uff0e%uff0e",
    "/public/x/../..",
    "/public/x/..%2f..",
    "/public/x%2f..%2f..",
    "/public/x%5c..%5c..",
    "/public/x\\..\\..",
    "/public/..\\x\\..",
    "/public%2f..",
    "/public%5c..",
    "/public\\..",
    "/public/./..",
    "/public//..",
    "/public;/..",
    "/public/%2e%2e%2f",
    "/public/..%2f",
    "/public/..%5c",
    "/public/..\\",
    "/public%ef%bc%8f..",
    "/public/..%ef%bc%8f",
    "/public/..%e2%88%95",
    "/v1/open/../..",
    "/v1/open/..%2f..",
    "/v1/open/..%20/..%20",
    "/v1/jobs/../..",
    "http:",
    "http:/",
    "/http:",
    "/http://a.example",
];

/// In place of a letter, a digit or a character of the path.
fn spellings(c: char) -> Vec<String> {
    let code = u32::from(c);
    let wide = char::from_u32(code + 0xfee0).unwrap();
    let mut all = vec![
        format!("%{code:02x}"),
        format!("%{code:02X}"),
        format!("%25{code:02x}"),
        format!("%2525{code:02x}"),
        format!("%u00{code:02x}"),
        format!("%U00{code:02X}"),
        format!("%{:02x}%{:02x}", 0xc0 | (code >> 6), 0x80 | (code & 0x3f)),
        format!(
            "%e0%{:02x}%{:02x}",
            0x80 | (code >> 6),
            0x80 | (code & 0x3f)
        ),
        format!("%ff%{code:02x}"),
        percent(&wide.to_string()),
        format!("%uff{:02x}", code - 0x20),
        format!("{c}%e2%80%8b"),
    ];
    if c.is_ascii_lowercase() {
        let circled = char::from_u32(0x24d0 + code - u32::from('a')).unwrap();
        let bold = char::from_u32(0x1d41a + code - u32::from('a')).unwrap();
        let upper = c.to_ascii_uppercase();
        all.push(upper.to_string());
        all.push(format!("%{:02x}", u32::from(upper)));
        all.push(percent(&circled.to_string()));
        all.push(percent(&bold.to_string()));
    }
    match c {
        's' => all.push("%c5%bf".to_owned()),
        'i' => all.extend(["%e2%85%b0".to_owned(), "%c4%b0".to_owned()]),
        'v' => all.push("%e2%85%b4".to_owned()),
        '1' => all.push("%c2%b9".to_owned()),
        _ => {}
    }
    all
}

fn percent(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

/// Every spelling, over both priced paths.
pub(super) fn all() -> Vec<String> {
    let mut paths = Vec::new();
    for path in PRICED {
        for (at, c) in path.char_indices() {
            let (before, after) = (&path[..at], &path[at + 1..]);
            let instead: Vec<String> = match c {
                '/' => SLASHES.iter().map(|s| (*s).to_owned()).collect(),
                _ => spellings(c),
            };
            paths.extend(instead.iter().map(|s| format!("{before}{s}{after}")));
        }
        paths.extend(ENDS.iter().map(|end| format!("{path}{end}")));
        paths.extend(STARTS.iter().map(|start| format!("{start}{path}")));
        paths.extend(wholly(path));
    }
    paths
}

/// The same spelling for every character.
fn wholly(path: &str) -> Vec<String> {
    let letters = |spell: &dyn Fn(u32) -> String| -> String {
        let spelled = path.chars().map(|c| match c {
            '/' => "/".to_owned(),
            c => spell(u32::from(c)),
        });
        spelled.collect()
    };
    vec![
        path.to_uppercase(),
        path.replacen("/v", "/V", 1),
        letters(&|c| format!("%{c:02x}")),
        letters(&|c| format!("%25{c:02x}")),
        letters(&|c| format!("%u00{c:02x}")),
        letters(&|c| percent(&char::from_u32(c + 0xfee0).unwrap().to_string())),
        format!("/{}", percent(&path[1..])),
        percent(path),
        path.replace('/', "//"),
        path.replace('/', "/./"),
        path.replace('/', "\\"),
        path.replace('/', "%20/%20"),
        path.replace('/', ";x/"),
        path.replace('/', "./"),
    ]
}

/// Other forms of the target, other methods and other versions.
#[expect(clippy::too_many_lines, reason = "it is a list")]
pub(super) fn targets() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for path in PRICED {
        for target in [
            format!("http://a.example{path}"),
            format!("HTTP://A.EXAMPLE{path}"),
            format!("https://a.example:443{path}"),
            format!("http://a.example:80{path}"),
            format!("http://a.example./{}", &path[1..]),
            format!("http://b.example{path}"),
            format!("http://user@a.example{path}"),
            format!("http://a.example\\{}", &path[1..]),
            format!("http://a.example/public/..{path}"),
            format!("http://a.example/public/..%20{path}"),
            format!("http://a.example/{path}"),
            format!("http://a.example?{path}"),
            format!("http://a.example#{path}"),
            format!("http:{path}"),
            format!("http://{path}"),
            format!("ftp://a.example{path}"),
            format!("//a.example{path}"),
            format!("///a.example{path}"),
            format!("a.example{path}"),
            format!("*{path}"),
            format!("*?{path}"),
            format!("?{path}"),
            format!("#{path}"),
            path[1..].to_owned(),
            format!("/ {path}"),
            format!("/\t{path}"),
            format!("{path} {path}"),
            format!("/public/x HTTP/1.1\r\n\r\nGET {path}"),
            format!("/public/x\r\nX-Original-URL: {path}\r\nX:"),
            format!("/public/x\nX: GET {path}"),
        ] {
            all.push(request("GET", &target, ""));
        }
        for method in [
            "HEAD",
            "POST",
            "PUT",
            "PATCH",
            "DELETE",
            "OPTIONS",
            "TRACE",
            "CONNECT",
            "PROPFIND",
            "QUERY",
            "PURGE",
            "PRI",
            "SEARCH",
            "get",
            "Get",
            "gET",
            "X",
            "GET,POST",
            "G%45T",
            "\"GET\"",
            "GET\t",
            " GET",
            "\r\nGET",
            "\r\n\r\nGET",
            "\0GET",
            "GET\0",
            "",
        ] {
            all.push(request(method, path, ""));
            all.push(request(method, &format!("{path}/"), ""));
        }
        for version in [
            "HTTP/1.0",
            "HTTP/0.9",
            "HTTP/1.2",
            "HTTP/2.0",
            "HTTP/3",
            "http/1.1",
            "HTTP/1.1 ",
            "HTTP/1.1\t",
            "HTTP/01.1",
            "HTTP/1.1x",
            "",
            "XTTP/1.1",
        ] {
            let line = format!("GET {path} {version}\r\n");
            all.push(format!("{line}Host: a.example\r\nConnection: close\r\n\r\n").into_bytes());
        }
        all.push(format!("GET {path}\r\n\r\n").into_bytes());
        all.push(format!("GET\t{path}\tHTTP/1.1\r\nHost: a.example\r\n\r\n").into_bytes());
        all.push(format!("GET  {path}  HTTP/1.1\r\nHost: a.example\r\n\r\n").into_bytes());
        all.push(format!("GET {path} HTTP/1.1\nHost: a.example\n\n").into_bytes());
        all.push(format!("GET {path} HTTP/1.1\rHost: a.example\r\r").into_bytes());
    }
    for raw in [
        b"/v1/s\xe5cret".as_slice(),
        b"/v1/\xc0\xafsecret",
        b"/v1\xc0\xafsecret",
    ] {
        all.push([b"GET ", raw, b" HTTP/1.1\r\nHost: a.example\r\n\r\n"].concat());
    }
    all
}

/// What only HTTP/2 can say in `:path`.
pub(super) fn odd_for_http2() -> Vec<String> {
    let mut paths = Vec::new();
    for path in PRICED {
        paths.extend([
            format!("{path} HTTP/1.1"),
            format!("{path} "),
            format!(" {path}"),
            format!("/public/x HTTP/1.1\r\n\r\nGET {path} HTTP/1.1\r\nHost: a\r\n\r\n"),
            format!("/public/x\r\nX-Original-URL: {path}"),
            format!("/public/x\n{path}"),
            format!("/public/x\0{path}"),
            format!("{path}\0"),
            format!("{path}\r"),
            format!("http://a.example{path}"),
            format!("//a.example{path}"),
            path[1..].to_owned(),
            format!("*{path}"),
            format!("{path}\u{a0}"),
            format!("/public/..\u{2028}{path}"),
        ]);
    }
    paths
}
