//! Caddy: a directive a line, with what belongs to it in braces. Caddy sets X-Forwarded-For, -Proto and -Host itself, and drops
//! those of clients; it streams events at once, and speaks HTTP/1.1 with connections that are kept.

use anygate_config::Protocol;

use super::directive::{Directive, Source, Token, bytes, milliseconds, tokens, tree};
use super::site::Site;
use crate::finding::Finding;

pub(super) fn check(source: &Source<'_>, site: &Site) -> Vec<Finding> {
    let mut root = Directive::new("", Vec::new(), source.shown, 1);
    root.inside = tree(&tokens(source.text, false), &Token::Line, source.shown);
    let mut found = Vec::new();
    let mut first = None;
    let mut sizes = Vec::new();
    root.visit(&mut |around, one| {
        if one.name == "max_size" && around.last().is_some_and(|block| block.name == "request_body") {
            sizes.push(one);
        }
        if one.name == "reverse_proxy" {
            let addresses = addresses(one);
            if site.is_ours(&addresses) {
                first = first.or(Some(one));
                found.extend(proxy(site, one, &addresses));
            }
        }
    });
    if first.is_some() {
        for one in sizes {
            let cure = format!("max_size {}MiB", site.body_max_bytes.div_ceil(1 << 20));
            found.extend(site.body(bytes(one.word(0)), one, "Caddy", &cure));
        }
    }
    found
}

/// Addresses behind `reverse_proxy`, which may have a matcher first, and in its block.
fn addresses(one: &Directive) -> Vec<String> {
    let inside = one.named("to").flat_map(|one| &one.words);
    let words = one.words.iter().filter(|word| !word.starts_with('@') && *word != "*");
    let is_path = |word: &String| word.starts_with('/') && !word.starts_with("//");
    words.chain(inside).filter(|word| !is_path(word)).map(|word| address(word)).collect()
}

/// Reads `localhost:4000`, `http://localhost:4000`, `h2c://...`, `:4000` and `unix//run/app.sock`.
fn address(word: &str) -> String {
    if let Some(path) = word.strip_prefix("unix/").or_else(|| word.strip_prefix("unix+h2c/")) {
        return format!("unix:{path}");
    }
    let rest = word.split_once("://").map_or(word, |(_, rest)| rest);
    if rest.starts_with(':') { format!("localhost{rest}") } else { rest.to_owned() }
}

fn proxy(site: &Site, one: &Directive, addresses: &[String]) -> Vec<Finding> {
    let transport = one.named("transport").next();
    let protocol = match transport.map(|one| one.word(0)) {
        Some("fastcgi") => Protocol::FastCgi,
        _ if one.words.iter().any(|word| word.starts_with("https://")) => Protocol::Https,
        _ => Protocol::Http,
    };
    let mut found: Vec<Finding> =
        [site.protocol(protocol, addresses, one), site.socket(addresses, None, one)]
            .into_iter()
            .flatten()
            .collect();
    let inside = |name: &'static str| transport.and_then(|transport| transport.named(name).next());
    let patience = inside("read_timeout").or_else(|| inside("response_header_timeout"));
    let time = patience.and_then(|one| milliseconds(one.word(0), 1));
    found.extend(site.timeout(time, patience.unwrap_or(one), "Caddy", |seconds| {
        format!("{} {seconds}s", patience.map_or("read_timeout", |one| &one.name))
    }));
    if let Some(off) = inside("keepalive").filter(|one| one.word(0) == "off") {
        found.push(off.finding("each request opens a connection to anygate", "no keepalive off"));
    }
    if !protocol.is_http() {
        return found;
    }
    found.extend(site.trust(one, addresses));
    let up: Vec<&Directive> = one.named("header_up").collect();
    if let Some(host) = up.iter().find(|one| one.word(0) == "Host" && one.word(1).contains("upstream")) {
        found.push(
            host.finding("the application sees the address of the back end as its host", "no such header_up"),
        );
    }
    let own = ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"];
    let known = |name: &str| {
        own.contains(&name)
            || up.iter().any(|one| one.word(0).trim_start_matches(['-', '+']).eq_ignore_ascii_case(name))
    };
    found.extend(site.passed_on(&known, one, &|name| format!("header_up -{name};")));
    let is_flushed = one.named("flush_interval").any(|one| one.word(0) == "-1");
    if site.has_streams && !is_flushed {
        found.push(one.finding(
            "Caddy buffers responses that are no events, and stream_paths are set",
            "flush_interval -1",
        ));
    }
    found
}
