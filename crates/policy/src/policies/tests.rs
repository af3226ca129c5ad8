//! Requests and responses under all policies.

use std::fs;
use std::io::Read;

use anygate_config::site::{
    Admitted, AtOncePlan, CachePath, CachePlan, Coding, CompressionPlan, CorsHeaders, CorsPlan, ErrorsPlan,
    HealthPlan, MetricsPagePlan, RatePlan, SecurityPlan, SecurityProfile, StaticPlan, TypePattern,
};
use anygate_config::{PageOrigin, SitePlan, Source};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anygate_proto::application::{Endpoints, Failed, Response};
use anygate_proto::head::RequestHead;
use proptest::prelude::*;

use super::*;
use crate::fixtures::{TakenResponse, request, response};
use crate::rate_table::Cells;

fn prepared(plan: &SitePlan) -> Prepared {
    let surroundings =
        Surroundings { processes: 2, waiting_max: 1, body_max_bytes: 1000, proxies: Vec::new() };
    let memory = |count| Ok(Arc::new((0..count).map(|_| AtomicU64::new(0)).collect::<Vec<_>>()) as Cells);
    Prepared::new(plan, surroundings, &memory).unwrap()
}

fn site(plan: &SitePlan) -> Arc<ProcessPolicies> {
    prepared(plan).site(0).unwrap()
}

fn from(address: &str) -> Endpoints {
    Endpoints { remote_addr: address.into(), ..Endpoints::default() }
}

/// What an application does with a response.
type App<'a> = &'a mut dyn FnMut(&RequestHead, &mut dyn Response) -> Result<(), Failed>;

fn says(text: &str) -> impl FnMut(&RequestHead, &mut dyn Response) -> Result<(), Failed> {
    move |_, out| {
        out.start(&response("200 OK", &[("Content-Type", "text/html")]), Some(text.len() as u64)).unwrap();
        out.write(text.as_bytes()).unwrap();
        assert!(out.started());
        Ok(())
    }
}

/// As a worker treats a request, with what a client gets.
fn serve_with_length(
    site: &Arc<ProcessPolicies>,
    mut head: RequestHead,
    length: Option<u64>,
    application: App<'_>,
) -> (TakenResponse, Result<(), Failed>) {
    let endpoints = from("192.0.2.1");
    let mut out = TakenResponse::default();
    let arrival = Arrival {
        head: &mut head,
        endpoints: &endpoints,
        is_trusted: true,
        length,
        reloads: false,
        hidden_client: false,
    };
    let policies = match site.admit(arrival) {
        Admission::Responded(response) => {
            response.send(&head, &mut out).unwrap();
            return (out, Ok(()));
        }
        Admission::Passed(policies) => policies,
    };
    let Some(mut policies) = policies else {
        let result = application(&head, &mut out);
        return (out, result);
    };
    policies.prepare(&mut head);
    let result = match policies.respond(&head, &mut out) {
        Some(result) => result,
        None => {
            let result = application(&head, &mut policies.filter(&head, &mut out));
            policies.finish(&head, result, &mut out)
        }
    };
    (out, result)
}

fn serve(site: &Arc<ProcessPolicies>, head: RequestHead, application: App<'_>) -> TakenResponse {
    let (out, result) = serve_with_length(site, head, None, application);
    assert_eq!(result, Ok(()));
    out
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

fn compression() -> Option<CompressionPlan> {
    Some(CompressionPlan {
        codings: vec![Coding::Gzip],
        types: TypePattern::usual(),
        min_bytes: 10,
        excluded_paths: Vec::new(),
    })
}

fn cache(lifetime: u64) -> Option<CachePlan> {
    let path = CachePath { prefix: "/".to_owned(), on: true, lifetime: Some(Duration::from_secs(lifetime)) };
    Some(CachePlan { paths: vec![path], max_bytes: 1 << 20, entry_max_bytes: 1 << 16, obey_clients: true })
}

#[test]
fn what_is_off_gives_no_policies() {
    let site = site(&SitePlan::default());
    let mut head = request("GET", "/", &[]);
    let arrival = Arrival {
        head: &mut head,
        endpoints: &from("192.0.2.1"),
        is_trusted: true,
        length: Some(1 << 40),
        reloads: false,
        hidden_client: false,
    };
    assert!(matches!(site.admit(arrival), Admission::Passed(None)));
    assert!(!site.may_block());
    assert_eq!(site.body_max_bytes(&head), None);
    let mut plain = response("500 Internal Server Error", &[]);
    assert_eq!(site.dress(&head, true, true, &mut plain, b"plain".to_vec()), b"plain");
    assert_eq!(plain.fields().count(), 0);
}

#[test]
fn health_needs_no_application() {
    let health = HealthPlan {
        health_path: Some("/health".to_owned()),
        ready_path: Some("/ready".to_owned()),
        ..HealthPlan::default()
    };
    let mut plan = SitePlan { health, ..SitePlan::default() };
    plan.limits.queue_max = Some(2);
    let site = site(&plan);
    let ask = |method, path| serve(&site, request(method, path, &[]), &mut says("application"));
    assert_eq!((ask("GET", "/health").status(), ask("HEAD", "/ready").status()), (200, 200));
    assert_eq!(ask("GET", "/ready").body, b"READY");
    assert_eq!(ask("POST", "/health").body, b"application");
    assert_eq!(ask("GET", "/healthy").body, b"application");
    site.vitals().set_queued(2);
    assert_eq!(ask("GET", "/ready").body, b"too many requests are waiting\n");
    assert_eq!(ask("GET", "/").status(), 503);
    site.vitals().set_queued(0);
    site.vitals().well().store(false, Ordering::Relaxed);
    assert_eq!((ask("GET", "/ready").status(), ask("GET", "/health").status()), (503, 200));
    site.vitals().well().store(true, Ordering::Relaxed);
    assert_eq!(ask("GET", "/ready").status(), 200);
    site.vitals().set_draining();
    assert_eq!((ask("GET", "/ready").status(), ask("GET", "/health").status()), (503, 200));
}

#[test]
fn limits_refuse_before_the_application_is_asked() {
    let mut plan = SitePlan { request_id: true, ..SitePlan::default() };
    plan.limits.deny = vec![Admitted::read("/closed 192.0.2.0/24").unwrap()];
    plan.limits.allow = vec![Admitted::read("/unix unix").unwrap()];
    plan.limits.body_limits = vec![("/up".to_owned(), 5)];
    plan.limits.rate_limit = vec![RatePlan::read("/often 2/1h").unwrap()];
    plan.limits.requests_per_client_max = vec![AtOncePlan::read("1").unwrap()];
    let site = site(&plan);
    let refused = |path, length| {
        let mut never = |_: &RequestHead, _: &mut dyn Response| -> Result<(), Failed> { panic!("{path}") };
        serve_with_length(&site, request("POST", path, &[]), length, &mut never).0
    };
    assert_eq!(refused("/closed/a", None).status(), 403);
    assert_eq!(refused("//closed", None).status(), 403);
    assert_eq!(refused("/unix", None).status(), 403);
    assert_eq!(refused("/up/load", Some(6)).status(), 413);
    assert_eq!(site.body_max_bytes(&request("POST", "/up/load", &[])), Some(5));
    assert_eq!(site.body_max_bytes(&request("POST", "/other", &[])), Some(1000));
    for left in ["1", "0"] {
        let passed = serve(&site, request("GET", "/often", &[]), &mut says("yes"));
        assert!(passed.field("ratelimit").unwrap().contains(&format!("r={left}")), "{:?}", passed.head);
        assert!(passed.field("x-request-id").is_some());
    }
    let late = refused("/often", None);
    assert_eq!((late.status(), late.field("retry-after").is_some()), (429, true));
    assert!(late.field("x-request-id").is_some());
    // A request counts until its response has ended.
    let mut inner = 0;
    serve(&site, request("GET", "/", &[]), &mut |_, out| {
        inner = serve(&site, request("GET", "/", &[]), &mut says("yes")).status();
        says("yes")(&RequestHead::default(), out)
    });
    assert_eq!(inner, 429);
    assert_eq!(serve(&site, request("GET", "/", &[]), &mut says("yes")).status(), 200);
}

#[test]
fn a_body_may_turn_out_too_long() {
    let mut plan = SitePlan::default();
    plan.limits.body_limits = vec![("/".to_owned(), 5)];
    let site = site(&plan);
    let admit = |fields, length| {
        let mut head = request("POST", "/", fields);
        let arrival = Arrival {
            head: &mut head,
            endpoints: &from("192.0.2.1"),
            is_trusted: false,
            length,
            reloads: false,
            hidden_client: false,
        };
        match site.admit(arrival) {
            Admission::Passed(policies) => policies,
            Admission::Responded(response) => panic!("{}", response.status()),
        }
    };
    assert!(admit(&[], None).is_none());
    assert!(admit(&[("Content-Length", "5")], Some(5)).is_none());
    let mut policies = admit(&[("Transfer-Encoding", "chunked")], None).unwrap();
    let (asked, mut out) = (request("POST", "/", &[]), TakenResponse::default());
    policies.refuse_body(&asked, &mut out).unwrap();
    assert_eq!(out.status(), 413);
    let mut started = TakenResponse::default();
    assert_eq!(policies.refuse_body(&asked, &mut started), Err(Failed));
}

#[test]
fn responses_get_what_the_site_adds() {
    let security = SecurityPlan { profile: SecurityProfile::Default, fields: Vec::new() };
    let cors = CorsPlan {
        origins: vec![PageOrigin::read("https://a.example").unwrap()],
        methods: vec!["PUT".to_owned()],
        headers: CorsHeaders::Any,
        exposed_headers: Vec::new(),
        credentials: false,
        max_age: None,
    };
    let site = site(&SitePlan { security, cors: Some(cors), ..SitePlan::default() });
    let sent = serve(&site, request("GET", "/", &[("Origin", "https://a.example")]), &mut says("x"));
    assert_eq!(sent.field("x-content-type-options"), Some("nosniff"));
    assert_eq!(sent.field("access-control-allow-origin"), Some("https://a.example"));
    let asks = [("Origin", "https://a.example"), ("Access-Control-Request-Method", "PUT")];
    let preflight = serve(&site, request("OPTIONS", "/", &asks), &mut says("application"));
    assert_eq!((preflight.status(), preflight.body.len()), (204, 0));
    assert_eq!(preflight.field("access-control-allow-methods"), Some("PUT"));
    assert_eq!(
        preflight.head.unwrap().fields().filter(|(name, _)| name.ends_with(b"Allow-Origin")).count(),
        1
    );
}

#[test]
fn a_body_that_is_known_keeps_a_length_when_it_is_compressed() {
    let site = site(&SitePlan { compression: compression(), ..SitePlan::default() });
    let ask = || request("GET", "/", &[("Accept-Encoding", "gzip")]);
    let text = "a text ".repeat(100);
    let sent = serve(&site, ask(), &mut says(&text));
    assert_eq!(sent.field("content-encoding"), Some("gzip"));
    assert_eq!(sent.field("content-length"), Some(sent.body.len().to_string().as_str()));
    assert_eq!(gunzip(&sent.body), text.as_bytes());
    // What is given in pieces with flushes between them goes out in pieces.
    let mut seen = 0;
    let sent = serve(&site, ask(), &mut |_, out| {
        let head = response("200 OK", &[("Content-Type", "text/html"), ("Content-Length", "700")]);
        out.start(&head, None).unwrap();
        out.write(text.get(..350).unwrap().as_bytes()).unwrap();
        assert!(!out.hold_back());
        out.flush().unwrap();
        seen = 1;
        out.write(text.get(350..).unwrap().as_bytes()).unwrap();
        Ok(())
    });
    assert_eq!((seen, sent.field("content-length")), (1, None));
    assert_eq!(gunzip(&sent.body), text.as_bytes());
    // Without a length it is compressed as it comes; images are not.
    for (kind, is_coded) in [("text/plain", true), ("image/png", false)] {
        let sent = serve(&site, ask(), &mut |_, out| {
            out.start(&response("200 OK", &[("Content-Type", kind)]), None).unwrap();
            (0..50).for_each(|_| out.write(b"piece after piece").unwrap());
            Ok(())
        });
        assert_eq!(sent.field("content-encoding").is_some(), is_coded);
        let body = if is_coded { gunzip(&sent.body) } else { sent.body };
        assert_eq!(body, b"piece after piece".repeat(50));
    }
}

#[test]
fn an_application_that_announces_more_than_it_gives_is_passed_on_as_it_is() {
    let site = site(&SitePlan { compression: compression(), ..SitePlan::default() });
    let head = response("200 OK", &[("Content-Type", "text/html"), ("Content-Length", "700")]);
    let sent = serve(&site, request("GET", "/", &[("Accept-Encoding", "gzip")]), &mut |_, out| {
        out.start(&head, None).unwrap();
        out.write(b"too little for what was said").unwrap();
        Ok(())
    });
    assert_eq!(sent.field("content-length"), Some("700"));
    assert_eq!(sent.body, b"too little for what was said");
}

#[test]
fn a_cache_serves_the_second_request() {
    let plan =
        SitePlan { cache: cache(60), compression: compression(), request_id: true, ..SitePlan::default() };
    let site = site(&plan);
    let text = "cached ".repeat(50);
    let ids: Vec<_> = (0..3)
        .map(|turn| {
            let fields = [("Accept-Encoding", if turn == 2 { "gzip" } else { "identity" })];
            let mut calls = 0;
            let sent = serve(&site, request("GET", "/page", &fields), &mut |head, out| {
                calls += 1;
                says(&text)(head, out)
            });
            assert_eq!(calls, i32::from(turn == 0), "{turn}");
            let body = if turn == 2 { gunzip(&sent.body) } else { sent.body.clone() };
            assert_eq!(body, text.as_bytes());
            assert!(sent.field("cache-status").unwrap().contains(if turn == 0 { "stored" } else { "hit" }));
            sent.field("x-request-id").unwrap().to_owned()
        })
        .collect();
    assert!(ids[0] != ids[1] && ids[1] != ids[2]);
}

#[test]
fn a_long_response_of_a_cache_is_compressed_to_its_end() {
    let cache = cache(60).map(|plan| CachePlan { entry_max_bytes: 1 << 20, ..plan });
    let site = site(&SitePlan { cache, compression: compression(), ..SitePlan::default() });
    let text = "a text ".repeat(100_000);
    for _ in 0..2 {
        let asked = request("GET", "/", &[("Accept-Encoding", "gzip")]);
        assert_eq!(gunzip(&serve(&site, asked, &mut says(&text)).body), text.as_bytes());
    }
}

#[test]
fn a_stale_response_is_given_and_refreshed_out_of_sight() {
    let site = site(&SitePlan { cache: cache(0), ..SitePlan::default() });
    let fields = [("Content-Type", "text/html"), ("Cache-Control", "max-age=0, stale-while-revalidate=60")];
    let mut version = 0;
    let mut ask = || {
        let sent = serve(&site, request("GET", "/", &[]), &mut |_, out| {
            version += 1;
            assert!(!out.started());
            out.start(&response("200 OK", &fields), None).unwrap();
            assert!(out.started());
            out.write(format!("version {version}").as_bytes()).unwrap();
            out.flush().unwrap();
            Ok(())
        });
        String::from_utf8(sent.body).unwrap()
    };
    assert_eq!([ask(), ask(), ask()], ["version 1", "version 1", "version 2"]);
}

#[test]
fn a_failed_application_is_covered_by_a_page_or_a_stale_response() {
    let fails = |_: &RequestHead, _: &mut dyn Response| Err(Failed);
    let errors = ErrorsPlan { pages: true, folder: None };
    let plan = SitePlan { errors, compression: compression(), ..SitePlan::default() };
    let pages = site(&plan);
    let page = serve(&pages, request("GET", "/", &[("Accept", "application/json")]), &mut { fails });
    assert_eq!((page.status(), page.field("content-type")), (500, Some("application/problem+json")));
    let ask = || request("GET", "/", &[("Accept-Encoding", "gzip")]);
    let (page, result) = serve_with_length(&pages, ask(), None, &mut |_, out| {
        // The client has seen nothing of this.
        out.start(&response("200 OK", &[("Content-Type", "text/html")]), Some(500)).unwrap();
        out.write(b"half of the response").unwrap();
        Err(Failed)
    });
    assert_eq!((page.status(), result), (500, Ok(())));
    let (cut, result) = serve_with_length(&pages, request("GET", "/", &[]), None, &mut |_, out| {
        out.start(&response("200 OK", &[]), None).unwrap();
        Err(Failed)
    });
    assert_eq!((cut.status(), result), (200, Err(Failed)));
    let (plain, result) =
        serve_with_length(&site(&SitePlan { request_id: true, ..SitePlan::default() }), ask(), None, &mut {
            fails
        });
    assert!(plain.head.is_none() && result.is_err());

    let stale = site(&SitePlan { cache: cache(0), ..SitePlan::default() });
    let fields = [("Cache-Control", "max-age=0, stale-if-error=60")];
    serve(&stale, request("GET", "/", &[]), &mut |_, out| {
        out.start(&response("200 OK", &fields), None).unwrap();
        out.write(b"once good").unwrap();
        Ok(())
    });
    let kept = serve(&stale, request("GET", "/", &[]), &mut { fails });
    assert_eq!((kept.status(), kept.body.as_slice()), (200, b"once good".as_slice()));
    let kept = serve(&stale, request("GET", "/", &[]), &mut |_, out| {
        out.start(&response("503 Service Unavailable", &[]), None).unwrap();
        out.write(b"bad").unwrap();
        Ok(())
    });
    assert_eq!((kept.status(), kept.body.as_slice()), (200, b"once good".as_slice()));
}

#[test]
fn files_are_sent_as_responses_are() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("page.html"), "a page ".repeat(100)).unwrap();
    let mount = StaticPlan {
        prefix: "/static".to_owned(),
        folder: folder.path().to_owned(),
        index: Vec::new(),
        fallback: None,
        listing: false,
        symlinks: false,
        max_age: None,
        immutable: Vec::new(),
        fall_through: false,
        types: Vec::new(),
    };
    let security = SecurityPlan { profile: SecurityProfile::Default, fields: Vec::new() };
    let plan = SitePlan { static_files: vec![mount], security, ..SitePlan::default() };
    let plain = serve(&site(&plan), request("GET", "/static/page.html", &[]), &mut says("application"));
    assert_eq!(plain.body, "a page ".repeat(100).into_bytes());
    let plan = SitePlan { compression: compression(), cache: cache(60), ..plan };
    let site = site(&plan);
    let asked = request("GET", "/static/page.html", &[("Accept-Encoding", "gzip")]);
    let coded = serve(&site, asked, &mut says("application"));
    assert_eq!(gunzip(&coded.body), "a page ".repeat(100).as_bytes());
    assert_eq!(coded.field("x-content-type-options"), Some("nosniff"));
    let missing = serve(&site, request("GET", "/static/other", &[]), &mut says("application"));
    assert_eq!(missing.status(), 404);
    assert_eq!(serve(&site, request("GET", "/other", &[]), &mut says("application")).body, b"application");
}

proptest! {
    /// However an application cuts its response, a client gets the same bytes.
    #[test]
    fn any_cut_of_a_response_is_the_same_response(
        body in proptest::collection::vec(any::<u8>(), 0..2000),
        cuts in proptest::collection::vec((0usize..500, any::<bool>()), 0..8),
        is_announced: bool,
        is_coded: bool,
        is_cached: bool,
    ) {
        let plan = SitePlan {
            compression: compression(),
            cache: if is_cached { cache(60) } else { None },
            ..SitePlan::default()
        };
        let site = site(&plan);
        let encoding = if is_coded { "gzip" } else { "identity" };
        for _ in 0..2 {
            let sent = serve(&site, request("GET", "/", &[("Accept-Encoding", encoding)]), &mut |_, out| {
                let length = is_announced.then_some(body.len() as u64);
                out.start(&response("200 OK", &[("Content-Type", "text/plain")]), length).unwrap();
                let mut rest = body.as_slice();
                for (cut, is_flushed) in &cuts {
                    let (piece, behind) = rest.split_at((*cut).min(rest.len()));
                    out.write(piece).unwrap();
                    rest = behind;
                    if *is_flushed && !out.hold_back() {
                        out.flush().unwrap();
                    }
                }
                out.write(rest).unwrap();
                assert_eq!(out.body_bytes(), body.len() as u64);
                Ok(())
            });
            let is_gzip = sent.field("content-encoding") == Some("gzip");
            let got = if is_gzip { gunzip(&sent.body) } else { sent.body.clone() };
            prop_assert_eq!(&got, &body);
        }
    }
}

#[test]
fn metrics_are_for_clients_on_this_machine_or_those_that_are_named() {
    let ask = |allow: &[&str], (address, hidden): (&str, bool), host: &str| {
        let allow = allow.iter().map(|source| Source::read(source).unwrap()).collect();
        let metrics = Some(MetricsPagePlan { path: "/metrics".to_owned(), allow });
        let plan = SitePlan { metrics, ..SitePlan::default() };
        let site =
            prepared(&plan).with_metrics(Vec::new(), Arc::new(|| "figures\n".to_owned())).site(0).unwrap();
        let mut head = request("GET", "/metrics", &[]);
        let authority = head.push_text(host.as_bytes()).unwrap();
        head.set_authority(authority);
        let arrival = Arrival {
            head: &mut head,
            endpoints: &from(address),
            is_trusted: true,
            length: None,
            reloads: false,
            hidden_client: hidden,
        };
        match site.admit(arrival) {
            Admission::Responded(response) => response.status(),
            Admission::Passed(_) => panic!("the application has no metrics"),
        }
    };
    let (near, far) = (("127.0.0.1", false), ("192.0.2.1", false));
    for (allow, client, host, status) in [
        (&[][..], near, "localhost:8000", 200),
        (&[], near, "evil.example", 403),
        (&[], ("127.0.0.1", true), "localhost", 403),
        (&[], far, "localhost", 403),
        (&["192.0.2.0/24"], far, "site.example", 200),
        (&["192.0.2.0/24"], ("192.0.2.1", true), "site.example", 403),
        (&["192.0.2.0/24"], near, "localhost", 403),
    ] {
        assert_eq!(ask(allow, client, host), status, "{allow:?} {client:?} {host}");
    }
}
