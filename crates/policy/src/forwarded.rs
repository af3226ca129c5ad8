//! Who the client is, when trusted proxies are in between: Forwarded (RFC 7239) and X-Forwarded-*.
//!
//! Every proxy adds to the right what it saw. So the list is read from the right, as long as the address that said
//! something is trusted; the first one that is not is the client. Whatever stands further left the client may have made up:
//! it is removed, and from peers that are not trusted everything is.

use std::net::IpAddr;

use anygate_config::{ForwardedHeader, ForwardingPlan, Source};
use anygate_proto::application::{Endpoints, Unnamed};
use anygate_proto::cgi;
use anygate_proto::head::{RequestHead, Version};
use compact_str::{CompactString, ToCompactString};

/// Which peers are believed, and about what.
#[derive(Clone, Debug, Default)]
pub struct Forwarding {
    plan: ForwardingPlan,
}

/// Result of evaluating the forwarding fields of a request.
#[derive(Debug)]
pub enum Applied {
    /// There were no such fields.
    Nothing,
    /// The peer is not trusted; the fields were removed.
    Removed,
    /// It travelled between these ends.
    Believed {
        /// As far as it is known.
        ends: Endpoints,
        /// The proxy did not name the client, which is not the one of `ends`.
        hidden: bool,
    },
}

/// Statements of proxies about one request.
#[derive(Debug, Default, PartialEq, Eq)]
struct Claims {
    client: Option<Client>,
    /// Another host is behind the last known address.
    hidden: bool,
    https: Option<bool>,
    host: Option<String>,
    port: Option<u16>,
    prefix: Option<String>,
    /// The believed part of the list of addresses, as it was written.
    believed: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Client {
    address: CompactString,
    port: Option<u16>,
}

impl Applied {
    /// Whether `ends`, from which the request came, may not be its client's: that one is behind them.
    pub fn hides_client(&self, head: &RequestHead, ends: &Endpoints) -> bool {
        match self {
            Applied::Nothing => {
                // No browser speaks HTTP/1.0; proxies do.
                ends.unnamed != Unnamed::Nothing || head.version() == Version::Http10 || is_passed_on(head)
            }
            Applied::Removed => true,
            Applied::Believed { hidden, .. } => *hidden,
        }
    }
}

impl Forwarding {
    /// Believes these.
    pub fn new(plan: ForwardingPlan) -> Self {
        Forwarding { plan }
    }

    /// Whether no peer is believed.
    pub fn is_empty(&self) -> bool {
        self.plan.proxies.is_empty()
    }

    /// Whether the peer that connected from there is believed. A forwarder of connections that named no client is not: it passes
    /// requests on as they are, and fields in them are its client's.
    pub fn trusts(&self, ends: &Endpoints) -> bool {
        if self.is_empty() || ends.unnamed == Unnamed::Connection {
            return false;
        }
        if ends.unix && self.plan.proxies.contains(&Source::Unix) {
            return true;
        }
        !ends.unix && ends.remote_addr.parse().is_ok_and(|address| self.trusts_address(address))
    }

    fn trusts_address(&self, address: IpAddr) -> bool {
        self.plan.proxies.iter().any(|proxy| match proxy {
            Source::Unix => false,
            Source::Network(network) => network.contains(address),
        })
    }

    /// Puts a request's head right. `ends`: whom it came from.
    pub fn apply(&self, head: &mut RequestHead, ends: &Endpoints) -> Applied {
        if !is_forwarded(head) {
            return Applied::Nothing;
        }
        let claims = self.trusts(ends).then(|| match self.plan.fields {
            ForwardedHeader::XForwarded => self.x_forwarded(head),
            ForwardedHeader::Forwarded => self.forwarded(head),
        });
        let Some(claims) = claims else {
            head.retain_fields(|name| !is_claim(name));
            return Applied::Removed;
        };
        let list = match self.plan.fields {
            ForwardedHeader::XForwarded => "x-forwarded-for",
            ForwardedHeader::Forwarded => "forwarded",
        };
        let believed = |name: &[u8]| match self.plan.fields {
            ForwardedHeader::XForwarded => {
                !name.eq_ignore_ascii_case(b"forwarded") && !name.eq_ignore_ascii_case(list.as_bytes())
            }
            ForwardedHeader::Forwarded => !is_claim(name),
        };
        head.retain_fields(believed);
        // Heads are far below the size that spans can say, so this cannot fail; a field the less does no harm if it does.
        if !claims.believed.is_empty() {
            let _ = head.push_text(list.as_bytes()).and_then(|name| {
                let value = head.push_text(claims.believed.as_bytes())?;
                head.push_field(name, value);
                Ok(())
            });
        }
        if let Some(host) = &claims.host
            && let Ok(span) = head.push_text(host.as_bytes())
        {
            head.set_authority(span);
        }
        if let Some(prefix) = &claims.prefix
            && let Ok(span) = head.push_text(&[prefix.as_bytes(), head.script_name()].concat())
        {
            head.set_script_name(span);
            if let Ok(taken) = head.sub_span(span, 0, prefix.len()) {
                head.set_prefix(taken);
            }
        }
        // A proxy that forwards a request without naming its client has one all the same.
        let hidden = claims.hidden || claims.client.is_none();
        Applied::Believed { ends: claims.endpoints(ends), hidden }
    }

    fn x_forwarded(&self, head: &RequestHead) -> Claims {
        let mut list = list(head, "x-forwarded-for");
        let known = self.known(list.iter().map(|item| Some(item.as_str())));
        let believed = list.split_off(list.len() - known.count);
        let last = |name| self::list(head, name).pop();
        // Where every proxy adds its word to a list, that of the client's own connection is as far from the right as the
        // client is.
        let mut schemes = self::list(head, "x-forwarded-proto");
        let scheme = match schemes.len().checked_sub(known.count) {
            Some(place) if known.count > 0 && schemes.len() > 1 => Some(schemes.swap_remove(place)),
            _ => schemes.pop(),
        };
        Claims {
            client: known.client,
            hidden: known.hidden,
            https: scheme
                .and_then(|scheme| is_https(&scheme))
                .or_else(|| last("x-forwarded-ssl").and_then(|word| is_on(&word))),
            host: last("x-forwarded-host").filter(|host| cgi::is_host(host.as_bytes())),
            port: last("x-forwarded-port").and_then(|text| port(&text)),
            prefix: last("x-forwarded-prefix").and_then(|prefix| clean_prefix(&prefix)),
            believed: believed.join(", "),
        }
    }

    /// RFC 7239 section 4: elements between commas, pairs between semicolons, values that may be quoted.
    fn forwarded(&self, head: &RequestHead) -> Claims {
        let mut elements = list(head, "forwarded");
        let parameters: Vec<Parameters> = elements.iter().map(|element| parameters(element)).collect();
        let known = self.known(parameters.iter().map(|said| said.client.as_deref()));
        let start = elements.len() - known.count;
        // What the proxy next to the client says of its own connection.
        let said = parameters.into_iter().nth(start).unwrap_or_default();
        Claims {
            client: known.client,
            hidden: known.hidden,
            https: said.proto.and_then(|scheme| is_https(&scheme)),
            host: said.host.filter(|host| cgi::is_host(host.as_bytes())),
            port: None,
            prefix: None,
            believed: elements.split_off(start).join(", "),
        }
    }

    /// Reads addresses from the right.
    fn known<'n>(&self, names: impl DoubleEndedIterator<Item = Option<&'n str>>) -> Known {
        let mut known = Known { client: None, hidden: false, count: 0 };
        for name in names.rev() {
            // `unknown` and names that a proxy made up (RFC 7239 section 6) say nothing about the client, nor does what is
            // no address at all: the proxy that said so is the last that is known.
            let Some(client) = name.and_then(client) else {
                known.hidden = true;
                break;
            };
            known.count += 1;
            let trusted = client.address.parse().is_ok_and(|address| self.trusts_address(address));
            known.client = Some(client);
            if !trusted {
                break;
            }
        }
        known
    }
}

struct Known {
    client: Option<Client>,
    /// Reading ended at a name that says nothing.
    hidden: bool,
    /// How many items of the list, from the right, are believed.
    count: usize,
}

impl Claims {
    fn endpoints(self, ends: &Endpoints) -> Endpoints {
        let https = self.https.unwrap_or(ends.https);
        let host_port = || {
            let (_, text) = self.host.as_deref()?.rsplit_once(':')?;
            port(text)
        };
        let spoken_to = self.https.is_some() || self.host.is_some();
        let server_port = match self.port.or_else(host_port) {
            Some(port) => port.to_compact_string(),
            None if spoken_to => if https { "443" } else { "80" }.into(),
            None => ends.server_port.clone(),
        };
        let (remote_addr, remote_port) = match self.client {
            Some(client) => {
                (client.address, client.port.map(|port| port.to_compact_string()).unwrap_or_default())
            }
            None => (ends.remote_addr.clone(), ends.remote_port.clone()),
        };
        Endpoints {
            remote_addr,
            remote_port,
            server_name: ends.server_name.clone(),
            server_port,
            https,
            unix: ends.unix,
            of_one_request: true,
            ..Endpoints::default()
        }
    }
}

/// Whether a request has fields about its client, believed or not.
fn is_forwarded(head: &RequestHead) -> bool {
    head.fields().any(|(name, _)| is_claim(name))
}

/// Whether fields show that something stands between the client and us.
pub fn is_passed_on(head: &RequestHead) -> bool {
    head.fields().any(|(name, _)| is_claim(name) || is_mark(name))
}

/// Whether only proxies send a field. Unlike claims, these are never believed. The first letter rules out most fields.
fn is_mark(name: &[u8]) -> bool {
    let (marks, beginnings): (&[&[u8]], &[&[u8]]) = match name.first().map(u8::to_ascii_lowercase) {
        Some(b'c') => (&[b"client-ip", b"cdn-loop"], &[b"cf-"]),
        Some(b'f') => (&[b"forwarded-for", b"fastly-client-ip", b"fly-client-ip"], &[]),
        Some(b't') => (&[b"true-client-ip"], &[]),
        Some(b'v') => (&[b"via"], &[]),
        Some(b'x') => (
            &[
                b"x-client-ip",
                b"x-cluster-client-ip",
                b"x-forwarded",
                b"x-amzn-trace-id",
                b"x-cloud-trace-context",
            ],
            &[b"x-real-", b"x-original-", b"x-remote-", b"x-envoy-", b"x-azure-"],
        ),
        _ => return false,
    };
    let begins = |with: &[u8]| name.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    marks.iter().any(|mark| name.eq_ignore_ascii_case(mark)) || beginnings.iter().any(|with| begins(with))
}

/// Whether a field says something about the client that only a proxy can know.
fn is_claim(name: &[u8]) -> bool {
    match name.first() {
        Some(b'f' | b'F') => name.eq_ignore_ascii_case(b"forwarded"),
        Some(b'x' | b'X') => {
            name.eq_ignore_ascii_case(b"x-real-ip")
                || name.get(..12).is_some_and(|start| start.eq_ignore_ascii_case(b"x-forwarded-"))
        }
        _ => false,
    }
}

/// The items of a list field, over all of its lines; empty ones do not count (RFC 9110 section 5.6.1.2).
fn list(head: &RequestHead, name: &str) -> Vec<String> {
    let mut items = Vec::new();
    for (_, value) in head.fields().filter(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes())) {
        // Bytes beyond ASCII are no part of an address, a host or a scheme.
        let line: String =
            value.iter().map(|&byte| if byte.is_ascii() { char::from(byte) } else { '?' }).collect();
        // A quote that nothing closes is the client's doing, and must not swallow what a proxy wrote behind it.
        let parts = unquoted(&line, ',').unwrap_or_else(|| line.split(',').collect());
        items.extend(parts.into_iter().map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned));
    }
    items
}

/// The parts of `text` between separators that stand outside of quoted strings (RFC 9110 section 5.6.4); `None` if a quote
/// is not closed.
fn unquoted(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = text
        .split(|character| {
            let is_escaped = std::mem::take(&mut escaped);
            match character {
                '"' if !is_escaped => quoted = !quoted,
                '\\' if quoted && !is_escaped => escaped = true,
                _ => {}
            }
            character == separator && !quoted
        })
        .collect();
    (!quoted).then_some(parts)
}

/// Parameters of one element of Forwarded.
#[derive(Debug, Default)]
struct Parameters {
    client: Option<String>,
    proto: Option<String>,
    host: Option<String>,
}

/// Reads an element. One that is malformed, or says something twice, says nothing: a client may have had a hand in it.
fn parameters(element: &str) -> Parameters {
    let read = || {
        let mut said = Parameters::default();
        for pair in unquoted(element, ';')?.into_iter().map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=')?;
            let value = unquote(value.trim())?;
            let place = match name.trim().to_ascii_lowercase().as_str() {
                "for" => &mut said.client,
                "proto" => &mut said.proto,
                "host" => &mut said.host,
                _ => continue,
            };
            if place.replace(value).is_some() {
                return None;
            }
        }
        Some(said)
    };
    read().unwrap_or_default()
}

/// The text of a value that may be a quoted string. `None`: there are quotes in another place.
fn unquote(value: &str) -> Option<String> {
    let Some(inner) = value.strip_prefix('"') else {
        return (!value.contains('"')).then(|| value.to_owned());
    };
    let mut text = String::new();
    let mut characters = inner.chars();
    loop {
        match characters.next()? {
            '"' => return characters.as_str().is_empty().then_some(text),
            '\\' => text.push(characters.next()?),
            character => text.push(character),
        }
    }
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:4711`.
fn client(text: &str) -> Option<Client> {
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            (address, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((address, port)) if !port.contains(':') => (address, Some(port)),
            _ => (text, None),
        },
    };
    Some(Client { address: cgi::address(address.as_bytes())?, port: port.and_then(self::port) })
}

/// A port; a name that a proxy made up in its place (RFC 7239 section 6) is none.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&port| digits && port > 0)
}

fn is_on(word: &str) -> Option<bool> {
    [("on", true), ("off", false)]
        .into_iter()
        .find_map(|(other, is)| word.eq_ignore_ascii_case(other).then_some(is))
}

fn is_https(scheme: &str) -> Option<bool> {
    let is = |other: &str| scheme.eq_ignore_ascii_case(other);
    if is("https") || is("wss") {
        Some(true)
    } else if is("http") || is("ws") {
        Some(false)
    } else {
        None
    }
}

/// A path that can precede all others, without the slash at its end.
fn clean_prefix(prefix: &str) -> Option<String> {
    let prefix = prefix.trim_end_matches('/');
    let plain = prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte));
    (plain && prefix.starts_with('/') && !prefix.contains("//") && !prefix.contains("/."))
        .then(|| prefix.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarding(proxies: &[&str], header: ForwardedHeader) -> Forwarding {
        let proxy = |text: &&str| Source::read(text).unwrap();
        Forwarding::new(ForwardingPlan { proxies: proxies.iter().map(proxy).collect(), fields: header })
    }

    fn head(fields: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::default();
        for (name, value) in fields {
            let name = head.push_text(name.as_bytes()).unwrap();
            let value = head.push_text(value.as_bytes()).unwrap();
            head.push_field(name, value);
        }
        head
    }

    fn from(address: &str) -> Endpoints {
        Endpoints {
            remote_addr: address.into(),
            remote_port: "9".into(),
            server_port: "8000".into(),
            ..Endpoints::default()
        }
    }

    impl Applied {
        fn believed(self) -> Endpoints {
            match self {
                Applied::Believed { ends, .. } => ends,
                other => panic!("{other:?}"),
            }
        }
    }

    const TRUSTED: [&str; 2] = ["10.0.0.0/8", "fd00::/8"];

    fn client_of(list: &str) -> (String, String) {
        let mut head = head(&[("X-Forwarded-For", list)]);
        let ends =
            forwarding(&TRUSTED, ForwardedHeader::XForwarded).apply(&mut head, &from("10.0.0.1")).believed();
        let left = head.field("x-forwarded-for").unwrap_or_default();
        (ends.remote_addr.to_string(), String::from_utf8(left.to_vec()).unwrap())
    }

    #[test]
    fn the_client_is_the_right_most_address_that_is_not_trusted() {
        for (list, client, believed) in [
            ("192.0.2.1", "192.0.2.1", "192.0.2.1"),
            ("127.0.0.1, 192.0.2.1", "192.0.2.1", "192.0.2.1"),
            ("127.0.0.1, 192.0.2.1, 10.0.0.7", "192.0.2.1", "192.0.2.1, 10.0.0.7"),
            ("10.0.0.8, 10.0.0.7", "10.0.0.8", "10.0.0.8, 10.0.0.7"),
            ("192.0.2.1:4711", "192.0.2.1", "192.0.2.1:4711"),
            ("[2001:db8::1]:80, fd00::1", "2001:db8::1", "[2001:db8::1]:80, fd00::1"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1"),
            ("192.0.2.1, unknown", "10.0.0.1", ""),
            ("192.0.2.1, <script>", "10.0.0.1", ""),
            ("192.0.2.1, nonsense, 10.0.0.7", "10.0.0.7", "10.0.0.7"),
            ("", "10.0.0.1", ""),
            ("192.0.2.1, ,", "192.0.2.1", "192.0.2.1"),
            (", 192.0.2.1,, 10.0.0.7", "192.0.2.1", "192.0.2.1, 10.0.0.7"),
            ("[2001:db8::1]junk", "10.0.0.1", ""),
            // A client that opens a quote does not become the proxy behind which it sits.
            ("\", 192.0.2.1", "192.0.2.1", "192.0.2.1"),
            ("\"a, 127.0.0.1, 192.0.2.1, 10.0.0.7", "192.0.2.1", "192.0.2.1, 10.0.0.7"),
        ] {
            assert_eq!(client_of(list), (client.to_owned(), believed.to_owned()), "{list}");
        }
    }

    #[test]
    fn a_client_that_is_not_named_is_hidden() {
        let hidden = |fields: &[(&str, &str)], header| match forwarding(&TRUSTED, header)
            .apply(&mut head(fields), &from("10.0.0.1"))
        {
            Applied::Believed { hidden, .. } => hidden,
            other => panic!("{other:?}"),
        };
        for (list, expected) in [
            ("127.0.0.1", false),
            ("unknown, 127.0.0.1", false),
            ("10.0.0.8, 10.0.0.7", false),
            ("unknown, 10.0.0.7", true),
            ("unknown", true),
            ("", true),
        ] {
            assert_eq!(hidden(&[("X-Forwarded-For", list)], ForwardedHeader::XForwarded), expected, "{list}");
        }
        assert!(hidden(&[("X-Forwarded-Proto", "https")], ForwardedHeader::XForwarded));
        assert!(hidden(&[("X-Forwarded-For", "127.0.0.1")], ForwardedHeader::Forwarded));
        assert!(hidden(&[("Forwarded", "for=_secret")], ForwardedHeader::Forwarded));
        assert!(!hidden(&[("Forwarded", "for=127.0.0.1")], ForwardedHeader::Forwarded));
    }

    #[test]
    fn several_lines_are_one_list() {
        let mut head = head(&[("X-Forwarded-For", "127.0.0.1"), ("x-forwarded-for", "192.0.2.1")]);
        let ends = forwarding(&TRUSTED, ForwardedHeader::XForwarded).apply(&mut head, &from("10.0.0.1"));
        assert_eq!(ends.believed().remote_addr, "192.0.2.1");
    }

    #[test]
    fn no_other_peer_is_believed() {
        let fields = [
            ("X-Forwarded-For", "127.0.0.1"),
            ("X-Real-IP", "127.0.0.1"),
            ("Forwarded", "for=127.0.0.1"),
            ("X-A", "1"),
        ];
        for (proxies, unix) in [(&TRUSTED[..], false), (&[], false), (&["unix"], false), (&TRUSTED[..], true)]
        {
            let mut head = head(&fields);
            let ends = Endpoints { unix, ..from("127.0.0.1") };
            let applied = forwarding(proxies, ForwardedHeader::XForwarded).apply(&mut head, &ends);
            assert!(matches!(applied, Applied::Removed), "{applied:?}");
            assert_eq!(head.fields().map(|(name, _)| name).collect::<Vec<_>>(), [b"X-A"]);
        }
        let tunnel = Endpoints { unnamed: Unnamed::Connection, ..from("10.0.0.1") };
        let applied = forwarding(&TRUSTED, ForwardedHeader::XForwarded).apply(&mut head(&fields), &tunnel);
        assert!(matches!(applied, Applied::Removed), "{applied:?}");
        let unix = Endpoints { unix: true, ..from("127.0.0.1") };
        let mut head = head(&[("X-Forwarded-For", "192.0.2.1")]);
        let ends = forwarding(&["unix"], ForwardedHeader::XForwarded).apply(&mut head, &unix).believed();
        assert_eq!(ends.remote_addr, "192.0.2.1");
    }

    #[test]
    fn scheme_host_port_and_prefix_follow() {
        let mut head = head(&[
            ("X-Forwarded-For", "192.0.2.1"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "example.org"),
            ("X-Forwarded-Prefix", "/app/"),
            ("Forwarded", "for=127.0.0.1"),
        ]);
        let ends =
            forwarding(&TRUSTED, ForwardedHeader::XForwarded).apply(&mut head, &from("10.0.0.1")).believed();
        assert!(ends.https);
        assert_eq!((ends.server_port.as_str(), ends.remote_port.as_str()), ("443", ""));
        assert_eq!((head.authority(), head.script_name()), (&b"example.org"[..], &b"/app"[..]));
        assert_eq!(head.field("forwarded"), None);
    }

    #[test]
    fn a_list_of_schemes_belongs_to_the_list_of_addresses() {
        let mut head =
            head(&[("X-Forwarded-For", "192.0.2.1, 10.0.0.7"), ("X-Forwarded-Proto", "https, http")]);
        let ends =
            forwarding(&TRUSTED, ForwardedHeader::XForwarded).apply(&mut head, &from("10.0.0.1")).believed();
        assert!(ends.https);
    }

    #[test]
    fn the_field_about_tls_counts_where_no_scheme_is_named() {
        for (fields, https) in [
            (&[("X-Forwarded-Ssl", "on")][..], true),
            (&[("X-Forwarded-Ssl", "off"), ("X-Forwarded-For", "192.0.2.1")], false),
            (&[("X-Forwarded-Ssl", "1")], false),
            (&[("X-Forwarded-Ssl", "on"), ("X-Forwarded-Proto", "http")], false),
            (&[("X-Forwarded-Ssl", "off"), ("X-Forwarded-Proto", "https")], true),
        ] {
            let mut head = head(fields);
            let forwarding = forwarding(&TRUSTED, ForwardedHeader::XForwarded);
            assert_eq!(forwarding.apply(&mut head, &from("10.0.0.1")).believed().https, https, "{fields:?}");
        }
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        let list = r#"for=127.0.0.1, For="[2001:db8::1]:4711";proto=HTTPS;host="example.org:8443";by=_x, for=10.0.0.7"#;
        let mut head = head(&[("Forwarded", list), ("X-Forwarded-For", "127.0.0.1")]);
        let ends =
            forwarding(&TRUSTED, ForwardedHeader::Forwarded).apply(&mut head, &from("10.0.0.1")).believed();
        assert_eq!((ends.remote_addr.as_str(), ends.remote_port.as_str()), ("2001:db8::1", "4711"));
        assert_eq!((ends.https, ends.server_port.as_str()), (true, "8443"));
        assert_eq!(head.authority(), b"example.org:8443");
        assert_eq!(head.field("x-forwarded-for"), None);
        let believed = head.field("forwarded").unwrap();
        assert!(believed.starts_with(b"For=\"[2001:db8::1]:4711\"") && believed.ends_with(b"for=10.0.0.7"));
    }

    #[test]
    fn a_quote_that_a_client_opens_hides_nothing() {
        for list in
            [r#"for="x, for=192.0.2.1"#, r#"for="x, for="192.0.2.1""#, r#"for="\", for="192.0.2.1:4711""#]
        {
            let mut head = head(&[("Forwarded", list)]);
            let ends = forwarding(&TRUSTED, ForwardedHeader::Forwarded)
                .apply(&mut head, &from("10.0.0.1"))
                .believed();
            assert_eq!(ends.remote_addr, "192.0.2.1", "{list}");
        }
    }

    #[test]
    fn what_a_client_puts_into_a_quoted_host_says_nothing() {
        let applied = |list: &str| {
            let mut head = head(&[("Forwarded", list)]);
            forwarding(&TRUSTED, ForwardedHeader::Forwarded).apply(&mut head, &from("10.0.0.1"))
        };
        for (list, client, https) in [
            (r#"proto=http;host="a;for=9.9.9.9;b";for=192.0.2.1"#, "192.0.2.1", false),
            (r#"host="a;proto=https;b";for=192.0.2.1;proto=http"#, "192.0.2.1", false),
            (r#"host="a\";for=9.9.9.9;x=\"";for=192.0.2.1;proto=https"#, "192.0.2.1", true),
            (r#"for="192.0.2\.1""#, "192.0.2.1", false),
            (r#"for="192.0.2.1:+80";;proto=http;"#, "192.0.2.1", false),
            // Said twice, or with something behind a quoted string: no client is named.
            (r#"host="a";for="9.9.9.9";for=192.0.2.1"#, "10.0.0.1", false),
            (r#"for=9.9.9.9;x="; for="192.0.2.1:1";host="a\"b""#, "10.0.0.1", false),
            (r#"for=9.9.9.9;x=", for="192.0.2.1:1";host="a\"b""#, "10.0.0.1", false),
        ] {
            let ends = applied(list).believed();
            assert_eq!((ends.remote_addr.as_str(), ends.https), (client, https), "{list}");
            assert!(ends.remote_port.is_empty() || client == "10.0.0.1", "{list}: {}", ends.remote_port);
        }
    }

    #[test]
    fn odd_hosts_and_prefixes_are_not_taken() {
        let mut head = head(&[
            ("X-Forwarded-For", "192.0.2.1"),
            ("X-Forwarded-Host", "a/b"),
            ("X-Forwarded-Prefix", "//evil.example"),
        ]);
        let ends =
            forwarding(&TRUSTED, ForwardedHeader::XForwarded).apply(&mut head, &from("10.0.0.1")).believed();
        assert_eq!((head.authority(), head.script_name()), (&b""[..], &b""[..]));
        assert_eq!(ends.server_port, "8000");
    }
}
