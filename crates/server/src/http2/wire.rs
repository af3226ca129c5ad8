//! The socket of a connection of HTTP/2, as the `h2` crate wants it.

use std::cell::Cell;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use anygate_proto::http2::Frames;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::outbox::Pipe;
use crate::transport::Shared;

/// Maximum bytes of one read.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

thread_local! {
    /// Where bytes are received before `h2` has them, which asks for few at a time, in memory that would have to be set to zero
    /// for each read.
    static PIECE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The socket as `h2` wants it: it says "not now" as soon as the socket does, and asks it no more until an event.
pub(super) struct Wire {
    pipe: Arc<Pipe>,
    ahead: Ahead,
    frames: Frames,
    shared: Arc<Shared>,
}

/// Bytes that were received and that `h2` has not taken.
struct Ahead {
    piece: Vec<u8>,
    taken: usize,
    end: usize,
}

impl Ahead {
    fn new(piece: Vec<u8>) -> Self {
        Ahead { taken: 0, end: piece.len(), piece }
    }

    /// Gives as many as there is room for. The thread has its memory back when it has given all; the first bytes were in other
    /// memory.
    fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        let end = self.end.min(self.taken.saturating_add(buffer.remaining()));
        buffer.put_slice(self.piece.get(self.taken..end).unwrap_or_default());
        self.taken = end;
        if self.is_empty() {
            let piece = mem::take(&mut self.piece);
            if piece.len() == PIECE_BYTES {
                PIECE.set(piece);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.taken == self.end
    }
}

impl Wire {
    /// `received`: the first bytes, received before this was HTTP/2.
    pub(super) fn new(pipe: Arc<Pipe>, received: Vec<u8>, shared: Arc<Shared>) -> Self {
        let mut frames = Frames::new();
        shared.look_at(&received, &mut frames);
        Wire { pipe, ahead: Ahead::new(received), frames, shared }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        if wire.ahead.is_empty() {
            let shared = &wire.shared;
            let is_over_budget = shared.budget.load(Ordering::Relaxed) == 0;
            if !shared.readable.load(Ordering::Relaxed) || is_over_budget || shared.is_flooded() {
                return Poll::Pending;
            }
            ready!(wire.receive())?;
        }
        wire.ahead.give(buffer);
        Poll::Ready(Ok(()))
    }
}

impl Wire {
    /// Receives more, in memory that the thread has for that.
    fn receive(&mut self) -> Poll<io::Result<()>> {
        let mut piece = PIECE.take();
        piece.resize(PIECE_BYTES, 0);
        let result = loop {
            match self.pipe.stream().recv(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        let end = *result.as_ref().unwrap_or(&0);
        self.ahead = Ahead { piece, taken: 0, end };
        let shared = &self.shared;
        match result {
            Ok(count) => {
                shared.look_at(self.ahead.piece.get(..count).unwrap_or_default(), &mut self.frames);
                let budget = shared.budget.load(Ordering::Relaxed);
                shared.budget.store(budget.saturating_sub(count), Ordering::Relaxed);
                let may_have_more = shared.ended.load(Ordering::Relaxed) || !self.pipe.stream().is_emptied();
                if count > 0 && count < PIECE_BYTES && !may_have_more {
                    shared.readable.store(false, Ordering::Relaxed);
                }
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                PIECE.set(mem::take(&mut self.ahead.piece));
                if error.kind() != io::ErrorKind::WouldBlock {
                    return Poll::Ready(Err(error));
                }
                shared.readable.store(false, Ordering::Relaxed);
                Poll::Pending
            }
        }
    }

    fn sent<T>(&self, result: io::Result<T>) -> Poll<io::Result<T>> {
        self.shared.sent.fetch_or(result.is_ok(), Ordering::Relaxed);
        let blocked = result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        self.shared.blocked.store(blocked, Ordering::Relaxed);
        if blocked { Poll::Pending } else { Poll::Ready(result) }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.sent(self.pipe.stream().gather(&[io::IoSlice::new(bytes)]))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.sent(self.pipe.stream().gather(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // `h2` flushes behind each large frame; the connection does when all frames are there.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's owner closes it.
        Poll::Ready(Ok(()))
    }
}
