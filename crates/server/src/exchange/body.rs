//! Request bodies: read completely before the application runs (in memory, then in an unlinked file), or, for the
//! paths that ask for it, handed on as they arrive.
//!
//! The reactor fills a [`BodySpool`]; the application reads a `proto::Body` made of it. An aborted upload therefore
//! never reaches the application, unless it is streamed: then reading it is an error.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anygate_lock::Mutex;
use anygate_proto::application::Body;
use anygate_proto::http1::{BodyDecoder, CONTINUE};

use crate::body_rate::ReaderWait;
use crate::outbox::spool::{self, Extents};
use crate::outbox::{Pipe, WAIT_MAX};
use crate::rules::ReadRules;

/// Maximum bytes of a body that are taken for its end when the application has not read it, so that the connection may stay.
const READY_MAX_BYTES: usize = 64 * 1024;

/// A body while it is being received.
#[derive(Default)]
pub(crate) struct BodySpool {
    memory: Vec<u8>,
    spooled: Extents,
    /// Present where no temporary file takes the body.
    unspooled: Option<Unspooled>,
}

/// Bytes of one body in memory that should be in a file, as part of those that the worker has for all of them.
#[derive(Default)]
struct Unspooled(usize);

/// Maximum bytes in memory of all bodies for which there is no temporary file.
const UNSPOOLED_BYTES_MAX: usize = 64 << 20;

/// Bytes in memory of all such bodies of this process.
static UNSPOOLED_BYTES: AtomicUsize = AtomicUsize::new(0);

impl Unspooled {
    fn add(&mut self, bytes: usize) -> io::Result<()> {
        let before = UNSPOOLED_BYTES.fetch_add(bytes, Ordering::Relaxed);
        self.0 += bytes;
        match before + bytes <= UNSPOOLED_BYTES_MAX {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "no temporary file takes it, and other bodies need the memory",
            )),
        }
    }
}

impl Drop for Unspooled {
    fn drop(&mut self) {
        UNSPOOLED_BYTES.fetch_sub(self.0, Ordering::Relaxed);
    }
}

impl BodySpool {
    /// Takes more of the body: into memory up to `memory_max_bytes`, else everything goes to a file in `dir`.
    pub(crate) fn push(
        &mut self,
        bytes: &[u8],
        memory_max_bytes: usize,
        dir: Option<&Path>,
    ) -> io::Result<()> {
        if self.spooled.len() == 0 && self.memory.len() + bytes.len() <= memory_max_bytes {
            self.memory.extend_from_slice(bytes);
            return Ok(());
        }
        if self.unspooled.is_none() {
            match self.spool(bytes, dir) {
                Ok(()) => return Ok(()),
                Err(error) => self.take_back(&error)?,
            }
        }
        let unspooled = self.unspooled.get_or_insert_default();
        unspooled.add(bytes.len())?;
        self.memory.extend_from_slice(bytes);
        Ok(())
    }

    fn spool(&mut self, bytes: &[u8], dir: Option<&Path>) -> io::Result<()> {
        if !self.memory.is_empty() {
            self.spooled.push(&self.memory, dir)?;
            self.memory = Vec::new();
        }
        self.spooled.push(bytes, dir)
    }

    /// No temporary file takes more: what was spooled goes back to memory, as far as the worker has some for that.
    fn take_back(&mut self, error: &io::Error) -> io::Result<()> {
        spool::note_failure(error);
        let mut unspooled = Unspooled::default();
        let length = usize::try_from(self.spooled.len()).map_err(io::Error::other)?;
        if length > 0 {
            unspooled.add(length)?;
            self.memory = vec![0; length];
            let length = self.spooled.len();
            let extents = std::mem::take(&mut self.spooled);
            let mut body = SpooledBody { extents, length, position: 0 };
            io::Read::read_exact(&mut body, &mut self.memory)?;
        }
        self.unspooled = Some(unspooled);
        Ok(())
    }

    /// The complete body; `None` when it is empty.
    pub(crate) fn finish(self) -> Option<Box<dyn Body>> {
        match self.spooled.len() {
            0 if self.memory.is_empty() => None,
            0 => Some(Box::new(MemoryBody { bytes: self.memory, position: 0, _unspooled: self.unspooled })),
            length => Some(Box::new(SpooledBody { extents: self.spooled, length, position: 0 })),
        }
    }
}

struct MemoryBody {
    bytes: Vec<u8>,
    position: usize,
    _unspooled: Option<Unspooled>,
}

impl Body for MemoryBody {
    fn length(&self) -> Option<u64> {
        Some(self.bytes.len() as u64)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut rest = self.bytes.get(self.position..).unwrap_or_default();
        let count = io::Read::read(&mut rest, buffer)?;
        self.position += count;
        Ok(count)
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
            let step = self.decoder.decode(rest).map_err(|error| {
                io::Error::new(io::ErrorKind::UnexpectedEof, format!("broken request body: {error}"))
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
