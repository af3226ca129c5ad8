//! lighttpd: `name = value`, `name += ( "key" => value, ... )` and `$HTTP["url"] =~ "..." { ... }`. Lists are read as blocks whose
//! keys are directives.

use anygate_config::Protocol;

use super::directive::{Directive, Source, milliseconds};
use super::site::Site;
use crate::finding::Finding;

/// Lists of back ends.
const LISTS: [(&str, Protocol); 3] = [
    ("proxy.server", Protocol::Http),
    ("scgi.server", Protocol::Scgi),
    ("fastcgi.server", Protocol::FastCgi),
];

pub(super) fn check(source: &Source<'_>, site: &Site) -> Vec<Finding> {
    let mut root = Directive::new("", Vec::new(), source.shown, 1);
    root.inside = read(source);
    let mut all = Vec::new();
    root.visit(&mut |_, one| all.push(one));
    let named = |name: &str| all.iter().copied().filter(|one| one.name == name).collect::<Vec<_>>();
    let last = |name: &str| named(name).last().copied();
    let user = last("server.username").map(|one| one.word(0));
    let is_uwsgi = last("scgi.protocol").is_some_and(|one| one.word(0) == "uwsgi");
    let mut found = Vec::new();
    for (list, protocol) in LISTS {
        let protocol = if is_uwsgi && protocol == Protocol::Scgi { Protocol::Uwsgi } else { protocol };
        for server in named(list) {
            let addresses = addresses(server);
            if !site.is_ours(&addresses) {
                continue;
            }
            found.extend(site.protocol(protocol, &addresses, server));
            found.extend(site.socket(&addresses, user, server));
            let mut settings = Vec::new();
            server.visit(&mut |_, one| settings.push(one));
            let patience = settings.iter().find(|one| one.name == "read-timeout");
            let time = patience.and_then(|one| milliseconds(one.word(0), 1000));
            found.extend(
                site.timeout(time, server, "lighttpd", |seconds| format!("\"read-timeout\" => {seconds}")),
            );
            let checks_files =
                !settings.iter().any(|one| one.name == "check-local" && one.word(0) == "disable");
            if protocol != Protocol::Http && checks_files {
                found.push(server.finding(
                    "lighttpd looks for a file of each path first, and responds with 404",
                    "\"check-local\" => \"disable\"",
                ));
            }
            if protocol == Protocol::Http {
                let replaced = named("setenv.set-request-header");
                let is_set = |name: &str| replaced.iter().any(|list| list.named(name).next().is_some());
                found.extend(http(site, server, &addresses, &is_set));
                let upgrades = |one: &Directive| one.named("upgrade").any(|one| one.word(0) == "enable");
                if site.has_websockets && !named("proxy.header").into_iter().any(upgrades) {
                    found.push(server.finding(
                        "WebSockets of the application get no Upgrade",
                        "proxy.header = ( \"upgrade\" => \"enable\" )",
                    ));
                }
            }
        }
    }
    if let Some(first) = LISTS.iter().find_map(|(list, _)| named(list).first().copied()) {
        let streams = last("server.stream-response-body");
        if streams.is_none_or(|one| one.word(0) == "0") {
            found.push(streams.unwrap_or(first).finding(
                "lighttpd buffers whole responses: events do not reach clients, and a response that breaks off looks complete",
                "server.stream-response-body = 1",
            ));
        }
        let most = last("server.max-request-size");
        let bytes = most.and_then(|one| one.word(0).parse::<u64>().ok()?.checked_mul(1 << 10));
        let cure = format!("server.max-request-size = {}", site.body_max_bytes.div_ceil(1 << 10));
        found.extend(site.body(bytes, most.unwrap_or(first), "lighttpd", &cure));
    }
    for one in named("server.http-parseopts") {
        if let Some(decodes) = one.named("url-path-2f-decode").find(|one| one.word(0) == "enable") {
            found.push(decodes.finding(
                "%2F becomes / before the application sees it",
                "\"url-path-2f-decode\" => \"disable\"",
            ));
        }
    }
    found
}

/// Who the client is, over HTTP. `mod_proxy` adds X-Forwarded-For, -Proto and -Host to what the client sent.
fn http(
    site: &Site,
    server: &Directive,
    addresses: &[String],
    is_set: &dyn Fn(&str) -> bool,
) -> Vec<Finding> {
    let mut found: Vec<Finding> = site.trust(server, addresses).into_iter().collect();
    let cure = |name: &str| format!("setenv.set-request-header += ( \"{name}\" => \"\" )");
    found.extend(site.passed_on(is_set, server, &cure));
    found
}

/// The addresses of all back ends of a list.
fn addresses(server: &Directive) -> Vec<String> {
    let mut addresses = Vec::new();
    let mut seen = |one: &Directive| {
        let value = |name| one.named(name).next().map(|one: &Directive| one.word(0));
        match (value("socket"), value("host"), value("port")) {
            (Some(path), ..) => addresses.push(format!("unix:{path}")),
            (None, Some(host), Some(port)) => addresses.push(format!("{host}:{port}")),
            _ => {}
        }
    };
    seen(server);
    server.visit(&mut |_, one| seen(one));
    addresses
}

/// A word, a string, or a mark.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Mark(char),
}

fn parts(text: &str) -> Vec<(Part, usize)> {
    let mut parts = Vec::new();
    let mut letters = text.chars().peekable();
    let mut line = 1;
    while let Some(letter) = letters.next() {
        match letter {
            '\n' => line += 1,
            '#' => while letters.next_if(|letter| *letter != '\n').is_some() {},
            '"' => {
                let at = line;
                let mut word = String::new();
                while let Some(letter) = letters.next_if(|letter| *letter != '"') {
                    if letter == '\n' {
                        line += 1;
                    }
                    word.push(letter);
                    if letter == '\\' {
                        word.extend(letters.next());
                    }
                }
                letters.next();
                parts.push((Part::Text(word), at));
            }
            '(' | ')' | '{' | '}' | ',' => parts.push((Part::Mark(letter), line)),
            '=' | '+' | '!' | '~' => {
                let mut sign = String::from(letter);
                while let Some(more) = letters.next_if(|letter| matches!(letter, '=' | '~' | '>' | '^' | '$'))
                {
                    sign.push(more);
                }
                parts.push((
                    Part::Mark(if sign == "=>" {
                        '>'
                    } else if sign.ends_with('=') && sign != "==" && sign != "!=" {
                        '='
                    } else {
                        letter
                    }),
                    line,
                ));
            }
            _ if letter.is_whitespace() => {}
            _ => {
                let mut word = String::from(letter);
                while let Some(letter) = letters.next_if(|letter| {
                    letter.is_alphanumeric()
                        || matches!(letter, '.' | '-' | '_' | '$' | '[' | ']' | ':' | '/')
                }) {
                    word.push(letter);
                }
                parts.push((Part::Text(word), line));
            }
        }
    }
    parts
}

/// Makes directives of parts: settings, keys of lists and conditions, with what is inside them. What is no setting of a list (an
/// entry without a key) has no name.
fn read(source: &Source<'_>) -> Vec<Directive> {
    let mut around = vec![Directive::default()];
    let mut last: Option<Directive> = None;
    let keep = |around: &mut Vec<Directive>, last: &mut Option<Directive>| {
        if let (Some(one), Some(level)) = (last.take(), around.last_mut()) {
            level.inside.push(one);
        }
    };
    // Whether the next text is the value of the last name, or joined to it.
    let mut has_sign = false;
    let mut is_joined = false;
    for (part, line) in parts(source.text) {
        match part {
            Part::Text(text) => match &mut last {
                Some(one) if has_sign && (one.words.is_empty() || is_joined) => {
                    // "a" + "b" is one value; a variable in it is not known here.
                    match one.words.last_mut() {
                        Some(word) => word.push_str(&text),
                        None => one.words.push(text),
                    }
                    is_joined = false;
                }
                _ => {
                    keep(&mut around, &mut last);
                    has_sign = false;
                    last = Some(Directive::new(text, Vec::new(), source.shown, line));
                }
            },
            Part::Mark('=' | '>' | '!' | '~') => has_sign = true,
            Part::Mark('+') => is_joined = true,
            Part::Mark('(' | '{') => {
                around
                    .push(last.take().unwrap_or_else(|| Directive::new("", Vec::new(), source.shown, line)));
                has_sign = false;
            }
            Part::Mark(')' | '}') => {
                keep(&mut around, &mut last);
                if around.len() > 1 {
                    last = around.pop();
                    keep(&mut around, &mut last);
                }
                has_sign = false;
            }
            Part::Mark(_) => {
                keep(&mut around, &mut last);
                has_sign = false;
            }
        }
    }
    keep(&mut around, &mut last);
    while around.len() > 1 {
        last = around.pop();
        keep(&mut around, &mut last);
    }
    around.pop().map(|root| root.inside).unwrap_or_default()
}
