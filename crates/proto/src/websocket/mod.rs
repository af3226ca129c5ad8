//! WebSocket: RFC 6455, with compression of messages (RFC 7692).
//!
//! * [`handshake`]: whether a request asks for a WebSocket, and what its response must say.
//! * [`decoder`]: bytes of a client to messages and control frames. * [`encoder`]: the other way.
//! * [`deflate`]: what is agreed on compression, and the two directions of it. * [`frame`]: heads and masks.
//! * [`utf8`]: text that comes in pieces.
//!
//! Neither direction holds memory between messages, save the compression contexts where they are kept over messages.

pub mod decoder;
pub mod deflate;
pub mod encoder;
pub mod frame;
pub mod handshake;
mod utf8;

use std::fmt;

pub use decoder::{Decoder, Step};
pub use encoder::Encoder;

/// Caps on what a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest message in bytes, out of all its frames and out of compression; past it 1009.
    pub message_max_bytes: usize,
    /// Maximum number of frames per message; above it 1008: empty ones cost work and carry nothing.
    pub fragments_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { message_max_bytes: 1 << 20, fragments_max: 1 << 17 }
    }
}

/// Type of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// A whole message. Text was checked to be UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Type of `data`.
    pub kind: Kind,
    /// The message.
    pub data: Vec<u8>,
}

/// Event from the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message is complete.
    Message(Message),
    /// To be responded to by a pong with the same bytes.
    Ping(Vec<u8>),
    /// Responds to a ping, or comes unasked.
    Pong(Vec<u8>),
    /// The client sends no more.
    Close(Close),
}

/// Why a WebSocket is closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Close {
    /// Status code; `None` when the client sent none (1005 in an API).
    pub code: Option<u16>,
    /// Reason phrase; at most 123 bytes.
    pub reason: String,
}

/// Status codes of RFC 6455 section 7.4.1.
pub mod code {
    /// The purpose was fulfilled.
    pub const NORMAL: u16 = 1000;
    /// The server goes down, or the browser leaves.
    pub const GOING_AWAY: u16 = 1001;
    /// The protocol was broken.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// No code was given. Never sent.
    pub const NONE: u16 = 1005;
    /// The connection ended without a close. Never sent.
    pub const ABNORMAL: u16 = 1006;
    /// A message is not what it says it is, such as text that is not UTF-8.
    pub const INVALID_DATA: u16 = 1007;
    /// A rule of the server was broken.
    pub const POLICY: u16 = 1008;
    /// A message is too long.
    pub const TOO_LONG: u16 = 1009;
    /// The server failed.
    pub const INTERNAL_ERROR: u16 = 1011;
}

/// Fault in the client's bytes, after which the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A reserved bit is set that nothing was agreed about (section 5.2), or where it may not be (RFC 7692 section 6.1).
    ReservedBit,
    /// An operation that does not exist.
    Opcode,
    /// A frame of a client that is not masked (section 5.1).
    Unmasked,
    /// A frame of a server that is masked (section 5.1).
    Masked,
    /// A control frame that is fragmented or longer than 125 bytes (section 5.5).
    Control,
    /// A continuation of nothing, or another message inside one (section 5.4).
    Fragmentation,
    /// A length in more bytes than it needs, or of 2^63 and more (section 5.2).
    Length,
    /// A message longer than the limit.
    TooLong,
    /// A message of too many frames.
    TooManyFragments,
    /// Text that is not UTF-8.
    Utf8,
    /// Compressed data that is broken.
    Deflate,
    /// A close frame of one byte, or with a code that must not be sent (section 7.4).
    Close,
}

impl Error {
    /// The code that the client gets.
    pub fn code(self) -> u16 {
        match self {
            Error::ReservedBit
            | Error::Opcode
            | Error::Unmasked
            | Error::Masked
            | Error::Control
            | Error::Fragmentation
            | Error::Length
            | Error::Close => code::PROTOCOL_ERROR,
            Error::Utf8 | Error::Deflate => code::INVALID_DATA,
            Error::TooManyFragments => code::POLICY,
            Error::TooLong => code::TOO_LONG,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::ReservedBit => "a reserved bit is set",
            Error::Opcode => "unknown opcode",
            Error::Unmasked => "a frame is not masked",
            Error::Masked => "a frame is masked",
            Error::Control => "a control frame is fragmented or too long",
            Error::Fragmentation => "fragments out of order",
            Error::Length => "malformed length",
            Error::TooLong => "message too long",
            Error::TooManyFragments => "too many fragments",
            Error::Utf8 => "text is not UTF-8",
            Error::Deflate => "broken compression",
            Error::Close => "malformed close frame",
        })
    }
}

impl std::error::Error for Error {}

/// Whether a close frame may carry that code: those that section 7.4.1 defines for it, those registered since (1012 to
/// 1014), and those of libraries and applications (section 7.4.2).
pub fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
