//! What waits for a client: bytes in memory, in temporary files, and parts of files that the application named.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anygate_proto::application::SharedBytes;
use anygate_proto::fastcgi;

use super::held_files;
use super::spool::{self, Extent};
use crate::rules::OutboxRules;

/// So many outboxes of a process may have all the memory that one may have. With more than that in all of them together each
/// may have no more than a small part of it, and the rest goes to temporary files.
const FULL_OUTBOXES: usize = 256;
const SMALL_PART: usize = 16;

/// Bytes in memory of all outboxes of this process.
static MEMORY_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Bytes in memory of one outbox, as a part of those of all.
#[derive(Default)]
pub(super) struct MemoryBytes(usize);

impl MemoryBytes {
    pub(super) fn get(&self) -> usize {
        self.0
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.0 += bytes;
        MEMORY_BYTES.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&mut self, bytes: usize) {
        let bytes = bytes.min(self.0);
        self.0 -= bytes;
        MEMORY_BYTES.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether more bytes may be in memory, where others could be in files.
    fn has_room(&self, bytes: usize, memory_max_bytes: usize) -> bool {
        let all = MEMORY_BYTES.load(Ordering::Relaxed);
        let is_scarce = all >= memory_max_bytes.saturating_mul(FULL_OUTBOXES);
        self.0 + bytes <= if is_scarce { memory_max_bytes / SMALL_PART } else { memory_max_bytes }
    }
}

impl Drop for MemoryBytes {
    fn drop(&mut self) {
        self.remove(self.0);
    }
}

/// Maximum bytes of applications that wait in all outboxes of a process together.
const SHARED_BYTES_MAX: usize = 64 << 20;

/// Bytes of applications in all outboxes of this process.
static SHARED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Bytes of an application in one outbox, as a part of those of all.
pub(super) struct CountedShared(usize);

impl CountedShared {
    /// Counts so many, unless they would be too many.
    fn new(bytes: usize) -> Option<CountedShared> {
        let counted = CountedShared(bytes);
        let before = SHARED_BYTES.fetch_add(bytes, Ordering::Relaxed);
        (before.saturating_add(bytes) <= SHARED_BYTES_MAX).then_some(counted)
    }
}

impl Drop for CountedShared {
    fn drop(&mut self) {
        SHARED_BYTES.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// Data that waits for one client.
#[derive(Default)]
pub(super) struct Outbox {
    pub(super) queue: VecDeque<Segment>,
    /// Blocks of a response that are sent with those that follow them, or its end, which its thread will send when its call
    /// is over, together with other responses. They come behind the queue, which was empty when the first was held.
    pub(super) held: Vec<u8>,
    /// The application's response has begun.
    pub(super) begun: bool,
    /// Nothing may be held back, since the thread that called has lost the reactor.
    pub(super) prompt: bool,
    /// Nothing may be added any more.
    pub(super) ended: bool,
    pub(super) memory_bytes: MemoryBytes,
    pub(super) spool_bytes: u64,
    /// No temporary file takes more: the response waits for its client.
    pub(super) spool_failed: bool,
    /// Time at which the client last accepted data, while data waits.
    pub(super) progress: Option<Instant>,
}

/// Maximum bytes of a file that are copied where too many files are held, and how many at a time.
const FILE_COPY_MAX_BYTES: u64 = 16 << 20;
const COPY_BYTES: usize = 64 * 1024;

/// One thing that waits.
pub(super) enum Segment {
    Memory {
        bytes: Vec<u8>,
        sent: usize,
    },
    /// Bytes of the application, up to `end`.
    Shared {
        bytes: SharedBytes,
        sent: usize,
        end: usize,
        _counted: CountedShared,
    },
    /// Bytes that were spooled, which grow while the segment is the last one.
    Spool {
        extent: Extent,
        sent: u64,
    },
    /// A file that the application named.
    File(FilePart),
    /// The end of a stream of HTTP/2.
    End,
}

/// A part of a file, to be sent from where it lies.
pub(crate) struct FilePart {
    pub(crate) file: Arc<OwnedFd>,
    pub(crate) offset: u64,
    pub(crate) left: u64,
    /// In FastCGI records, or as it is.
    pub(crate) records: Option<Records>,
}

impl FilePart {
    /// Its next bytes are on their way.
    fn advance(&mut self, count: usize) {
        self.offset += count as u64;
        self.left = self.left.saturating_sub(count as u64);
        if let Some(records) = &mut self.records {
            records.content_left = records.content_left.saturating_sub(count);
        }
    }
}

/// The FastCGI record in which a part of a file is being sent.
pub(crate) struct Records {
    id: u16,
    header: [u8; fastcgi::HEADER_BYTES],
    pub(super) header_sent: usize,
    pub(super) content_left: usize,
}

impl Records {
    pub(crate) fn new(id: u16) -> Self {
        Records {
            id,
            header: [0; fastcgi::HEADER_BYTES],
            header_sent: fastcgi::HEADER_BYTES,
            content_left: 0,
        }
    }

    /// What is still to be sent of the record's header; begins the next record when the last one is through.
    pub(super) fn header(&mut self, left: u64) -> &[u8] {
        if self.content_left == 0 && self.header_sent == self.header.len() {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(fastcgi::CONTENT_MAX_BYTES);
            self.header = fastcgi::stdout_header(self.id, length);
            (self.header_sent, self.content_left) = (0, length);
        }
        self.header.get(self.header_sent..).unwrap_or_default()
    }
}

impl Outbox {
    /// A part of a file waits: no file is held twice, and where too many are held, what is no more than
    /// [`FILE_COPY_MAX_BYTES`] is spooled instead.
    pub(super) fn share_files(&mut self, limits: &OutboxRules) {
        let Some(Segment::File(part)) = self.queue.back_mut() else { return };
        if let Some(file) = held_files::shared(&part.file) {
            part.file = file;
        } else if part.left <= FILE_COPY_MAX_BYTES
            && limits.plan.spool_max_bytes > 0
            && let Some(Segment::File(part)) = self.queue.pop_back()
        {
            self.copy(part, limits);
        }
    }

    /// Keeps the bytes of a part of a file in place of it.
    fn copy(&mut self, mut part: FilePart, limits: &OutboxRules) {
        let mut piece = vec![0; COPY_BYTES];
        while part.left > 0 {
            let mut most = usize::try_from(part.left).unwrap_or(COPY_BYTES).min(COPY_BYTES);
            if let Some(records) = &mut part.records {
                let header = records.header(part.left).to_vec();
                self.push(&header, limits);
                records.header_sent += header.len();
                most = most.min(records.content_left);
            }
            let room = piece.get_mut(..most).unwrap_or_default();
            let count = match rustix::io::pread(&part.file, room, part.offset) {
                Err(rustix::io::Errno::INTR) => continue,
                // A sender of the rest will see it.
                Ok(0) | Err(_) => return self.queue.push_back(Segment::File(part)),
                Ok(count) => count,
            };
            self.push(piece.get(..count).unwrap_or_default(), limits);
            part.advance(count);
        }
    }

    pub(super) fn is_full(&self, limits: &OutboxRules) -> bool {
        match limits.plan.spool_max_bytes {
            0 => self.memory_bytes.get() >= limits.plan.memory_max_bytes,
            _ if self.spool_failed => self.memory_bytes.get() >= limits.plan.memory_max_bytes,
            spool_max_bytes => self.spool_bytes >= spool_max_bytes,
        }
    }

    /// Keeps bytes. Where no temporary file takes them they stay in memory, and the outbox is full.
    pub(super) fn push(&mut self, bytes: &[u8], limits: &OutboxRules) {
        self.progress.get_or_insert_with(Instant::now);
        let fits = limits.plan.spool_max_bytes == 0
            || self.spool_failed
            || self.memory_bytes.has_room(bytes.len(), limits.plan.memory_max_bytes);
        match self.queue.back_mut() {
            Some(Segment::Spool { .. }) if !self.spool_failed => self.spool(bytes, limits),
            Some(Segment::Memory { bytes: tail, sent }) if fits => {
                // What was sent leaves memory too, but is not moved out byte by byte.
                if *sent > tail.len() / 2 {
                    tail.drain(..*sent);
                    *sent = 0;
                }
                tail.extend_from_slice(bytes);
                self.memory_bytes.add(bytes.len());
            }
            _ if fits => self.push_memory(bytes),
            _ => self.spool(bytes, limits),
        }
    }

    /// Keeps the bytes of the application from `sent` to `end`. If that would be too many in all, they are kept as others are.
    pub(super) fn push_shared(&mut self, bytes: &SharedBytes, sent: usize, end: usize, limits: &OutboxRules) {
        let left = (**bytes).as_ref().get(sent..end).unwrap_or_default();
        if left.is_empty() {
            return;
        }
        // Where nothing goes to files the thread waits for its client, and what it has given counts as memory.
        let counted = (limits.plan.spool_max_bytes > 0).then(|| CountedShared::new(left.len())).flatten();
        let Some(counted) = counted else { return self.push(left, limits) };
        self.progress.get_or_insert_with(Instant::now);
        self.spool_bytes += left.len() as u64;
        let bytes = SharedBytes::clone(bytes);
        self.queue.push_back(Segment::Shared { bytes, sent, end, _counted: counted });
    }

    /// Keeps bytes in temporary files, behind what is there.
    fn spool(&mut self, mut bytes: &[u8], limits: &OutboxRules) {
        while !bytes.is_empty() {
            let pushed = match self.queue.back_mut() {
                Some(Segment::Spool { extent, .. }) if !extent.is_full() => extent.push(bytes),
                last => {
                    let before = match last {
                        Some(Segment::Spool { extent, .. }) => Some(&*extent),
                        _ => None,
                    };
                    Extent::new(limits.plan.temp_dir.as_deref(), before).map(|extent| {
                        self.queue.push_back(Segment::Spool { extent, sent: 0 });
                        0
                    })
                }
            };
            match pushed {
                Ok(count) => {
                    self.spool_bytes += count as u64;
                    bytes = bytes.get(count..).unwrap_or_default();
                }
                Err(error) => {
                    if matches!(self.queue.back(), Some(Segment::Spool { extent, .. }) if extent.len() == 0) {
                        self.queue.pop_back();
                    }
                    return self.keep(bytes, &error);
                }
            }
        }
    }

    /// Keeps in memory what no temporary file took.
    fn keep(&mut self, bytes: &[u8], error: &io::Error) {
        spool::note_failure(error);
        self.spool_failed = true;
        self.push_memory(bytes);
    }

    fn push_memory(&mut self, bytes: &[u8]) {
        self.queue.push_back(Segment::Memory { bytes: bytes.to_vec(), sent: 0 });
        self.memory_bytes.add(bytes.len());
    }

    /// Counts `count` bytes of the first segment as sent.
    pub(super) fn sent(&mut self, count: usize) {
        let wide = count as u64;
        let done = match self.queue.front_mut() {
            None | Some(Segment::End) => return,
            Some(Segment::Memory { bytes, sent }) => {
                *sent += count;
                self.memory_bytes.remove(count);
                *sent >= bytes.len()
            }
            Some(Segment::Shared { sent, end, .. }) => {
                *sent += count;
                self.spool_bytes = self.spool_bytes.saturating_sub(wide);
                *sent >= *end
            }
            Some(Segment::Spool { extent, sent }) => {
                *sent += wide;
                self.spool_bytes = self.spool_bytes.saturating_sub(wide);
                *sent >= extent.len()
            }
            Some(Segment::File(part)) => {
                part.advance(count);
                part.left == 0
            }
        };
        if done {
            self.queue.pop_front();
        }
        self.progress = (!self.queue.is_empty()).then(Instant::now);
        if self.queue.is_empty() {
            // An idle connection keeps no memory for its next response.
            self.queue = VecDeque::new();
            // There may be room for the next one.
            self.spool_failed = false;
        }
    }
}
