//! The client whose address is looked up in networks and counted by limits.
//!
//! An IPv4 address that is written as IPv6 (`::ffff:192.0.2.1`) is that IPv4 address everywhere here (RFC 4291 section
//! 2.5.5.2), so that no list can be passed by in the other form.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use anygate_proto::application::Endpoints;

/// Bits of an IPv6 address that one customer of a provider has in common (RFC 6177): a customer with one address there has all
/// of them.
const SITE_BITS: u8 = 64;
/// Who sent a request, as far as limits and lists care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// From this address, which is never an IPv4 address written as IPv6.
    Address(IpAddr),
    /// On a unix socket, without a named client behind it.
    Unix,
    /// The text for its address is no address.
    Unknown,
}

impl Client {
    /// Returns the client. `endpoints` are those after trusted proxies were evaluated.
    pub fn of(endpoints: &Endpoints) -> Client {
        // Ends of one request come from a proxy, which told of its own client.
        if endpoints.unix && !endpoints.of_one_request {
            return Client::Unix;
        }
        endpoints.remote_addr.parse::<IpAddr>().map_or(Client::Unknown, Client::from)
    }

    /// The client that limits count: an IPv6 address stands for all of its /64.
    pub fn site(self) -> Client {
        match self {
            Client::Address(IpAddr::V6(address)) => {
                let mask = u128::MAX << (128 - u32::from(SITE_BITS));
                Client::Address(IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask)))
            }
            other => other,
        }
    }

    /// Its bytes, which differ from those of every other client.
    pub(crate) fn key(self) -> ClientKey {
        let mut bytes = [0; 17];
        let [kind, rest @ ..] = &mut bytes;
        match self {
            Client::Address(IpAddr::V6(address)) => {
                *kind = 6;
                *rest = address.octets();
            }
            Client::Address(IpAddr::V4(address)) => {
                *kind = 4;
                *rest = address.to_ipv6_mapped().octets();
            }
            Client::Unix => *kind = 1,
            Client::Unknown => {}
        }
        ClientKey(bytes)
    }
}

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Client {
        Client::Address(address.to_canonical())
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Client::Address(address) => address.fmt(f),
            Client::Unix => f.write_str("unix"),
            Client::Unknown => f.write_str("unknown"),
        }
    }
}

/// A client as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientKey([u8; 17]);

impl AsRef<[u8]> for ClientKey {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_those_of_ipv4() {
        let mapped: IpAddr = "::ffff:10.1.2.3".parse().unwrap();
        assert_eq!(Client::from(mapped), Client::Address("10.1.2.3".parse().unwrap()));
    }

    #[test]
    fn a_client_of_ipv6_is_its_site() {
        let site = |text: &str| Client::from(text.parse::<IpAddr>().unwrap()).site();
        assert_eq!(site("2001:db8:1:2:3:4:5:6"), site("2001:db8:1:2::1"));
        assert_ne!(site("2001:db8:1:2::1"), site("2001:db8:1:3::1"));
        assert_ne!(site("192.0.2.1"), site("192.0.2.2"));
    }

    #[test]
    fn who_is_on_a_unix_socket_is_its_peer_or_who_the_peer_names() {
        let mut ends = Endpoints { remote_addr: "127.0.0.1".into(), unix: true, ..Endpoints::default() };
        assert_eq!(Client::of(&ends), Client::Unix);
        ends.of_one_request = true;
        assert_eq!(Client::of(&ends), Client::Address("127.0.0.1".parse().unwrap()));
        ends.remote_addr = "unknown".into();
        assert_eq!(Client::of(&ends), Client::Unknown);
    }
}
