//! What a connection of HTTP/2, its socket and its streams share, and how all of them hold what is `h2`'s.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use anygate_lock::{Mutex, MutexGuard};
use anygate_proto::http2::Frames;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};

/// Frames that make work for the server alone: maximum at once, and how many more may come each second and for each response.
const IDLE_FRAMES_MAX: u32 = 1000;
const IDLE_FRAMES_PER_SECOND: u32 = 100;
const IDLE_FRAMES_PER_RESPONSE: u32 = 4;
/// WINDOW_UPDATE frames that a client may send for each piece of data that it was sent, and for so many bytes of it.
const WINDOWS_PER_DATA: u32 = 4;
const BYTES_PER_WINDOW: usize = 1024;

/// Streams with malformed requests that are known at a time: as many as may be open, and some that `h2` has not given up.
const MALFORMED_MAX: usize = 200;

/// State that a connection shares with its streams and its socket.
pub(crate) struct Shared {
    /// The socket may hold bytes that were not read.
    pub(crate) readable: AtomicBool,
    /// The client has ended its side, of which no event will tell again.
    pub(crate) ended: AtomicBool,
    /// The socket takes no more.
    pub(crate) blocked: AtomicBool,
    /// The socket took something.
    pub(crate) sent: AtomicBool,
    /// Bytes that may still be read in this turn.
    pub(crate) budget: AtomicUsize,
    /// The connection ended.
    pub(crate) over: AtomicBool,
    /// Streams that have a response to give.
    pub(crate) open: AtomicUsize,
    /// The client has reset a stream, or is about to: `h2` may not have read it.
    pub(crate) resets: AtomicBool,
    /// Tokens of streams that can send more, or never will.
    pub(crate) called: Mutex<Vec<usize>>,
    /// Bytes of bodies that were taken.
    pub(crate) taken: AtomicU64,
    /// Streams whose requests are malformed in a way that `h2` does not tell.
    malformed: Mutex<Vec<u32>>,
    /// Bodies that are not read any more.
    pub(crate) unwanted: Mutex<Vec<Handle<RecvStream>>>,
    /// Streams that are to be reset when what was given to them is sent.
    pub(crate) broken_off: Mutex<Vec<Arc<Mutex<Half>>>>,
    idle_frames: Mutex<IdleFrames>,
}

struct IdleFrames {
    frames: Frames,
    left: u32,
    /// WINDOW_UPDATE frames that may still come.
    windows_left: u32,
    since: Instant,
}

impl Shared {
    /// `now`: since when idle frames are counted.
    pub(crate) fn new(read_max_bytes: usize, now: Instant) -> Self {
        Shared {
            readable: AtomicBool::new(true),
            ended: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            sent: AtomicBool::new(false),
            budget: AtomicUsize::new(read_max_bytes),
            over: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            resets: AtomicBool::new(false),
            called: Mutex::default(),
            taken: AtomicU64::new(0),
            malformed: Mutex::default(),
            unwanted: Mutex::default(),
            broken_off: Mutex::default(),
            idle_frames: Mutex::new(IdleFrames {
                frames: Frames::new(),
                left: IDLE_FRAMES_MAX,
                windows_left: IDLE_FRAMES_MAX,
                since: now,
            }),
        }
    }

    /// Takes the tokens of streams that can send more, or never will.
    pub(crate) fn take_called(&self) -> Vec<usize> {
        std::mem::take(&mut self.called.lock())
    }

    fn idle_frames(&self) -> MutexGuard<'_, IdleFrames> {
        self.idle_frames.lock()
    }

    pub(crate) fn look_at(&self, bytes: &[u8]) {
        let mut idle = self.idle_frames();
        let count = idle.frames.count(bytes);
        idle.left = idle.left.saturating_sub(count.idle);
        idle.windows_left = idle.windows_left.saturating_sub(count.windows);
        if count.resets > 0 {
            self.resets.store(true, Ordering::Relaxed);
        }
        let malformed = idle.frames.take_malformed();
        if !malformed.is_empty() {
            // Each of them is work for nothing, too.
            let count = u32::try_from(malformed.len()).unwrap_or(u32::MAX);
            idle.left = idle.left.saturating_sub(count);
            drop(idle);
            let mut known = self.malformed.lock();
            known.extend(malformed);
            let excess = known.len().saturating_sub(MALFORMED_MAX);
            known.drain(..excess);
        }
    }

    /// Whether the request of a stream has turned out to be malformed.
    pub(crate) fn is_malformed(&self, stream: u32) -> bool {
        self.malformed.lock().contains(&stream)
    }

    pub(crate) fn is_flooded(&self) -> bool {
        let idle = self.idle_frames();
        idle.left == 0 || idle.windows_left == 0
    }

    /// Data was sent, for which the client may open windows again, in steps as small as it likes within reason.
    pub(crate) fn earn_windows(&self, bytes: usize) {
        let more =
            u32::try_from(bytes / BYTES_PER_WINDOW).unwrap_or(u32::MAX).saturating_add(WINDOWS_PER_DATA);
        let mut idle = self.idle_frames();
        if idle.windows_left > 0 {
            idle.windows_left = idle.windows_left.saturating_add(more);
        }
    }

    /// A response was given: a client whose requests are served may ask for a little more beside it.
    pub(crate) fn earn(&self) {
        let mut idle = self.idle_frames();
        if idle.left > 0 {
            idle.left = idle.left.saturating_add(IDLE_FRAMES_PER_RESPONSE).min(IDLE_FRAMES_MAX);
        }
    }

    pub(crate) fn refill(&self, now: Instant) {
        let mut idle = self.idle_frames();
        let seconds = now.saturating_duration_since(idle.since).as_secs();
        if seconds > 0 && idle.left > 0 {
            let more = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(IDLE_FRAMES_PER_SECOND);
            idle.left = idle.left.saturating_add(more).min(IDLE_FRAMES_MAX);
            // What was earned with data stays.
            let windows_left = idle.windows_left.saturating_add(more).min(IDLE_FRAMES_MAX);
            idle.windows_left = idle.windows_left.max(windows_left);
            idle.since = now;
        }
    }
}

/// The sending half of one stream.
pub(crate) struct Half {
    pub(super) respond: Handle<SendResponse<Bytes>>,
    pub(super) send: Option<Handle<SendStream<Bytes>>>,
    /// The last bytes were given.
    pub(super) ended: bool,
    /// By us.
    pub(super) reset: bool,
}

impl Half {
    /// Resets the stream. `h2` drops what it has not sent.
    pub(crate) fn reset(&mut self) {
        self.respond.get().send_reset(Reason::INTERNAL_ERROR);
    }
}

/// A handle of `h2`. If `h2` ever panics its locks stay poisoned, and then dropping any other handle of the same
/// connection panics too, which must not end the thread that does so.
pub(crate) struct Handle<T>(Option<T>);

impl<T> Handle<T> {
    pub(crate) fn new(handle: T) -> Self {
        Handle(Some(handle))
    }

    /// Another handle in place of this one, which must not be used any more.
    pub(crate) fn take(&mut self) -> Handle<T> {
        Handle(self.0.take())
    }

    pub(crate) fn get(&mut self) -> &mut T {
        self.0.as_mut().expect("a handle is there until it is dropped")
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        let handle = self.0.take();
        // The error was logged by the thread that saw it first.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(handle)));
    }
}
