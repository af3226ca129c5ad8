//! Host names that mean this machine. A page of another site can have its own name lead to a loopback address (DNS
//! rebinding), so what only this machine's users may see is shown under these names alone.

use std::net::IpAddr;

use crate::application::Endpoints;
use crate::head::RequestHead;

/// Names that mean this machine: `localhost`, names below it, loopback addresses, and what was named besides.
#[derive(Clone, Debug, Default)]
pub struct LocalHosts {
    others: Vec<String>,
}

impl LocalHosts {
    /// `others`: names and addresses, without ports.
    pub fn new(others: Vec<String>) -> Self {
        LocalHosts { others }
    }

    /// Whether the client of a request is on this machine, and means it. `hidden_client`: a proxy is in its place.
    pub fn hold_client(&self, head: &RequestHead, client: &Endpoints, hidden_client: bool) -> bool {
        let address = client.remote_addr.parse::<IpAddr>();
        !hidden_client
            // A browser always names a host.
            && (head.authority().is_empty() || self.holds(head.authority()))
            && address.is_ok_and(|address| address.to_canonical().is_loopback())
    }

    /// Whether a request for this host, with or without a port, is for this machine.
    pub fn holds(&self, authority: &[u8]) -> bool {
        let Ok(authority) = std::str::from_utf8(authority) else { return false };
        let host = match authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        };
        let name = host.strip_suffix('.').unwrap_or(host);
        // RFC 6761 section 6.3.
        let below = name.get(name.len().saturating_sub(".localhost".len())..).unwrap_or_default();
        name.eq_ignore_ascii_case("localhost")
            || (below.eq_ignore_ascii_case(".localhost") && name.len() > below.len())
            || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
            || (!name.is_empty() && self.others.iter().any(|own| own.eq_ignore_ascii_case(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are() {
        let hosts = LocalHosts::new(vec!["box.lan".to_owned(), "192.0.2.1".to_owned()]);
        for own in [
            "localhost",
            "LocalHost:8000",
            "localhost.",
            "a.localhost:1",
            "a.b.LOCALHOST",
            "127.0.0.1",
            "127.9.9.9:80",
            "[::1]:80",
            "[::ffff:127.0.0.1]",
            "Box.lan:80",
            "192.0.2.1",
        ] {
            assert!(hosts.holds(own.as_bytes()), "{own}");
        }
        for other in [
            "",
            ":",
            "[",
            ".",
            ".localhost",
            "evil.example",
            "localhost.evil.example",
            "evillocalhost",
            "127.0.0.1.evil",
            "127.1",
            "0.0.0.0",
            "[::]",
            "192.0.2.2",
            "\u{e9}.localhos\u{e9}",
        ] {
            assert!(!hosts.holds(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn clients_are_on_this_machine_if_their_address_says_so_and_it_is_theirs() {
        let mut head = RequestHead::default();
        let host = head.push_text(b"localhost:8000").expect("it is short");
        head.set_authority(host);
        for (address, hidden_client, expected) in [
            ("127.0.0.1", false, true),
            ("127.8.9.1", false, true),
            ("::1", false, true),
            ("::ffff:127.0.0.1", false, true),
            ("127.0.0.1", true, false),
            ("192.0.2.1", false, false),
            ("0.0.0.0", false, false),
            ("::", false, false),
            ("localhost", false, false),
            ("", false, false),
        ] {
            let endpoints = Endpoints { remote_addr: address.into(), ..Endpoints::default() };
            let held = LocalHosts::default().hold_client(&head, &endpoints, hidden_client);
            assert_eq!(held, expected, "{address} {hidden_client}");
        }
    }
}
