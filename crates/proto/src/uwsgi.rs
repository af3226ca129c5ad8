//! The uwsgi protocol: a packet of variables, then the body
//! (<https://uwsgi-docs.readthedocs.io/en/latest/Protocol.html>).
//!
//! Only requests of WSGI applications are served (modifier1 0, and 30, with which SCRIPT_NAME is still a part of PATH_INFO).
//! Other modifiers make uWSGI evaluate code or send mail; here they are always refused.

use std::fmt;

use crate::limits::Limits;
use crate::pairs::{self, Fault};

/// Fault in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// modifier1 is none of 0, 30 and 100 (ping).
    Modifier(u8),
    /// The variables are more than the limits allow. As far as can be seen they are sound, so that the client can be told.
    TooLarge,
    /// The length of a name or a value points past the end of the packet, or a name is empty.
    Variable,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Modifier(modifier) => {
                write!(
                    f,
                    "not a request of the uwsgi protocol, or one with modifier1 {modifier}; only 0 and 30 are served"
                )
            }
            Error::TooLarge => f.write_str("the uwsgi variables are larger than the limits"),
            Error::Variable => f.write_str("a uwsgi variable is longer than its packet"),
        }
    }
}

impl std::error::Error for Error {}

/// Kind of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'b> {
    /// A request.
    Request {
        /// Names and values, packed; see [`variables`].
        variables: &'b [u8],
        /// SCRIPT_NAME is to be taken off PATH_INFO ([`Mount::OffPathInfo`](crate::cgi::Mount::OffPathInfo)).
        takes_mount: bool,
        /// Bytes of the packet before its body.
        consumed: usize,
    },
    /// Whether we live. [`PONG`] is the response.
    Ping,
}

/// The response to a ping.
pub const PONG: &[u8] = &[100, 0, 0, 1];

const TAKES_MOUNT: u8 = 30;
const PING: u8 = 100;

/// Finds the variables in `bytes`, which hold everything received. `None`: not all of them are there yet.
pub fn decode<'b>(bytes: &'b [u8], limits: &Limits) -> Result<Option<Packet<'b>>, Error> {
    match bytes.first() {
        None => return Ok(None),
        Some(&(0 | TAKES_MOUNT | PING)) => {}
        Some(&modifier) => return Err(Error::Modifier(modifier)),
    }
    let Some(&[modifier, low, high, _modifier2]) = bytes.first_chunk::<4>() else { return Ok(None) };
    if modifier == PING {
        return Ok(Some(Packet::Ping));
    }
    let length = usize::from(u16::from_le_bytes([low, high]));
    if length > limits.variables_max_bytes() {
        return Err(Error::TooLarge);
    }
    let Some(packet) = bytes.get(4..4 + length) else { return Ok(None) };
    pairs::check(packet, limits, pair, |_, _| {}).map_err(|fault| match fault {
        Fault::Malformed => Error::Variable,
        Fault::TooMany => Error::TooLarge,
    })?;
    let takes_mount = modifier == TAKES_MOUNT;
    Ok(Some(Packet::Request { variables: packet, takes_mount, consumed: 4 + length }))
}

/// Names and values of a request's packet, in order.
pub fn variables(packet: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    pairs::iter(packet, pair)
}

/// A name and a value; and what follows them.
fn pair(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, rest) = text(bytes)?;
    let (value, rest) = text(rest)?;
    Some((name, value, rest))
}

/// A text behind its length in 16 bits, low byte first; and what follows it.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(length)))
}
