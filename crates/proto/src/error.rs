//! What can be wrong with parts of a message, whatever the gateway. Each codec has its own small enum beside it; none
//! allocates: context is added where a human will read it.

use std::fmt;

/// A head that cannot be built from these parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidHead {
    /// The status is not three digits, optionally followed by a space and a reason without control characters.
    Status,
    /// A field name that is not a token (RFC 9110 section 5.1).
    FieldName,
    /// A field value with a control character (RFC 9110 section 5.5).
    FieldValue,
    /// More than 4 GiB of text.
    TooLong,
}

impl fmt::Display for InvalidHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InvalidHead::Status => {
                "the status must be three digits from 100, a space and a reason without control characters"
            }
            InvalidHead::FieldName => "a header name must be a token (letters, digits and !#$%&'*+-.^_`|~)",
            InvalidHead::FieldValue => "a header value must not hold control characters",
            InvalidHead::TooLong => "the head is longer than 4 GiB",
        })
    }
}

impl std::error::Error for InvalidHead {}
