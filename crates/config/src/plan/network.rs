//! Where requests come from: networks of IP addresses, and unix sockets.

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use crate::units::plain_number;

/// Where IPv4 addresses lie in IPv6: so many bits say so.
const MAPPED_BITS: u8 = 96;

/// All addresses that begin with the first bits of one. An IPv4 address that is written as IPv6 (`::ffff:192.0.2.1`) is
/// that IPv4 address (RFC 4291 section 2.5.5.2), so that no list can be passed by in the other form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpNet);

impl Network {
    /// The network of the first `bits` of `address`.
    ///
    /// `None`: more bits than the address has, or one is set behind them, so that another network may be meant.
    pub fn new(address: IpAddr, bits: u8) -> Option<Network> {
        let network = IpNet::new(address, bits).ok().filter(|network| network.network() == address)?;
        match (address.is_ipv6(), address.to_canonical(), bits.checked_sub(MAPPED_BITS)) {
            (true, IpAddr::V4(mapped), Some(bits)) => Some(Network(Ipv4Net::new(mapped, bits).ok()?.into())),
            _ => Some(Network(network)),
        }
    }

    /// Reads `10.0.0.1` or `10.0.0.0/8`.
    pub fn read(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            None => (text, None),
            Some((address, bits)) => {
                let bits = plain_number(bits).filter(|_| !bits.is_empty())?;
                (address, Some(u8::try_from(bits).ok()?))
            }
        };
        let address: IpAddr = address.parse().ok()?;
        Network::new(address, bits.unwrap_or(if address.is_ipv4() { 32 } else { 128 }))
    }

    /// Whether `address` lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// How many bits of its addresses are the same.
    pub fn bits(&self) -> u8 {
        self.0.prefix_len()
    }

    /// Its first address, whose other bits are zero.
    pub fn address(&self) -> IpAddr {
        self.0.addr()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where connections come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Unix sockets.
    Unix,
    /// These addresses.
    Network(Network),
}

impl Source {
    /// Reads `10.0.0.1`, `10.0.0.0/8` or `unix`.
    pub fn read(text: &str) -> Option<Source> {
        if text == "unix" { Some(Source::Unix) } else { Network::read(text).map(Source::Network) }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn networks_are_read() {
        for (text, address, bits) in [
            ("10.0.0.0/8", "10.0.0.0", 8),
            ("0.0.0.0/0", "0.0.0.0", 0),
            ("192.0.2.7", "192.0.2.7", 32),
            ("2001:db8::/32", "2001:db8::", 32),
            ("::/0", "::", 0),
            ("::1", "::1", 128),
            ("fd00::/8", "fd00::", 8),
            ("::ffff:10.0.0.0/104", "10.0.0.0", 8),
            ("::ffff:10.1.2.3", "10.1.2.3", 32),
        ] {
            let network = Network::read(text).expect(text);
            assert_eq!((network.address(), network.bits()), (address.parse().unwrap(), bits), "{text}");
        }
        for text in [
            "10.0.0.1/8",
            "2001:db8::1/64",
            "10.0.0.0/33",
            "::/129",
            "::/999",
            "fd00::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0/8",
            "010.0.0.0/8",
            "example.com",
            "localhost",
            "*",
            "",
        ] {
            assert_eq!(Network::read(text), None, "{text}");
        }
        assert_eq!(Source::read("unix"), Some(Source::Unix));
        assert_eq!(Source::read("::1"), Network::read("::1").map(Source::Network));
        assert_eq!(Source::read("unix:"), None);
    }

    #[test]
    fn mapped_addresses_are_those_of_ipv4() {
        let network = Network::read("10.0.0.0/8").unwrap();
        assert!(network.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!network.contains("::10.1.2.3".parse().unwrap()));
        assert!(!Network::read("::/0").unwrap().contains("::ffff:10.1.2.3".parse().unwrap()));
    }
    fn number(address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        }
    }

    proptest! {
        #[test]
        fn a_network_contains_what_has_its_bits(address: u128, other: u128, bits in 0u8..=128, four: bool) {
            let width = if four { 32 } else { 128 };
            let bits = bits.min(width);
            let shift = |number: u128| if four { number >> 96 } else { number };
            let mask = u128::MAX.checked_shl(u32::from(width - bits)).unwrap_or(0);
            let of = |number: u128| match four {
                true => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number & u128::from(u32::MAX)).unwrap())),
                false => IpAddr::V6(Ipv6Addr::from_bits(number)),
            };
            let (address, other) = (of(shift(address)), of(shift(other)));
            let network = Network::new(of(number(address) & mask), bits).unwrap();
            prop_assert_eq!(Network::read(&network.to_string()), Some(network));
            let is_mapped = |address: IpAddr| address.is_ipv6() && address.to_canonical().is_ipv4();
            if !is_mapped(address) && !is_mapped(network.address()) {
                prop_assert!(network.contains(address));
                let is_inside = number(other) & mask == number(address) & mask;
                prop_assert_eq!(network.contains(other), is_inside && !is_mapped(other));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = Network::read(&text);
        }
    }
}
