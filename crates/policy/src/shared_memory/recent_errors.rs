//! The last messages of a process that others should see, in memory that all processes share: a ring, whose oldest
//! message is overwritten.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::shared_memory::text;

/// Messages that are kept.
pub const PLACES: usize = 16;
const WORDS: usize = 256;
/// Bytes of a message, and of the first line of it.
const TEXT_BYTES: usize = text::text_max_bytes(WORDS - 1);
const LINE_BYTES: usize = 240;
/// Numbers in a row; the first one says how many messages there were.
pub const CELLS: usize = 1 + PLACES * WORDS;

/// A process's messages.
#[derive(Clone, Copy)]
pub struct Recent<'a>(pub &'a [AtomicU64]);

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Time of the message.
    pub time: SystemTime,
    /// First line, truncated.
    pub text: String,
    /// The lines below it, which are those of a traceback, from the end as many as there is room for; may be empty.
    pub traceback: String,
}

impl<'a> Recent<'a> {
    /// Adds a message: its first line, and those below it as far as there is room. What a traceback is about stands at its end.
    pub fn add(self, now: SystemTime, message: &str) {
        let Some(count) = self.0.first() else { return };
        let number = count.fetch_add(1, Ordering::Relaxed);
        let place = usize::try_from(number).unwrap_or_default() % PLACES;
        let Some((time, words)) = self.place(place) else { return };
        let (first, rest) = message.split_once('\n').unwrap_or((message, ""));
        let mut kept = first.to_owned();
        kept.truncate((0..=LINE_BYTES).rev().find(|&end| first.is_char_boundary(end)).unwrap_or_default());
        let rest = rest.trim_end();
        let from = rest.len().saturating_sub(TEXT_BYTES - kept.len() - 1);
        // Half a line says nothing.
        let whole = |from: &usize| *from == 0 || rest.as_bytes().get(from - 1) == Some(&b'\n');
        if let Some(end) = (from..rest.len()).find(whole).and_then(|from| rest.get(from..)) {
            kept.push('\n');
            kept.push_str(end);
        }
        time.store(0, Ordering::Relaxed);
        text::store(words, kept.as_bytes());
        time.store(millis(now).max(1), Ordering::Release);
    }

    /// All messages, the newest first.
    pub fn list(self) -> Vec<Message> {
        let mut messages: Vec<Message> = (0..PLACES).filter_map(|place| self.read(place)).collect();
        messages.sort_by_key(|message| std::cmp::Reverse(message.time));
        messages
    }

    /// Passes the messages on to another process, since this one is gone.
    pub fn pass_on(self, other: Recent<'_>) {
        for message in self.list().into_iter().rev() {
            other.add(message.time, &format!("{}\n{}", message.text, message.traceback));
        }
    }

    fn read(self, place: usize) -> Option<Message> {
        let (time, words) = self.place(place)?;
        let time = time.load(Ordering::Acquire);
        if time == 0 {
            return None;
        }
        let text = text::load(words);
        let (text, traceback) = text.split_once('\n').unwrap_or((&text, ""));
        let time = UNIX_EPOCH + Duration::from_millis(time);
        Some(Message { time, text: text.to_owned(), traceback: traceback.to_owned() })
    }

    /// When a message came, and its text.
    fn place(self, place: usize) -> Option<(&'a AtomicU64, &'a [AtomicU64])> {
        self.0.get(1 + place * WORDS..)?.get(..WORDS)?.split_first()
    }
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Vec<AtomicU64> {
        (0..CELLS).map(|_| AtomicU64::new(0)).collect()
    }

    fn texts(recent: Recent<'_>) -> Vec<String> {
        recent.list().into_iter().map(|message| message.text).collect()
    }

    #[test]
    fn the_newest_messages_stay() {
        let row = row();
        let recent = Recent(&row);
        for number in 0..PLACES as u64 + 3 {
            recent.add(UNIX_EPOCH + Duration::from_secs(number + 1), &format!("number {number}\nmore"));
        }
        let texts = texts(recent);
        assert_eq!((texts.len(), texts[0].as_str(), texts[15].as_str()), (16, "number 18", "number 3"));
    }

    #[test]
    fn messages_are_cut_and_passed_on() {
        let (one, other) = (row(), row());
        Recent(&one).add(UNIX_EPOCH + Duration::from_secs(1), &"\u{e9}".repeat(300));
        Recent(&one).add(UNIX_EPOCH + Duration::from_secs(2), "short");
        Recent(&one).pass_on(Recent(&other));
        let texts = texts(Recent(&other));
        assert_eq!(texts[0], "short");
        assert_eq!(texts[1].chars().count(), LINE_BYTES / 2);
        let long: String = (0..500).map(|number| format!("line {number}\n")).collect();
        for (time, traceback) in [(3, "first\n  last"), (4, long.as_str())] {
            Recent(&other).add(UNIX_EPOCH + Duration::from_secs(time), &format!("ERROR it\n{traceback}"));
        }
        let kept = Recent(&other).list();
        assert_eq!((kept[1].text.as_str(), kept[1].traceback.as_str()), ("ERROR it", "first\n  last"));
        assert!(kept[0].traceback.starts_with("line ") && kept[0].traceback.ends_with("\nline 499"));
        assert!(kept[0].traceback.len() > TEXT_BYTES - 300);
        Recent(&[]).add(UNIX_EPOCH, "nowhere");
        assert!(Recent(&[]).list().is_empty());
    }
}
