//! permessage-deflate (RFC 7692): what client and server agree on, and messages in and out of DEFLATE.
//!
//! A context costs far more memory than an idle connection should, so it is made when it is first used. Where messages do
//! not share one it is idle when its message is over: the caller takes it back and lends it to another
//! connection, since making one costs more than most messages.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::Error;

/// End of a flushed message, which is not sent (section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// Memory for one step of either direction.
const PIECE_BYTES: usize = 8 * 1024;
/// The window that DEFLATE has unless something else is agreed on, in bits.
const WINDOW_BITS: u8 = 15;

/// Parameters that may be agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preference {
    /// Messages of the server do not refer to earlier ones, so that nothing is kept between them.
    pub server_no_context_takeover: bool,
    /// The same for the client's.
    pub client_no_context_takeover: bool,
    /// The largest window of the server's messages, in bits, 9 to 15.
    pub server_max_window_bits: u8,
    /// The same for the client's; only a client that says so lets itself be limited.
    pub client_max_window_bits: u8,
}

impl Default for Preference {
    fn default() -> Self {
        Preference {
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            server_max_window_bits: WINDOW_BITS,
            client_max_window_bits: WINDOW_BITS,
        }
    }
}

/// Parameters that were agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    server_keeps: bool,
    client_keeps: bool,
    server_bits: u8,
    client_bits: u8,
    /// The client asked for `server_max_window_bits`, so that the response must say it.
    say_server_bits: bool,
    /// The client lets its window be limited.
    say_client_bits: bool,
}

impl Agreed {
    /// The value of Sec-WebSocket-Extensions in the response.
    pub fn field(&self) -> String {
        let mut text = "permessage-deflate".to_owned();
        if !self.server_keeps {
            text.push_str("; server_no_context_takeover");
        }
        if !self.client_keeps {
            text.push_str("; client_no_context_takeover");
        }
        if self.say_server_bits {
            text.push_str(&format!("; server_max_window_bits={}", self.server_bits));
        }
        if self.say_client_bits {
            text.push_str(&format!("; client_max_window_bits={}", self.client_bits));
        }
        text
    }
}

/// Takes the first of the client's offers that can be met. `values`: its Sec-WebSocket-Extensions fields.
pub fn negotiate<'a>(values: impl Iterator<Item = &'a [u8]>, preference: &Preference) -> Option<Agreed> {
    // extension-list = 1#extension, extension = extension-token *( ";" extension-param ) (RFC 6455 section 9.1). What is
    // quoted must be a token as well, so neither sign can stand inside.
    values.flat_map(|value| value.split(|&byte| byte == b',')).find_map(|offer| agree(offer, preference))
}

fn agree(offer: &[u8], preference: &Preference) -> Option<Agreed> {
    let mut parts = offer.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    if !parts.next()?.eq_ignore_ascii_case(b"permessage-deflate") {
        return None;
    }
    let mut agreed = Agreed {
        server_keeps: !preference.server_no_context_takeover,
        client_keeps: !preference.client_no_context_takeover,
        server_bits: preference.server_max_window_bits.clamp(9, WINDOW_BITS),
        client_bits: WINDOW_BITS,
        say_server_bits: preference.server_max_window_bits < WINDOW_BITS,
        say_client_bits: false,
    };
    let mut seen = [false; 4];
    for part in parts {
        let (name, value) = match part.iter().position(|&byte| byte == b'=') {
            None => (part, None),
            Some(sign) => (
                part.get(..sign).unwrap_or_default().trim_ascii(),
                Some(unquoted(part.get(sign + 1..).unwrap_or_default().trim_ascii())),
            ),
        };
        let number = match (name, value) {
            (b"server_no_context_takeover", None) => {
                agreed.server_keeps = false;
                0
            }
            (b"client_no_context_takeover", None) => {
                agreed.client_keeps = false;
                1
            }
            (b"server_max_window_bits", Some(value)) => {
                // A window of 8 bits is one that zlib cannot compress with: such an offer is declined.
                let bits = window_bits(value).filter(|bits| *bits >= 9)?;
                agreed.server_bits = agreed.server_bits.min(bits);
                agreed.say_server_bits = true;
                2
            }
            (b"client_max_window_bits", value) => {
                let bits = match value {
                    None => WINDOW_BITS,
                    Some(value) => window_bits(value)?,
                };
                agreed.client_bits = preference.client_max_window_bits.min(bits).max(8);
                agreed.say_client_bits = agreed.client_bits < bits || bits < WINDOW_BITS;
                3
            }
            // Section 7: an offer with parameters that are not defined, or with invalid values, is to be declined.
            _ => return None,
        };
        let before = seen.get_mut(number)?;
        if std::mem::replace(before, true) {
            return None;
        }
    }
    Some(agreed)
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// `8` to `15`, without leading zeros (section 7.1.2.1).
fn window_bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

/// A window of 9 bits is the smallest that zlib knows; a larger one reads what a smaller one wrote.
const WINDOW_BITS_MIN: u8 = 9;

/// Messages of the client out of compression.
#[derive(Debug)]
pub(super) struct Inflater {
    keeps: bool,
    context: Option<InflateContext>,
    /// Between messages.
    idle: bool,
    ended: bool,
}

/// Decompressor of one message, reused for the next.
#[derive(Debug)]
pub struct InflateContext(Box<Decompress>);

/// Compressor of one message, with the number of window bits.
#[derive(Debug)]
pub struct DeflateContext(Box<Compress>, u8);

impl Inflater {
    pub(super) fn new(agreed: &Agreed) -> Self {
        Inflater { keeps: agreed.client_keeps, context: None, idle: true, ended: false }
    }

    /// Whether it has none, and would give it back.
    pub(super) fn wants_context(&self) -> bool {
        !self.keeps && self.context.is_none()
    }

    /// Lends a context.
    pub(super) fn lend(&mut self, context: InflateContext) {
        if self.wants_context() {
            self.context = Some(context);
        }
    }

    /// Gives the context back that no message needs.
    pub(super) fn give_back(&mut self) -> Option<InflateContext> {
        if self.keeps || !self.idle { None } else { self.context.take() }
    }

    /// Inflates a piece of a message and hands what comes out to `take`, piece by piece.
    ///
    /// Errors: broken data, or what `take` says.
    pub(super) fn push(
        &mut self,
        mut input: &[u8],
        take: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let fresh = || InflateContext(Box::new(Decompress::new_with_window_bits(false, WINDOW_BITS)));
        let InflateContext(context) = self.context.get_or_insert_with(fresh);
        self.idle = false;
        let mut piece = [0; PIECE_BYTES];
        // Behind the last block of a stream there is nothing to read.
        while !self.ended {
            let (before_in, before_out) = (context.total_in(), context.total_out());
            let result = context.decompress(input, &mut piece, FlushDecompress::Sync);
            let read = usize::try_from(context.total_in() - before_in).unwrap_or(usize::MAX);
            let written = usize::try_from(context.total_out() - before_out).unwrap_or(usize::MAX);
            take(piece.get(..written).unwrap_or(&piece))?;
            input = input.get(read..).unwrap_or_default();
            match result {
                Err(_) => return Err(Error::Deflate),
                Ok(Status::StreamEnd) => self.ended = true,
                // Nothing more can come out of what there is.
                Ok(Status::BufError) => break,
                Ok(Status::Ok) if input.is_empty() && written < piece.len() => break,
                Ok(Status::Ok) => {}
            }
        }
        Ok(())
    }

    /// Ends a message (section 7.2.2: "Append 4 octets of 0x00 0x00 0xff 0xff to the tail end").
    pub(super) fn finish(&mut self, take: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        self.push(&TAIL, take)?;
        if (std::mem::take(&mut self.ended) || !self.keeps)
            && let Some(InflateContext(context)) = &mut self.context
        {
            context.reset(false);
        }
        self.idle = true;
        Ok(())
    }
}

/// Messages of the server into compression.
#[derive(Debug)]
pub(super) struct Deflater {
    keeps: bool,
    bits: u8,
    context: Option<DeflateContext>,
}

impl Deflater {
    pub(super) fn new(agreed: &Agreed) -> Self {
        Deflater { keeps: agreed.server_keeps, bits: agreed.server_bits, context: None }
    }

    /// Whether the client must see every message that was compressed, because later ones refer to it.
    pub(super) fn keeps(&self) -> bool {
        self.keeps
    }

    /// Lends a context.
    pub(super) fn lend(&mut self, context: DeflateContext) {
        if !self.keeps && context.1 == self.bits {
            self.context = Some(context);
        }
    }

    /// Gives the context back, which no message needs.
    pub(super) fn give_back(&mut self) -> Option<DeflateContext> {
        if self.keeps { None } else { self.context.take() }
    }

    /// Compresses a message that is not empty; `out` is cleared first.
    pub(super) fn message(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        let bits = self.bits.max(WINDOW_BITS_MIN);
        let level = Compression::new(1);
        let fresh =
            || DeflateContext(Box::new(Compress::new_with_window_bits(level, false, bits)), self.bits);
        let DeflateContext(context, _) = self.context.get_or_insert_with(fresh);
        out.clear();
        let mut piece = [0; PIECE_BYTES];
        loop {
            let (before_in, before_out) = (context.total_in(), context.total_out());
            let result = context.compress(input, &mut piece, FlushCompress::Sync);
            let read = usize::try_from(context.total_in() - before_in).unwrap_or(usize::MAX);
            let written = usize::try_from(context.total_out() - before_out).unwrap_or(usize::MAX);
            out.extend_from_slice(piece.get(..written).unwrap_or(&piece));
            input = input.get(read..).unwrap_or_default();
            let full = written == piece.len();
            debug_assert!(result.is_ok(), "DEFLATE takes any bytes");
            if result.is_err() || (input.is_empty() && !full) {
                break;
            }
        }
        debug_assert!(out.ends_with(&TAIL), "a flush ends in an empty block");
        out.truncate(out.len().saturating_sub(TAIL.len()));
        if !self.keeps {
            context.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiated(offers: &[&str], preference: &Preference) -> Option<String> {
        negotiate(offers.iter().map(|offer| offer.as_bytes()), preference).map(|agreed| agreed.field())
    }

    const KEEPS: Preference = Preference {
        server_no_context_takeover: false,
        client_no_context_takeover: false,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
    };

    #[test]
    fn contexts_are_not_kept_unless_preferred() {
        let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        for offer in
            ["permessage-deflate", "Permessage-Deflate; client_max_window_bits", "x, permessage-deflate"]
        {
            assert_eq!(negotiated(&[offer], &Preference::default()).as_deref(), Some(both), "{offer}");
        }
        assert_eq!(negotiated(&["permessage-deflate"], &KEEPS).as_deref(), Some("permessage-deflate"));
        assert_eq!(
            negotiated(&["permessage-deflate; server_no_context_takeover"], &KEEPS).as_deref(),
            Some("permessage-deflate; server_no_context_takeover")
        );
    }

    #[test]
    fn windows_are_the_smaller_of_both_wishes() {
        let small = Preference { server_max_window_bits: 11, client_max_window_bits: 10, ..KEEPS };
        for (offer, preference, expected) in [
            ("server_max_window_bits=9", &KEEPS, "; server_max_window_bits=9"),
            ("server_max_window_bits=\"12\"", &KEEPS, "; server_max_window_bits=12"),
            ("server_max_window_bits=15", &small, "; server_max_window_bits=11"),
            ("client_max_window_bits", &KEEPS, ""),
            ("client_max_window_bits=9", &KEEPS, "; client_max_window_bits=9"),
            ("client_max_window_bits", &small, "; server_max_window_bits=11; client_max_window_bits=10"),
            ("client_max_window_bits=8", &small, "; server_max_window_bits=11; client_max_window_bits=8"),
        ] {
            let response = negotiated(&[&format!("permessage-deflate; {offer}")], preference);
            assert_eq!(response, Some(format!("permessage-deflate{expected}")), "{offer}");
        }
    }

    #[test]
    fn offers_that_cannot_be_met_are_passed_over() {
        for offer in [
            "",
            "x-webkit-deflate-frame",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=09",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; unknown",
            "permessage-deflate;",
            "permessage-deflat\u{e9}",
        ] {
            assert_eq!(negotiated(&[offer], &KEEPS), None, "{offer}");
        }
        let second = ["permessage-deflate; unknown, permessage-deflate; server_max_window_bits=10"];
        assert_eq!(
            negotiated(&second, &KEEPS).as_deref(),
            Some("permessage-deflate; server_max_window_bits=10")
        );
        let second = ["permessage-deflate; unknown", "permessage-deflate"];
        assert_eq!(negotiated(&second, &KEEPS).as_deref(), Some("permessage-deflate"));
    }

    #[test]
    fn messages_survive_every_window_and_both_habits() {
        for bits in 9..=15 {
            for keeps in [true, false] {
                let agreed = Agreed {
                    server_keeps: keeps,
                    client_keeps: keeps,
                    server_bits: bits,
                    client_bits: bits,
                    say_server_bits: false,
                    say_client_bits: false,
                };
                let (mut deflater, mut inflater) = (Deflater::new(&agreed), Inflater::new(&agreed));
                for length in [1, 5, 300, u32::try_from(PIECE_BYTES).unwrap(), 100_000] {
                    let noise = |number: u32| number.wrapping_mul(2_654_435_761).to_be_bytes()[0];
                    let message: Vec<u8> = (0..length).map(noise).collect();
                    let (mut packed, mut plain) = (Vec::new(), Vec::new());
                    deflater.message(&message, &mut packed);
                    let mut take = |bytes: &[u8]| {
                        plain.extend_from_slice(bytes);
                        Ok(())
                    };
                    for piece in packed.chunks(1000) {
                        inflater.push(piece, &mut take).unwrap();
                    }
                    inflater.finish(&mut take).unwrap();
                    assert_eq!(plain, message, "{bits} {keeps} {length}");
                    // What is given back serves the next message as well as a new one.
                    let (deflate, inflate) = (deflater.give_back(), inflater.give_back());
                    assert_eq!((deflate.is_some(), inflate.is_some()), (!keeps, !keeps));
                    deflate.into_iter().for_each(|context| deflater.lend(context));
                    inflate.into_iter().for_each(|context| inflater.lend(context));
                }
            }
        }
    }
}
