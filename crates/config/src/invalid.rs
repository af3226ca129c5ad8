//! What can be wrong with the text of an option. All of it is the user's to mend; what the machine refuses (a folder that
//! is not there) is found where it is used, and reported in the same form.

use std::fmt;
use std::path::PathBuf;

use crate::options::Kind;
use crate::units::show_size;

/// Why a text is not what an option takes. What it is shown as ends a sentence that begins with the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// Not a value of this type, or not in its range.
    Kind(Kind),
    /// None of these words.
    Choice(&'static [&'static str]),
    /// It must have this form.
    Form(&'static str),
    /// A path does not begin with a slash.
    RelativePath,
    /// A path is written as no request's path is after it was normalised.
    UnnormalisedPath,
    /// Files below this path are never served.
    HiddenPath,
    /// A number of things is 0, too large, or no number.
    Count(String),
    /// A word is not the name of a field.
    FieldName(String),
    /// The name of the field is not one.
    LeadingFieldName(String),
    /// Only the server can set this field.
    Framing,
    /// A value has control characters.
    Control,
    /// A rate has a time that is not whole seconds.
    Fraction,
    /// A rate allows more requests a second than this.
    TooFast(u64),
    /// A rate makes a client wait for longer than this many days.
    TooSlow(u64),
    /// It is no regular expression.
    Pattern(String),
    /// There is no such folder.
    NoFolder(PathBuf),
    /// What stands in brackets is not an IPv6 address.
    Ipv6(String),
    /// It is no address of this protocol.
    AddressOf(&'static str),
    /// A protocol that is not spoken, and those that are.
    Protocol(String, String),
    /// A protocol and an address that are joined in another way than the one that is given.
    Spelling(String),
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invalid::Kind(kind) => describe(*kind, f),
            Invalid::Choice(words) => describe(Kind::Choice(words), f),
            Invalid::Form(form) => f.write_str(form),
            Invalid::RelativePath => f.write_str("must begin with /"),
            Invalid::UnnormalisedPath => {
                f.write_str("must be a decoded path without //, ?, # and the segments . and ..")
            }
            Invalid::HiddenPath => f.write_str("must not contain hidden directories"),
            Invalid::Count(text) => {
                write!(f, "must contain a number from 1 to {} instead of {text:?}", u32::MAX)
            }
            Invalid::FieldName(name) => write!(f, "must name a field: {name:?} is not a field name"),
            Invalid::LeadingFieldName(name) => {
                write!(f, "must begin with the name of a field: {name:?} is not a field name")
            }
            Invalid::Framing => f.write_str("is a field that only the server can set"),
            Invalid::Control => f.write_str("must not contain control characters"),
            Invalid::Fraction => f.write_str("must have a time in whole seconds"),
            Invalid::TooFast(max) => write!(f, "must be at most {max} requests a second"),
            Invalid::TooSlow(days) => write!(f, "must allow the whole burst again within {days} days"),
            Invalid::Pattern(reason) => write!(f, "has a broken regular expression: {reason}"),
            Invalid::NoFolder(path) => {
                write!(f, "names {:?}, which is not a directory", path.display().to_string())
            }
            Invalid::Ipv6(text) => write!(f, "holds {text:?}, which is not an IPv6 address"),
            Invalid::AddressOf(scheme) => {
                write!(f, "must be {scheme}://host:port, {scheme}+unix:PATH or {scheme}+fd://N")
            }
            Invalid::Protocol(given, known) => {
                write!(f, "asks for {given}, which is not supported; the protocols are {known}")
            }
            Invalid::Spelling(right) => write!(f, "must be written {right}"),
        }
    }
}

/// Says what a value of this type looks like.
fn describe(kind: Kind, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match kind {
        Kind::Flag => f.write_str("must be true or false"),
        Kind::Choice(words) => write!(f, "must be one of {}", words.join(", ")),
        Kind::Integer { min, max } => write!(f, "must be a whole number from {min} to {max}"),
        Kind::AutoInteger { min, max } => write!(f, "must be auto, or a whole number from {min} to {max}"),
        Kind::Size { min, max } => {
            let (min, max) = (show_size(min), show_size(max));
            write!(f, "must be a size such as 65536, 64K, 1M or 1G, from {min} to {max}")
        }
        Kind::AutoSize { .. } => f.write_str("must be auto, or a size such as 65536, 64K or 1G"),
        Kind::Duration => f.write_str("must be a time above zero such as 30, 500ms, 30s, 2m or 1h"),
        Kind::TimeLimit => f.write_str("must be 0 or a time such as 30, 500ms, 30s, 2m or 1h"),
        Kind::Mode => f.write_str("must be permission bits in octal such as 660"),
        Kind::Text | Kind::Path | Kind::List => f.write_str("must be text"),
    }
}

impl std::error::Error for Invalid {}
