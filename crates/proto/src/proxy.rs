//! The PROXY protocol, versions 1 and 2: who the client of a forwarded connection is
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The client and the address that it connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The client.
    pub source: (IpAddr, u16),
    /// Address that the client connected to.
    pub destination: (IpAddr, u16),
    /// The client spoke TLS with the forwarder.
    pub https: bool,
}

/// Content of a preface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preface {
    /// Bytes of it.
    pub consumed: usize,
    /// `None`: the forwarder speaks for itself (a health check), or does not know the client.
    pub forwarded: Option<Forwarded>,
}

/// Fault in a preface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The connection begins with something else.
    Missing,
    /// The preface is malformed, or longer than any valid one.
    Malformed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::Missing => "the connection does not begin with a PROXY preface",
            Error::Malformed => "malformed PROXY preface",
        })
    }
}

impl std::error::Error for Error {}

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Section 2.1: "the maximum line length the receiver must support, including the CRLF".
const V1_MAX_BYTES: usize = 107;
/// Addresses and as many additions as any forwarder sends.
const V2_MAX_BYTES: usize = 4096;
const V2_HEAD_BYTES: usize = 16;
const TLS: u8 = 0x20;

/// Reads a preface from `bytes`, which hold everything received. `None`: not all of it is there yet.
pub fn decode(bytes: &[u8]) -> Result<Option<Preface>, Error> {
    if is_beginning(bytes, V2) {
        return decode_v2(bytes);
    }
    if is_beginning(bytes, V1) {
        return decode_v1(bytes);
    }
    Err(Error::Missing)
}

/// Whether `bytes` begin as `signature` does, as far as they go.
fn is_beginning(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(byte, expected)| byte == expected)
}

fn decode_v1(bytes: &[u8]) -> Result<Option<Preface>, Error> {
    let Some(end) = memchr::memchr(b'\n', bytes.get(..V1_MAX_BYTES).unwrap_or(bytes)) else {
        return if bytes.len() >= V1_MAX_BYTES { Err(Error::Malformed) } else { Ok(None) };
    };
    let line = bytes.get(V1.len()..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Error::Malformed)?;
    let line = std::str::from_utf8(line).map_err(|_| Error::Malformed)?;
    let consumed = end + 1;
    let mut words = line.split(' ');
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(Some(Preface { consumed, forwarded: None }));
    }
    let mut address = || {
        let address: IpAddr = words.next()?.parse().ok()?;
        (address.is_ipv4() == (family == "TCP4")).then_some(address)
    };
    let (source, destination) = (address(), address());
    let mut port = || {
        let digits = words.next()?;
        let plain =
            digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
        if plain { digits.parse::<u16>().ok() } else { None }
    };
    let ports = (port(), port());
    if !matches!(family, "TCP4" | "TCP6") || words.next().is_some() {
        return Err(Error::Malformed);
    }
    match (source.zip(ports.0), destination.zip(ports.1)) {
        (Some(source), Some(destination)) => {
            Ok(Some(Preface { consumed, forwarded: Some(Forwarded { source, destination, https: false }) }))
        }
        _ => Err(Error::Malformed),
    }
}

fn decode_v2(bytes: &[u8]) -> Result<Option<Preface>, Error> {
    let Some((head, rest)) = bytes.split_at_checked(V2_HEAD_BYTES) else { return Ok(None) };
    let Some(&[command, family, length1, length0]) = head.last_chunk::<4>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([length1, length0]));
    if command >> 4 != 2 || length > V2_MAX_BYTES {
        return Err(Error::Malformed);
    }
    let Some(content) = rest.get(..length) else { return Ok(None) };
    let consumed = V2_HEAD_BYTES + length;
    let forwarded = match (command & 15, family) {
        // LOCAL; and what is not a TCP connection over IP (unix sockets, unspecified): "the receiver must accept [...] and
        // use the real connection endpoints".
        (0, _) | (1, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => None,
        (1, 0x11) => {
            let (addresses, additions) = content.split_first_chunk::<12>().ok_or(Error::Malformed)?;
            let &[a, b, c, d, e, f, g, h, sp1, sp0, dp1, dp0] = addresses;
            Some(Forwarded {
                source: (Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([sp1, sp0])),
                destination: (Ipv4Addr::new(e, f, g, h).into(), u16::from_be_bytes([dp1, dp0])),
                https: spoke_tls(additions)?,
            })
        }
        (1, 0x21) => {
            let (source, rest) = content.split_first_chunk::<16>().ok_or(Error::Malformed)?;
            let (destination, rest) = rest.split_first_chunk::<16>().ok_or(Error::Malformed)?;
            let (&[sp1, sp0, dp1, dp0], additions) = rest.split_first_chunk::<4>().ok_or(Error::Malformed)?;
            Some(Forwarded {
                source: (Ipv6Addr::from(*source).into(), u16::from_be_bytes([sp1, sp0])),
                destination: (Ipv6Addr::from(*destination).into(), u16::from_be_bytes([dp1, dp0])),
                https: spoke_tls(additions)?,
            })
        }
        _ => return Err(Error::Malformed),
    };
    Ok(Some(Preface { consumed, forwarded }))
}

/// Looks for PP2_TYPE_SSL (section 2.2.6) among the additions: a type, a length and a value each.
fn spoke_tls(mut additions: &[u8]) -> Result<bool, Error> {
    let mut https = false;
    while let Some((&[kind, length1, length0], rest)) = additions.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([length1, length0]));
        let (value, rest) = rest.split_at_checked(length).ok_or(Error::Malformed)?;
        https |= kind == TLS && value.first().is_some_and(|client| client & 1 != 0);
        additions = rest;
    }
    if additions.is_empty() { Ok(https) } else { Err(Error::Malformed) }
}
