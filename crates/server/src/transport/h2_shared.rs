//! What a connection of HTTP/2, its socket and its streams share, and how all of them hold what is `h2`'s.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anygate_lock::Mutex;
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
    /// Requests that have come, of which `h2` may refuse some; the maximum if that is not known.
    requests: AtomicU64,
    idle_frames: Allowance,
    /// WINDOW_UPDATE frames.
    windows: Allowance,
}

/// Frames of a kind that may still come. If there were too many the connection ends, whatever it does then.
struct Allowance(AtomicU32);

impl Allowance {
    fn new() -> Self {
        Allowance(AtomicU32::new(IDLE_FRAMES_MAX))
    }

    fn spend(&self, count: u32) {
        if count > 0 {
            let less = |left: u32| Some(left.saturating_sub(count));
            // It never fails.
            let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    /// Adds to it, up to `max`; what is more already stays.
    fn add(&self, count: u32, max: u32) {
        let more = |left: u32| (left > 0).then(|| left.saturating_add(count).min(max).max(left));
        // It fails where nothing is left.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    fn is_spent(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

impl Shared {
    pub(crate) fn new(read_max_bytes: usize) -> Self {
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
            requests: AtomicU64::new(0),
            idle_frames: Allowance::new(),
            windows: Allowance::new(),
        }
    }

    /// Takes the tokens of streams that can send more, or never will.
    pub(crate) fn take_called(&self) -> Vec<usize> {
        std::mem::take(&mut self.called.lock())
    }

    /// Looks at bytes that the client has sent, before `h2` does.
    pub(crate) fn look_at(&self, bytes: &[u8], frames: &mut Frames) {
        let count = frames.count(bytes);
        self.idle_frames.spend(count.idle);
        self.windows.spend(count.windows);
        if count.resets > 0 {
            self.resets.store(true, Ordering::Relaxed);
        }
        self.requests.store(frames.requests().unwrap_or(u64::MAX), Ordering::Relaxed);
        let malformed = frames.take_malformed();
        if !malformed.is_empty() {
            // Each of them is work for nothing, too.
            self.idle_frames.spend(u32::try_from(malformed.len()).unwrap_or(u32::MAX));
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

    /// Whether more requests may have come than so many.
    pub(crate) fn may_have_more_than(&self, requests: u64) -> bool {
        self.requests.load(Ordering::Relaxed) > requests
    }

    pub(crate) fn is_flooded(&self) -> bool {
        self.idle_frames.is_spent() || self.windows.is_spent()
    }

    /// Data was sent, for which the client may open windows again, in steps as small as it likes within reason.
    pub(crate) fn earn_windows(&self, bytes: usize) {
        let more = u32::try_from(bytes / BYTES_PER_WINDOW).unwrap_or(u32::MAX);
        self.windows.add(more.saturating_add(WINDOWS_PER_DATA), u32::MAX);
    }

    /// A response was given: a client whose requests are served may ask for a little more beside it.
    pub(crate) fn earn(&self) {
        self.idle_frames.add(IDLE_FRAMES_PER_RESPONSE, IDLE_FRAMES_MAX);
    }

    /// So much time has passed.
    pub(crate) fn refill(&self, passed: Duration) {
        let seconds = u32::try_from(passed.as_secs()).unwrap_or(u32::MAX);
        let more = seconds.saturating_mul(IDLE_FRAMES_PER_SECOND);
        self.idle_frames.add(more, IDLE_FRAMES_MAX);
        self.windows.add(more, IDLE_FRAMES_MAX);
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
