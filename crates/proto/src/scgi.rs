//! SCGI: a netstring of variables, then the body (<https://python.ca/scgi/protocol.txt>).

use std::fmt;

use crate::limits::Limits;
use crate::pairs::{self, Fault};

/// Fault in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The packet does not begin with a length and a colon, or the length has a leading zero.
    Length,
    /// The variables are more than the limits allow. As far as can be seen they are sound, so that the client can be told.
    TooLarge,
    /// No comma ends the variables.
    End,
    /// A variable is not a name and a value, each ended by NUL; or a name is empty.
    Variable,
    /// CONTENT_LENGTH is not the first variable.
    ContentLengthFirst,
    /// There is no variable SCGI with the value 1.
    Version,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::Length => "not SCGI: it does not begin with a length and a colon",
            Error::TooLarge => "the SCGI variables are larger than the limits",
            Error::End => "no comma ends the SCGI variables",
            Error::Variable => "an SCGI variable is not a name and a value",
            Error::ContentLengthFirst => "CONTENT_LENGTH is not the first SCGI variable",
            Error::Version => "the variable SCGI is not 1",
        })
    }
}

impl std::error::Error for Error {}

/// The variables of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'b> {
    variables: &'b [u8],
    /// Bytes of the packet before its body.
    pub consumed: usize,
}

impl<'b> Packet<'b> {
    /// Names and values in order.
    pub fn variables(self) -> impl Iterator<Item = (&'b [u8], &'b [u8])> {
        pairs::iter(self.variables, pair)
    }
}

/// Finds the variables in `bytes`, which hold everything received. `None`: not all of them are there yet.
pub fn decode<'b>(bytes: &'b [u8], limits: &Limits) -> Result<Option<Packet<'b>>, Error> {
    let limit = limits.variables_max_bytes();
    let mut length = 0usize;
    let mut digits = 0;
    let start = loop {
        match bytes.get(digits) {
            None => return Ok(None),
            Some(b':') if digits > 0 => break digits + 1,
            // A length of zero has no CONTENT_LENGTH, so no number begins with a zero.
            Some(byte @ b'0'..=b'9') if digits > 0 || *byte != b'0' => {
                length = length * 10 + usize::from(byte - b'0');
                if length > limit {
                    return Err(Error::TooLarge);
                }
            }
            Some(_) => return Err(Error::Length),
        }
        digits += 1;
    };
    let Some((variables, rest)) = bytes.get(start..).and_then(|rest| rest.split_at_checked(length)) else {
        return Ok(None);
    };
    match rest.first() {
        None => return Ok(None),
        Some(b',') => {}
        Some(_) => return Err(Error::End),
    }
    check(variables, limits)?;
    Ok(Some(Packet { variables, consumed: start + length + 1 }))
}

fn check(variables: &[u8], limits: &Limits) -> Result<(), Error> {
    let mut length_first = None;
    let (mut versions, mut all_one) = (0, true);
    let see = |name: &[u8], value: &[u8]| {
        length_first.get_or_insert(name == b"CONTENT_LENGTH");
        if name == b"SCGI" {
            versions += 1;
            all_one &= value == b"1";
        }
    };
    pairs::check(variables, limits, pair, see).map_err(|fault| match fault {
        Fault::Malformed => Error::Variable,
        Fault::TooMany => Error::TooLarge,
    })?;
    match (length_first, versions) {
        (Some(true), 1..) if all_one => Ok(()),
        (Some(true), _) => Err(Error::Version),
        _ => Err(Error::ContentLengthFirst),
    }
}

/// A name and a value, each ended by NUL; and what follows them.
fn pair(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, rest) = until_nul(bytes)?;
    let (value, rest) = until_nul(rest)?;
    Some((name, value, rest))
}

fn until_nul(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}
