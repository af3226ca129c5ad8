//! HAProxy: a directive a line, below the line of its section; `defaults` hold for the sections that follow them.

use anygate_config::Protocol;

use super::directive::{Directive, Source, milliseconds};
use super::site::Site;
use crate::finding::Finding;

const SECTIONS: [&str; 9] =
    ["global", "defaults", "frontend", "backend", "listen", "fcgi-app", "resolvers", "userlist", "peers"];

pub(super) fn check(source: &Source<'_>, site: &Site) -> Vec<Finding> {
    let sections = read(source);
    let mut found = Vec::new();
    let mut defaults: Option<&Directive> = None;
    for section in &sections {
        match section.name.as_str() {
            "defaults" => defaults = Some(section),
            "backend" | "listen" => {
                let servers: Vec<&Directive> = section.named("server").collect();
                let addresses: Vec<String> = servers.iter().map(|one| one.word(1).to_owned()).collect();
                if let Some(first) = servers.first().filter(|_| site.is_ours(&addresses)) {
                    let back_end = BackEnd {
                        site,
                        section,
                        defaults,
                        sections: &sections,
                        first,
                        addresses: &addresses,
                    };
                    found.extend(back_end.check());
                }
            }
            _ => {}
        }
    }
    found
}

/// Servers that are ours.
struct BackEnd<'a> {
    site: &'a Site,
    section: &'a Directive,
    defaults: Option<&'a Directive>,
    sections: &'a [Directive],
    first: &'a Directive,
    addresses: &'a [String],
}

impl<'a> BackEnd<'a> {
    /// The last line with this beginning that holds for the servers.
    fn line(&self, words: &'a [&'a str]) -> Option<&'a Directive> {
        lines(self.section, words).next_back().or_else(|| lines(self.defaults?, words).next_back())
    }

    /// Lines with this beginning that hold for requests on their way here: also those of frontends.
    fn lines_on_the_way(&self, words: &'a [&'a str]) -> Vec<&'a Directive> {
        let frontends = self.sections.iter().filter(|one| one.name == "frontend");
        let all = frontends.chain([self.section]).chain(self.defaults);
        all.flat_map(|section| lines(section, words)).collect()
    }

    /// Whether a word is among those of a server or of all servers.
    fn servers_have(&self, word: &str) -> bool {
        self.first.has(word) || self.line(&["default-server"]).is_some_and(|one| one.has(word))
    }

    fn check(&self) -> Vec<Finding> {
        let (site, first) = (self.site, self.first);
        let is_fcgi = self.servers_have("fcgi");
        let protocol = if is_fcgi { Protocol::FastCgi } else { Protocol::Http };
        let mut found: Vec<Finding> = site.protocol(protocol, self.addresses, first).into_iter().collect();
        let user =
            self.sections.iter().filter(|one| one.name == "global").find_map(|one| one.named("user").next());
        found.extend(site.socket(self.addresses, user.map(|one| one.word(0)), first));
        let sends = ["send-proxy", "send-proxy-v2"].iter().any(|word| self.servers_have(word));
        if sends && !site.proxy_protocol {
            found.push(first.finding(
                "sends the PROXY protocol, which anygate does not expect here: requests get 400",
                "anygate --proxy-protocol",
            ));
        } else if !sends && site.proxy_protocol {
            found.push(first.finding(
                "sends no PROXY protocol, which anygate expects: connections are refused",
                "send-proxy-v2 behind the address, or no --proxy-protocol",
            ));
        }
        if self.line(&["mode"]).is_some_and(|one| one.word(0) == "http") {
            found.extend(self.http(is_fcgi, sends));
        } else if !sends {
            found.push(first.finding(
                "passes bytes on (mode tcp): no request has the address of its client",
                "send-proxy-v2 behind the address, and anygate --proxy-protocol; or mode http",
            ));
        }
        let patience = self.line(&["timeout", "server"]);
        let time = patience.and_then(|one| milliseconds(one.word(1), 1));
        found.extend(site.timeout(time, patience.unwrap_or(first), "HAProxy", |seconds| {
            format!("timeout server {seconds}s")
        }));
        if site.has_websockets && self.line(&["timeout", "tunnel"]).is_none() {
            found.push(
                first.finding(
                    "WebSockets that are silent for timeout server are cut off",
                    "timeout tunnel 1h",
                ),
            );
        }
        found
    }

    fn http(&self, is_fcgi: bool, sends: bool) -> Vec<Finding> {
        let (site, first) = (self.site, self.first);
        let mut found = Vec::new();
        for word in ["httpclose", "forceclose"] {
            for one in self.lines_on_the_way(&["option"]).into_iter().filter(|one| one.word(0) == word) {
                found.push(one.finding("each request opens a connection to anygate", "no such option"));
            }
        }
        if is_fcgi || sends {
            return found;
        }
        let named = self.lines_on_the_way(&["option", "forwardfor"]);
        let set = |name: &str| {
            self.lines_on_the_way(&["http-request"]).into_iter().find(|one| {
                let word = one.word(0);
                // http-request set-header NAME, del-header NAME
                matches!(word, "set-header" | "del-header") && one.word(1).eq_ignore_ascii_case(name)
            })
        };
        match named.first().copied().or_else(|| set("X-Forwarded-For")) {
            Some(one) => found.extend(site.trust(one, self.addresses)),
            None => found.push(first.finding(
                "REMOTE_ADDR is the address of HAProxy for every client",
                "option forwardfor, and anygate --trusted-proxies with the address of HAProxy",
            )),
        }
        if let Some(one) = named.first().filter(|_| set("X-Forwarded-For").is_none()) {
            found.extend(site.appended(one, "http-request del-header X-Forwarded-For"));
        }
        // forwardfor adds a field of its own behind those of the client, and the last one counts.
        let known = |name: &str| set(name).is_some() || name == "X-Forwarded-For" && !named.is_empty();
        found.extend(site.passed_on(&known, first, &|name| match name {
            "X-Forwarded-Proto" => {
                "http-request set-header X-Forwarded-Proto http (https over TLS);".to_owned()
            }
            _ => format!("http-request del-header {name};"),
        }));
        found
    }
}

/// Lines of a section that begin with these words.
fn lines<'a>(section: &'a Directive, words: &'a [&'a str]) -> impl DoubleEndedIterator<Item = &'a Directive> {
    section.inside.iter().filter(|one| {
        let begins = std::iter::once(one.name.as_str()).chain(one.words.iter().map(String::as_str));
        words.iter().copied().eq(begins.take(words.len()))
    })
}

fn read(source: &Source<'_>) -> Vec<Directive> {
    let mut sections: Vec<Directive> = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        let text = line.split(" #").next().unwrap_or_default().trim();
        let mut words = text.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned());
        let Some(name) = words.next().filter(|_| !text.starts_with('#')) else { continue };
        let one = Directive::new(name, words.collect(), source.shown, number + 1);
        if SECTIONS.contains(&one.name.as_str()) {
            sections.push(one);
        } else if let Some(section) = sections.last_mut() {
            section.inside.push(one);
        }
    }
    sections
}
