//! Sending what an application gives: at once as far as the socket takes it, and behind what waits already.

use std::io::{self, IoSlice};
use std::time::Instant;

use anygate_proto::application::{SendError, SharedBytes};

use super::queue::{FilePart, Outbox, Segment};
use super::{Flushed, Pipe};
use crate::rules::OutboxRules;

/// What is held, and `head` behind it.
fn join<'a>(held: &'a mut Vec<u8>, head: &'a [u8]) -> &'a [u8] {
    if held.is_empty() {
        return head;
    }
    held.extend_from_slice(head);
    held
}

impl Pipe {
    /// Sends `parts` one after the other behind what is held, or keeps what the socket does not take.
    pub(crate) fn send(&self, parts: &mut [IoSlice<'_>], limits: &OutboxRules) -> Result<(), SendError> {
        let mut outbox = self.room(limits)?;
        outbox.begun = true;
        let held = std::mem::take(&mut outbox.held);
        if held.is_empty() {
            return self.send_locked(&mut outbox, parts, limits);
        }
        let mut all = vec![IoSlice::new(&held)];
        all.extend(parts.iter().map(|part| IoSlice::new(part)));
        self.send_locked(&mut outbox, &mut all, limits)
    }

    /// Sends `head` and the first `length` bytes of `shared`, which is kept until all of them are sent.
    pub(crate) fn send_shared(
        &self,
        head: &[u8],
        shared: &SharedBytes,
        length: usize,
        limits: &OutboxRules,
    ) -> Result<(), SendError> {
        let mut outbox = self.room(limits)?;
        outbox.begun = true;
        let mut held = std::mem::take(&mut outbox.held);
        let before = join(&mut held, head);
        let bytes = (**shared).as_ref().get(..length).unwrap_or_default();
        let mut parts = [IoSlice::new(before), IoSlice::new(bytes)];
        let left = self.send_while_empty(&outbox, &mut parts)?.iter().map(|part| part.len()).sum();
        match bytes.len().checked_sub(left) {
            // The head was sent, and a part of the bytes.
            Some(sent) => outbox.push_shared(shared, sent, length, limits),
            None => {
                outbox.push(before.get(bytes.len() + before.len() - left..).unwrap_or_default(), limits);
                outbox.push_shared(shared, 0, length, limits);
            }
        }
        Ok(())
    }

    /// Sends `head` and then a part of a file, after what waits already.
    pub(crate) fn send_file(
        &self,
        head: &[u8],
        part: FilePart,
        limits: &OutboxRules,
    ) -> Result<(), SendError> {
        if part.left == 0 {
            return self.send(&mut [IoSlice::new(head)], limits);
        }
        let mut outbox = self.room(limits)?;
        outbox.begun = true;
        let mut held = std::mem::take(&mut outbox.held);
        let head = join(&mut held, head);
        let mut sent = 0;
        if outbox.queue.is_empty() && !head.is_empty() {
            // What failed here fails below as well, where it is looked at.
            sent = self.stream.send_before_more(head).unwrap_or(0);
        }
        if let Some(rest @ [_, ..]) = head.get(sent..) {
            outbox.push(rest, limits);
        }
        outbox.queue.push_back(Segment::File(part));
        outbox.progress.get_or_insert_with(Instant::now);
        match self.flush_locked(&mut outbox) {
            Flushed::Broken => Err(SendError::Disconnected),
            Flushed::Empty => Ok(()),
            Flushed::Blocked => {
                outbox.share_files(limits);
                Ok(())
            }
        }
    }

    /// Sends `parts` if nothing waits before them. Returns what the socket did not take.
    fn send_while_empty<'p, 'b>(
        &self,
        outbox: &Outbox,
        mut parts: &'p mut [IoSlice<'b>],
    ) -> Result<&'p mut [IoSlice<'b>], SendError> {
        if outbox.queue.is_empty() {
            // This drops those that are empty.
            IoSlice::advance_slices(&mut parts, 0);
            while !parts.is_empty() {
                match self.send_now(parts) {
                    Ok(sent) => IoSlice::advance_slices(&mut parts, sent),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => return Err(self.disconnect()),
                }
            }
        }
        Ok(parts)
    }

    fn send_locked(
        &self,
        outbox: &mut Outbox,
        parts: &mut [IoSlice<'_>],
        limits: &OutboxRules,
    ) -> Result<(), SendError> {
        let parts = self.send_while_empty(outbox, parts)?;
        for part in parts.iter().filter(|part| !part.is_empty()) {
            outbox.push(part, limits);
        }
        Ok(())
    }
}
