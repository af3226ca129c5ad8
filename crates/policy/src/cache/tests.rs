//! What the cache promises, also against any bytes that it may find in its store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use anygate_config::site::{CachePath, CachePlan};
use anygate_proto::head::{RequestHead, ResponseHead};
use proptest::prelude::*;

use super::entry::Terms;
use super::flights::lock;
use super::keys::request_key;
use super::*;
use crate::fixtures::{self, response};
use crate::rate_table::Cells;

const START: SystemTime = SystemTime::UNIX_EPOCH;

fn at(seconds: u64) -> SystemTime {
    START + Duration::from_secs(1_800_000_000 + seconds)
}

fn request(method: &str, target: &str, fields: &[(&str, &str)]) -> RequestHead {
    of_host("example.org", fixtures::request(method, target, fields))
}

fn of_host(host: &str, mut head: RequestHead) -> RequestHead {
    let span = head.push_text(host.as_bytes()).unwrap();
    head.set_authority(span);
    head
}

fn get(target: &str) -> RequestHead {
    request("GET", target, &[])
}

fn plan() -> CachePlan {
    CachePlan {
        paths: ["/", "!/private", "/minute 1m"].map(|text| CachePath::read(text).unwrap()).to_vec(),
        max_bytes: 100_000,
        entry_max_bytes: 100,
        obey_clients: true,
    }
}

fn cache() -> Arc<Cache> {
    Cache::new(&plan(), 3, Arc::new(Memory::new(100_000)), Epochs::local())
}

/// Asks, and lets the application response if it must; returns whether it was asked, and Cache-Status.
fn ask(
    cache: &Arc<Cache>,
    head: &RequestHead,
    now: u64,
    fields: &[(&str, &str)],
    body: &str,
) -> (bool, String) {
    let status =
        |head: &ResponseHead| String::from_utf8(head.field("cache-status").unwrap().to_vec()).unwrap();
    match cache.lookup(head, false, at(now)) {
        Lookup::Hit(stored) => (false, status(stored.head())),
        Lookup::Miss(mut recorder) => {
            let begin = recorder.start(&response("200 OK", fields), at(now));
            recorder.write(body.as_bytes());
            recorder.finish(at(now));
            match begin {
                Begin::Pass(head) | Begin::NotModified(head) => (true, status(&head)),
                Begin::Instead(stored) => (true, status(stored.head())),
            }
        }
        Lookup::Refuse(refusal) => (false, refusal.head().status().to_string()),
        Lookup::Bypass => (true, "bypass".to_owned()),
        Lookup::Wait(_) => panic!("there is no other request"),
    }
}

fn is_stored(cache: &Arc<Cache>, head: &RequestHead, fields: &[(&str, &str)], body: &str) -> bool {
    ask(cache, head, 0, fields, body);
    let (asked, _) = ask(cache, head, 0, &[], "");
    !asked
}

const FRESH: (&str, &str) = ("Cache-Control", "max-age=60");

#[test]
fn a_response_is_sent_again_with_its_age() {
    let cache = cache();
    assert_eq!(
        ask(&cache, &get("/a?b"), 0, &[FRESH, ("X-A", "1")], "text"),
        (true, "anygate; fwd=uri-miss; stored".into())
    );
    let Lookup::Hit(stored) = cache.lookup(&get("/a?b"), false, at(20)) else { panic!() };
    let field = |name| stored.head().field(name).map(|value| String::from_utf8(value.to_vec()).unwrap());
    assert_eq!(stored.body(), b"text");
    assert_eq!(field("age").as_deref(), Some("20"));
    assert_eq!(field("x-a").as_deref(), Some("1"));
    assert_eq!(field("content-length").as_deref(), Some("4"));
    assert_eq!(field("date"), Some(httpdate::fmt_http_date(at(0))));
    assert_eq!(field("cache-status").as_deref(), Some("anygate; hit; ttl=40"));
    let Lookup::Hit(stored) = cache.lookup(&request("HEAD", "/a?b", &[]), false, at(20)) else { panic!() };
    assert_eq!((stored.body(), stored.head().field("content-length")), (&b""[..], Some(&b"4"[..])));
    for other in ["/a", "/a?c", "/A?b"] {
        assert!(ask(&cache, &get(other), 0, &[], "").0, "{other}");
    }
    assert!(matches!(cache.lookup(&get("/a?b"), true, at(20)), Lookup::Miss(_)), "another scheme");
    assert!(matches!(cache.lookup(&get("/a?b"), false, at(60)), Lookup::Miss(_)), "stale");
}

#[test]
fn what_is_personal_is_not_stored() {
    let fresh = [FRESH];
    let cookie = [("Cookie", "a=b")];
    let authorization = [("Authorization", "Basic x")];
    for (asked, fields, stored) in [
        (&[][..], &fresh[..], true),
        (&[], &[], false),
        (&[], &[FRESH, ("Set-Cookie", "a=b")], false),
        (&[], &[("Cache-Control", "private, max-age=60")], false),
        (&[], &[("Cache-Control", "no-store, max-age=60")], false),
        (&[], &[FRESH, ("Vary", "*")], false),
        (&[], &[FRESH, ("Vary", "Accept, *")], false),
        (&cookie, &fresh, true),
        (&authorization, &fresh, false),
        (&authorization, &[("Cache-Control", "public, max-age=60")], true),
        (&authorization, &[("Cache-Control", "s-maxage=60")], true),
        (&[("Range", "bytes=0-1")], &fresh, false),
        (&[("If-Match", "\"a\"")], &fresh, false),
        (&[("Upgrade", "websocket"), ("Connection", "Upgrade")], &fresh, false),
        (&[("Content-Length", "3")], &fresh, false),
        (&[("Content-Length", "0")], &fresh, true),
        (&[("Transfer-Encoding", "chunked")], &fresh, false),
        (&[("Cache-Control", "no-store")], &fresh, false),
    ] {
        let head = request("GET", "/a", asked);
        assert_eq!(is_stored(&cache(), &head, fields, "text"), stored, "{asked:?} {fields:?}");
    }
}

#[test]
fn paths_decide_and_may_give_a_lifetime() {
    for (target, asked, fields, stored) in [
        ("/private/a", &[][..], &[FRESH][..], false),
        ("//private/a", &[], &[FRESH], false),
        ("/minute/a", &[], &[], true),
        ("/minute/a", &[("Cookie", "a=b")], &[], false),
        ("/minute/a", &[("Authorization", "a")], &[], false),
        ("/minute/a", &[], &[("Cache-Control", "no-cache")], false),
        ("/minute/a", &[], &[("Expires", "0")], false),
        ("/minute/a", &[], &[("Set-Cookie", "a=b")], false),
    ] {
        let head = request("GET", target, asked);
        assert_eq!(is_stored(&cache(), &head, fields, "text"), stored, "{target} {asked:?} {fields:?}");
    }
    // What the site says is for all is not for those who are known.
    let cache = cache();
    ask(&cache, &get("/minute/a"), 0, &[], "text");
    assert!(!ask(&cache, &get("/minute/a"), 0, &[], "").0);
    for field in [("Cookie", "a=b"), ("Authorization", "a")] {
        assert!(ask(&cache, &request("GET", "/minute/a", &[field]), 0, &[], "").0, "{field:?}");
    }
    let mut head = get("/a");
    let authority = head.push_text(b"example.org/x").unwrap();
    head.set_authority(authority);
    assert!(matches!(cache.lookup(&head, false, at(0)), Lookup::Bypass));
    let off = Cache::new(
        &CachePlan { paths: Vec::new(), ..plan() },
        3,
        Arc::new(Memory::new(1000)),
        Epochs::local(),
    );
    assert!(matches!(off.lookup(&get("/"), false, at(0)), Lookup::Bypass));
    assert!(matches!(off.lookup(&request("POST", "/", &[]), false, at(0)), Lookup::Bypass));
}

#[test]
fn only_whole_responses_of_bounded_length_are_stored() {
    let long = "x".repeat(101);
    for (fields, body, stored) in [
        (&[FRESH][..], &long[..100], true),
        (&[FRESH], &long, false),
        (&[FRESH, ("Content-Length", "101")], &long, false),
        (&[FRESH, ("Content-Length", "5")], "text", false),
        (&[FRESH, ("Content-Length", "4")], "text", true),
        (&[FRESH, ("Content-Length", "-4")], "text", false),
    ] {
        assert_eq!(is_stored(&cache(), &get("/a"), fields, body), stored, "{fields:?}");
    }
    let cache = cache();
    let Lookup::Miss(mut recorder) = cache.lookup(&get("/a"), false, at(0)) else { panic!() };
    recorder.start(&response("200 OK", &[FRESH]), at(0));
    recorder.write(b"half");
    drop(recorder);
    assert!(ask(&cache, &get("/a"), 0, &[], "").0);
}

#[test]
fn clients_choose_how_fresh() {
    let wants = |value| request("GET", "/a", &[("Cache-Control", value)]);
    for (value, now, expected) in [
        ("max-age=10", 10, "anygate; hit; ttl=50"),
        ("max-age=10", 11, "anygate; fwd=request"),
        ("max-age=0", 0, "anygate; fwd=request"),
        ("no-cache", 0, "anygate; fwd=request"),
        ("min-fresh=30", 40, "anygate; fwd=request"),
        ("max-stale=30", 80, "anygate; hit; ttl=-20"),
        ("max-stale=10", 80, "anygate; fwd=stale"),
        ("only-if-cached", 10, "anygate; hit; ttl=50"),
        ("only-if-cached", 80, "504"),
        ("no-store", 10, "bypass"),
    ] {
        let cache = cache();
        ask(&cache, &get("/a"), 0, &[FRESH, ("ETag", "\"a\"")], "text");
        assert_eq!(ask(&cache, &wants(value), now, &[], "").1, expected, "{value} {now}");
    }
    assert_eq!(ask(&cache(), &wants("only-if-cached"), 0, &[], "").1, "504");
    let deaf = Cache::new(
        &CachePlan { obey_clients: false, ..plan() },
        3,
        Arc::new(Memory::new(10_000)),
        Epochs::local(),
    );
    ask(&deaf, &get("/a"), 0, &[FRESH], "text");
    assert_eq!(ask(&deaf, &wants("no-cache"), 1, &[], "").1, "anygate; hit; ttl=59");
}

#[test]
fn a_stale_response_is_validated() {
    let cache = cache();
    let stored = [FRESH, ("ETag", "\"a\""), ("Last-Modified", "Fri, 01 Jan 2027 00:00:00 GMT"), ("X-A", "1")];
    ask(&cache, &get("/a"), 0, &stored, "text");
    let head = request("GET", "/a", &[("If-None-Match", "\"other\"")]);
    let Lookup::Miss(mut recorder) = cache.lookup(&head, false, at(100)) else { panic!() };
    let mut sent = head.clone();
    recorder.prepare(&mut sent).unwrap();
    assert_eq!(sent.field("if-none-match"), Some(&b"\"a\""[..]));
    assert_eq!(sent.field("if-modified-since"), Some(&b"Fri, 01 Jan 2027 00:00:00 GMT"[..]));
    assert_eq!(sent.fields().count(), 2);
    let confirmed =
        response("304 Not Modified", &[FRESH, ("ETag", "\"a\""), ("X-A", "2"), ("Content-Length", "0")]);
    let Begin::Instead(sent) = recorder.start(&confirmed, at(100)) else { panic!() };
    recorder.finish(at(100));
    assert_eq!((sent.head().status(), sent.body()), (200, &b"text"[..]));
    assert_eq!(sent.head().field("x-a"), Some(&b"2"[..]));
    assert_eq!(sent.head().field("cache-status"), Some(&b"anygate; fwd=stale; fwd-status=304"[..]));
    let Lookup::Hit(hit) = cache.lookup(&get("/a"), false, at(150)) else { panic!() };
    assert_eq!((hit.head().field("age"), hit.body()), (Some(&b"50"[..]), &b"text"[..]));
    assert_eq!(hit.head().field("content-length"), Some(&b"4"[..]));
}

#[test]
fn a_validation_may_bring_a_cookie_for_one_client() {
    let cache = cache();
    ask(&cache, &get("/a"), 0, &[FRESH, ("ETag", "\"a\"")], "text");
    let Lookup::Miss(mut recorder) = cache.lookup(&get("/a"), false, at(100)) else { panic!() };
    let cookies = [FRESH, ("Set-Cookie", "a=b"), ("Set-Cookie", "c=d")];
    let Begin::Instead(sent) = recorder.start(&response("304 Not Modified", &cookies), at(100)) else {
        panic!()
    };
    assert_eq!(entry::all(sent.head().fields(), "set-cookie").collect::<Vec<_>>(), [b"a=b", b"c=d"]);
    assert_eq!(sent.body(), b"text");
    drop(recorder);
    // It is still there to be validated, and as old as before.
    let Lookup::Miss(recorder) = cache.lookup(&get("/a"), false, at(100)) else { panic!() };
    assert_eq!(recorder.conditions().count(), 1);
}

#[test]
fn a_client_that_has_the_response_gets_304() {
    let cache = cache();
    let stored = [FRESH, ("ETag", "\"a\""), ("Content-Type", "text/plain"), ("Vary", "Accept")];
    // The application's response is whole although the client has it.
    let head = request("GET", "/a", &[("If-None-Match", "W/\"a\"")]);
    let Lookup::Miss(mut recorder) = cache.lookup(&head, false, at(0)) else { panic!() };
    let mut sent = head.clone();
    recorder.prepare(&mut sent).unwrap();
    assert_eq!(sent.fields().count(), 0);
    let Begin::NotModified(sent) = recorder.start(&response("200 OK", &stored), at(0)) else { panic!() };
    recorder.write(b"text");
    recorder.finish(at(0));
    assert_eq!((sent.status(), sent.field("etag")), (304, Some(&b"\"a\""[..])));
    assert_eq!(sent.field("content-type"), None);
    for (field, status) in [
        (("If-None-Match", "\"b\", \"a\""), 304),
        (("If-None-Match", "*"), 304),
        (("If-None-Match", "\"b\""), 200),
        (("If-Modified-Since", "Fri, 01 Jan 2038 00:00:00 GMT"), 304),
        (("If-Modified-Since", "Fri, 01 Jan 2027 00:00:00 GMT"), 200),
        (("If-Modified-Since", "yesterday"), 200),
    ] {
        let Lookup::Hit(hit) = cache.lookup(&request("GET", "/a", &[field]), false, at(1)) else { panic!() };
        assert_eq!(hit.head().status(), status, "{field:?}");
        assert_eq!(hit.body(), if status == 304 { &b""[..] } else { b"text" });
        assert_eq!(hit.head().field("vary"), Some(&b"Accept"[..]));
    }
}

#[test]
fn a_failed_application_is_covered_for_a_while() {
    for (value, now, covered) in [
        ("max-age=60, stale-if-error=60", 119, true),
        ("max-age=60, stale-if-error=60", 121, false),
        ("s-maxage=60, stale-if-error=60", 100, true),
        ("max-age=60, stale-if-error=60, must-revalidate", 100, false),
        ("max-age=60", 61, false),
    ] {
        for status in ["500 Internal Server Error", "503 Service Unavailable", ""] {
            let cache = cache();
            ask(&cache, &get("/a"), 0, &[("Cache-Control", value)], "text");
            let Lookup::Miss(mut recorder) = cache.lookup(&get("/a"), false, at(now)) else { panic!() };
            let stored = if status.is_empty() {
                recorder.failed(at(now))
            } else {
                match recorder.start(&response(status, &[]), at(now)) {
                    Begin::Instead(stored) => Some(*stored),
                    _ => None,
                }
            };
            assert_eq!(
                stored.is_some_and(|stored| stored.body() == b"text"),
                covered,
                "{value} {now} {status}"
            );
        }
    }
}

#[test]
fn one_refreshes_while_the_others_get_what_is_stale() {
    let cache = cache();
    let fields = [("Cache-Control", "s-maxage=60, stale-while-revalidate=60")];
    ask(&cache, &get("/a"), 0, &fields, "old");
    let Lookup::Hit(mut first) = cache.lookup(&get("/a"), false, at(100)) else { panic!() };
    let mut refresh = first.take_refresh().unwrap();
    let Lookup::Hit(mut second) = cache.lookup(&get("/a"), false, at(100)) else { panic!() };
    assert!(second.take_refresh().is_none());
    assert_eq!(second.head().field("cache-status"), Some(&b"anygate; hit; ttl=-40"[..]));
    refresh.start(&response("200 OK", &fields), at(101));
    refresh.write(b"new");
    refresh.finish(at(101));
    let Lookup::Hit(third) = cache.lookup(&get("/a"), false, at(102)) else { panic!() };
    assert_eq!((first.body(), third.body()), (&b"old"[..], &b"new"[..]));
    // The window is over.
    assert!(matches!(cache.lookup(&get("/a"), false, at(300)), Lookup::Miss(_)));
}

#[test]
fn one_asks_and_the_others_wait() {
    let cache = cache();
    let Lookup::Miss(mut recorder) = cache.lookup(&get("/a"), false, at(0)) else { panic!() };
    let asked = AtomicUsize::new(0);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| match cache.lookup(&get("/a"), false, at(0)) {
                    Lookup::Wait(waiter) => {
                        assert!(waiter.wait());
                        assert!(waiter.is_over());
                        let Lookup::Hit(stored) = cache.lookup_again(waiter, &get("/a"), false, at(0)) else {
                            panic!()
                        };
                        assert_eq!(stored.body(), b"text");
                    }
                    // So many may not wait.
                    Lookup::Miss(_) => {
                        asked.fetch_add(1, Ordering::SeqCst);
                    }
                    other => panic!("{other:?}"),
                })
            })
            .collect();
        while cache.contents.flights.waiters.load(Ordering::SeqCst) < 3 || asked.load(Ordering::SeqCst) < 3 {
            thread::yield_now();
        }
        recorder.start(&response("200 OK", &[FRESH]), at(0));
        recorder.write(b"text");
        recorder.finish(at(0));
        for thread in threads {
            thread.join().unwrap();
        }
    });
    assert_eq!(cache.contents.flights.waiters.load(Ordering::SeqCst), 0);
    assert!(lock(&cache.contents.flights.by_key).is_empty());
}

#[test]
fn who_cannot_wait_is_told() {
    let cache = cache();
    let Lookup::Miss(recorder) = cache.lookup(&get("/a"), false, at(0)) else { panic!() };
    let Lookup::Wait(waiter) = cache.lookup(&get("/a"), false, at(0)) else { panic!() };
    let told = Arc::new(AtomicUsize::new(0));
    let tell = || {
        let told = Arc::clone(&told);
        move || {
            told.fetch_add(1, Ordering::SeqCst);
        }
    };
    waiter.then(tell());
    assert_eq!((told.load(Ordering::SeqCst), waiter.is_over()), (0, false));
    drop(recorder);
    assert_eq!((told.load(Ordering::SeqCst), waiter.is_over()), (1, true));
    waiter.then(tell());
    assert_eq!(told.load(Ordering::SeqCst), 2);
}

#[test]
fn who_waited_for_nothing_asks_and_later_ones_do_not_wait() {
    let cache = cache();
    let Lookup::Miss(mut recorder) = cache.lookup(&get("/a"), false, at(0)) else { panic!() };
    let Lookup::Wait(waiter) = cache.lookup(&get("/a"), false, at(0)) else { panic!() };
    let Lookup::Miss(impatient) = cache.lookup_again(waiter, &get("/a"), false, at(0)) else { panic!() };
    drop(impatient);
    let Lookup::Wait(waiter) = cache.lookup(&get("/a"), false, at(0)) else { panic!() };
    recorder.start(&response("200 OK", &[]), at(0));
    // What cannot be stored is nothing to wait for, even before its end.
    assert!(waiter.wait());
    drop(recorder);
    let Lookup::Miss(_first) = cache.lookup_again(waiter, &get("/a"), false, at(0)) else { panic!() };
    let Lookup::Miss(second) = cache.lookup(&get("/a"), false, at(5)) else { panic!() };
    assert!(!second.replaces_conditions(), "the client's conditions are for the application to evaluate");
    let Lookup::Miss(_first) = cache.lookup(&get("/a"), false, at(11)) else { panic!() };
    assert!(matches!(cache.lookup(&get("/a"), false, at(11)), Lookup::Wait(_)));
}

#[test]
fn variants_are_stored_beside_each_other() {
    let cache = cache();
    let accepts = |value| request("GET", "/a", &[("Accept-Encoding", value)]);
    let fields = [FRESH, ("Vary", "accept-encoding")];
    ask(&cache, &accepts("gzip, br"), 0, &fields, "gzip");
    ask(&cache, &accepts("identity"), 0, &fields, "plain");
    for (head, body) in [(accepts("gzip,br"), "gzip"), (accepts("identity"), "plain")] {
        let Lookup::Hit(stored) = cache.lookup(&head, false, at(1)) else { panic!() };
        assert_eq!(stored.body(), body.as_bytes());
    }
    assert!(matches!(cache.lookup(&get("/a"), false, at(1)), Lookup::Miss(_)));
}

#[test]
fn changes_make_responses_out_of_date_in_all_processes() {
    // So many groups that no two of these keys share one.
    let epochs: Cells = Arc::new((0..1 << 18).map(|_| AtomicU64::new(0)).collect::<Vec<_>>());
    let epochs = Epochs::shared(epochs);
    let copy = || Cache::new(&plan(), 3, Arc::new(Memory::new(100_000)), epochs.clone());
    let caches = [copy(), copy()];
    let change = |status: &str, fields: &[(&str, &str)]| {
        for cache in &caches {
            for target in ["/a", "/b", "/c", "/d"] {
                ask(cache, &get(target), 0, &[FRESH], "text");
            }
        }
        let Lookup::Miss(mut recorder) = caches[0].lookup(&request("POST", "/a", &[]), false, at(0)) else {
            panic!()
        };
        let Begin::Pass(head) = recorder.start(&response(status, fields), at(0)) else { panic!() };
        assert_eq!(head.field("cache-status"), Some(&b"anygate; fwd=method"[..]));
        recorder.finish(at(0));
        let has = |cache: &Arc<Cache>, target: &&str| {
            matches!(cache.lookup(&get(target), false, at(0)), Lookup::Hit(_))
        };
        let left = |cache| {
            ["/a", "/b", "/c", "/d"].into_iter().filter(|target| has(cache, target)).collect::<String>()
        };
        assert_eq!(left(&caches[0]), left(&caches[1]));
        left(&caches[0])
    };
    assert_eq!(change("500 Error", &[]), "/a/b/c/d");
    assert_eq!(change("200 OK", &[]), "/b/c/d");
    let named = [("Location", "/b#x"), ("Content-Location", "http://EXAMPLE.org/c")];
    assert_eq!(change("303 See Other", &named), "/d");
    let foreign = [("Location", "//example.org/b"), ("Content-Location", "http://example.org.evil/c")];
    assert_eq!(change("201 Created", &foreign), "/b/c/d");
    // A response that was asked for before the change is not stored after it.
    let Lookup::Miss(mut recorder) = caches[1].lookup(&get("/e"), false, at(0)) else { panic!() };
    recorder.start(&response("200 OK", &[FRESH]), at(0));
    caches[0].purge(false, b"example.org", b"/e");
    recorder.finish(at(0));
    assert!(matches!(caches[1].lookup(&get("/e"), false, at(0)), Lookup::Miss(_)));
}

#[test]
fn responses_are_purged_by_uri_and_prefix() {
    let cache = cache();
    let fill = || ["/a", "/a/b", "/c"].map(|target| ask(&cache, &get(target), 0, &[FRESH], "text"));
    let left = || {
        let is_there = |target: &&str| {
            cache.contents.store.load(&request_key(&get(target), false), &get(target), at(0)).is_some()
        };
        ["/a", "/a/b", "/c"].into_iter().filter(is_there).collect::<String>()
    };
    fill();
    cache.purge(false, b"EXAMPLE.org", b"/a");
    assert_eq!(left(), "/a/b/c");
    fill();
    cache.purge_prefix(false, b"example.org", b"/a");
    assert_eq!(left(), "/c");
    fill();
    cache.purge_all();
    assert_eq!(left(), "");
    fill();
    assert!(!ask(&cache, &get("/a"), 0, &[], "").0);
}

#[test]
fn memory_is_bounded_and_the_least_used_goes() {
    let store = Arc::new(Memory::new(6000));
    let cache = Cache::new(&plan(), 3, Arc::clone(&store) as Arc<dyn Store>, Epochs::local());
    let body = "x".repeat(100);
    for number in 0..500 {
        ask(&cache, &get("/often"), 0, &[FRESH], &body);
        ask(&cache, &get(&format!("/{number}")), 0, &[FRESH], &body);
        assert!(store.bytes() <= 6000);
    }
    assert!(!ask(&cache, &get("/often"), 0, &[], "").0);
    assert!(ask(&cache, &get("/1"), 0, &[], "").0);
    assert!(!ask(&cache, &get("/499"), 0, &[], "").0);
    for number in 0..100 {
        let head = request("GET", "/vary", &[("X", &number.to_string())]);
        ask(&cache, &head, 0, &[FRESH, ("Vary", "X")], "");
        assert!(store.bytes() <= 6000);
    }
    // What is of no use any more goes when it is looked for.
    let all = [get("/often"), get("/499")];
    assert!(all.iter().all(|head| store.load(&request_key(head, false), head, at(100_000)).is_none()));
    cache.purge_all();
    assert_eq!(store.bytes(), 0);
}

#[test]
fn targets_in_any_form_are_one_key() {
    let key = |head: &RequestHead| String::from_utf8(request_key(head, false).to_vec()).unwrap();
    assert_eq!(key(&get("/a?b")), "http://example.org/a?b");
    assert_eq!(key(&seen("http://whatever/a?b", "", "/a", "b")), "http://example.org/a?b");
    assert_eq!(key(&get("/a%20b?c%20d")), "http://example.org/a%20b?c%20d");
}

/// A request for `target`, of which the application sees other parts.
fn seen(target: &str, script_name: &str, path: &str, query: &str) -> RequestHead {
    let mut head = get(target);
    let span = head.push_text(script_name.as_bytes()).unwrap();
    head.set_script_name(span);
    let span = head.push_text(path.as_bytes()).unwrap();
    head.set_path(span);
    let span = head.push_text(query.as_bytes()).unwrap();
    head.set_query(span);
    head
}

#[test]
fn what_the_application_sees_is_in_the_key() {
    let key = |head: &RequestHead| String::from_utf8(request_key(head, false).to_vec()).unwrap();
    // Mounted, the target has all of it.
    assert_eq!(key(&seen("/app/a?b", "/app", "/a", "b")), "http://example.org/app/a?b");
    // A client may write any path into a query that begins at once; the path is another.
    let forged = [
        seen("http://example.org?x=/victim", "", "/", "x=/victim"),
        seen("http://example.org?/victim", "", "/", "/victim"),
        seen("/victim", "", "/", ""),
        seen("/victim", "", "/victim", "x"),
        seen("/victim", "/v", "/ictim", "x"),
        seen("*", "", "*", ""),
        seen("", "", "/victim", ""),
    ];
    let victim = key(&get("/victim"));
    assert_eq!(victim, "http://example.org/victim");
    let mut keys: Vec<_> = forged.iter().map(key).collect();
    assert!(keys.iter().all(|key| *key != victim && key.contains('\0')), "{keys:?}");
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), forged.len());
}

#[test]
fn mount_points_that_a_proxy_took_off_do_not_share_responses() {
    let key = |head: &RequestHead| String::from_utf8(request_key(head, false).to_vec()).unwrap();
    let below = |prefix: &str, path: &str| {
        let mut head = seen(path, prefix, path, "");
        let span = head.push_text(prefix.as_bytes()).unwrap();
        head.set_prefix(span);
        head
    };
    assert_eq!(key(&below("", "/about")), "http://example.org/about");
    assert_eq!(key(&below("/a", "/about")), "http://example.org/a/about\0/a");
    assert_ne!(key(&below("/a", "/about")), key(&below("", "/a/about")));
    assert_ne!(key(&below("/a", "/b/c")), key(&below("/a/b", "/c")));
}

fn entry(fields: &[(String, String)], body: &[u8], vary: Option<&str>) -> Option<Entry> {
    let mut head = response("200 Fine", &[FRESH, ("ETag", "\"a\""), ("Age", "7"), ("Vary", "X, Y")]);
    for (name, value) in fields {
        head.push_field(name.as_bytes(), value.as_bytes()).ok()?;
    }
    let asked: Vec<_> = vary.map(|value| ("x", value)).into_iter().collect();
    let mut entry = Entry::new(&request("GET", "/", &asked), &head, Terms::default(), at(0), at(1))?;
    entry.push(body);
    Some(entry)
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded(
        fields in proptest::collection::vec(("[a-z]{1,8}", "[ -~]{0,20}"), 0..8),
        body: Vec<u8>,
        vary in proptest::option::of("[a-z]{0,5}"),
    ) {
        let Some(entry) = entry(&fields, &body, vary.as_deref()) else { return Ok(()) };
        let bytes = entry.encode();
        let decoded = Entry::decode(&bytes).unwrap();
        prop_assert_eq!(decoded.encode(), &bytes[..]);
        prop_assert_eq!(decoded.freshness(at(20)), entry.freshness(at(20)));
        prop_assert_eq!(decoded.directives(), entry.directives());
        let asked: Vec<_> = vary.iter().map(|value| ("x", value.as_str())).collect();
        prop_assert!(decoded.fits(&request("GET", "/", &asked)));
        for length in 0..bytes.len() {
            if let Some(part) = Entry::decode(&bytes[..length]) {
                // Only the list at the end can be cut without notice, and a store keeps values whole.
                prop_assert!(part.body() == body);
            }
        }
    }

    /// Whatever both sides say, a response from the cache is one that may be given.
    #[test]
    fn what_is_given_may_be_given(
        says in proptest::collection::vec(
            (proptest::sample::select(&[
                "no-store", "no-cache", "private", "public", "must-revalidate", "proxy-revalidate", "max-age",
                "s-maxage", "stale-while-revalidate", "stale-if-error", "x",
            ][..]), 0u64..100),
            0..5,
        ),
        wants in proptest::collection::vec(
            (proptest::sample::select(&["no-cache", "max-age", "max-stale", "min-fresh", "x"][..]), 0u64..100),
            0..3,
        ),
        delay in 0u64..200,
        cookie: bool,
        sets_cookie: bool,
        validator: bool,
    ) {
        let list = |items: &[(&str, u64)]| {
            items.iter().map(|(name, number)| format!("{name}={number}")).collect::<Vec<_>>().join(", ")
        };
        let (said, wanted) = (list(&says), list(&wants));
        let mut fields = vec![("Cache-Control", said.as_str())];
        if sets_cookie {
            fields.push(("Set-Cookie", "a=b"));
        }
        if validator {
            fields.push(("ETag", "\"a\""));
        }
        let mut asked = vec![("Cache-Control", wanted.as_str())];
        if cookie {
            asked.push(("Cookie", "a=b"));
        }
        let cache = cache();
        ask(&cache, &get("/minute/a"), 0, &fields, "text");
        let Lookup::Hit(mut stored) = cache.lookup(&request("GET", "/minute/a", &asked), false, at(delay)) else {
            return Ok(());
        };
        let says_so = |name: &str| says.iter().any(|(other, _)| *other == name);
        let least = |items: &[(&str, u64)], name: &str| {
            items.iter().filter(|(other, _)| *other == name).map(|(_, number)| *number).min()
        };
        prop_assert!(!sets_cookie && !says_so("no-store") && !says_so("private") && !says_so("no-cache"));
        let explicit = least(&says, "s-maxage").or(least(&says, "max-age"));
        prop_assert!(explicit.is_some() || !cookie);
        let lifetime = explicit.unwrap_or(60);
        let stale = delay.saturating_sub(lifetime);
        let is_fresh = delay < lifetime;
        let validates = says_so("must-revalidate") || says_so("proxy-revalidate");
        if !is_fresh {
            let by_client = least(&wants, "max-stale").is_some_and(|max| stale <= max) && !says_so("s-maxage");
            let by_site = least(&says, "stale-while-revalidate").is_some_and(|max| stale <= max);
            prop_assert!(!validates && (by_client || by_site), "{said} / {wanted} / {delay}");
            prop_assert!(by_client || stored.take_refresh().is_some());
        }
        let wants_so = |name: &str| wants.iter().any(|(other, _)| *other == name);
        prop_assert!(!wants_so("no-cache"));
        prop_assert!(least(&wants, "max-age").is_none_or(|max| delay <= max && max > 0));
        let most_fresh = wants.iter().filter(|(name, _)| *name == "min-fresh").map(|(_, number)| *number).max();
        prop_assert!(most_fresh.is_none_or(|min| lifetime.saturating_sub(delay) >= min));
    }

    #[test]
    fn any_bytes_are_decoded_or_not(bytes: Vec<u8>) {
        let _ = Entry::decode(&bytes);
        let _ = Entry::decode(&[&[1][..], &bytes].concat());
    }
}

#[test]
fn an_unusual_spelling_of_the_host_is_given_what_is_stored_and_stores_nothing() {
    let cache = cache();
    let fields = [("Cache-Control", "max-age=60")];
    let usual = get("/a");
    let unusual = of_host("EXAMPLE.org", get("/a"));
    assert!(ask(&cache, &unusual, 0, &fields, "for EXAMPLE").0);
    assert!(ask(&cache, &usual, 0, &fields, "for example").0, "nothing was stored, and no request waits");
    for head in [&usual, &unusual] {
        let Lookup::Hit(stored) = cache.lookup(head, false, at(1)) else { panic!("stored for both") };
        assert_eq!(stored.body(), b"for example");
    }
    // When it is stale it is not refreshed by the response to the unusual one.
    assert!(ask(&cache, &unusual, 100, &fields, "for EXAMPLE").0);
    assert!(ask(&cache, &usual, 100, &fields, "for example").0);
}

#[test]
fn what_never_ends_holds_nobody_back() {
    let cache = cache();
    for kind in
        ["text/event-stream", "Text/Event-Stream; charset=utf-8", "multipart/x-mixed-replace; boundary=a"]
    {
        let head = get("/minute/events");
        let Lookup::Miss(mut first) = cache.lookup(&head, false, at(0)) else { panic!("nothing is stored") };
        first.start(&response("200 OK", &[("Content-Type", kind)]), at(0));
        first.write(b"data: 0");
        assert!(matches!(cache.lookup(&head, false, at(0)), Lookup::Miss(_)), "{kind}");
        first.finish(at(1));
        assert!(matches!(cache.lookup(&head, false, at(1)), Lookup::Miss(_)), "{kind}");
    }
}

#[test]
fn a_field_for_caches_in_front_counts_for_this_one() {
    let cache = cache();
    let fields = [("Cache-Control", "no-store"), ("CDN-Cache-Control", "max-age=60"), ("Expires", "0")];
    assert!(ask(&cache, &get("/a"), 0, &fields, "a").0);
    assert!(!ask(&cache, &get("/a"), 59, &fields, "a").0);
    assert!(ask(&cache, &get("/a"), 61, &fields, "a").0);
    let fields = [("Cache-Control", "max-age=60"), ("CDN-Cache-Control", "no-store")];
    assert!(ask(&cache, &get("/b"), 0, &fields, "b").0);
    assert!(ask(&cache, &get("/b"), 1, &fields, "b").0);
}
