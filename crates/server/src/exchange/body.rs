//! Request bodies: read completely before the application runs (in memory, or in an unlinked file), or, for the
//! paths that ask for it, handed on as they arrive.
//!
//! The reactor fills a [`BodySpool`]; the application reads a `proto::Body` made of it. An aborted upload therefore
//! never reaches the application, unless it is streamed: then reading it is an error.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anygate_lock::Mutex;
use anygate_proto::application::Body;
use anygate_proto::http1::{BodyDecoder, CONTINUE, Error};

use super::body_memory::{BodyBuffer, BodyMemory, UNSPOOLED_BYTES_MAX};
use crate::body_rate::ReaderWait;
use crate::outbox::spool::{self, Extents};
use crate::outbox::{Pipe, WAIT_MAX};
use crate::rules::ReadRules;

/// Maximum bytes of a body that are taken for its end when the application has not read it, so that the connection may stay.
const READY_MAX_BYTES: usize = 64 * 1024;

/// Why a body is no longer read whose client sent more of it than it may.
pub(crate) fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, "the body is longer than body_max_bytes")
}

/// The status of a response in place of one that the application could not give because reading the body failed so; `None`
/// if that is not the client's fault.
pub(crate) fn refusal(failed: io::ErrorKind) -> Option<u16> {
    match failed {
        io::ErrorKind::TimedOut => Some(408),
        io::ErrorKind::FileTooLarge => Some(413),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => Some(400),
        _ => None,
    }
}

/// A body while it is being received.
#[derive(Default)]
pub(crate) struct BodySpool {
    memory: Option<BodyBuffer>,
    spooled: Extents,
    /// Its whole length, where the client has announced it.
    announced: Option<u64>,
    /// No temporary file takes the body.
    is_unspooled: bool,
}

impl BodySpool {
    /// For a body whose length is known, or not.
    pub(crate) fn new(announced: Option<u64>) -> BodySpool {
        BodySpool { announced, ..BodySpool::default() }
    }

    /// Takes more of the body: into memory as long as the bodies of the worker may have more of it, else everything goes to
    /// a file in `dir`.
    pub(crate) fn push(
        &mut self,
        bytes: &[u8],
        memory: &Arc<BodyMemory>,
        dir: Option<&Path>,
    ) -> io::Result<()> {
        let announced = self.announced;
        if self.spooled.len() == 0 && self.buffer(memory).push(bytes, announced) {
            return Ok(());
        }
        if !self.is_unspooled {
            match self.spool(bytes, dir) {
                Ok(()) => return Ok(()),
                Err(error) => self.take_back(&error, memory)?,
            }
        }
        self.buffer(memory).push_unspooled(bytes)
    }

    /// Room for the next bytes of the body, at most `most`, to be followed by [`received`](Self::received). `None` if they
    /// are to be pushed.
    pub(crate) fn room(&mut self, most: usize, memory: &Arc<BodyMemory>) -> Option<&mut [u8]> {
        if self.spooled.len() > 0 || self.is_unspooled {
            return None;
        }
        let announced = self.announced;
        self.buffer(memory).room(most, announced)
    }

    /// So many bytes were received into the [room](Self::room).
    pub(crate) fn received(&mut self, count: usize) {
        if let Some(buffer) = &mut self.memory {
            buffer.received(count);
        }
    }

    fn buffer(&mut self, memory: &Arc<BodyMemory>) -> &mut BodyBuffer {
        self.memory.get_or_insert_with(|| BodyBuffer::new(Arc::clone(memory)))
    }

    fn spool(&mut self, bytes: &[u8], dir: Option<&Path>) -> io::Result<()> {
        if let Some(memory) = &self.memory {
            self.spooled.push(memory.bytes(), dir)?;
            self.memory = None;
        }
        self.spooled.push(bytes, dir)
    }

    /// No temporary file takes more: what was spooled goes back to memory, as far as the worker has some for that.
    fn take_back(&mut self, error: &io::Error, memory: &Arc<BodyMemory>) -> io::Result<()> {
        spool::note_failure(error);
        self.is_unspooled = true;
        let length = self.spooled.len();
        if length > 0 {
            let extents = std::mem::take(&mut self.spooled);
            // More than that is refused below as well, but this need not be read.
            let least =
                usize::try_from(length).unwrap_or(usize::MAX).min(UNSPOOLED_BYTES_MAX.saturating_add(1));
            let mut bytes = vec![0; least];
            io::Read::read_exact(&mut SpooledBody { extents, length, position: 0 }, &mut bytes)?;
            self.buffer(memory).push_unspooled(&bytes)?;
        }
        Ok(())
    }

    /// The complete body; `None` when it is empty.
    pub(crate) fn finish(self) -> Option<Box<dyn Body>> {
        match (self.spooled.len(), self.memory) {
            (0, Some(buffer)) if !buffer.bytes().is_empty() => Some(Box::new(MemoryBody {
                length: buffer.bytes().len() as u64,
                rest: Rest { buffer, position: 0 },
            })),
            (0, _) => None,
            (length, _) => Some(Box::new(SpooledBody { extents: self.spooled, length, position: 0 })),
        }
    }
}

struct MemoryBody {
    length: u64,
    rest: Rest,
}

/// What was not read of a body in memory.
struct Rest {
    buffer: BodyBuffer,
    position: usize,
}

impl AsRef<[u8]> for Rest {
    fn as_ref(&self) -> &[u8] {
        self.buffer.bytes().get(self.position..).unwrap_or_default()
    }
}

impl Body for MemoryBody {
    fn length(&self) -> Option<u64> {
        Some(self.length)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = io::Read::read(&mut self.rest.as_ref(), buffer)?;
        self.rest.position += count;
        Ok(count)
    }

    fn take_rest(&mut self) -> Option<Box<dyn AsRef<[u8]> + Send + Sync>> {
        let nothing = Rest { buffer: self.rest.buffer.emptied(), position: 0 };
        Some(Box::new(std::mem::replace(&mut self.rest, nothing)))
    }

    fn may_block(&self) -> bool {
        false
    }
}

struct SpooledBody {
    extents: Extents,
    length: u64,
    position: u64,
}

impl io::Read for SpooledBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.extents.read_at(buffer, self.position)?;
        if count == 0 && self.position < self.length && !buffer.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the spooled body is shorter than it was",
            ));
        }
        self.position += count as u64;
        Ok(count)
    }
}

impl Body for SpooledBody {
    fn length(&self) -> Option<u64> {
        Some(self.length)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(self, buffer)
    }

    fn may_block(&self) -> bool {
        false
    }
}

/// A body that is decoded from the socket while the application reads it. The connection keeps one handle, so that it
/// knows afterwards whether the next request may follow.
#[derive(Clone)]
pub(crate) struct BodyStream {
    state: Arc<Mutex<StreamState>>,
    length: Option<u64>,
}

struct StreamState {
    pipe: Arc<Pipe>,
    decoder: BodyDecoder,
    /// Received but not decoded.
    input: Vec<u8>,
    /// Decoded but not read by the application.
    decoded: VecDeque<u8>,
    /// Bytes that came from the client.
    received: u64,
    wait: ReaderWait,
    /// The client waits for `100 Continue` before it sends the body (RFC 9110 section 10.1.1).
    expect_continue: bool,
    failed: Option<io::ErrorKind>,
    /// The exchange is over: a holder of the body gets an error instead of another request's bytes.
    closed: bool,
}

impl BodyStream {
    pub(crate) fn new(
        pipe: Arc<Pipe>,
        decoder: BodyDecoder,
        input: Vec<u8>,
        length: Option<u64>,
        rules: &ReadRules,
        expect_continue: bool,
    ) -> Self {
        let state = StreamState {
            pipe,
            decoder,
            received: input.len() as u64,
            input,
            decoded: VecDeque::new(),
            wait: ReaderWait::new(rules.plan.body_rate, rules.reader_waits),
            expect_continue,
            failed: None,
            closed: false,
        };
        BodyStream { state: Arc::new(Mutex::new(state)), length }
    }

    /// Whether the body is there to its end. What the client has sent by now is taken, if it is little.
    pub(crate) fn is_received(&self) -> bool {
        // A reader waits for more at this moment.
        let Some(mut state) = self.state.try_lock() else { return false };
        match state.receive_ready() {
            Ok(done) => done,
            Err(error) => {
                state.failed = Some(error.kind());
                false
            }
        }
    }

    /// See [`refusal`].
    pub(crate) fn refusal(&self) -> Option<u16> {
        // A reader waits for more at this moment.
        refusal(self.state.try_lock()?.failed?)
    }

    /// Ends the body's use. Returns what was received behind it when it was read to its end, else `None`: then the
    /// connection cannot be used again.
    pub(crate) fn close(&self) -> Option<Vec<u8>> {
        let mut state = self.state.lock();
        state.closed = true;
        state.decoder.is_done().then(|| std::mem::take(&mut state.input))
    }
}

impl Body for BodyStream {
    fn length(&self) -> Option<u64> {
        self.length
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(io::Error::other("the request is over; its body can no longer be read"));
        }
        let result = state.read(buffer);
        if let Err(error) = &result
            && error.kind() != io::ErrorKind::WouldBlock
        {
            state.failed = Some(error.kind());
        }
        result
    }

    fn stop_waiting(&mut self) {
        self.state.lock().wait.hear(Instant::now());
    }

    fn may_block(&self) -> bool {
        true
    }
}

impl StreamState {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(kind) = self.failed {
            return Err(kind.into());
        }
        loop {
            self.decode()?;
            if !self.decoded.is_empty() || self.decoder.is_done() || buffer.is_empty() {
                return io::Read::read(&mut self.decoded, buffer);
            }
            self.receive()?;
        }
    }

    /// Decodes all that was received.
    fn decode(&mut self) -> io::Result<()> {
        let mut at = 0;
        while !self.decoder.is_done() {
            let rest = self.input.get(at..).unwrap_or_default();
            let step = self.decoder.decode(rest).map_err(|error| match error {
                Error::BodyTooLarge => too_long(),
                error => io::Error::new(io::ErrorKind::InvalidData, format!("broken request body: {error}")),
            })?;
            if step.consumed == 0 {
                break;
            }
            self.decoded.extend(rest.get(step.data).unwrap_or_default());
            at += step.consumed;
        }
        self.input.drain(..at);
        Ok(())
    }

    /// Takes what has come, up to [`READY_MAX_BYTES`], without waiting; returns whether it is all.
    fn receive_ready(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        loop {
            self.decode()?;
            let wanted =
                !self.expect_continue && self.decoded.len() < READY_MAX_BYTES && self.failed.is_none();
            if self.decoder.is_done() || !wanted {
                return Ok(self.decoder.is_done());
            }
            match self.pipe.stream().recv(&mut buffer) {
                // The end of the connection shows at the next read, too.
                Ok(0) => return Ok(false),
                Ok(count) => self.take(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.received = self.received.saturating_add(bytes.len() as u64);
        self.wait.hear(Instant::now());
    }

    fn receive(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.expect_continue) {
            // An interim response that cannot be sent shows at the next read.
            let _ = self.pipe.stream().send(CONTINUE);
        }
        let mut buffer = [0; 16 * 1024];
        loop {
            if self.pipe.is_over() {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the request already has a response",
                ));
            }
            match self.pipe.stream().recv(&mut buffer) {
                Ok(0) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the client closed the connection before the end of the body",
                    ));
                }
                Ok(count) => {
                    self.take(buffer.get(..count).unwrap_or_default());
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = self.wait.more_within(Instant::now(), self.received)?;
                    self.pipe.stream().wait_readable(WAIT_MAX.min(left))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
