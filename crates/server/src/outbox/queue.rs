//! What waits for a client: bytes in memory, in temporary files, and parts of files that the application named.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use anygate_proto::fastcgi;

use super::spool;
use crate::rules::OutboxRules;

/// A file of the spool is closed at this size, so that its room comes back when it was sent.
const SPOOL_FILE_BYTES: u64 = 64 << 20;

/// Data that waits for one client.
#[derive(Default)]
pub(super) struct Outbox {
    pub(super) queue: VecDeque<Segment>,
    /// The end of a response, which its thread will send when its call is over, together with other responses.
    pub(super) held: Vec<u8>,
    /// The application's response has begun.
    pub(super) begun: bool,
    /// Nothing may be held back, since the thread that called has lost the reactor.
    pub(super) prompt: bool,
    /// Nothing may be added any more.
    pub(super) ended: bool,
    pub(super) memory_bytes: usize,
    pub(super) spool_bytes: u64,
    /// No temporary file takes more: the response waits for its client.
    pub(super) spool_failed: bool,
    /// Time at which the client last accepted data, while data waits.
    pub(super) progress: Option<Instant>,
}

/// One thing that waits.
pub(super) enum Segment {
    Memory {
        bytes: Vec<u8>,
        sent: usize,
    },
    /// Bytes that were spooled; `written` grows while the segment is the last one.
    Spool {
        file: File,
        sent: u64,
        written: u64,
    },
    /// A file that the application named.
    File(FilePart),
    /// The end of a stream of HTTP/2.
    End,
}

/// A part of a file, to be sent from where it lies.
pub(crate) struct FilePart {
    pub(crate) file: OwnedFd,
    pub(crate) offset: u64,
    pub(crate) left: u64,
    /// In FastCGI records, or as it is.
    pub(crate) records: Option<Records>,
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
    pub(super) fn is_full(&self, limits: &OutboxRules) -> bool {
        match limits.plan.spool_max_bytes {
            0 => self.memory_bytes >= limits.plan.memory_max_bytes,
            _ if self.spool_failed => self.memory_bytes >= limits.plan.memory_max_bytes,
            spool_max_bytes => self.spool_bytes >= spool_max_bytes,
        }
    }

    /// Keeps bytes. Where no temporary file takes them they stay in memory, and the outbox is full.
    pub(super) fn push(&mut self, bytes: &[u8], limits: &OutboxRules) {
        self.progress.get_or_insert_with(Instant::now);
        let fits = limits.plan.spool_max_bytes == 0
            || self.spool_failed
            || self.memory_bytes + bytes.len() <= limits.plan.memory_max_bytes;
        match self.queue.back_mut() {
            Some(Segment::Spool { file, written, .. })
                if *written < SPOOL_FILE_BYTES && !self.spool_failed =>
            {
                match file.write_all_at(bytes, *written) {
                    Ok(()) => {
                        *written += bytes.len() as u64;
                        self.spool_bytes += bytes.len() as u64;
                    }
                    Err(error) => self.keep(bytes, &error),
                }
            }
            Some(Segment::Memory { bytes: tail, sent }) if fits => {
                // What was sent leaves memory too, but is not moved out byte by byte.
                if *sent > tail.len() / 2 {
                    tail.drain(..*sent);
                    *sent = 0;
                }
                tail.extend_from_slice(bytes);
                self.memory_bytes += bytes.len();
            }
            _ if fits => self.push_memory(bytes),
            _ => match spooled(bytes, limits) {
                Ok(file) => {
                    self.queue.push_back(Segment::Spool { file, sent: 0, written: bytes.len() as u64 });
                    self.spool_bytes += bytes.len() as u64;
                }
                Err(error) => self.keep(bytes, &error),
            },
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
        self.memory_bytes += bytes.len();
    }

    /// Counts `count` bytes of the first segment as sent.
    pub(super) fn sent(&mut self, count: usize) {
        let wide = count as u64;
        let done = match self.queue.front_mut() {
            None | Some(Segment::End) => return,
            Some(Segment::Memory { bytes, sent }) => {
                *sent += count;
                self.memory_bytes = self.memory_bytes.saturating_sub(count);
                *sent >= bytes.len()
            }
            Some(Segment::Spool { sent, written, .. }) => {
                *sent += wide;
                self.spool_bytes = self.spool_bytes.saturating_sub(wide);
                *sent >= *written
            }
            Some(Segment::File(FilePart { offset, left, records, .. })) => {
                *offset += wide;
                *left = left.saturating_sub(wide);
                if let Some(records) = records {
                    records.content_left = records.content_left.saturating_sub(count);
                }
                *left == 0
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

/// A new temporary file with these bytes.
fn spooled(bytes: &[u8], limits: &OutboxRules) -> io::Result<File> {
    let file = spool::file(limits.plan.temp_dir.as_deref())?;
    file.write_all_at(bytes, 0)?;
    Ok(file)
}
