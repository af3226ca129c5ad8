//! The body of a request over HTTP/2 that the application reads while it arrives.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use anygate_proto::application::Body;
use anygate_proto::http2;
use bytes::{Buf, Bytes};
use h2::RecvStream;

use crate::attention::Attention;
use crate::body_rate::ReaderWait;
use crate::exchange::too_long;
use crate::transport::{Call, Handle, Shared};

/// Whether the request of a body that has come to its end has turned out to be malformed with its trailers.
pub(super) fn has_malformed_trailers(
    body: &mut RecvStream,
    shared: &Shared,
    context: &mut Context<'_>,
) -> bool {
    let trailers = body.poll_trailers(context);
    let are_malformed =
        matches!(&trailers, Poll::Ready(Ok(Some(trailers))) if http2::are_malformed(trailers));
    are_malformed || shared.is_malformed(body.stream_id().as_u32())
}

/// A body that the application reads while it arrives.
pub(super) struct StreamedBody {
    pub(super) body: Handle<RecvStream>,
    pub(super) at_hand: Bytes,
    pub(super) length: Option<u64>,
    /// Bytes that may still come.
    pub(super) left: u64,
    pub(super) wait: ReaderWait,
    /// What the connection had received before.
    pub(super) before: u64,
    pub(super) call: Arc<Call>,
    pub(super) shared: Arc<Shared>,
    pub(super) attention: Arc<Attention>,
    pub(super) parent: usize,
}

/// Told when a body has more, where a thread waits for it.
struct Reader(Thread);

impl Wake for Reader {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Body for StreamedBody {
    fn length(&self) -> Option<u64> {
        self.length
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(failure) = self.call.body_failure() {
            return Err(failure.into());
        }
        let result = self.read_more(buffer);
        if let Err(error) = &result
            && error.kind() != io::ErrorKind::WouldBlock
        {
            self.call.note_body_failure(error.kind());
        }
        result
    }

    fn stop_waiting(&mut self) {
        self.wait.hear(Instant::now());
    }

    fn may_block(&self) -> bool {
        true
    }
}

impl StreamedBody {
    fn read_more(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let waker = match self.wait.waits() {
            true => Waker::from(Arc::new(Reader(thread::current()))),
            false => Waker::from(Arc::clone(&self.call)),
        };
        let mut context = Context::from_waker(&waker);
        while self.at_hand.is_empty() && !buffer.is_empty() {
            match self.body.get().poll_data(&mut context) {
                Poll::Ready(None) if has_malformed_trailers(self.body.get(), &self.shared, &mut context) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "the trailers are malformed"));
                }
                Poll::Ready(None) => return Ok(0),
                Poll::Ready(Some(Err(error))) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        format!("the client broke off: {error}"),
                    ));
                }
                Poll::Ready(Some(Ok(data))) => {
                    self.wait.hear(Instant::now());
                    self.left = self.left.checked_sub(data.len() as u64).ok_or_else(too_long)?;
                    // It fails only for more than was received.
                    let _ = self.body.get().flow_control().release_capacity(data.len());
                    self.shared.taken.fetch_add(data.len() as u64, Ordering::Relaxed);
                    self.attention.call_on(self.parent);
                    self.at_hand = data;
                }
                Poll::Pending => {
                    let received = self.shared.taken.load(Ordering::Relaxed).saturating_sub(self.before);
                    thread::park_timeout(self.wait.more_within(Instant::now(), received)?);
                }
            }
        }
        let count = self.at_hand.len().min(buffer.len());
        self.at_hand.split_to(count).copy_to_slice(buffer.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}

impl Drop for StreamedBody {
    /// What the application left unread is the connection's to drop.
    fn drop(&mut self) {
        self.shared.unwanted.lock().push(self.body.take());
        self.attention.call_on(self.parent);
    }
}
