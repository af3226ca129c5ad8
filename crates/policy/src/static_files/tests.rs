//! Files, conditions, ranges, and what must not be reached.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::fixtures::{TakenResponse, request};

const TEXT: &str = "0123456789abcdefghijklmnopqrstuvwxyz";
const LARGE: usize = 100_000;

struct Site {
    folder: tempfile::TempDir,
    files: StaticFiles,
    now: SystemTime,
}

/// A folder, as most want it.
fn plan(prefix: &str, folder: &Path) -> StaticPlan {
    StaticPlan {
        prefix: prefix.to_owned(),
        folder: folder.to_owned(),
        index: vec!["index.html".to_owned()],
        fallback: None,
        listing: false,
        symlinks: false,
        max_age: Some(Duration::from_secs(60)),
        immutable: Vec::new(),
        fall_through: false,
        types: Vec::new(),
    }
}

impl Site {
    fn new(change: impl FnOnce(&mut StaticPlan)) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let public = folder.path().join("public");
        for name in ["docs", "empty", ".git", ".well-known", "docs/.well-known"] {
            fs::create_dir_all(public.join(name)).unwrap();
        }
        for (name, content) in [
            ("a.txt", TEXT),
            ("style.css", "body{}"),
            ("docs/index.html", "<h1>docs</h1>"),
            ("docs/page.html", "page"),
            (".git/config", "secret"),
            (".env", "secret"),
            (".well-known/security.txt", "Contact:"),
            ("docs/.well-known/x", "secret"),
            ("app-3f2a9c1b.js", "1"),
            ("sp ace & more.txt", "space"),
            ("empty.bin", ""),
        ] {
            fs::write(public.join(name), content).unwrap();
        }
        fs::write(public.join("large.bin"), large()).unwrap();
        fs::write(folder.path().join("secret.txt"), "secret").unwrap();
        let mut mount = plan("/static", &public);
        change(&mut mount);
        let now = SystemTime::now() + Duration::from_secs(10);
        let files = StaticFiles::new(&[mount], Arc::new(ErrorPages::default()), now).unwrap();
        Site { folder, files, now }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join("public").join(name)
    }

    fn ask(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> Option<TakenResponse> {
        let mut kept = TakenResponse::default();
        self.files.respond(&request(method, target, fields), self.now, &mut kept)?.unwrap();
        if let Some(length) = kept.field("content-length")
            && method != "HEAD"
        {
            assert_eq!(length, kept.body.len().to_string(), "{target}");
        }
        Some(kept)
    }

    fn get(&self, target: &str, fields: &[(&str, &str)]) -> TakenResponse {
        self.ask("GET", target, fields).unwrap()
    }
}

fn large() -> Vec<u8> {
    (0..LARGE).map(|n| (n % 251).try_into().unwrap()).collect()
}

#[test]
fn a_file_is_sent_with_what_caches_need() {
    let site = Site::new(|_| {});
    for _ in 0..2 {
        let kept = site.get("/static/a.txt", &[]);
        assert_eq!((kept.status(), kept.body.as_slice(), kept.files), (200, TEXT.as_bytes(), 0));
        assert_eq!(kept.field("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(kept.field("content-length"), Some("36"));
        assert_eq!(kept.field("cache-control"), Some("public, max-age=60"));
        assert_eq!(kept.field("accept-ranges"), Some("bytes"));
        assert!(kept.field("etag").unwrap().starts_with('"'));
        assert!(kept.field("last-modified").is_some());
        assert_eq!(kept.field("vary"), None);
        let large = site.get("/static/large.bin", &[]);
        assert_eq!((large.status(), large.body.len(), large.files), (200, LARGE, 1));
        let empty = site.get("/static/empty.bin", &[("Range", "bytes=0-")]);
        assert_eq!((empty.status(), empty.body.len(), empty.files), (200, 0, 0));
    }
    let head = site.ask("HEAD", "/static/a.txt", &[]).unwrap();
    assert_eq!((head.status(), head.body.len(), head.field("content-length")), (200, 0, Some("36")));
    assert_eq!(site.get("/static/sp%20ace%20%26%20more.txt?x", &[]).body, b"space");
}

#[test]
fn other_paths_are_not_ours() {
    let site = Site::new(|_| {});
    for target in ["/", "/stati", "/staticx", "/staticx/a.txt", "/other/static/a.txt", "*", ""] {
        assert!(site.ask("GET", target, &[]).is_none(), "{target}");
        assert!(!site.files.covers(target.as_bytes()));
    }
    assert!(site.files.covers(b"/static") && site.files.covers(b"/static/x"));
}

#[test]
fn nothing_else_is_ever_opened() {
    let site = Site::new(|mount| mount.listing = true);
    symlink("../secret.txt", site.at("outer.txt")).unwrap();
    symlink(site.folder.path(), site.at("parent")).unwrap();
    symlink("a.txt", site.at("inner.txt")).unwrap();
    symlink("/dev/zero", site.at("zero")).unwrap();
    symlink("/proc/self/environ", site.at("environ")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(site.at("pipe")).status().unwrap().success());
    for target in [
        "/static/../secret.txt",
        "/static/%2e%2e/secret.txt",
        "/static/..%2fsecret.txt",
        "/static/%2e%2e%2fsecret.txt",
        "/static/%252e%252e/secret.txt",
        "/static/docs/../../secret.txt",
        "/static/docs/..",
        "/static/..",
        "/static/.",
        "/static/./a.txt",
        "/static//a.txt",
        "/static/docs//page.html",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/..%5csecret.txt",
        "/static/docs%5cpage.html",
        "/static/a.txt%00",
        "/static/a.txt%00.html",
        "/static/%0aa.txt",
        "/static/a.txt/",
        "/static/a.txt/x",
        "/static/.env",
        "/static/.git/config",
        "/static/.git/",
        "/static/.git",
        "/static/docs/.well-known/x",
        "/static/missing",
        "/static/outer.txt",
        "/static/parent/secret.txt",
        "/static/parent/",
        "/static/zero",
        "/static/environ",
        "/static/pipe",
        "/static/%ff",
        &format!("/static/{}", "a".repeat(300)),
        &format!("/static/{}", "a/".repeat(3000)),
    ] {
        let kept = site.get(target, &[]);
        assert_eq!(kept.status(), 404, "{target}");
        assert!(!kept.body.windows(6).any(|part| part == b"secret"), "{target}");
    }
    assert_eq!(site.get("/static/inner.txt", &[]).body, TEXT.as_bytes());
    assert_eq!(site.get("/static/.well-known/security.txt", &[]).body, b"Contact:");
}

#[test]
fn links_may_be_followed() {
    let site = Site::new(|mount| mount.symlinks = true);
    symlink("../secret.txt", site.at("outer.txt")).unwrap();
    symlink("/dev/zero", site.at("zero")).unwrap();
    assert_eq!(site.get("/static/outer.txt", &[]).body, b"secret");
    assert_eq!(site.get("/static/zero", &[]).status(), 404);
    assert_eq!(site.get("/static/%2e%2e/secret.txt", &[]).status(), 404);
}

#[test]
fn conditions_are_weighed() {
    let site = Site::new(|_| {});
    let first = site.get("/static/a.txt", &[]);
    let (tag, date) = (first.field("etag").unwrap(), first.field("last-modified").unwrap());
    for fields in [[("If-None-Match", tag)], [("If-Modified-Since", date)], [("If-None-Match", "*")]] {
        let kept = site.get("/static/a.txt", &fields);
        assert_eq!((kept.status(), kept.body.len()), (304, 0), "{fields:?}");
        assert_eq!(kept.field("etag"), Some(tag));
        assert_eq!(kept.field("cache-control"), Some("public, max-age=60"));
        assert_eq!((kept.field("content-type"), kept.field("content-length")), (None, None));
    }
    assert_eq!(site.get("/static/a.txt", &[("If-Match", "\"x\"")]).status(), 412);
    assert_eq!(
        site.get("/static/a.txt", &[("If-None-Match", "\"x\""), ("If-Modified-Since", date)]).status(),
        200
    );
    let part = site.get("/static/a.txt", &[("Range", "bytes=0-1"), ("If-Range", tag)]);
    assert_eq!((part.status(), part.body.as_slice()), (206, &b"01"[..]));
    let whole = site.get("/static/a.txt", &[("Range", "bytes=0-1"), ("If-Range", "\"x\"")]);
    assert_eq!((whole.status(), whole.body.as_slice()), (200, TEXT.as_bytes()));
}

#[test]
fn ranges_are_sent_from_memory_and_from_files() {
    let site = Site::new(|_| {});
    let large = large();
    for (target, content) in [("/static/a.txt", TEXT.as_bytes()), ("/static/large.bin", &large[..])] {
        let size = content.len();
        let kept = site.get(target, &[("Range", "bytes=3-9")]);
        assert_eq!((kept.status(), kept.body.as_slice()), (206, &content[3..10]));
        assert_eq!(kept.field("content-range"), Some(format!("bytes 3-9/{size}").as_str()));
        assert_eq!(kept.field("content-length"), Some("7"));
        let suffix = site.get(target, &[("Range", "bytes=-5")]);
        assert_eq!(suffix.body, &content[size - 5..]);
        let past = site.get(target, &[("Range", "bytes=900000-")]);
        assert_eq!(past.status(), 416);
        assert_eq!(past.field("content-range"), Some(format!("bytes */{size}").as_str()));
        let head = site.ask("HEAD", target, &[("Range", "bytes=3-9")]).unwrap();
        assert_eq!((head.status(), head.field("content-length")), (200, Some(size.to_string().as_str())));
    }
}

#[test]
fn several_ranges_are_parts_of_one_response() {
    let site = Site::new(|_| {});
    let kept = site.get("/static/large.bin", &[("Range", "bytes=50000-50009,0-4")]);
    assert_eq!((kept.status(), kept.files), (206, 2));
    let boundary =
        kept.field("content-type").unwrap().strip_prefix("multipart/byteranges; boundary=").unwrap();
    let large = large();
    let expected = [
        format!("\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 50000-50009/{LARGE}\r\n\r\n").as_bytes(),
        &large[50_000..50_010],
        format!("\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 0-4/{LARGE}\r\n\r\n").as_bytes(),
        &large[..5],
        format!("\r\n--{boundary}--\r\n").as_bytes(),
    ]
    .concat();
    assert_eq!(kept.body, expected);
    assert_eq!(kept.field("content-range"), None);
    let overlapping = site.get("/static/large.bin", &[("Range", "bytes=0-,0-,5-")]);
    assert_eq!((overlapping.status(), overlapping.body.len()), (206, LARGE));
}

#[test]
fn siblings_are_sent_to_who_takes_them() {
    let site = Site::new(|_| {});
    let time = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let write = |name: &str, content: &str, age: u64| {
        let path = site.at(name);
        fs::write(&path, content).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(time + Duration::from_secs(10) - Duration::from_secs(age)).unwrap();
    };
    write("s.css", TEXT, 5);
    write("s.css.br", "br", 5);
    write("s.css.gz", "gzip", 4);
    write("s.css.zst", "old", 6);
    let got = |accept: &str| {
        let kept = site.get("/static/s.css", &[("Accept-Encoding", accept)]);
        assert_eq!(kept.field("vary"), Some("Accept-Encoding"));
        assert_eq!(kept.field("content-type"), Some("text/css; charset=utf-8"));
        let tag = kept.field("etag").unwrap().to_owned();
        (kept.field("content-encoding").map(str::to_owned), kept.body, tag)
    };
    let (coding, body, brotli_tag) = got("gzip, br, zstd");
    assert_eq!((coding.as_deref(), body.as_slice()), (Some("br"), &b"br"[..]));
    let (coding, body, gzip_tag) = got("gzip, br;q=0.5");
    assert_eq!((coding.as_deref(), body.as_slice()), (Some("gzip"), &b"gzip"[..]));
    let (coding, body, tag) = got("zstd");
    assert_eq!((coding, body.as_slice()), (None, TEXT.as_bytes()), "the sibling is of an older version");
    assert!(tag != gzip_tag && gzip_tag != brotli_tag && brotli_tag != tag);
    let kept = site.get("/static/s.css", &[("Accept-Encoding", "br"), ("If-None-Match", &brotli_tag)]);
    assert_eq!((kept.status(), kept.field("vary")), (304, Some("Accept-Encoding")));
    let direct = site.get("/static/s.css.gz", &[("Accept-Encoding", "gzip")]);
    assert_eq!(
        (direct.field("content-type"), direct.field("content-encoding")),
        (Some("application/gzip"), None)
    );
}

#[test]
fn folders_have_pages() {
    let site = Site::new(|_| {});
    let kept = site.get("/static/docs/", &[]);
    assert_eq!((kept.status(), kept.body.as_slice()), (200, &b"<h1>docs</h1>"[..]));
    let moved = site.get("/static/docs?a=b", &[]);
    assert_eq!((moved.status(), moved.field("location")), (301, Some("./docs/?a=b")));
    for target in ["/static/empty/", "/static/empty", "/static/", "/static"] {
        assert_eq!(site.get(target, &[]).status(), 404, "{target}");
    }
    let listed = Site::new(|mount| mount.listing = true);
    assert_eq!(listed.get("/static/docs/", &[]).body, b"<h1>docs</h1>", "the index has precedence");
    assert_eq!(listed.get("/static", &[]).field("location"), Some("./static/"));
    let page = String::from_utf8(listed.get("/static/", &[]).body).unwrap();
    assert!(page.contains("<a href=\"./docs/\">docs/</a>") && page.contains("sp%20ace%20%26%20more.txt"));
    assert!(!page.contains(".git") && !page.contains(".env") && !page.contains("../"));
    assert!(String::from_utf8(listed.get("/static/empty/", &[]).body).unwrap().contains("\"../\""));
}

#[test]
fn a_redirect_leads_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["evil.com", "javascript:alert(1)", "a?b#c"] {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("index.html"), "").unwrap();
    }
    let now = SystemTime::now();
    let files = StaticFiles::new(&[plan("/", folder.path())], Arc::new(ErrorPages::default()), now).unwrap();
    let location = |target: &str| {
        let mut kept = TakenResponse::default();
        files.respond(&request("GET", target, &[]), now, &mut kept).unwrap().unwrap();
        kept.field("location").map(str::to_owned)
    };
    assert_eq!(location("//evil.com"), None);
    assert_eq!(location("/%2fevil.com"), None);
    assert_eq!(location("/%5cevil.com"), None);
    assert_eq!(location("/evil.com").as_deref(), Some("./evil.com/"));
    assert_eq!(location("/javascript:alert(1)").as_deref(), Some("./javascript%3Aalert%281%29/"));
    assert_eq!(location("/a%3Fb%23c").as_deref(), Some("./a%3Fb%23c/"));
}

#[test]
fn a_page_for_all_paths_is_for_browsers() {
    let site = Site::new(|mount| mount.fallback = Some("docs/page.html".to_owned()));
    let html = [("Accept", "text/html,*/*;q=0.8")];
    for _ in 0..2 {
        let kept = site.get("/static/some/page", &html);
        assert_eq!((kept.status(), kept.body.as_slice()), (200, &b"page"[..]));
        assert_eq!(kept.field("cache-control"), Some("no-cache"));
        assert_eq!(kept.field("vary"), Some("Accept"));
    }
    assert_eq!(site.get("/static/a.txt", &html).body, TEXT.as_bytes());
    assert_eq!(site.get("/static/missing.js", &[("Accept", "*/*")]).status(), 404);
    for target in ["/static/.env", "/static/../x", "/static//x"] {
        assert_eq!(site.get(target, &html).status(), 404, "{target}");
    }
    assert_eq!(site.get("/static/missing", &[]).status(), 404);
}

#[test]
fn methods_that_change_things_are_refused() {
    let site = Site::new(|_| {});
    for method in ["POST", "PUT", "DELETE", "TRACE", "get"] {
        let kept = site.ask(method, "/static/a.txt", &[]).unwrap();
        assert_eq!((kept.status(), kept.field("allow")), (405, Some("GET, HEAD, OPTIONS")), "{method}");
    }
    let options = site.ask("OPTIONS", "/static/a.txt", &[]).unwrap();
    assert_eq!((options.status(), options.body.len()), (204, 0));
    assert_eq!(options.field("allow"), Some("GET, HEAD, OPTIONS"));
}

#[test]
fn what_is_not_there_may_be_the_applications() {
    let site = Site::new(|mount| {
        mount.fall_through = true;
        mount.prefix = "/".to_owned();
    });
    assert_eq!(site.get("/a.txt", &[]).body, TEXT.as_bytes());
    for target in ["/missing", "/", "/docs/missing", "/../a.txt", "/.env"] {
        assert!(site.ask("GET", target, &[]).is_none(), "{target}");
    }
    assert!(site.ask("POST", "/a.txt", &[]).is_none());
}

#[test]
fn how_long_a_file_may_be_used_is_told() {
    let site = Site::new(|mount| {
        mount.immutable = vec!["*-????????.js".to_owned()];
        mount.max_age = None;
    });
    let immutable = site.get("/static/app-3f2a9c1b.js", &[]);
    assert_eq!(immutable.field("cache-control"), Some("public, max-age=31536000, immutable"));
    assert_eq!(site.get("/static/a.txt", &[]).field("cache-control"), None);
}

#[test]
fn a_changed_file_is_noticed_within_a_second() {
    let mut site = Site::new(|_| {});
    let before = site.get("/static/a.txt", &[]);
    fs::write(site.at("a.txt.new"), "changed").unwrap();
    fs::rename(site.at("a.txt.new"), site.at("a.txt")).unwrap();
    assert_eq!(site.get("/static/a.txt", &[]).body, before.body);
    site.now += Duration::from_secs(1);
    let after = site.get("/static/a.txt", &[]);
    assert_eq!(after.body, b"changed");
    assert_ne!(before.field("etag"), after.field("etag"));
    fs::remove_file(site.at("a.txt")).unwrap();
    site.now += Duration::from_secs(1);
    assert_eq!(site.get("/static/a.txt", &[]).status(), 404);
    fs::write(site.at("a.txt"), "new").unwrap();
    assert_eq!(site.get("/static/a.txt", &[]).status(), 404);
    site.now += Duration::from_secs(1);
    assert_eq!(site.get("/static/a.txt", &[]).body, b"new");
}

#[test]
fn types_are_known_by_their_endings() {
    let site = Site::new(|mount| mount.types = vec![("foo".to_owned(), "application/x-foo".to_owned())]);
    let place = &site.files.places[0];
    for (name, expected) in [
        ("a.html", "text/html; charset=utf-8"),
        ("a.CSS", "text/css; charset=utf-8"),
        ("a.b.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.js.map", "application/json"),
        ("a.webmanifest", "application/manifest+json"),
        ("a.svg", "image/svg+xml"),
        ("a.wasm", "application/wasm"),
        ("a.woff2", "font/woff2"),
        ("a.webp", "image/webp"),
        ("a.avif", "image/avif"),
        ("a.pdf", "application/pdf"),
        ("a.xml", "text/xml; charset=utf-8"),
        ("a.ico", "image/x-icon"),
        ("a.FOO", "application/x-foo"),
        ("a.gz", "application/gzip"),
        ("html", "application/octet-stream"),
        ("a.d/README", "application/octet-stream"),
        ("a.unknown", "application/octet-stream"),
    ] {
        assert_eq!(place.content_type(name.as_bytes()), expected, "{name}");
    }
}

#[test]
fn the_longest_prefix_counts() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        fs::create_dir_all(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("x"), name).unwrap();
    }
    let now = SystemTime::now();
    let mount = |prefix: &str, name: &str| plan(prefix, &folder.path().join(name));
    let files =
        StaticFiles::new(&[mount("/s/", "a"), mount("/s/b", "b")], Arc::new(ErrorPages::default()), now)
            .unwrap();
    for (target, expected) in [("/s/x", "a"), ("/s/b/x", "b")] {
        let mut kept = TakenResponse::default();
        files.respond(&request("GET", target, &[]), now, &mut kept).unwrap().unwrap();
        assert_eq!(kept.body, expected.as_bytes());
    }
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let missing = plan("/static", Path::new("/nonexistent"));
    let made = StaticFiles::new(&[missing], Arc::new(ErrorPages::default()), SystemTime::now());
    assert!(made.unwrap_err().to_string().starts_with("/nonexistent: "));
}

/// Everything below the folder that may be seen.
fn public(folder: &Path) -> Vec<Vec<u8>> {
    ["a.txt", "docs/index.html", "docs/page.html", "style.css", "empty.bin", ".well-known/security.txt"]
        .iter()
        .map(|name| fs::read(folder.join(name)).unwrap())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_path_leads_to_a_secret(paths in prop::collection::vec(
        "/static(/|\\.|\\.\\.|docs|parent|outer\\.txt|a\\.txt|secret\\.txt|\\.git|config|\\.env|%2e|%2f|%00|%5c|~){0,6}", 20,
    )) {
        let site = Site::new(|_| {});
        symlink(site.folder.path(), site.at("parent")).unwrap();
        symlink("../secret.txt", site.at("outer.txt")).unwrap();
        let known = public(&site.at(""));
        for path in paths {
            if let Some(kept) = site.ask("GET", &path, &[]) && kept.status() == 200 {
                prop_assert!(known.contains(&kept.body), "{}", path);
            }
        }
    }

    #[test]
    fn any_request_gets_a_true_response(
        range in "bytes=([0-9]{0,2}-[0-9]{0,2},?){0,5}",
        method in "GET|HEAD",
    ) {
        let site = Site::new(|_| {});
        let kept = site.ask(&method, "/static/a.txt", &[("Range", &range)]).unwrap();
        prop_assert!([200, 206, 416].contains(&kept.status()));
        if method == "GET" && kept.status() == 200 {
            prop_assert_eq!(kept.body, TEXT.as_bytes());
        }
    }
}
