//! Who may come in, by address: lists of networks that are allowed and denied, for the whole site and for paths.
//!
//! Within one list the most specific network that holds the client counts, whatever the order; the same network in both
//! lists is denied. A client in none of the networks is let in unless something is allowed: then only that is. Where
//! lists of several prefixes hold for a path, all of them must let the client in: a list for `/admin` cannot open what
//! the list for `/` closes.
//!
//! Lists of countries have thousands of networks, so each length of prefix is a sorted array of its own.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anygate_config::site::Admitted;
use anygate_config::{Network, Source};
use anygate_proto::head::RequestHead;

use crate::network::Client;
use crate::paths::{self, ByPrefix};
use crate::refusal::Refusal;

/// Who may come in.
#[derive(Clone, Debug, Default)]
pub struct AccessList {
    lists: ByPrefix<Decisions>,
}

impl AccessList {
    /// Prepares the list of each prefix.
    pub fn new(allow: &[Admitted], deny: &[Admitted]) -> AccessList {
        let mut lists: BTreeMap<&str, List> = BTreeMap::new();
        for one in allow {
            lists.entry(&one.prefix).or_default().allow.push(one.source);
        }
        for one in deny {
            lists.entry(&one.prefix).or_default().deny.push(one.source);
        }
        let list = |(prefix, list): (&str, List)| (prefix.to_owned(), Decisions::new(&list));
        AccessList { lists: lists.into_iter().map(list).collect() }
    }

    /// Whether every client is admitted, so that no check is needed.
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// Refuses who may not come in: 403. Where a proxy took something off the path, both paths must be open.
    pub fn check(&self, head: &RequestHead, client: Client) -> Result<(), Refusal> {
        let is_open = |path: &[u8]| self.lists.all(path).all(|list| list.allows(client));
        let is_let_in = self.is_empty()
            || (is_open(&paths::path(head)) && paths::path_at_proxy(head).is_none_or(|path| is_open(&path)));
        if is_let_in { Ok(()) } else { Err(Refusal::forbidden()) }
    }
}

/// Who is let in to the paths below one prefix, and who is not.
#[derive(Debug, Default)]
struct List {
    allow: Vec<Source>,
    deny: Vec<Source>,
}

#[derive(Clone, Debug, Default)]
struct Decisions {
    v4: Vec<Length>,
    v6: Vec<Length>,
    unix: Option<bool>,
    /// Decision for a client that is in no network of the list.
    otherwise: bool,
}

/// All networks of one length of prefix, the longest before the shorter ones.
#[derive(Clone, Debug)]
struct Length {
    bits: u8,
    /// By address.
    networks: Vec<(IpAddr, bool)>,
}

impl Decisions {
    fn new(list: &List) -> Decisions {
        let mut decisions = Decisions { otherwise: list.allow.is_empty(), ..Decisions::default() };
        let mut networks: BTreeMap<(bool, u8), BTreeMap<IpAddr, bool>> = BTreeMap::new();
        // What is denied comes last, so that it replaces the same network that is allowed.
        for (sources, allowed) in [(&list.allow, true), (&list.deny, false)] {
            for source in sources {
                match source {
                    Source::Unix => decisions.unix = Some(allowed),
                    Source::Network(network) => {
                        let length = (network.address().is_ipv4(), network.bits());
                        networks.entry(length).or_default().insert(network.address(), allowed);
                    }
                }
            }
        }
        for ((is_v4, bits), networks) in networks.into_iter().rev() {
            let length = Length { bits, networks: networks.into_iter().collect() };
            if is_v4 { &mut decisions.v4 } else { &mut decisions.v6 }.push(length);
        }
        decisions
    }

    fn allows(&self, client: Client) -> bool {
        match client {
            Client::Address(address) => {
                let lengths = if address.is_ipv4() { &self.v4 } else { &self.v6 };
                lengths.iter().find_map(|length| length.decide(address)).unwrap_or(self.otherwise)
            }
            Client::Unix => self.unix.unwrap_or(self.otherwise),
            // It may be among the denied.
            Client::Unknown => false,
        }
    }
}

impl Length {
    fn decide(&self, address: IpAddr) -> Option<bool> {
        // The last network that begins at or before the address is the only one of its length that can hold it.
        let after = self.networks.partition_point(|(network, _)| *network <= address);
        let &(network, allowed) = self.networks.get(after.checked_sub(1)?)?;
        Network::new(network, self.bits)?.contains(address).then_some(allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// One list: its prefix, who is allowed and who is denied.
    type Given<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);

    fn access(lists: &[Given<'_>]) -> AccessList {
        let all = |pick: fn(&Given<'_>) -> Vec<String>| -> Vec<Admitted> {
            lists.iter().flat_map(pick).map(|text| Admitted::read(&text).unwrap()).collect()
        };
        AccessList::new(
            &all(|(prefix, allow, _)| scoped(prefix, allow)),
            &all(|(prefix, _, deny)| scoped(prefix, deny)),
        )
    }

    fn scoped(prefix: &str, texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| format!("{prefix} {text}")).collect()
    }

    fn request(path: &str) -> RequestHead {
        fixtures::request("GET", path, &[])
    }

    fn allows(lists: &[Given<'_>], path: &str, address: &str) -> bool {
        let client = match address {
            "unix" => Client::Unix,
            "" => Client::Unknown,
            text => Client::from(text.parse::<IpAddr>().unwrap()),
        };
        match access(lists).check(&request(path), client) {
            Ok(()) => true,
            Err(refusal) => {
                assert_eq!(refusal.head().status(), 403);
                false
            }
        }
    }

    #[test]
    fn the_most_specific_network_counts() {
        let lists: [Given<'_>; 1] =
            [("/", &["10.0.0.0/8", "10.1.2.0/24", "2001:db8::/32"], &["10.1.0.0/16", "2001:db8:bad::/48"])];
        for (address, allowed) in [
            ("10.2.0.1", true),
            ("10.1.0.1", false),
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("::ffff:10.1.0.1", false),
            ("11.0.0.1", false),
            ("2001:db8::1", true),
            ("2001:db8:bad::1", false),
            ("::1", false),
            ("unix", false),
            ("", false),
        ] {
            assert_eq!(allows(&lists, "/", address), allowed, "{address}");
        }
    }

    #[test]
    fn without_anything_allowed_all_others_are() {
        let lists: [Given<'_>; 1] = [("/", &[], &["192.0.2.0/24", "::/0"])];
        for (address, allowed) in [
            ("192.0.2.1", false),
            ("::1", false),
            ("::ffff:192.0.2.1", false),
            ("192.0.3.1", true),
            ("unix", true),
            ("", false),
        ] {
            assert_eq!(allows(&lists, "/", address), allowed, "{address}");
        }
    }

    #[test]
    fn the_same_network_in_both_lists_is_denied() {
        let lists: [Given<'_>; 1] = [("/", &["192.0.2.0/24", "unix"], &["192.0.2.0/24", "unix"])];
        assert!(!allows(&lists, "/", "192.0.2.1"));
        assert!(!allows(&lists, "/", "unix"));
    }

    #[test]
    fn all_lists_of_a_path_must_agree() {
        let lists: [Given<'_>; 2] = [("/", &[], &["10.9.0.0/16"]), ("/admin", &["10.0.0.0/8", "unix"], &[])];
        for (path, address, allowed) in [
            ("/", "192.0.2.1", true),
            ("/", "10.9.0.1", false),
            ("/admin", "10.1.0.1", true),
            ("/admin", "unix", true),
            ("/admin", "10.9.0.1", false),
            ("/admin/x", "192.0.2.1", false),
            ("//admin", "192.0.2.1", false),
            ("/x/../admin/", "192.0.2.1", false),
            ("/administrators", "192.0.2.1", true),
        ] {
            assert_eq!(allows(&lists, path, address), allowed, "{path} {address}");
        }
    }

    #[test]
    fn no_lists_admit_every_client() {
        assert!(AccessList::new(&[], &[]).is_empty());
        assert!(allows(&[], "/", "192.0.2.1"));
        assert!(allows(&[], "/", ""));
    }

    /// Few different bits, so that networks lie in each other.
    fn low_bits(bits: u128) -> u32 {
        u32::try_from(bits & 0xc000_0003).unwrap()
    }

    fn networks() -> impl Strategy<Value = Vec<Network>> {
        let network = (any::<u128>(), 0u8..=128, any::<bool>()).prop_map(|(bits, length, four)| {
            if four {
                let length = length % 33;
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                let address = low_bits(bits) & mask;
                Network::new(IpAddr::V4(Ipv4Addr::from_bits(address)), length).unwrap()
            } else {
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                let address = (bits & (0xc << 120 | 3)) & mask;
                Network::new(IpAddr::V6(Ipv6Addr::from_bits(address)), length).unwrap()
            }
        });
        proptest::collection::vec(network, 0..12)
    }

    proptest! {
        #[test]
        fn the_arrays_decide_as_a_search_of_all_does(
            allow in networks(),
            deny in networks(),
            bits: u128,
            four: bool,
        ) {
            let address = if four {
                IpAddr::V4(Ipv4Addr::from_bits(low_bits(bits)))
            } else {
                IpAddr::V6(Ipv6Addr::from_bits(bits & (0xc << 120 | 3)))
            };
            let longest = |networks: &[Network]| {
                networks.iter().filter(|network| network.contains(address)).map(Network::bits).max()
            };
            let expected = match (longest(&allow), longest(&deny)) {
                (Some(allowed), Some(denied)) => allowed > denied,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => allow.is_empty(),
            };
            let admitted = |networks: Vec<Network>| -> Vec<Admitted> {
                let all = networks.into_iter().map(Source::Network);
                all.map(|source| Admitted { prefix: "/".to_owned(), source }).collect()
            };
            let access = AccessList::new(&admitted(allow), &admitted(deny));
            prop_assert_eq!(access.check(&request("/x"), Client::from(address)).is_ok(), expected);
        }
    }
}
