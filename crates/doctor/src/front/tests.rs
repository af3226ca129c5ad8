//! Files as people have them. The files of deploy/, in which there is nothing to find, are in tests/gateway/test_front_findings.py.

use std::path::Path;

use anygate_config::{Origin, Plan, Settings};
use serde_json::{Value, json};

use super::*;

/// What anygate was given, beside an application.
fn site(given: &[(&str, Value)], has_websockets: bool) -> Site {
    let mut settings = Settings::default();
    for (name, value) in given {
        settings.set_json(name, value, Origin::CommandLine).unwrap();
    }
    Site::new(&Plan::check(&settings, Path::new("/")).unwrap(), has_websockets)
}

/// The places of findings, as `line directive`.
fn places(text: &str, site: &Site) -> Vec<String> {
    let source = Source { text, shown: "site.conf", path: Path::new("/none/site.conf") };
    let found = server_of(text).expect("a server")(&source, site);
    found.iter().map(|one| format!("{} {}", one.line.unwrap_or_default(), one.topic)).collect()
}

fn problems(text: &str, site: &Site) -> String {
    let source = Source { text, shown: "site.conf", path: Path::new("/none/site.conf") };
    let found = server_of(text).expect("a server")(&source, site);
    found.into_iter().map(|one| format!("{} [{}]\n", one.problem, one.cure)).collect()
}

const NGINX: &str = r#"
user www-data;
upstream app { server unix:/run/app.sock fail_timeout=0; }
server {
    listen 80;
    underscores_in_headers on;
    location / {
        proxy_pass http://app/;
    }
    location /api {
        proxy_http_version 1.1;
        proxy_set_header Host $proxy_host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_read_timeout 10;
        proxy_ignore_headers X-Accel-Buffering Expires;
        client_max_body_size 8m;
        proxy_pass http://app;
    }
    location /old { uwsgi_pass 127.0.0.1:4000; }
}
"#;

#[test]
fn nginx() {
    let plain = site(&[("body_max_bytes", json!("1M"))], false);
    assert_eq!(
        places(NGINX, &plain),
        [
            "6 underscores_in_headers",
            "8 proxy_pass",
            "3 upstream",
            "8 proxy_pass",
            "8 proxy_pass",
            "8 proxy_pass",
            "15 proxy_ignore_headers",
            "3 upstream",
            "12 proxy_set_header",
            "13 proxy_set_header",
            "19 uwsgi_pass",
        ]
    );
    let given = [
        ("bind", json!(["unix:/run/app.sock", "scgi://127.0.0.1:4000"])),
        ("trusted_proxies", json!(["unix", "10.0.0.0/8"])),
        ("request_timeout", json!("30s")),
        ("stream_paths", json!(["/events"])),
    ];
    let found = problems(NGINX, &site(&given, true));
    for (problem, cure) in [
        ("nginx refuses bodies above 1 MiB (413); anygate takes 1.0 GiB", "client_max_body_size 1024m;"),
        ("nginx gives up after 10 s, and requests may take 30 s", "proxy_read_timeout 35s;"),
        ("adds to the X-Forwarded-For of clients", "proxy_set_header X-Forwarded-For $remote_addr;"),
        (
            "passes on what clients themselves say in X-Forwarded-For, X-Forwarded-Proto",
            "proxy_set_header X-Forwarded-Proto $scheme;",
        ),
        ("speaks uwsgi to an address where anygate speaks scgi", "--bind uwsgi://127.0.0.1:4000"),
        ("nginx buffers responses, and stream_paths are set", "proxy_buffering off;"),
        ("WebSockets of the application get no Upgrade", "proxy_set_header Upgrade $http_upgrade;"),
    ] {
        let is_found = found.lines().any(|line| line.contains(problem) && line.contains(cure));
        assert!(is_found, "{problem}\n{found}");
    }
    // Requests for others are not ours to judge.
    let elsewhere = site(&[("bind", json!(["127.0.0.1:9"]))], false);
    assert_eq!(places(NGINX, &elsewhere), ["6 underscores_in_headers"]);
}

const LIGHTTPD: &str = r#"
server.modules += ( "mod_proxy" )
server.max-request-size = 1024  # KiB
$HTTP["host"] == "example.org" {
    proxy.server = ( "" => ( ( "host" => "127.0.0.1", "port" => 8000, "read-timeout" => 10 ) ) )
}
scgi.protocol = "uwsgi"
scgi.server = ( "/app" =>
    (( "host" => "127.0.0.1",
       "port" => 4000 ))
)
"#;

#[test]
fn lighttpd() {
    assert_eq!(
        places(LIGHTTPD, &site(&[], false)),
        ["5 proxy.server", "8 scgi.server", "5 proxy.server", "3 server.max-request-size"]
    );
    let given = [
        ("bind", json!(["127.0.0.1:8000", "scgi://127.0.0.1:4000"])),
        ("trusted_proxies", json!(["127.0.0.1"])),
        ("request_timeout", json!("1m")),
    ];
    let found = problems(LIGHTTPD, &site(&given, true));
    for problem in [
        "lighttpd gives up after 10 s, and requests may take 60 s",
        "passes on what clients themselves say in X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host",
        "get no Upgrade [proxy.header",
        "speaks uwsgi to an address where anygate speaks scgi",
        "responds with 404 [\"check-local\" => \"disable\"]",
        "a response that breaks off looks complete [server.stream-response-body = 1]",
        "bodies above 1 MiB",
    ] {
        assert!(found.contains(problem), "{problem}\n{found}");
    }
}

const APACHE: &str = r#"
LoadModule proxy_module modules/mod_proxy.so
AllowEncodedSlashes On
<VirtualHost *:80>
    SetEnv force-proxy-request-1.0 1
    LimitRequestBody 1048576
    ProxyTimeout 20
    <Location "/">
        ProxyPass "http://127.0.0.1:8000/" \
            disablereuse=on
    </Location>
</VirtualHost>
"#;

#[test]
fn apache() {
    let given = [("request_timeout", json!("30s"))];
    assert_eq!(
        places(APACHE, &site(&given, true)),
        [
            "9 ProxyPass",
            "9 ProxyPass",
            "6 LimitRequestBody",
            "3 AllowEncodedSlashes",
            "9 ProxyPass",
            "9 ProxyPass",
            "5 SetEnv",
            "9 ProxyPass",
        ]
    );
    let given = [("bind", json!(["fastcgi://127.0.0.1:8000"])), ("trusted_proxies", json!(["127.0.0.1"]))];
    let found = problems(APACHE, &site(&given, false));
    for problem in [
        "speaks http to an address where anygate speaks fastcgi",
        "[ProxyPreserveHost On]",
        "RequestHeader unset X-Forwarded-For early RequestHeader set X-Forwarded-Proto http",
    ] {
        assert!(found.contains(problem), "{problem}\n{found}");
    }
}

const HAPROXY: &str = "
defaults
    mode http
    timeout server 20s
frontend web
    bind :80
    option httpclose
    default_backend app
backend app
    server a 127.0.0.1:8000 send-proxy
backend plain
    server a 127.0.0.1:8001 check # comment
listen raw
    mode tcp
    server a 127.0.0.1:8002
";

#[test]
fn haproxy() {
    let given = [("trusted_proxies", json!(["127.0.0.1"])), ("request_timeout", json!("1m"))];
    let found = places(HAPROXY, &site(&given, false));
    assert_eq!(
        found,
        [
            "10 server",
            "7 option",
            "4 timeout",
            "7 option",
            "12 server",
            "12 server",
            "4 timeout",
            "15 server",
            "4 timeout",
        ]
    );
    let proxied = site(&[("proxy_protocol", json!(true)), ("trusted_proxies", json!(["127.0.0.1"]))], true);
    let found = problems(HAPROXY, &proxied);
    for problem in ["sends no PROXY protocol, which anygate expects", "[timeout tunnel 1h]"] {
        assert!(found.contains(problem), "{problem}\n{found}");
    }
}

const CADDY: &str = "
example.org {
    request_body {
        max_size 10MB
    }
    reverse_proxy /api/* 127.0.0.1:8000 unix//run/app.sock {
        header_up Host {upstream_hostport}
        transport http {
            keepalive off
            read_timeout 5s
        }
    }
}
";

#[test]
fn caddy() {
    let given = [("request_timeout", json!("1m")), ("stream_paths", json!(["/events"]))];
    assert_eq!(
        places(CADDY, &site(&given, false)),
        ["10 read_timeout", "9 keepalive", "6 reverse_proxy", "7 header_up", "6 reverse_proxy", "4 max_size"]
    );
    let given = [("bind", json!(["scgi://127.0.0.1:8000"])), ("trusted_proxies", json!(["127.0.0.1"]))];
    let found = problems(CADDY, &site(&given, false));
    for problem in [
        "speaks http to an address where anygate speaks scgi",
        "[header_up -X-Forwarded-Port; header_up -X-Forwarded-Prefix;]",
    ] {
        assert!(found.contains(problem), "{problem}\n{found}");
    }
}

#[test]
fn other_files_are_refused() {
    for text in ["", "[uwsgi]\nsocket = /run/app.sock\n", "app = \"myapp:app\"\n"] {
        assert!(server_of(text).is_none(), "{text}");
    }
}

/// What breaks off in the middle is read to its end.
#[test]
fn readers_take_any_beginning_of_a_file() {
    let plain = site(&[], false);
    for text in [NGINX, LIGHTTPD, APACHE, HAPROXY, CADDY] {
        for end in 0..text.len() {
            let Some(part) = text.get(..end) else { continue };
            let source = Source { text: part, shown: "a", path: Path::new("/none/a") };
            for check in [nginx::check, lighttpd::check, apache::check, haproxy::check, caddy::check] {
                check(&source, &plain);
            }
        }
    }
}
