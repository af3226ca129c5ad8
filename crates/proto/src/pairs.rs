//! Names and values packed one after the other, as SCGI, uwsgi and FastCGI carry variables. What marks the end of a text
//! is each protocol's own: its function takes one pair off the front and gives name, value and what follows them.

use crate::limits::Limits;

/// Fault in packed pairs.
pub(crate) enum Fault {
    /// The last pair is cut off, or a name is empty.
    Malformed,
    /// More pairs than the limits allow.
    TooMany,
}

/// Checks that `packed` is whole pairs within the limits, and shows each.
pub(crate) fn check(
    packed: &[u8],
    limits: &Limits,
    take: impl Fn(&[u8]) -> Option<(&[u8], &[u8], &[u8])>,
    mut see: impl FnMut(&[u8], &[u8]),
) -> Result<(), Fault> {
    let mut rest = packed;
    let mut count = 0;
    while !rest.is_empty() {
        let (name, value, after) = take(rest).ok_or(Fault::Malformed)?;
        count += 1;
        if name.is_empty() {
            return Err(Fault::Malformed);
        }
        if count > limits.variables_max() {
            return Err(Fault::TooMany);
        }
        see(name, value);
        rest = after;
    }
    Ok(())
}

/// Names and values in order, up to the first that is not whole.
pub(crate) fn iter(
    packed: &[u8],
    take: impl Fn(&[u8]) -> Option<(&[u8], &[u8], &[u8])>,
) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = packed;
    std::iter::from_fn(move || {
        let (name, value, after) = take(rest)?;
        rest = after;
        Some((name, value))
    })
}
