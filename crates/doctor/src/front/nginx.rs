//! nginx: `name words;` and `name words { ... }`. A directive holds in its block and in those inside, until one of the same
//! name replaces it; `include` stands for the text of other files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anygate_config::Protocol;

use super::directive::{self, Directive, Source, Token, bytes, milliseconds};
use super::site::Site;
use crate::finding::Finding;

/// Most files that are included in each other.
const DEPTH_MAX: usize = 8;
/// What nginx does where nothing is said.
const BODY_BYTES: u64 = 1 << 20;
const TIMEOUT_MILLISECONDS: u64 = 60_000;

/// Directives that pass requests on: their family, and what is spoken.
const PASSES: [(&str, &str, Protocol); 4] = [
    ("proxy_pass", "proxy", Protocol::Http),
    ("scgi_pass", "scgi", Protocol::Scgi),
    ("fastcgi_pass", "fastcgi", Protocol::FastCgi),
    ("uwsgi_pass", "uwsgi", Protocol::Uwsgi),
];

pub(super) fn check(source: &Source<'_>, site: &Site) -> Vec<Finding> {
    let mut root = Directive::new("", Vec::new(), source.shown, 1);
    root.inside = directives(source.text, source.shown, source.path, 0);
    let mut upstreams = HashMap::new();
    let mut user = None;
    root.visit(&mut |_, one| match one.name.as_str() {
        "upstream" => {
            upstreams.insert(one.word(0), one);
        }
        "user" => user = Some(one.word(0)),
        _ => {}
    });
    let mut found = Vec::new();
    root.visit(&mut |around, one| {
        if let Some((_, family, protocol)) = PASSES.iter().find(|(name, ..)| *name == one.name) {
            let target = Target::of(one.word(0), &upstreams);
            if site.is_ours(&target.addresses) {
                let pass = Pass { site, at: one, around, family, target, user };
                found.extend(pass.common(*protocol));
                found.extend(if *family == "proxy" { pass.http() } else { pass.gateway() });
            }
        }
        if one.name == "underscores_in_headers" && one.word(0) == "on" {
            found.push(one.finding(
                "clients can send X_Forwarded_For, which gateways cannot tell from X-Forwarded-For; anygate drops such fields over HTTP",
                "underscores_in_headers off;",
            ));
        }
    });
    found
}

/// The directives of a text, with those of the files that it includes.
fn directives(text: &str, shown: &str, path: &Path, depth: usize) -> Vec<Directive> {
    let read = directive::tree(&directive::tokens(text, true), &Token::End, shown);
    included(read, path.parent().unwrap_or(Path::new("")), depth)
}

fn included(read: Vec<Directive>, folder: &Path, depth: usize) -> Vec<Directive> {
    let mut all = Vec::new();
    for mut one in read {
        if one.name != "include" || depth >= DEPTH_MAX {
            one.inside = included(one.inside, folder, depth);
            all.push(one);
            continue;
        }
        for path in files(&folder.join(one.word(0))) {
            // nginx itself says which file is missing.
            if let Ok(bytes) = std::fs::read(&path) {
                let text = String::from_utf8_lossy(&bytes);
                // Paths in it are relative to the first file, as for nginx.
                let inner = directive::tree(
                    &directive::tokens(&text, true),
                    &Token::End,
                    &path.display().to_string(),
                );
                all.extend(included(inner, folder, depth + 1));
            }
        }
        // So that its presence is known, whether it could be read or not.
        all.push(one);
    }
    all
}

/// The files that a path means, in which the last part may have a `*`.
fn files(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some((start, end)) = name.split_once('*') else { return vec![path.to_owned()] };
    let entries = path.parent().and_then(|folder| folder.read_dir().ok());
    let mut files: Vec<PathBuf> = entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|file| {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
    });
    files.sort();
    files
}

/// Where a request is passed on to.
struct Target<'a> {
    upstream: Option<&'a Directive>,
    addresses: Vec<String>,
    is_tls: bool,
    /// The path behind the address.
    path: Option<String>,
}

impl<'a> Target<'a> {
    fn of(text: &str, upstreams: &HashMap<&str, &'a Directive>) -> Target<'a> {
        let (scheme, rest) =
            text.split_once("://").filter(|(scheme, _)| !scheme.starts_with("unix")).unwrap_or(("", text));
        let (address, path) = match rest.strip_prefix("unix:") {
            // unix:/path/to.sock:/path of the request
            Some(socket) => match socket.split_once(':') {
                Some((socket, path)) => (format!("unix:{socket}"), Some(path.to_owned())),
                None => (rest.to_owned(), None),
            },
            None => match rest.find('/') {
                Some(at) => (rest.get(..at).unwrap_or(rest).to_owned(), rest.get(at..).map(str::to_owned)),
                None => (rest.to_owned(), None),
            },
        };
        let upstream = upstreams.get(address.as_str()).copied();
        let addresses = match upstream {
            Some(upstream) => upstream.named("server").map(|server| server.word(0).to_owned()).collect(),
            None => vec![address],
        };
        Target { upstream, addresses, is_tls: matches!(scheme, "https" | "suwsgi"), path }
    }
}

/// A place where requests are passed on.
struct Pass<'a> {
    site: &'a Site,
    at: &'a Directive,
    around: &'a [&'a Directive],
    family: &'a str,
    target: Target<'a>,
    user: Option<&'a str>,
}

impl<'a> Pass<'a> {
    /// The directives of a name that hold here: those of the innermost block that has one.
    fn holding(&self, name: &str) -> Vec<&'a Directive> {
        let blocks = self.around.iter().rev();
        let found =
            blocks.map(|block| block.inside.iter().filter(|one| one.name == name).collect::<Vec<_>>());
        found.into_iter().find(|all| !all.is_empty()).unwrap_or_default()
    }

    fn first(&self, name: &str) -> Option<&'a Directive> {
        self.holding(name).first().copied()
    }

    /// The value of a directive of this family, such as `proxy_read_timeout`.
    fn own(&self, name: &str) -> Option<&'a Directive> {
        self.first(&format!("{}_{name}", self.family))
    }

    /// What every protocol has.
    fn common(&self, protocol: Protocol) -> Vec<Finding> {
        let (site, at) = (self.site, self.at);
        let protocol =
            if self.target.is_tls && protocol == Protocol::Http { Protocol::Https } else { protocol };
        let body = self.first("client_max_body_size");
        let most = body.map_or(Some(BODY_BYTES), |one| bytes(one.word(0)));
        let patience = self.own("read_timeout");
        let time = patience.map_or(Some(TIMEOUT_MILLISECONDS), |one| milliseconds(one.word(0), 1000));
        let family = self.family;
        let mut found: Vec<Finding> = [
            site.protocol(protocol, &self.target.addresses, at),
            site.body(
                most,
                body.unwrap_or(at),
                "nginx",
                &format!("client_max_body_size {}m;", site.body_max_bytes.div_ceil(1 << 20)),
            ),
            site.timeout(time, patience.unwrap_or(at), "nginx", |seconds| {
                format!("{family}_read_timeout {seconds}s;")
            }),
            site.socket(&self.target.addresses, self.user, at),
        ]
        .into_iter()
        .flatten()
        .collect();
        if let Some(one) = self.own("ignore_headers").filter(|one| one.has("X-Accel-Buffering")) {
            found.push(one.finding(
                "a response cannot say that it is a stream: events reach clients when a buffer is full",
                format!("no X-Accel-Buffering in {family}_ignore_headers"),
            ));
        } else if site.has_streams && self.own("buffering").is_none_or(|one| one.word(0) != "off") {
            found.push(at.finding(
                "nginx buffers responses, and stream_paths are set: what is streamed reaches clients when a buffer is full",
                format!("{family}_buffering off; in a location for these paths, or the field X-Accel-Buffering: no"),
            ));
        }
        found
    }

    fn http(&self) -> Vec<Finding> {
        let (site, at) = (self.site, self.at);
        let mut found = Vec::new();
        let version = self.first("proxy_http_version");
        if version.is_none_or(|one| one.word(0) == "1.0") {
            found.push(version.unwrap_or(at).finding(
                "speaks HTTP/1.0: a connection for each request, no chunks, and no WebSockets",
                "proxy_http_version 1.1;",
            ));
        }
        let fields = self.holding("proxy_set_header");
        let field = |name: &str| fields.iter().copied().find(|one| one.word(0).eq_ignore_ascii_case(name));
        let is_upgraded = field("Upgrade").is_some();
        if let Some(upstream) = self.target.upstream.filter(|one| one.named("keepalive").next().is_none()) {
            found.push(upstream.finding(
                "each request opens a connection to anygate",
                "keepalive 16; and proxy_set_header Connection \"\";",
            ));
        } else if self.target.upstream.is_some() && field("Connection").is_none() {
            found.push(at.finding(
                "nginx closes the connections that keepalive keeps",
                "proxy_set_header Connection \"\";",
            ));
        }
        match field("Host") {
            Some(one) if !one.word(1).contains("$proxy_host") => {}
            other => found.push(other.unwrap_or(at).finding(
                "the application sees the name of the back end as its host: links and redirects lead there",
                "proxy_set_header Host $host;",
            )),
        }
        found.extend(self.forwarded(&field));
        if site.has_websockets && !is_upgraded {
            found.push(at.finding(
                "WebSockets of the application get no Upgrade",
                "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\"; in the location of WebSockets",
            ));
        } else if is_upgraded && field("Connection").is_none() {
            found.push(at.finding(
                "Upgrade is passed on without Connection: WebSockets get 400",
                "proxy_set_header Connection \"upgrade\";",
            ));
        }
        if let Some(path) = &self.target.path
            && field("X-Forwarded-Prefix").is_none_or(|one| one.word(1).is_empty())
        {
            found.push(at.finding(
                format!("the path {path} behind the address makes nginx decode paths and merge their slashes (%2F, //), and the application does not know where it is mounted"),
                "no path behind the address, and anygate --script-name for one that is not at the root; or proxy_set_header X-Forwarded-Prefix",
            ));
        }
        found
    }

    /// Who the client is.
    fn forwarded(&self, field: &dyn Fn(&str) -> Option<&'a Directive>) -> Vec<Finding> {
        let (site, at) = (self.site, self.at);
        let mut found = Vec::new();
        match field("X-Forwarded-For").or_else(|| field("Forwarded")) {
            Some(one) => {
                found.extend(site.trust(one, &self.target.addresses));
                if one.word(1).contains("$proxy_add_x_forwarded_for") || one.word(1).contains("$http_x_forwarded_for") {
                    found.extend(site.appended(one, "proxy_set_header X-Forwarded-For $remote_addr;"));
                }
            }
            None if !site.is_trusting && !site.proxy_protocol => found.push(at.finding(
                "REMOTE_ADDR is the address of nginx for every client",
                "proxy_set_header X-Forwarded-For $remote_addr; and anygate --trusted-proxies with the address of nginx",
            )),
            None => {}
        }
        found.extend(site.passed_on(&|name| field(name).is_some(), at, &|name| {
            let value = match name {
                "X-Forwarded-For" => "$remote_addr",
                "X-Forwarded-Proto" => "$scheme",
                "X-Forwarded-Host" => "$host",
                "X-Forwarded-Port" => "$server_port",
                "Forwarded" => "\"for=$remote_addr;proto=$scheme;host=$host\"",
                _ => "\"\"",
            };
            format!("proxy_set_header {name} {value};")
        }));
        found
    }

    fn gateway(&self) -> Vec<Finding> {
        let (at, family) = (self.at, self.family);
        let mut found = Vec::new();
        let is_included = self.around.iter().any(|block| {
            block.named("include").any(|one| {
                one.word(0).contains(&format!("{family}_params"))
                    || one.word(0).contains(&format!("{family}.conf"))
            })
        });
        let is_given =
            self.holding(&format!("{family}_param")).iter().any(|one| one.word(0) == "REQUEST_METHOD");
        if !is_included && !is_given {
            found.push(at.finding(
                "requests have no variables: anygate refuses them with 400",
                format!("include {family}_params;"),
            ));
        }
        if family == "fastcgi" {
            let is_kept = self.target.upstream.is_some_and(|one| one.named("keepalive").next().is_some());
            if self.own("keep_conn").is_none_or(|one| one.word(0) != "on") || !is_kept {
                found.push(at.finding(
                    "each request opens a connection to anygate",
                    "fastcgi_keep_conn on; and an upstream with keepalive 16;",
                ));
            }
        }
        found
    }
}
