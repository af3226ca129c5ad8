//! The socket of a connection of HTTP/2, as the `h2` crate wants it.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::outbox::Pipe;
use crate::transport::Shared;

/// Maximum bytes of one read.
const PIECE_BYTES: usize = 16 * 1024;

thread_local! {
    /// Where bytes are received before `h2` has them, whose own memory would have to be set to zero for each read.
    static PIECE: RefCell<Box<[u8]>> = RefCell::new(vec![0; PIECE_BYTES].into_boxed_slice());
}

/// The socket as `h2` wants it: it says "not now" as soon as the socket does, and asks it no more until an event.
pub(super) struct Wire {
    pub(super) pipe: Arc<Pipe>,
    /// Received before this was HTTP/2.
    pub(super) received: Bytes,
    pub(super) shared: Arc<Shared>,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.received.is_empty() {
            let count = self.received.len().min(buffer.remaining());
            buffer.put_slice(&self.received.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let shared = &self.shared;
        let budget = shared.budget.load(Ordering::Relaxed);
        if !shared.readable.load(Ordering::Relaxed) || budget == 0 || shared.is_flooded() {
            return Poll::Pending;
        }
        PIECE.with_borrow_mut(|piece| {
            let wanted = buffer.remaining().min(PIECE_BYTES);
            self.receive(piece.get_mut(..wanted).unwrap_or_default(), budget, buffer)
        })
    }
}

impl Wire {
    /// Receives into `room`, and takes what came over into `buffer`.
    fn receive(&self, room: &mut [u8], budget: usize, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (shared, wanted) = (&self.shared, room.len());
        loop {
            match self.pipe.stream().recv(room) {
                Ok(count) => {
                    let bytes = room.get(..count).unwrap_or_default();
                    shared.look_at(bytes);
                    shared.budget.store(budget.saturating_sub(count), Ordering::Relaxed);
                    let may_have_more =
                        shared.ended.load(Ordering::Relaxed) || !self.pipe.stream().is_emptied();
                    if count > 0 && count < wanted && !may_have_more {
                        shared.readable.store(false, Ordering::Relaxed);
                    }
                    buffer.put_slice(bytes);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    shared.readable.store(false, Ordering::Relaxed);
                    return Poll::Pending;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
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
