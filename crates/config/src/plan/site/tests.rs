//! What users say of the site, and what a plan makes of it.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::grammar::without_password;
use crate::options::{self, Kind};
use crate::{Origin, PageOrigin, Plan, Settings, Source};

fn checked_in(folder: &Path, options: &[(&str, &[&str])]) -> Result<SitePlan, String> {
    let mut settings = Settings::default();
    for (name, values) in options {
        let option = options::find(name).unwrap();
        if option.kind == Kind::List {
            let items = values.iter().map(|value| (*value).to_owned()).collect();
            settings.set_list(option, items, Origin::Argument);
        } else {
            settings.set_text(option, values[0], Origin::Argument).map_err(|wrong| wrong.to_string())?;
        }
    }
    Plan::check(&settings, folder).map(|plan| plan.site).map_err(|wrong| wrong.to_string())
}

fn checked(options: &[(&str, &[&str])]) -> Result<SitePlan, String> {
    checked_in(Path::new("/"), options)
}

fn plan(name: &str, values: &[&str]) -> SitePlan {
    checked(&[(name, values)]).unwrap()
}

/// Each of these texts is refused alone, with an error that names option and text.
fn refused(name: &str, texts: &[&str]) {
    for text in texts {
        let error = checked(&[(name, &[text])]).expect_err(text);
        assert!(error.starts_with(&format!("{name}: {text:?} ")), "{error}");
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("anygate-site-{name}-{}", std::process::id()));
        std::fs::create_dir_all(path.join("public")).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn without_options_nothing_is_around_the_application() {
    assert!(checked(&[]).unwrap().is_empty());
}

#[test]
fn what_is_switched_off_is_not_there() {
    let site = checked(&[
        ("ready_check_interval", &["1s"]),
        ("cors_methods", &["GET"]),
        ("cors_credentials", &["true"]),
        ("compression_codings", &["gzip"]),
        ("static_index", &["a.html"]),
        ("static_listing", &["true"]),
        ("cache_max_bytes", &["1M"]),
        ("shared_prefix", &["a:"]),
        ("queue_max", &["0"]),
        ("connections_per_client_max", &["0"]),
        ("error_pages", &[""]),
        ("shared", &[""]),
        ("health_path", &[""]),
    ]);
    assert!(site.unwrap().is_empty());
}

#[test]
fn health_and_readiness_have_paths() {
    let health = plan("health_path", &["/health"]).health;
    assert_eq!(health.health_path.as_deref(), Some("/health"));
    assert_eq!((health.ready_path, health.ready_check), (None, None));
    let site = checked(&[("ready_path", &["/ready"]), ("ready_check", &["my_app.health:Db.check"])]);
    let health = site.unwrap().health;
    assert_eq!(health.ready_check.as_deref(), Some("my_app.health:Db.check"));
    assert_eq!(health.ready_check_interval, Duration::from_secs(10));
    assert_eq!(health.ready_check_timeout, Duration::from_secs(5));

    for path in ["health_path", "ready_path"] {
        refused(path, &["health", "//health", "/a//b", "/a/../b", "/.", "/h?x", "/h#x", "/%68"]);
    }
    refused("ready_check", &["check", "a:", ":check", "a:b:c", "a:b()", "a/b:c", "a:1b", "a..b:c"]);
    let same = checked(&[("health_path", &["/x"]), ("ready_path", &["/x"])]);
    assert_eq!(same.unwrap_err(), "ready_path: \"/x\" is also health_path: they must differ");
    let alone = checked(&[("ready_check", &["a:b"]), ("health_path", &["/x"])]);
    assert_eq!(alone.unwrap_err(), "ready_check: needs ready_path, the path that shows its result");
}

#[test]
fn sources_are_networks_and_may_have_a_path() {
    let admitted = |prefix: &str, source: &str| Admitted {
        prefix: prefix.to_owned(),
        source: Source::read(source).unwrap(),
    };
    for (text, expected) in [
        ("10.0.0.0/8", admitted("/", "10.0.0.0/8")),
        ("unix", admitted("/", "unix")),
        ("/admin 192.0.2.7", admitted("/admin", "192.0.2.7/32")),
        ("/admin/  fd00::/8", admitted("/admin/", "fd00::/8")),
        ("/ unix", admitted("/", "unix")),
    ] {
        assert_eq!(plan("allow", &[text]).limits.allow, vec![expected.clone()], "{text}");
        assert_eq!(plan("deny", &[text]).limits.deny, [expected], "{text}");
    }
    for list in ["allow", "deny"] {
        refused(
            list,
            &["", "/admin", "/admin 10.0.0.1/8", "10.0.0.0/33", "localhost", "admin unix", "/a//b unix"],
        );
        refused(list, &["10.0.0.0/8 /admin", "/admin unix unix"]);
    }
}

#[test]
fn rates_are_read() {
    let number = |number| NonZeroU32::new(number).unwrap();
    let rate = |prefix: &str, requests, seconds, burst, by: &str| RatePlan {
        prefix: prefix.to_owned(),
        rate: Rate::new(number(requests), Duration::from_secs(seconds), number(burst)).unwrap(),
        by: if by.is_empty() { ClientBy::Address } else { ClientBy::Field(by.to_owned()) },
    };
    for (text, expected) in [
        ("100/1m", rate("/", 100, 60, 100, "")),
        ("10/1", rate("/", 10, 1, 10, "")),
        ("10/1000ms", rate("/", 10, 1, 10, "")),
        ("/login 5/1m burst 2", rate("/login", 5, 60, 2, "")),
        ("/api 1000/1h by X-Api-Key", rate("/api", 1000, 3600, 1000, "X-Api-Key")),
        (" /api  9/1d  burst 99 by X ", rate("/api", 9, 86400, 99, "X")),
        ("20000/1s", rate("/", 20_000, 1, 20_000, "")),
        ("1/31d", rate("/", 1, 31 * 86400, 1, "")),
    ] {
        assert_eq!(plan("rate_limit", &[text]).limits.rate_limit, [expected], "{text}");
    }
    assert_eq!(plan("rate_limit", &["10/1s", "100/1h"]).limits.rate_limit.len(), 2);
    refused(
        "rate_limit",
        &["", "100", "/login", "100/", "/1m", "100/m", "100/1x", "-1/1m", "+1/1m", "1.5/1m"],
    );
    refused(
        "rate_limit",
        &["5/1m burst", "5/1m by", "5/1m 2", "5/1m by X burst 2", "5/1m by X Y", "5/1m by X:Y"],
    );
    refused("rate_limit", &["0/1m", "5/1m burst 0", "4294967296/1h", "login 5/1m", "/a/./b 5/1m"]);
    for (text, message) in [
        ("5/500ms", "whole seconds"),
        ("5/1.5s", "whole seconds"),
        ("20001/1s", "at most 20000 requests a second"),
        ("40001/2s", "at most 20000 requests a second"),
        ("1/32d", "within 31 days"),
        ("1/1d burst 32", "within 31 days"),
        ("4000000000/366d burst 4294967295", "within 31 days"),
    ] {
        let error = checked(&[("rate_limit", &[text])]).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn clients_have_so_many_requests_at_once() {
    let limits = plan("requests_per_client_max", &["10", "/api 4 by X-Api-Key"]).limits;
    let expected = [
        AtOncePlan { prefix: "/".to_owned(), requests_max: 10, by: ClientBy::Address },
        AtOncePlan {
            prefix: "/api".to_owned(),
            requests_max: 4,
            by: ClientBy::Field("X-Api-Key".to_owned()),
        },
    ];
    assert_eq!(limits.requests_per_client_max, expected);
    refused(
        "requests_per_client_max",
        &["", "/api", "0", "x", "4 by", "4 by a b", "4 X-Api-Key", "/a 4294967296"],
    );
    let twice = checked(&[("requests_per_client_max", &["/a 1", "/a 2 by X"])]);
    assert_eq!(twice.unwrap_err(), "requests_per_client_max: has \"/a\" twice: only one can count");
}

#[test]
fn queues_connections_and_bodies_have_limits() {
    assert_eq!(plan("queue_max", &["7"]).limits.queue_max, Some(7));
    assert_eq!(plan("connections_per_client_max", &["20"]).limits.connections_per_client_max, Some(20));
    let limits = plan("body_limits", &["/upload 4G", "/api 0", "/b 64 kb"]).limits.body_limits;
    assert_eq!(limits, [("/upload".to_owned(), 4 << 30), ("/api".to_owned(), 0), ("/b".to_owned(), 65536)]);
    refused("body_limits", &["", "/api", "4G", "api 1M", "/api x", "/api -1", "/api 2000T", "/a//b 1"]);
    assert!(checked(&[("body_limits", &["/a 1", "/a 2"])]).unwrap_err().contains("\"/a\" twice"));
}

#[test]
fn fields_for_browsers_are_fields() {
    let site = checked(&[
        ("security_headers", &["strict"]),
        ("security_header", &["X-Frame-Options: DENY", "Referrer-Policy:", "X-A:b: c, d "]),
    ]);
    let field = |name: &str, value: Option<&str>| SecurityField {
        name: name.to_owned(),
        value: value.map(str::to_owned),
    };
    let fields = [
        field("X-Frame-Options", Some("DENY")),
        field("Referrer-Policy", None),
        field("X-A", Some("b: c, d")),
    ];
    let expected = SecurityPlan { profile: SecurityProfile::Strict, fields: fields.to_vec() };
    assert_eq!(site.unwrap().security, expected);
    assert_eq!(plan("security_headers", &["default"]).security.profile, SecurityProfile::Default);
    assert_eq!(plan("security_header", &["A: b"]).security.profile, SecurityProfile::Off);
    refused("security_headers", &["on", ""]);
    refused("security_header", &["", "X-A", ": b", "X A: b", "X-A : b", "(a): b", "A: b\r\nC: d", "A: b\0"]);
    refused("security_header", &["Content-Length: 0", "transfer-encoding: chunked", "Connection:"]);
}

#[test]
fn pages_of_other_origins_need_origins() {
    let cors = plan("cors_origins", &["https://example.org"]).cors.unwrap();
    assert_eq!(cors.methods, ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]);
    assert_eq!(cors.headers, CorsHeaders::Named(vec!["Content-Type".to_owned()]));
    assert_eq!((cors.exposed_headers.is_empty(), cors.credentials), (true, false));
    assert_eq!(cors.max_age, Some(Duration::from_secs(600)));
    for good in [
        "*",
        "http://localhost:3000",
        "https://*.example.org:8443",
        "http://[::1]:80",
        "app://x",
        "HTTPS://A",
    ] {
        assert_eq!(
            Some(plan("cors_origins", &[good]).cors.unwrap().origins),
            PageOrigin::read(good).map(|o| vec![o])
        );
    }
    refused(
        "cors_origins",
        &["", "null", "example.org", "https://", "https://a/", "https://*", "https://a:b"],
    );
    refused(
        "cors_origins",
        &["https://a:70000", "https://a:", "https://*.[::1]", "https://a.*.b", "1a://b", "https://é"],
    );
    for list in ["cors_methods", "cors_headers", "cors_exposed_headers"] {
        refused(list, &["", "A B", "A:", "Ä"]);
    }
    let all: &[(&str, &[&str])] =
        &[("cors_origins", &["*"]), ("cors_headers", &["*"]), ("cors_max_age", &["0"])];
    let cors = checked(all).unwrap().cors.unwrap();
    assert_eq!((cors.headers, cors.max_age), (CorsHeaders::Any, None));
    let error = checked(&[all, &[("cors_credentials", &["true"])]].concat()).unwrap_err();
    assert!(error.starts_with("cors_credentials: cannot be combined with the origin *"), "{error}");
    let named: &[(&str, &[&str])] = &[("cors_origins", &["https://a"]), ("cors_credentials", &["true"])];
    assert!(checked(named).unwrap().cors.unwrap().credentials);
}

#[test]
fn compression_is_switched_on() {
    let on: (&str, &[&str]) = ("compression", &["true"]);
    let plan = checked(&[on]).unwrap().compression.unwrap();
    let codings = Coding::ALL.to_vec();
    assert_eq!(
        plan,
        CompressionPlan { codings, types: TypePattern::usual(), min_bytes: 1000, excluded_paths: vec![] }
    );
    let types: &[&str] = &["text/*", "+json", "*/*", "application/x-a"];
    let given = checked(&[on, ("compression_types", types), ("compression_excluded_paths", &["/a"])]);
    let plan = given.unwrap().compression.unwrap();
    assert_eq!(plan.types, types.iter().filter_map(|text| TypePattern::read(text)).collect::<Vec<_>>());
    assert_eq!(plan.types.len(), types.len());
    assert_eq!(plan.excluded_paths, ["/a"]);
    assert!(checked(&[on, ("compression_codings", &[])]).unwrap_err().contains("must name some of"));
    // Also while it is off.
    refused("compression_codings", &["", "deflate", "GZIP"]);
    refused("compression_types", &["", "text", "text/", "/html", "*/html", "+", "a/b c", "te*t/a"]);
    refused("compression_excluded_paths", &["", "a", "/a?b"]);
}

#[test]
fn files_are_in_folders() {
    let folder = Folder::new("files");
    let with = |options: &[(&str, &[&str])]| checked_in(&folder.0, options);
    let mounts = with(&[("static", &["/static=./public", "/=public/"])]).unwrap().static_files;
    let expected = StaticPlan {
        prefix: "/static".to_owned(),
        folder: folder.0.join("public"),
        index: vec!["index.html".to_owned()],
        fallback: None,
        listing: false,
        symlinks: false,
        max_age: Some(Duration::from_secs(60)),
        immutable: vec![],
        fall_through: false,
        types: vec![],
    };
    assert_eq!(mounts, [expected.clone(), StaticPlan { prefix: "/".to_owned(), ..expected }]);
    let plan = with(&[
        ("static", &["/.well-known=public"]),
        ("static_index", &[]),
        ("static_fallback", &["app/index.html"]),
        ("static_max_age", &["0"]),
        ("static_types", &[".Geo=application/geo+json", "txt=text/plain; charset=utf-8"]),
        ("static_immutable", &["assets/*"]),
        ("static_fall_through", &["true"]),
    ]);
    let plan = plan.unwrap().static_files.remove(0);
    assert!(plan.index.is_empty() && plan.fall_through && plan.max_age.is_none());
    assert_eq!(plan.fallback.as_deref(), Some("app/index.html"));
    let types = [("geo", "application/geo+json"), ("txt", "text/plain; charset=utf-8")];
    assert_eq!(plan.types, types.map(|(ending, name)| (ending.to_owned(), name.to_owned())));
    assert_eq!(plan.immutable, ["assets/*"]);

    refused(
        "static",
        &["", "public", "/static", "/static=", "static=public", "/a//b=/", "/.git=/", "/a=/no/such"],
    );
    let twice = with(&[("static", &["/a=public", "/a/=public"])]);
    assert!(twice.unwrap_err().contains("has \"/a\" twice"));
    for name in ["static_index", "static_fallback"] {
        refused(name, &["/index.html", "../a", "a/../b", ".a", "a/", "a//b", "a\\b", "a\0"]);
    }
    refused("static_immutable", &["", "/assets/*"]);
    refused(
        "static_types",
        &["", "geo", "geo=", "=a/b", "geo=json", "geo=a/b; x=\0y", "tar.gz=a/b", "a/b=c/d", "g=a b/c"],
    );
}

#[test]
fn paths_are_cached_or_left_out() {
    let cache = plan("cache", &["/", "/news 1m", "!/account"]).cache.unwrap();
    let path = |prefix: &str, on, lifetime: Option<u64>| CachePath {
        prefix: prefix.to_owned(),
        on,
        lifetime: lifetime.map(Duration::from_secs),
    };
    assert_eq!(
        cache.paths,
        [path("/", true, None), path("/news", true, Some(60)), path("/account", false, None)]
    );
    assert_eq!((cache.max_bytes, cache.entry_max_bytes, cache.obey_clients), (64 << 20, 1 << 20, true));
    let options: &[(&str, &[&str])] =
        &[("cache", &["/"]), ("cache_max_bytes", &["64K"]), ("cache_obey_clients", &["false"])];
    let cache = checked(options).unwrap().cache.unwrap();
    assert_eq!((cache.max_bytes, cache.entry_max_bytes, cache.obey_clients), (65536, 65536, false));
    refused(
        "cache",
        &["", "!", "news", "!news", "/news 0", "/news x", "!/news 1m", "/news 1m 2m", "/a//b", "! /a"],
    );
    assert!(checked(&[("cache", &["/a", "!/a"])]).unwrap_err().contains("\"/a\" twice"));
    assert!(checked(&[("cache", &["!/a"])]).unwrap_err().contains("includes none"));
}

#[test]
fn error_pages_are_ours_or_in_a_folder() {
    let folder = Folder::new("errors");
    let errors = |text: &str| checked_in(&folder.0, &[("error_pages", &[text])]).map(|site| site.errors);
    assert_eq!(errors("on"), Ok(ErrorsPlan { pages: true, folder: None }));
    assert_eq!(errors("public"), Ok(ErrorsPlan { pages: true, folder: Some(folder.0.join("public")) }));
    let error = errors("yes").unwrap_err();
    assert!(error.starts_with("error_pages: \"yes\" must be on or a directory, and "), "{error}");
}

#[test]
fn what_nodes_share_is_of_use_and_keeps_its_password() {
    let rate: (&str, &[&str]) = ("rate_limit", &["1/1s"]);
    for good in [
        "redis://localhost",
        "redis://127.0.0.1:6379/0",
        "rediss://user:p@ss@redis.example.org/",
        "redis://[::1]:6379/2?protocol=resp3",
        "unix:///run/redis.sock?pass=x",
    ] {
        let shared = checked(&[rate, ("shared", &[good])]).unwrap().shared.unwrap();
        let timeout = Duration::from_millis(100);
        assert_eq!(shared, SharedPlan { address: good.to_owned(), prefix: "anygate".to_owned(), timeout });
    }
    assert!(checked(&[("cache", &["/"]), ("shared", &["redis://a"])]).unwrap().shared.is_some());
    let useless = checked(&[("shared", &["redis://:secret@a"])]).unwrap_err();
    assert_eq!(
        useless,
        "shared: is used by rate_limit, cache and cron jobs, and there are none: set one, or remove it"
    );
    for bad in [
        "secret",
        "redis:secret@a",
        "redis://",
        "redis://:secret@",
        "redis://:se/cret@a:x",
        "redis://:secret@a:70000",
        "redis://a/secret",
        "http://:secret@a",
        "unix://run/redis.sock?pass=secret",
        "unix:///?pass=secret",
        "valkey://:secret@a",
    ] {
        let error = checked(&[rate, ("shared", &[bad])]).expect_err(bad);
        assert!(error.contains("must be redis://host:6379/0"), "{error}");
        assert!(bad == "redis://a/secret" || !error.contains("cret"), "{error}");
    }
    assert!(checked(&[("shared_prefix", &["a b"])]).unwrap_err().contains("spaces"));
}

#[test]
fn an_address_is_shown_without_its_password() {
    for (address, shown) in [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://user:p@ss/word@h/0", "redis://***@h/0"),
        ("rediss://h?password=x", "rediss://h?***"),
        ("unix:///run/a@b?pass=x", "unix:///run/a@b?***"),
        ("redis:x@h", "***"),
    ] {
        assert_eq!(without_password(address), shown);
    }
}

#[test]
fn requests_have_identifiers_and_traces() {
    assert!(plan("request_id", &["true"]).request_id);
    assert!(plan("trace_context", &["true"]).trace_context);
}

#[test]
fn metrics_have_a_path_of_their_own() {
    let page = checked(&[("metrics_path", &["/metrics"]), ("metrics_allow", &["10.0.0.0/8", "unix"])])
        .unwrap()
        .metrics;
    let allow = ["10.0.0.0/8", "unix"].map(|source| Source::read(source).unwrap()).to_vec();
    assert_eq!(page, Some(MetricsPagePlan { path: "/metrics".to_owned(), allow }));
    refused("metrics_path", &["metrics", "/a//b", "/m?x"]);
    let alone = checked(&[("metrics_allow", &["unix"])]);
    assert_eq!(alone.unwrap_err(), "metrics_allow: needs metrics_path, the path that they may see");
    let same = checked(&[("ready_path", &["/x"]), ("metrics_path", &["/x"])]);
    assert_eq!(same.unwrap_err(), "metrics_path: \"/x\" is also ready_path: they must differ");
    let wrong = checked(&[("metrics_path", &["/x"]), ("metrics_allow", &["localhost"])]);
    assert_eq!(wrong.unwrap_err(), "metrics_allow: \"localhost\" must be an address, a network or unix");
}
