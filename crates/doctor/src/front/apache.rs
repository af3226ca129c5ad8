//! Apache: a directive a line, and sections, `<Location "/">` to `</Location>`.

use anygate_config::Protocol;

use super::directive::{Directive, Source, milliseconds};
use super::site::Site;
use crate::finding::Finding;

/// What Apache does where nothing is said (2.4.54 and newer).
const BODY_BYTES: u64 = 1 << 30;
const TIMEOUT_MILLISECONDS: u64 = 60_000;

/// Schemes of back ends.
const SCHEMES: [(&str, Protocol); 7] = [
    ("http", Protocol::Http),
    ("https", Protocol::Https),
    ("ws", Protocol::Http),
    ("h2c", Protocol::Http),
    ("scgi", Protocol::Scgi),
    ("fcgi", Protocol::FastCgi),
    ("uwsgi", Protocol::Uwsgi),
];

pub(super) fn check(source: &Source<'_>, site: &Site) -> Vec<Finding> {
    let mut root = Directive::new("", Vec::new(), source.shown, 1);
    root.inside = read(source);
    let mut all = Vec::new();
    root.visit(&mut |_, one| all.push(one));
    let file = File { all };
    let mut found = Vec::new();
    let passes: Vec<_> =
        file.passes().filter(|(_, _, address)| site.is_ours(std::slice::from_ref(address))).collect();
    let user = file.last("User").map(|one| one.word(0));
    for (one, protocol, address) in &passes {
        let addresses = std::slice::from_ref(address);
        found.extend(site.protocol(*protocol, addresses, one));
        found.extend(site.socket(addresses, user, one));
        let patience = one
            .value("timeout")
            .or_else(|| file.last("ProxyTimeout").or(file.last("Timeout")).map(|one| one.word(0)));
        let time = patience.map_or(Some(TIMEOUT_MILLISECONDS), |text| milliseconds(text, 1000));
        found.extend(site.timeout(time, one, "Apache", |seconds| {
            format!("timeout={seconds} here, or ProxyTimeout {seconds}")
        }));
        if one.value("disablereuse").is_some_and(|value| value.eq_ignore_ascii_case("on")) {
            found.push(one.finding("each request opens a connection to anygate", "no disablereuse=on"));
        }
        if *protocol == Protocol::FastCgi && site.has_streams && one.value("flushpackets") != Some("on") {
            found.push(one.finding("Apache buffers responses, and stream_paths are set", "flushpackets=on"));
        }
    }
    let Some((first, ..)) = passes.first() else { return found };
    let most = file.last("LimitRequestBody");
    let bytes = most.map_or(Some(BODY_BYTES), |one| one.word(0).parse().ok());
    found.extend(site.body(
        bytes,
        most.unwrap_or(first),
        "Apache",
        &format!("LimitRequestBody {}", site.body_max_bytes),
    ));
    if let Some(one) = file.last("AllowEncodedSlashes").filter(|one| one.word(0).eq_ignore_ascii_case("on")) {
        found.push(
            one.finding("%2F becomes / before the application sees it", "AllowEncodedSlashes NoDecode"),
        );
    }
    let http = passes.iter().find(|(_, protocol, _)| protocol.is_http());
    if let Some((one, _, address)) = http {
        found.extend(file.http(site, one, std::slice::from_ref(address)));
    }
    found
}

/// All directives of a file.
struct File<'a> {
    all: Vec<&'a Directive>,
}

impl<'a> File<'a> {
    fn named(&self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a Directive> {
        self.all.iter().copied().filter(move |one| one.name.eq_ignore_ascii_case(name))
    }

    fn last(&self, name: &'a str) -> Option<&'a Directive> {
        self.named(name).next_back()
    }

    /// Directives that name a back end, with its protocol and address.
    fn passes(&self) -> impl Iterator<Item = (&'a Directive, Protocol, String)> {
        self.all.iter().copied().filter_map(|one| {
            let is_pass = ["ProxyPass", "ProxyPassMatch", "BalancerMember", "SetHandler", "RewriteRule"]
                .iter()
                .any(|name| one.name.eq_ignore_ascii_case(name));
            let (protocol, address) = one.words.iter().filter(|_| is_pass).find_map(|word| back_end(word))?;
            Some((one, protocol, address))
        })
    }

    fn http(&self, site: &Site, at: &Directive, addresses: &[String]) -> Vec<Finding> {
        let mut found: Vec<Finding> = site.trust(at, addresses).into_iter().collect();
        let preserves = self.last("ProxyPreserveHost");
        if preserves.is_none_or(|one| !one.word(0).eq_ignore_ascii_case("on")) {
            found.push(preserves.unwrap_or(at).finding(
                "the application sees the address of the back end as its host: links and redirects lead there",
                "ProxyPreserveHost On",
            ));
        }
        let is_set = |name: &str| {
            self.named("RequestHeader").any(|one| {
                matches!(one.word(0).to_ascii_lowercase().as_str(), "set" | "unset")
                    && one.word(1).eq_ignore_ascii_case(name)
            })
        };
        found.extend(site.passed_on(&is_set, at, &|name| match name {
            "X-Forwarded-For" | "X-Forwarded-Host" => format!("RequestHeader unset {name} early"),
            "X-Forwarded-Proto" => format!("RequestHeader set {name} http (https over TLS)"),
            _ => format!("RequestHeader unset {name}"),
        }));
        for one in self.named("SetEnv").chain(self.named("SetEnvIf")).chain(self.named("BrowserMatch")) {
            if one.has("force-proxy-request-1.0") || one.has("proxy-nokeepalive") {
                found.push(
                    one.finding("speaks HTTP/1.0 or opens a connection for each request", "no such variable"),
                );
            }
        }
        let upgrades = |one: &Directive| {
            one.value("upgrade").is_some() || one.words.iter().any(|word| word.starts_with("ws://"))
        };
        if site.has_websockets && !self.all.iter().any(|one| upgrades(one)) {
            found.push(at.finding(
                "WebSockets of the application get no Upgrade",
                "upgrade=websocket behind the address of ProxyPass",
            ));
        }
        found
    }
}

/// Reads `http://127.0.0.1:4000/`, `unix:/run/app.sock|http://localhost/` and `proxy:fcgi://...`; a balancer is its members.
fn back_end(word: &str) -> Option<(Protocol, String)> {
    let word = word.strip_prefix("proxy:").unwrap_or(word);
    let (socket, url) = match word.split_once('|') {
        Some((socket, url)) => (Some(socket), url),
        None => (None, word),
    };
    let (scheme, rest) = url.split_once("://")?;
    let (_, protocol) = SCHEMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(scheme))?;
    let address = socket.unwrap_or_else(|| rest.split('/').next().unwrap_or_default());
    Some((*protocol, address.to_owned()))
}

/// Makes directives of lines, which continue behind a backslash.
fn read(source: &Source<'_>) -> Vec<Directive> {
    let mut around = vec![Directive::default()];
    let mut lines = source.text.lines().enumerate();
    while let Some((number, first)) = lines.next() {
        let mut line = first.trim().to_owned();
        while let Some(begun) = line.strip_suffix('\\') {
            line = format!("{begun} {}", lines.next().map(|(_, next)| next.trim()).unwrap_or_default());
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let is_end = line.starts_with("</");
        let is_section = line.starts_with('<') && !is_end;
        let mut words = words(line.trim_start_matches('<').trim_end_matches('>')).into_iter();
        if !is_end {
            let name = words.next().unwrap_or_default();
            let one = Directive::new(name, words.collect(), source.shown, number + 1);
            if is_section {
                around.push(one);
            } else if let Some(level) = around.last_mut() {
                level.inside.push(one);
            }
        } else if around.len() > 1 {
            end(&mut around);
        }
    }
    while around.len() > 1 {
        end(&mut around);
    }
    around.pop().map(|root| root.inside).unwrap_or_default()
}

fn end(around: &mut Vec<Directive>) {
    if let Some(one) = around.pop()
        && let Some(level) = around.last_mut()
    {
        level.inside.push(one);
    }
}

/// Words, quoted ones as one.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut letters = line.chars().peekable();
    while letters.peek().is_some() {
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        let quote = letters.next_if(|letter| matches!(letter, '"' | '\''));
        let mut word = String::new();
        while let Some(letter) = letters.next_if(|letter| match quote {
            Some(quote) => *letter != quote,
            None => !letter.is_whitespace(),
        }) {
            word.push(letter);
        }
        letters.next();
        if quote.is_some() || !word.is_empty() {
            words.push(word);
        }
    }
    words
}
