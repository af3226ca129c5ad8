//! One stream of HTTP/2, which stands where other connections have a socket: the sending half, and what comes on a stream
//! that is a WebSocket.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use anygate_lock::{Condvar, Mutex};
use anygate_proto::application::SendError;
use bytes::{Buf, Bytes};
use h2::RecvStream;
use h2::server::SendResponse;
use http::Response;

use super::h2_shared::{Half, Handle, Shared};
use crate::attention::Attention;
use crate::panics::panic_text;

/// Data of one frame: with the frame's own 9 bytes it fills one record of TLS.
const FRAME_BYTES: usize = 16 * 1024 - 9;

/// Where streams are at home.
pub(crate) struct StreamHome<'a> {
    pub(crate) attention: &'a Arc<Attention>,
    /// The connection's token.
    pub(crate) parent: usize,
}

/// The sending half of one stream, which stands where other connections have a socket.
pub(crate) struct Stream {
    half: Arc<Mutex<Half>>,
    incoming: Mutex<Option<Incoming>>,
    shared: Arc<Shared>,
    attention: Arc<Attention>,
    parent: usize,
    call: Arc<Call>,
}

/// Incoming data of a stream that is a WebSocket.
pub(crate) struct Incoming {
    body: Handle<RecvStream>,
    at_hand: Bytes,
}

/// Told when a stream can send more, or has more to read.
pub(crate) struct Call {
    token: usize,
    shared: Arc<Shared>,
    news: Mutex<News>,
    changed: Condvar,
    /// Why the body that is read while it arrives cannot be read to its end.
    body_failure: OnceLock<io::ErrorKind>,
}

#[derive(Default)]
struct News {
    /// There are some.
    told: bool,
    /// How many threads wait for them. A notice costs a system call even if none does.
    waiting: u32,
}

impl Call {
    /// `token` is that of the stream's own connection.
    pub(crate) fn new(token: usize, shared: Arc<Shared>) -> Self {
        Call { token, shared, news: Mutex::default(), changed: Condvar::new(), body_failure: OnceLock::new() }
    }

    /// The body cannot be read to its end.
    pub(crate) fn note_body_failure(&self, failure: io::ErrorKind) {
        self.body_failure.get_or_init(|| failure);
    }

    /// Why the body cannot be read to its end.
    pub(crate) fn body_failure(&self) -> Option<io::ErrorKind> {
        self.body_failure.get().copied()
    }
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.shared.called.lock().push(self.token);
        let mut news = self.news.lock();
        news.told = true;
        if news.waiting > 0 {
            self.changed.notify_all();
        }
    }
}

impl Stream {
    /// The stream of a request that came. `messages`: what the client of a WebSocket sends on it.
    pub(crate) fn new(
        respond: Handle<SendResponse<Bytes>>,
        messages: Option<Handle<RecvStream>>,
        call: Arc<Call>,
        home: &StreamHome<'_>,
    ) -> Self {
        let shared = Arc::clone(&call.shared);
        shared.open.fetch_add(1, Ordering::Relaxed);
        Stream {
            half: Arc::new(Mutex::new(Half { respond, send: None, ended: false, reset: false })),
            incoming: Mutex::new(messages.map(|body| Incoming { body, at_hand: Bytes::new() })),
            shared,
            attention: Arc::clone(home.attention),
            parent: home.parent,
            call,
        }
    }

    /// The token of the connection that it is a stream of.
    pub(crate) fn parent(&self) -> usize {
        self.parent
    }

    /// Why the body of the request cannot be read to its end.
    pub(crate) fn body_failure(&self) -> Option<io::ErrorKind> {
        self.call.body_failure()
    }

    /// Has the connection send what was given, for threads that do not own the reactor.
    pub(crate) fn nudge(&self) {
        self.attention.call_on(self.parent);
    }

    /// Sends the head. `end`: nothing follows.
    pub(crate) fn start(&self, head: Response<()>, end: bool) -> Result<(), SendError> {
        self.with(|half| {
            let send = half.respond.get().send_response(head, end).map_err(|_| gone())?;
            half.send = Some(Handle::new(send));
            half.ended = end;
            Ok(())
        })
        .map_err(|_| SendError::Disconnected)
    }

    /// Sends an interim head.
    pub(crate) fn interim(&self, head: Response<()>) -> Result<(), SendError> {
        self.with(|half| half.respond.get().send_informational(head).map_err(|_| gone()))
            .map_err(|_| SendError::Disconnected)
    }

    /// Takes what the client of a WebSocket sent.
    ///
    /// Errors: `WouldBlock`, also for streams that are no WebSocket; others when the client is gone.
    pub(crate) fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut incoming = self.incoming.lock();
        let Some(Incoming { body, at_hand }) = &mut *incoming else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        if at_hand.is_empty() {
            let waker = Waker::from(Arc::clone(&self.call));
            let taken = catch_unwind(AssertUnwindSafe(|| {
                let taken = body.get().poll_data(&mut Context::from_waker(&waker));
                if let Poll::Ready(Some(Ok(data))) = &taken {
                    // It fails only for more than was received.
                    let _ = body.get().flow_control().release_capacity(data.len());
                }
                taken
            }));
            match taken {
                Ok(Poll::Pending) => return Err(io::ErrorKind::WouldBlock.into()),
                Ok(Poll::Ready(None)) => return Ok(0),
                Ok(Poll::Ready(Some(Ok(data)))) => *at_hand = data,
                Ok(Poll::Ready(Some(Err(_)))) | Err(_) => return Err(gone()),
            }
        }
        let count = at_hand.len().min(buffer.len());
        at_hand.split_to(count).copy_to_slice(buffer.get_mut(..count).unwrap_or_default());
        Ok(count)
    }

    /// Sends as much as there is room for.
    ///
    /// Errors: `WouldBlock`; others when the client is gone.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|half| {
            let room = self.room(half, bytes.len())?;
            let now = bytes.get(..room).unwrap_or(bytes);
            half.data(now, false)?;
            self.shared.earn_windows(now.len());
            Ok(now.len())
        })
    }

    /// Sends the last bytes if there is room for all of them; returns whether there was.
    pub(crate) fn send_last(&self, bytes: &[u8]) -> io::Result<bool> {
        self.with(|half| {
            if half.ended {
                return Ok(true);
            }
            if !bytes.is_empty() {
                match self.room(half, bytes.len()) {
                    Ok(room) if room >= bytes.len() => {}
                    Ok(_) => return Ok(false),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
            half.data(bytes, true)?;
            self.shared.earn_windows(bytes.len());
            Ok(true)
        })
    }

    /// Resets the stream, so that its client does not take the response for complete, when what was given is sent. That is the
    /// connection's to do.
    pub(crate) fn reset(&self) {
        let mut half = self.half.lock();
        (half.ended, half.reset) = (true, true);
        drop(half);
        self.shared.broken_off.lock().push(Arc::clone(&self.half));
    }

    /// Whether the client has given the stream up.
    pub(crate) fn is_reset(&self) -> bool {
        // A client that has reset none of its streams waits for all: `h2`, which would lock them, is not asked.
        if !self.shared.resets.load(Ordering::Relaxed) {
            return self.shared.over.load(Ordering::Relaxed);
        }
        let waker = Waker::from(Arc::clone(&self.call));
        let mut context = Context::from_waker(&waker);
        let reset = self.with(|half| {
            // Which of the two knows depends on whether the response has begun.
            let reset = match &mut half.send {
                Some(send) => send.get().poll_reset(&mut context),
                None => half.respond.get().poll_reset(&mut context),
            };
            Ok(reset.is_ready())
        });
        self.shared.over.load(Ordering::Relaxed) || reset.unwrap_or(true)
    }

    /// Waits until more can be sent, at most `longest`. Returns `false` when nothing changed.
    pub(crate) fn wait(&self, longest: Duration) -> bool {
        let mut news = self.call.news.lock();
        news.waiting += 1;
        let mut news = self.call.changed.wait_timeout_while(news, longest, |news| !news.told);
        news.waiting -= 1;
        std::mem::take(&mut news.told)
    }

    /// How many of `wanted` bytes there is room for, at least one.
    fn room(&self, half: &mut Half, wanted: usize) -> io::Result<usize> {
        if self.shared.over.load(Ordering::Relaxed) {
            return Err(gone());
        }
        let send = half.send.as_mut().ok_or_else(gone)?.get();
        send.reserve_capacity(wanted);
        let room = match send.capacity() {
            0 => {
                let waker = Waker::from(Arc::clone(&self.call));
                match send.poll_capacity(&mut Context::from_waker(&waker)) {
                    Poll::Pending => return Err(io::ErrorKind::WouldBlock.into()),
                    Poll::Ready(Some(Ok(room))) => room,
                    Poll::Ready(Some(Err(_)) | None) => return Err(gone()),
                }
            }
            room => room,
        };
        Ok(room.min(wanted))
    }

    /// Has `waker` woken when there is room. There must be none.
    #[cfg(test)]
    pub(crate) fn want_room(&self, waker: &Waker) {
        let pending = self.with(|half| {
            let send = half.send.as_mut().ok_or_else(gone)?.get();
            send.reserve_capacity(1);
            Ok(send.poll_capacity(&mut Context::from_waker(waker)).is_pending())
        });
        assert!(pending.expect("the client is there"));
    }

    /// Works on the half. A panic in `h2` is as if the client were gone.
    fn with<T>(&self, work: impl FnOnce(&mut Half) -> io::Result<T>) -> io::Result<T> {
        let mut half = self.half.lock();
        catch_unwind(AssertUnwindSafe(|| work(&mut half))).unwrap_or_else(|panic| {
            tracing::error!("HTTP/2 failed inside anygate: {}", panic_text(panic.as_ref()));
            Err(gone())
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.open.fetch_sub(1, Ordering::Relaxed);
        let half = self.half.lock();
        if half.ended && !half.reset {
            self.shared.earn();
        }
    }
}

fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl Half {
    fn data(&mut self, bytes: &[u8], end: bool) -> io::Result<()> {
        let send = self.send.as_mut().ok_or_else(gone)?.get();
        let mut bytes = Bytes::copy_from_slice(bytes);
        while bytes.len() > FRAME_BYTES {
            send.send_data(bytes.split_to(FRAME_BYTES), false).map_err(|_| gone())?;
        }
        send.send_data(bytes, end).map_err(|_| gone())?;
        self.ended |= end;
        Ok(())
    }
}
