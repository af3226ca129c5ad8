//! Networks of IP addresses, and the client whose address is looked up in them.
//!
//! An IPv4 address that is written as IPv6 (`::ffff:192.0.2.1`) is that IPv4 address everywhere here (RFC 4291 section
//! 2.5.5.2), so that no list can be passed by in the other form.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use anygate_proto::application::Endpoints;

/// Bits of an IPv6 address that one customer of a provider has in common (RFC 6177): whoever has one address there has all
/// of them.
const SITE_BITS: u8 = 64;
/// Length of the prefix of IPv4 addresses in IPv6.
const MAPPED_BITS: u8 = 96;

/// All addresses that begin with the first bits of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// A text that is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidNetwork {
    /// Not an address, or not one followed by `/` and a number.
    Form,
    /// More bits than an address has.
    Bits,
    /// Bits behind those that count are set: whoever writes them means another network.
    Host,
}

impl fmt::Display for InvalidNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InvalidNetwork::Form => "must be an IP address or a network such as 10.0.0.0/8",
            InvalidNetwork::Bits => "has more bits behind the slash than an address has",
            InvalidNetwork::Host => "has bits set behind those that the number after the slash counts",
        })
    }
}

impl std::error::Error for InvalidNetwork {}

impl Network {
    /// The network of the first `bits` of `address`.
    ///
    /// Errors: more bits than the address has, or one set behind them.
    pub fn new(address: IpAddr, bits: u8) -> Result<Network, InvalidNetwork> {
        let width = if address.is_ipv4() { 32 } else { 128 };
        if bits > width {
            return Err(InvalidNetwork::Bits);
        }
        let network = Network { address, bits };
        if network.first_bits(address) != Some(number(address)) {
            return Err(InvalidNetwork::Host);
        }
        match (address, address.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(mapped)) if bits >= MAPPED_BITS => {
                Ok(Network { address: IpAddr::V4(mapped), bits: bits - MAPPED_BITS })
            }
            _ => Ok(network),
        }
    }

    /// Whether `address` lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.first_bits(address.to_canonical()) == Some(number(self.address))
    }

    /// How many bits of its addresses are the same.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Any of its addresses with all other bits zero.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The bits of `address` that count, the others being zero; `None` for the other kind of address.
    fn first_bits(&self, address: IpAddr) -> Option<u128> {
        match (self.address, address) {
            (IpAddr::V4(_), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                Some(u128::from(address.to_bits() & mask))
            }
            (IpAddr::V6(_), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                Some(address.to_bits() & mask)
            }
            _ => None,
        }
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Network, InvalidNetwork> {
        let (address, bits) = match text.split_once('/') {
            None => (text, None),
            Some((address, bits)) if !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                (address, Some(bits.parse().map_err(|_| InvalidNetwork::Bits)?))
            }
            Some(_) => return Err(InvalidNetwork::Form),
        };
        let address: IpAddr = address.parse().map_err(|_| InvalidNetwork::Form)?;
        Network::new(address, bits.unwrap_or(if address.is_ipv4() { 32 } else { 128 }))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Client of a request, as limits and access lists identify it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// From this address, which is never an IPv4 address written as IPv6.
    Address(IpAddr),
    /// On a unix socket, with nobody telling of a client behind.
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
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    #[test]
    fn networks_are_read() {
        for (text, address, bits) in [
            ("10.0.0.0/8", "10.0.0.0", 8),
            ("0.0.0.0/0", "0.0.0.0", 0),
            ("192.0.2.7", "192.0.2.7", 32),
            ("2001:db8::/32", "2001:db8::", 32),
            ("::/0", "::", 0),
            ("::1", "::1", 128),
            ("::ffff:10.0.0.0/104", "10.0.0.0", 8),
            ("::ffff:10.1.2.3", "10.1.2.3", 32),
        ] {
            let network: Network = text.parse().unwrap();
            assert_eq!((network.address(), network.bits()), (address.parse().unwrap(), bits), "{text}");
        }
        for (text, error) in [
            ("10.0.0.1/8", InvalidNetwork::Host),
            ("2001:db8::1/64", InvalidNetwork::Host),
            ("10.0.0.0/33", InvalidNetwork::Bits),
            ("::/129", InvalidNetwork::Bits),
            ("::/999", InvalidNetwork::Bits),
            ("10.0.0.0/", InvalidNetwork::Form),
            ("10.0.0.0/+8", InvalidNetwork::Form),
            ("10.0.0.0/8/8", InvalidNetwork::Form),
            ("10.0.0/8", InvalidNetwork::Form),
            ("010.0.0.0/8", InvalidNetwork::Form),
            ("example.com", InvalidNetwork::Form),
            ("", InvalidNetwork::Form),
        ] {
            assert_eq!(text.parse::<Network>(), Err(error), "{text}");
        }
    }

    #[test]
    fn mapped_addresses_are_those_of_ipv4() {
        let network: Network = "10.0.0.0/8".parse().unwrap();
        assert!(network.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!network.contains("::10.1.2.3".parse().unwrap()));
        assert!(!"::/0".parse::<Network>().unwrap().contains("::ffff:10.1.2.3".parse().unwrap()));
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
        ends.remote_addr = "nobody".into();
        assert_eq!(Client::of(&ends), Client::Unknown);
    }

    proptest! {
        #[test]
        fn a_network_contains_what_has_its_bits(address: u128, other: u128, bits in 0u8..=128, four: bool) {
            let (address, width) = if four {
                (IpAddr::V4(Ipv4Addr::from_bits((address >> 96) as u32)), 32)
            } else {
                (IpAddr::V6(Ipv6Addr::from_bits(address)), 128)
            };
            let bits = bits.min(width);
            let mask = u128::MAX.checked_shl(u32::from(width - bits)).unwrap_or(0);
            let of = |number: u128| match four {
                true => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
                false => IpAddr::V6(Ipv6Addr::from_bits(number)),
            };
            let network = Network::new(of(number(address) & mask), bits).unwrap();
            prop_assert_eq!(network.to_string().parse(), Ok(network));
            if of(number(address)).to_canonical().is_ipv4() == four {
                prop_assert!(network.contains(address));
            }
            let other = if four { other >> 96 } else { other };
            let inside = number(of(other)) & mask == number(address) & mask;
            if of(other).to_canonical().is_ipv4() == network.address().is_ipv4() && four {
                prop_assert_eq!(network.contains(of(other)), inside);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = text.parse::<Network>();
        }
    }
}
