//! A client's socket with its outbox. The thread of the application writes through it and never waits for a slow client:
//! what the socket does not take stays in the outbox (memory, then temporary files) and the reactor goes on sending
//! when the socket can take more. Both may hold the pipe at once; the outbox's lock decides whose turn it is.

mod held_files;
mod queue;
mod seizure;
mod sending;
pub(crate) mod spool;

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use anygate_lock::{Mutex, MutexGuard};
use anygate_proto::application::SendError;

use crate::gathering::{Gathered, Gathering};
use crate::rules::OutboxRules;
use crate::transport::{Http2Stream, Transport};
pub(crate) use queue::{FilePart, Records};
use queue::{Outbox, Segment};
use seizure::{AtomicSeizure, Seizure};

/// Called when there may be room, bytes from the client, or no client any more.
pub(crate) type OnNews = Box<dyn FnOnce() + Send>;

/// Maximum bytes of one sendfile call: enough to be efficient, little enough to share the thread.
const SEND_FILE_BYTES: u64 = 1 << 20;

/// Maximum bytes that are held back in one piece with those that follow them.
const HELD_MAX_BYTES: usize = 64 * 1024;

/// A thread that waits for its client checks at least this often whether it is to go on.
pub(crate) const WAIT_MAX: Duration = Duration::from_millis(500);

/// The socket and what waits for it.
pub(crate) struct Pipe {
    stream: Transport,
    outbox: Mutex<Outbox>,
    /// Nothing can be sent any more: reset, timed out, or a file of the response turned out shorter.
    broken: AtomicBool,
    /// The last response lacks its end, so that the connection must not end as if it were whole.
    short: AtomicBool,
    seizure: AtomicSeizure,
    /// The reactor hears of what happens to the socket.
    watched: AtomicBool,
    waits_for_hub: AtomicBool,
    upgraded: OnceLock<Arc<dyn Upgraded>>,
    /// Callback for a waiter with its own event loop.
    on_news: Mutex<Option<OnNews>>,
}

/// What a connection became instead of going on with HTTP, as far as it concerns the users of its pipe.
pub(crate) trait Upgraded: Send + Sync {
    /// Whether the reactor reads the socket for it; else it does so itself.
    fn is_fed(&self) -> bool {
        false
    }

    /// Reads what the client sent, as long as it is wanted; `false` if there may be more that no event will announce.
    /// `goes_on`: an event has just announced bytes and no end.
    fn read(&self, _pipe: &Pipe, _scratch: &mut [u8], _now: Instant, _goes_on: bool) -> bool {
        true
    }

    /// Does what is due by now; returns when to look again, if ever.
    fn tick(&self, _pipe: &Pipe, _now: Instant) -> Option<Instant> {
        None
    }

    /// Says goodbye to the client: the worker ends.
    fn go_away(&self);

    /// Ends it with its call. `failed`: the application broke off. Returns how many bytes were sent.
    fn finish(&self, failed: bool) -> u64;

    /// Whether the client may still have something to say.
    fn lingers(&self) -> bool;
}

/// Result of an attempt to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Nothing waits.
    Empty,
    /// The socket takes no more now.
    Blocked,
    /// Nothing will ever be sent again.
    Broken,
}

impl Gathered for Pipe {
    fn send_gathered(&self) {
        if self.send_held(&mut self.lock()) {
            self.nudge();
        }
    }
}

impl Pipe {
    pub(crate) fn new(stream: Transport) -> Self {
        Pipe {
            stream,
            outbox: Mutex::default(),
            broken: AtomicBool::new(false),
            short: AtomicBool::new(false),
            seizure: AtomicSeizure::default(),
            watched: AtomicBool::new(false),
            waits_for_hub: AtomicBool::new(false),
            upgraded: OnceLock::new(),
            on_news: Mutex::default(),
        }
    }

    pub(crate) fn stream(&self) -> &Transport {
        &self.stream
    }

    /// Sends the last bytes of a stream of HTTP/2 and its end.
    pub(crate) fn send_last(&self, bytes: &[u8], limits: &OutboxRules) -> Result<(), SendError> {
        let Some(stream) = self.stream.http2() else { return self.send(&mut [IoSlice::new(bytes)], limits) };
        if self.is_over() {
            return Err(SendError::Disconnected);
        }
        if self.lock().queue.is_empty() && stream.send_last(bytes).map_err(|_| self.disconnect())? {
            return Ok(());
        }
        if !bytes.is_empty() {
            self.send(&mut [IoSlice::new(bytes)], limits)?;
        }
        let mut outbox = self.lock();
        outbox.queue.push_back(Segment::End);
        outbox.progress.get_or_insert_with(Instant::now);
        match self.flush_locked(&mut outbox) {
            Flushed::Broken => Err(SendError::Disconnected),
            Flushed::Empty | Flushed::Blocked => Ok(()),
        }
    }

    /// Tells the client that nothing more comes, if it has all that there was; else the end of the connection tells it.
    pub(crate) fn end_writing(&self) {
        if self.lock().queue.is_empty() {
            // A client that is gone need not be told.
            let _ = self.stream.shutdown_write();
        }
    }

    /// Sends a few bytes behind what waits already and never makes its caller wait; drops them when more than `waiting_max`
    /// bytes wait.
    pub(crate) fn send_aside(&self, bytes: &[u8], waiting_max: usize) {
        let outbox = self.lock();
        if !outbox.ended && outbox.memory_bytes.get() <= waiting_max {
            self.push_small(outbox, bytes);
        }
    }

    /// The same for the last bytes of a connection, which are not dropped. Nothing happens when the last ones were sent.
    pub(crate) fn send_farewell(&self, bytes: &[u8]) {
        let mut outbox = self.lock();
        if !std::mem::replace(&mut outbox.ended, true) {
            self.push_small(outbox, bytes);
        }
    }

    fn push_small(&self, mut outbox: MutexGuard<'_, Outbox>, bytes: &[u8]) {
        if !self.is_broken() {
            outbox.memory_bytes.add(bytes.len());
            outbox.progress.get_or_insert_with(Instant::now);
            outbox.queue.push_back(Segment::Memory { bytes: bytes.to_vec(), sent: 0 });
            self.flush_locked(&mut outbox);
            drop(outbox);
            self.nudge();
        }
    }

    /// Has what was sent on a stream of HTTP/2 sent on, for a thread that does not own the reactor: it is under way when the
    /// stream's connection has been looked after.
    pub(crate) fn nudge(&self) {
        if let Some(stream) = self.stream.http2() {
            stream.nudge();
        }
    }

    /// What the connection became instead of going on with HTTP.
    pub(crate) fn upgraded(&self) -> Option<&dyn Upgraded> {
        self.upgraded.get().map(Arc::as_ref)
    }

    /// It is so for the rest of the connection.
    pub(crate) fn set_upgraded(&self, upgraded: Arc<dyn Upgraded>) {
        self.upgraded.get_or_init(|| upgraded);
    }

    /// Takes bytes of a response, to be sent with those that follow them, or after the call. `is_complete`: they are its
    /// end, which the reactor's owner sends when the call goes on; others are sent by `gathering`. Not when bytes before
    /// them still wait, or when they would be too many.
    pub(crate) fn hold_back(
        self: &Arc<Self>,
        bytes: &mut Vec<u8>,
        is_complete: bool,
        gathering: &Gathering,
    ) -> bool {
        let mut outbox = self.lock();
        let is_first = outbox.held.is_empty();
        let fits =
            outbox.held.len().saturating_add(bytes.len()) <= HELD_MAX_BYTES || (is_complete && is_first);
        if !outbox.queue.is_empty() || !fits || self.is_over() || (is_complete && is_first && outbox.prompt) {
            return false;
        }
        outbox.begun = true;
        if is_first {
            std::mem::swap(&mut outbox.held, bytes);
        } else {
            outbox.held.append(bytes);
        }
        drop(outbox);
        if is_first && !is_complete {
            let pipe: Weak<Pipe> = Arc::downgrade(self);
            gathering.watch(pipe);
        }
        true
    }

    /// Puts what is held in front of what `bytes` has.
    pub(crate) fn take_held(&self, bytes: &mut Vec<u8>) {
        let mut held = std::mem::take(&mut self.lock().held);
        held.append(bytes);
        *bytes = held;
    }

    /// Whether the end of a response may stay until the call is over. If not it is sent now.
    pub(crate) fn set_prompt(&self, prompt: bool) {
        let mut outbox = self.lock();
        outbox.prompt = prompt;
        if prompt {
            self.send_held(&mut outbox);
        }
    }

    fn send_held(&self, outbox: &mut Outbox) -> bool {
        if outbox.held.is_empty() || self.is_over() {
            return false;
        }
        let bytes = std::mem::take(&mut outbox.held);
        outbox.memory_bytes.add(bytes.len());
        outbox.progress.get_or_insert_with(Instant::now);
        outbox.queue.push_back(Segment::Memory { bytes, sent: 0 });
        self.flush_locked(outbox);
        true
    }

    /// Sends what waits, as much as the socket takes now.
    pub(crate) fn flush(&self) -> Flushed {
        self.flush_locked(&mut self.lock())
    }

    /// When the client last took something, if something waits for it.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        self.lock().progress
    }

    /// Whether a write would not have to wait; also when nothing can be sent any more.
    pub(crate) fn has_room(&self, limits: &OutboxRules) -> bool {
        let mut outbox = self.lock();
        self.is_over()
            || outbox.queue.is_empty()
            || self.flush_locked(&mut outbox) == Flushed::Broken
            || !outbox.is_full(limits)
    }

    /// Calls `on_news` once, at the next news. There may be no other waiter.
    pub(crate) fn want_news(&self, on_news: OnNews) {
        *self.on_news.lock() = Some(on_news);
    }

    /// There may be room, bytes from the client, or no client any more.
    pub(crate) fn tell_news(&self) {
        let on_news = self.on_news.lock().take();
        if let Some(on_news) = on_news {
            on_news();
        }
    }

    /// Nothing of a response has been sent; interim ones do not count.
    pub(crate) fn begin(&self) {
        self.lock().begun = false;
    }

    /// The application's response begins by another way than a write; `false` when it has no client any more.
    pub(crate) fn claim(&self) -> bool {
        let mut outbox = self.lock();
        outbox.begun |= !self.is_over();
        outbox.begun
    }

    /// Whether a response has begun, be it a stored one.
    pub(crate) fn has_begun(&self) -> bool {
        self.lock().begun
    }

    /// From now on the application is not heard any more. Returns whether a response of that status is to be given in its
    /// place; if its own has begun nothing more is sent.
    pub(crate) fn seize(&self, status: u16) -> bool {
        let outbox = self.lock();
        let fresh = !outbox.begun;
        self.seizure.set(if fresh { Seizure::Responded(status) } else { Seizure::CutOff });
        drop(outbox);
        if !fresh {
            self.break_off();
        }
        fresh
    }

    /// Sends the response in place of the application's.
    pub(crate) fn send_in_place(&self, response: Vec<u8>) {
        let mut outbox = self.lock();
        outbox.memory_bytes.add(response.len());
        outbox.progress.get_or_insert_with(Instant::now);
        outbox.queue.push_back(Segment::Memory { bytes: response, sent: 0 });
        if self.stream.http2().is_some() {
            outbox.queue.push_back(Segment::End);
        }
        if self.flush_locked(&mut outbox) == Flushed::Empty {
            // A client may wait for the end. If it cannot be told it has gone.
            let _ = self.stream.shutdown_write();
        }
        drop(outbox);
        self.nudge();
        self.tell_news();
    }

    /// The status of the response that was sent in place of the application's.
    pub(crate) fn seized(&self) -> Option<u16> {
        match self.seizure.get() {
            Seizure::Responded(status) => Some(status),
            Seizure::None | Seizure::CutOff => None,
        }
    }

    /// Whether the application took too long, and all was sent to its client that ever will be.
    pub(crate) fn is_done_without_application(&self) -> bool {
        self.seizure.get() != Seizure::None && (self.is_broken() || self.waiting_since().is_none())
    }

    /// Whether the application's response has no client any more.
    pub(crate) fn is_over(&self) -> bool {
        self.is_broken() || self.seizure.get() != Seizure::None
    }

    /// Nothing more will be sent; a thread that writes is told so.
    pub(crate) fn break_off(&self) {
        self.broken.store(true, Ordering::Release);
        self.tell_news();
    }

    /// Whether no client waits for the response any more: the client has left, or the stream was reset.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.is_broken() || self.stream().http2().is_some_and(Http2Stream::is_reset)
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Whether the request lies on the desk and the hub has not taken it.
    pub(crate) fn waits_for_hub(&self) -> bool {
        self.waits_for_hub.load(Ordering::Relaxed)
    }

    pub(crate) fn set_waits_for_hub(&self, waits: bool) {
        self.waits_for_hub.store(waits, Ordering::Relaxed);
    }

    /// What waits is still sent; then the connection is reset.
    pub(crate) fn set_short(&self) {
        self.short.store(true, Ordering::Release);
    }

    /// Whether the connection is to end with a reset when everything is sent.
    pub(crate) fn is_short(&self) -> bool {
        self.short.load(Ordering::Acquire)
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    pub(crate) fn set_watched(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    fn disconnect(&self) -> SendError {
        self.break_off();
        SendError::Disconnected
    }

    fn lock(&self) -> MutexGuard<'_, Outbox> {
        // A panic while the lock was held is that exchange's; the queue itself is whole after every statement.
        self.outbox.lock()
    }

    /// The outbox, once it has room. This is the one place where a response makes its thread wait.
    fn room(&self, limits: &OutboxRules) -> Result<MutexGuard<'_, Outbox>, SendError> {
        let mut waited = Duration::ZERO;
        loop {
            let mut outbox = self.lock();
            if self.is_over() || outbox.ended {
                return Err(SendError::Disconnected);
            }
            if !outbox.queue.is_empty() && self.flush_locked(&mut outbox) == Flushed::Broken {
                return Err(SendError::Disconnected);
            }
            if !limits.waits || !outbox.is_full(limits) {
                return Ok(outbox);
            }
            drop(outbox);
            let wait = WAIT_MAX.min(limits.plan.write_timeout);
            match self.stream.wait_writable(wait) {
                Ok(true) => waited = Duration::ZERO,
                Ok(false) if waited + wait < limits.plan.write_timeout => waited += wait,
                Ok(false) | Err(_) => return Err(self.disconnect()),
            }
        }
    }

    fn send_now(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            let result = match parts {
                [bytes] => self.stream.send(bytes),
                _ => self.stream.send_slices(parts),
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn flush_locked(&self, outbox: &mut Outbox) -> Flushed {
        if self.is_broken() {
            return Flushed::Broken;
        }
        while let Some(segment) = outbox.queue.front_mut() {
            let sent = match segment {
                Segment::Memory { bytes, sent } => {
                    self.send_now(&[IoSlice::new(bytes.get(*sent..).unwrap_or_default())])
                }
                Segment::Shared { bytes, sent, end, .. } => {
                    let left = (**bytes).as_ref().get(*sent..*end).unwrap_or_default();
                    self.send_now(&[IoSlice::new(left)])
                }
                Segment::Spool { extent, sent } => {
                    let (file, offset) = extent.place(*sent);
                    self.send_file_now(&file, offset, extent.len().saturating_sub(*sent))
                }
                Segment::File(FilePart { file, offset, left, records }) => match records {
                    None => self.send_file_now(&file.as_fd(), *offset, *left),
                    Some(records) => match records.header(*left) {
                        [] => self.send_file_now(&file.as_fd(), *offset, records.content_left as u64),
                        header => match self.send_now(&[IoSlice::new(header)]) {
                            Ok(sent) => {
                                records.header_sent += sent;
                                continue;
                            }
                            Err(error) => Err(error),
                        },
                    },
                },
                Segment::End => {
                    let ended = self.stream.http2().is_none_or(|stream| stream.send_last(&[]).is_ok());
                    outbox.queue.pop_front();
                    if ended {
                        continue;
                    }
                    Err(io::ErrorKind::ConnectionReset.into())
                }
            };
            match sent {
                // The file is shorter than was promised: the client must see a broken response, not a padded one.
                Ok(0) => {
                    self.break_off();
                    return Flushed::Broken;
                }
                Ok(count) => outbox.sent(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Flushed::Blocked,
                Err(_) => {
                    self.break_off();
                    return Flushed::Broken;
                }
            }
        }
        // With TLS what was taken may not be under way yet.
        match self.stream.flush() {
            Ok(true) => {
                outbox.progress = None;
                Flushed::Empty
            }
            Ok(false) => {
                outbox.progress.get_or_insert_with(Instant::now);
                Flushed::Blocked
            }
            Err(_) => {
                self.break_off();
                Flushed::Broken
            }
        }
    }

    fn send_file_now(&self, file: &impl AsFd, offset: u64, left: u64) -> io::Result<usize> {
        let count = usize::try_from(left.min(SEND_FILE_BYTES)).unwrap_or(usize::MAX);
        loop {
            match self.stream.send_file(file.as_fd(), offset, count) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}
