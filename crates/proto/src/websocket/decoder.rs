//! What a peer sends: frames to messages and control frames (RFC 6455 sections 5 and 7).
//!
//! Payloads are taken as they come: unmasked, out of compression and checked, so that nothing is held twice and a message
//! that is too long or broken is refused with the first byte that makes it so.

use super::deflate::{Agreed, InflateContext, Inflater};
use super::frame::{CONTROL_MAX_BYTES, Head, HeadDecoder, Opcode, Sender, mask};
use super::utf8::Utf8;
use super::{Close, Error, Event, Kind, Limits, Message, is_close_code};

/// Payload that is unmasked at once on its way to inflation.
const PIECE_BYTES: usize = 4 * 1024;

/// Reads frames, whatever pieces they come in.
#[derive(Debug)]
pub struct Decoder {
    sender: Sender,
    limits: Limits,
    state: State,
    message: Option<Partial>,
    inflater: Option<Inflater>,
}

/// Result of one call of [`Decoder::decode`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are done with. Without an event it is all of them.
    pub consumed: usize,
    /// Event in the bytes, if any.
    pub event: Option<Event>,
}

/// Position in the frame: what comes next.
#[derive(Debug)]
enum State {
    Head(HeadDecoder),
    /// Bytes of a message's frame.
    Data {
        frame: Head,
        left: u64,
    },
    /// Bytes of a control frame.
    Control {
        frame: Head,
        payload: Vec<u8>,
    },
    /// Section 1.4: "all data received after a close frame is discarded".
    Closed,
    /// The client broke the protocol.
    Failed(Error),
}

/// A message that is being received.
#[derive(Debug)]
struct Partial {
    kind: Kind,
    compressed: bool,
    data: Vec<u8>,
    utf8: Utf8,
    frames: u32,
    /// Bytes of its frames, before inflation.
    wire_bytes: u64,
}

impl Decoder {
    /// A decoder for the frames of a client with which that was agreed on compression.
    pub fn new(limits: Limits, compression: Option<&Agreed>) -> Self {
        Decoder::new_for(Sender::Client, limits, compression)
    }

    /// A decoder for the frames of a server, which compresses nothing.
    pub fn of_server(limits: Limits) -> Self {
        Decoder::new_for(Sender::Server, limits, None)
    }

    fn new_for(sender: Sender, limits: Limits, compression: Option<&Agreed>) -> Self {
        Decoder {
            sender,
            limits,
            state: State::Head(HeadDecoder::new(sender)),
            message: None,
            inflater: compression.map(Inflater::new),
        }
    }

    /// Whether a context may be needed soon; one is made where none was lent.
    pub fn wants_context(&self) -> bool {
        self.inflater.as_ref().is_some_and(Inflater::wants_context)
    }

    /// Lends a context for inflation.
    pub fn lend(&mut self, context: InflateContext) {
        if let Some(inflater) = &mut self.inflater {
            inflater.lend(context);
        }
    }

    /// Gives a context back that no message needs.
    pub fn give_back(&mut self) -> Option<InflateContext> {
        self.inflater.as_mut()?.give_back()
    }

    /// Whether a close frame was received, so that nothing more will come.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Takes bytes up to and including the next event.
    ///
    /// Errors: the client broke the protocol or a limit; the same again in every further call.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, Error> {
        let mut consumed = 0;
        loop {
            let rest = input.get(consumed..).unwrap_or_default();
            let (taken, event) = match self.step(rest) {
                Ok(step) => step,
                Err(error) => {
                    self.message = None;
                    self.inflater = None;
                    self.state = State::Failed(error);
                    return Err(error);
                }
            };
            consumed += taken;
            if event.is_some() || consumed == input.len() {
                return Ok(Step { consumed, event });
            }
        }
    }

    fn step(&mut self, input: &[u8]) -> Result<(usize, Option<Event>), Error> {
        match &mut self.state {
            State::Closed => Ok((input.len(), None)),
            State::Failed(error) => Err(*error),
            State::Head(head) => {
                let (taken, frame) = head.decode(input)?;
                let event = match frame {
                    Some(frame) => self.begin(frame)?,
                    None => None,
                };
                Ok((taken, event))
            }
            State::Control { frame, payload } => {
                let frame = *frame;
                let missing = usize::try_from(frame.length).unwrap_or(CONTROL_MAX_BYTES) - payload.len();
                let piece = input.get(..missing).unwrap_or(input);
                payload.extend_from_slice(piece);
                let event = if piece.len() == missing {
                    let mut payload = std::mem::take(payload);
                    mask(&mut payload, frame.mask, 0);
                    self.state = State::Head(HeadDecoder::new(self.sender));
                    Some(self.control(frame.opcode, payload)?)
                } else {
                    None
                };
                Ok((piece.len(), event))
            }
            State::Data { frame, left } => {
                let frame = *frame;
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let piece = input.get(..most).unwrap_or(input);
                let place = frame.length - *left;
                *left -= piece.len() as u64;
                let done = *left == 0;
                self.payload(piece, frame.mask, place)?;
                let event = if done { self.end_of_frame(frame)? } else { None };
                Ok((piece.len(), event))
            }
        }
    }

    /// A head is complete.
    fn begin(&mut self, frame: Head) -> Result<Option<Event>, Error> {
        if frame.opcode.is_control() {
            if frame.length == 0 {
                self.state = State::Head(HeadDecoder::new(self.sender));
                return self.control(frame.opcode, Vec::new()).map(Some);
            }
            self.state = State::Control { frame, payload: Vec::new() };
            return Ok(None);
        }
        // RFC 7692 section 6: without the extension the bit stays reserved.
        if frame.compressed && self.inflater.is_none() {
            return Err(Error::ReservedBit);
        }
        let message = match (&mut self.message, frame.opcode) {
            (Some(message), Opcode::Continuation) => message,
            (none @ None, Opcode::Data(kind)) => none.insert(Partial {
                kind,
                compressed: frame.compressed,
                data: Vec::new(),
                utf8: Utf8::default(),
                frames: 0,
                wire_bytes: 0,
            }),
            _ => return Err(Error::Fragmentation),
        };
        message.frames += 1;
        if message.frames > self.limits.fragments_max {
            return Err(Error::TooManyFragments);
        }
        message.wire_bytes = message.wire_bytes.checked_add(frame.length).ok_or(Error::TooLong)?;
        let max = self.limits.message_max_bytes as u64;
        // What cannot be compressed becomes a little longer by it.
        let wire_max =
            if message.compressed { max.saturating_add(max / 128).saturating_add(64) } else { max };
        if message.wire_bytes > wire_max {
            return Err(Error::TooLong);
        }
        if frame.length == 0 {
            return self.end_of_frame(frame);
        }
        self.state = State::Data { frame, left: frame.length };
        Ok(None)
    }

    /// Takes a part of a frame that lies at `place` of it.
    fn payload(&mut self, bytes: &[u8], key: [u8; 4], place: u64) -> Result<(), Error> {
        let Some(message) = &mut self.message else { return Ok(()) };
        if let (true, Some(inflater)) = (message.compressed, &mut self.inflater) {
            let max = self.limits.message_max_bytes;
            let mut place = place;
            for masked in bytes.chunks(PIECE_BYTES) {
                let mut piece = [0; PIECE_BYTES];
                let piece = piece.get_mut(..masked.len()).unwrap_or_default();
                piece.copy_from_slice(masked);
                mask(piece, key, place);
                place += masked.len() as u64;
                inflater.push(piece, &mut |bytes| message.take(bytes, max))?;
            }
            return Ok(());
        }
        let before = message.data.len();
        message.data.extend_from_slice(bytes);
        let new = message.data.get_mut(before..).unwrap_or_default();
        mask(new, key, place);
        if message.kind == Kind::Text { message.utf8.push(new) } else { Ok(()) }
    }

    fn end_of_frame(&mut self, frame: Head) -> Result<Option<Event>, Error> {
        self.state = State::Head(HeadDecoder::new(self.sender));
        if !frame.last {
            return Ok(None);
        }
        let Some(mut message) = self.message.take() else { return Ok(None) };
        if let (true, Some(inflater)) = (message.compressed, &mut self.inflater) {
            let max = self.limits.message_max_bytes;
            inflater.finish(&mut |bytes| message.take(bytes, max))?;
        }
        message.utf8.finish()?;
        Ok(Some(Event::Message(Message { kind: message.kind, data: message.data })))
    }

    fn control(&mut self, opcode: Opcode, payload: Vec<u8>) -> Result<Event, Error> {
        Ok(match opcode {
            Opcode::Ping => Event::Ping(payload),
            Opcode::Pong => Event::Pong(payload),
            _ => {
                let close = read_close(&payload)?;
                self.state = State::Closed;
                self.message = None;
                self.inflater = None;
                Event::Close(close)
            }
        })
    }
}

impl Partial {
    /// Takes bytes that came out of compression.
    fn take(&mut self, bytes: &[u8], max: usize) -> Result<(), Error> {
        let room = max.saturating_sub(self.data.len());
        let fitting = bytes.get(..room).unwrap_or(bytes);
        self.data.extend_from_slice(fitting);
        // The first thing that is wrong is what is told, however the bytes were cut.
        if self.kind == Kind::Text {
            self.utf8.push(fitting)?;
        }
        if fitting.len() < bytes.len() { Err(Error::TooLong) } else { Ok(()) }
    }
}

/// Section 5.5.1: "If there is a body, the first two bytes of the body MUST be a 2-byte unsigned integer", then UTF-8.
fn read_close(payload: &[u8]) -> Result<Close, Error> {
    match payload {
        [] => Ok(Close::default()),
        [_] => Err(Error::Close),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !is_close_code(code) {
                return Err(Error::Close);
            }
            let reason = std::str::from_utf8(reason).map_err(|_| Error::Utf8)?;
            Ok(Close { code: Some(code), reason: reason.to_owned() })
        }
    }
}
