//! The socket of a connection of HTTP/2, as the `h2` crate wants it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::outbox::Pipe;
use crate::transport::Shared;

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
        loop {
            let room = buffer.initialize_unfilled();
            let wanted = room.len();
            match self.pipe.stream().recv(room) {
                Ok(count) => {
                    shared.look_at(room.get(..count).unwrap_or_default());
                    shared.budget.store(budget.saturating_sub(count), Ordering::Relaxed);
                    // A socket gives all it has; a session of TLS may have more.
                    let may_have_more =
                        shared.ended.load(Ordering::Relaxed) || !self.pipe.stream().is_plain();
                    if count > 0 && count < wanted && !may_have_more {
                        shared.readable.store(false, Ordering::Relaxed);
                    }
                    buffer.advance(count);
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
}

impl Wire {
    fn sent<T>(&self, result: io::Result<T>) -> Poll<io::Result<T>> {
        self.shared.sent.fetch_or(result.is_ok(), Ordering::Relaxed);
        let blocked = result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        self.shared.blocked.store(blocked, Ordering::Relaxed);
        if blocked { Poll::Pending } else { Poll::Ready(result) }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.sent(self.pipe.stream().send(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.sent(self.pipe.stream().send_slices(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.pipe.stream().flush() {
            Ok(true) => self.sent(Ok(())),
            Ok(false) => self.sent(Err(io::ErrorKind::WouldBlock.into())),
            Err(error) => self.sent(Err(error)),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's owner closes it.
        self.poll_flush(context)
    }
}
