//! One log. A thread that writes a line never waits: it goes out at once, or behind others that wait for a reader who is slow,
//! which a thread sends on as soon as there is room. When too much waits, or there is no room on the disk, lines are
//! dropped and counted, and [`Outlet::tend`] tells of it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anygate_config::{Facility, LogTarget, MessageFormat};
use anygate_lock::{Mutex, MutexGuard};
use anygate_sys::{forked, poll};

use crate::destination::{Destination, Unit};
use crate::recognisable;
use crate::severity::Severity;

/// Maximum number of bytes that wait for a slow reader.
const WAITING_MAX: usize = 1 << 20;
/// Text that does not end its line waits up to this length.
const UNFINISHED_MAX: usize = 8 * 1024;
/// A log that has lost nothing for so long works again.
const CALM: Duration = Duration::from_secs(10);
/// The thread that sends on what waits looks so often whether it goes somewhere else now.
const PAUSE: Duration = Duration::from_secs(1);

/// Why lines are lost before they are read.
const TOO_SLOW: &str = "its reader does not keep up";

/// Which log it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Messages.
    Error,
    /// A line for each request.
    Access,
}

impl Kind {
    /// Returns the program name in syslog and the journal.
    fn identifier(self) -> &'static str {
        match self {
            Kind::Error => "anygate",
            Kind::Access => "anygate-access",
        }
    }
}

/// A log.
pub struct Outlet {
    kind: Kind,
    target: LogTarget,
    facility: Facility,
    owner: Option<u32>,
    format: MessageFormat,
    state: Arc<Mutex<State>>,
}

/// Change of a log's health, to be reported.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// It began to lose lines, for this reason.
    Loses(String),
    /// It works again; so many were lost.
    Works(u64),
}

struct State {
    place: Destination,
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    /// The process whose thread sends on what waits. Another one, which was forked from it, has a copy of it all and no
    /// thread.
    sender: Option<u32>,
    /// Text without the end of its line.
    unfinished: Vec<u8>,
    /// The last line was not written to its end.
    torn: bool,
    losses: Losses,
}

/// Lines that were lost.
#[derive(Default)]
struct Losses {
    /// Since the last report.
    lines: u64,
    reason: String,
    /// Since it began, and when that was seen last.
    spell: Option<(u64, Instant)>,
}

/// Keeps an outlet as it is while the process is forked.
pub struct Held<'a> {
    _state: MutexGuard<'a, State>,
}

impl Outlet {
    /// Opens a log. A file becomes `owner`'s, if it is to be opened anew by processes of that user.
    /// `format`: how messages look where nothing else says it.
    pub fn open(
        kind: Kind,
        target: &LogTarget,
        facility: Facility,
        owner: Option<u32>,
        format: &MessageFormat,
    ) -> io::Result<Self> {
        let place = Destination::open(target, kind.identifier(), facility, owner, format)?;
        let state = State::new(place);
        let (target, format) = (target.clone(), format.clone());
        Ok(Outlet { kind, target, facility, owner, format, state: Arc::new(Mutex::new(state)) })
    }

    /// Returns what it is written to.
    pub fn target(&self) -> &LogTarget {
        &self.target
    }

    /// Goes on in a fresh file, after the old one was moved away. What is no file stays open.
    pub fn reopen(&self) -> io::Result<()> {
        if let LogTarget::File(_) = self.target {
            let identifier = self.kind.identifier();
            let fresh = Destination::open(&self.target, identifier, self.facility, self.owner, &self.format)?;
            let mut state = self.lock();
            state.place = fresh;
            state.torn = false;
        }
        Ok(())
    }

    /// Writes whole lines that each stand for themselves.
    pub fn lines(&self, lines: &[u8]) {
        self.write(Severity::Info, &Unit::Lines(lines), SystemTime::now());
    }

    /// Writes a message of a time, whose lines belong together. None but the first passes for the beginning of one.
    pub fn message(&self, severity: Severity, time: SystemTime, text: &[u8]) {
        self.write(severity, &Unit::Message(&recognisable::message(text)), time);
    }

    /// Writes text of the application as it comes, which may end within a line. A line that would pass for one of ours is
    /// indented.
    pub fn text(&self, text: &[u8]) {
        let now = SystemTime::now();
        if forked::is_child() {
            return self.write_alone(
                Severity::Notice,
                &Unit::Text(&recognisable::application_text(text)),
                now,
            );
        }
        let mut state = self.lock();
        if !state.place.takes_messages() {
            drop(state);
            return self.write(Severity::Notice, &Unit::Text(&recognisable::application_text(text)), now);
        }
        state.unfinished.extend_from_slice(text);
        let whole = match state.unfinished.iter().rposition(|&byte| byte == b'\n') {
            Some(last) => last + 1,
            None if state.unfinished.len() > UNFINISHED_MAX => state.unfinished.len(),
            None => return,
        };
        let lines: Vec<u8> = state.unfinished.drain(..whole).collect();
        drop(state);
        self.write(Severity::Notice, &Unit::Lines(&lines), now);
    }

    /// Returns how many lines were lost since the last call, and what is to be reported. Call it about once a second.
    pub fn tend(&self, now: Instant) -> (u64, Option<News>) {
        let mut state = self.lock();
        let losses = &mut state.losses;
        let lines = std::mem::take(&mut losses.lines);
        match losses.spell {
            None if lines > 0 => {
                losses.spell = Some((lines, now));
                (lines, Some(News::Loses(losses.reason.clone())))
            }
            Some((all, _)) if lines > 0 => {
                losses.spell = Some((all + lines, now));
                (lines, None)
            }
            Some((all, last)) if now >= last + CALM => {
                losses.spell = None;
                (0, Some(News::Works(all)))
            }
            _ => (0, None),
        }
    }

    /// Whether there may be something to tell before anything more is written.
    pub fn needs_tending(&self) -> bool {
        let state = self.lock();
        state.losses.lines > 0 || state.losses.spell.is_some() || !state.waiting.is_empty()
    }

    /// Sends what waits, at the end of a process, for at most so long. The rest is lost.
    pub fn finish(&self, patience: Duration) {
        let unfinished = std::mem::take(&mut self.lock().unfinished);
        if !unfinished.is_empty() {
            self.write(Severity::Notice, &Unit::Lines(&unfinished), SystemTime::now());
        }
        let until = Instant::now() + patience;
        loop {
            let mut state = self.lock();
            let Some(fd) = state.send_waiting() else { return };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                while let Some(packet) = state.waiting.pop_front() {
                    state.waiting_bytes -= packet.len();
                    state.lose(&packet, TOO_SLOW);
                }
                return;
            }
            drop(state);
            // What cannot be waited for is tried again until the time is up.
            if fd.and_then(|fd| poll::wait_writable(fd.as_fd(), Some(left))).is_err() {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Locks the log until the result is dropped, so that a process forked meanwhile can use it.
    pub fn hold(&self) -> Held<'_> {
        Held { _state: self.lock() }
    }

    /// Writes in a process that the application has forked, in which the lock may never be released.
    fn write_alone(&self, severity: Severity, unit: &Unit<'_>, time: SystemTime) {
        let place =
            Destination::open(&self.target, self.kind.identifier(), self.facility, self.owner, &self.format);
        // The lines of a child that cannot open the log have nowhere else to go.
        if let Ok(place) = place {
            State::new(place).write(severity, unit, time);
        }
    }

    fn write(&self, severity: Severity, unit: &Unit<'_>, time: SystemTime) {
        if forked::is_child() {
            return self.write_alone(severity, unit, time);
        }
        let mut state = self.lock();
        state.write(severity, unit, time);
        if state.waiting.is_empty() || state.sender.is_some() {
            return;
        }
        state.sender = Some(std::process::id());
        drop(state);
        let state = Arc::clone(&self.state);
        let started = thread::Builder::new().name("log".to_owned()).spawn(move || send_on(&state));
        if started.is_err() {
            // The next line tries again.
            self.lock().sender = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    let mut state = state.lock();
    if state.sender.is_some_and(|process| process != std::process::id()) {
        // What waits is a copy, and the other process sends it.
        state.waiting.clear();
        (state.waiting_bytes, state.sender) = (0, None);
    }
    state
}

/// Sends on what waits until nothing does.
fn send_on(state: &Mutex<State>) {
    loop {
        let mut locked = lock(state);
        let Some(fd) = locked.send_waiting() else {
            locked.sender = None;
            return;
        };
        drop(locked);
        // Not even the time is up if there is no descriptor, or none that can be waited for.
        if fd.and_then(|fd| poll::wait_writable(fd.as_fd(), Some(PAUSE))).is_err() {
            thread::sleep(PAUSE);
        }
    }
}

impl State {
    fn new(place: Destination) -> State {
        State {
            place,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            sender: None,
            unfinished: Vec::new(),
            torn: false,
            losses: Losses::default(),
        }
    }

    fn write(&mut self, severity: Severity, unit: &Unit<'_>, time: SystemTime) {
        if let Some(bytes) = self.place.as_it_is(unit) {
            // By far the most often: nothing is copied.
            return self.offer(bytes);
        }
        let mut packets = Vec::new();
        self.place.packets(severity, unit, time, |packet| packets.push(packet.to_vec()));
        packets.iter().for_each(|packet| self.offer(packet));
    }

    /// Sends a packet, or has it wait, or loses it.
    fn offer(&mut self, packet: &[u8]) {
        let rest = match self.waiting.is_empty() {
            true => match self.send(packet) {
                Some(sent) if sent == packet.len() => return,
                Some(sent) => packet.get(sent..).unwrap_or_default(),
                None => return,
            },
            false => packet,
        };
        let begun = rest.len() < packet.len();
        // What was begun must be ended, so that no line is torn.
        if begun || self.waiting_bytes + rest.len() <= WAITING_MAX {
            self.waiting_bytes += rest.len();
            self.waiting.push_back(rest.to_vec());
        } else {
            self.lose(packet, TOO_SLOW);
        }
    }

    /// Sends of a packet what there is room for; `None` if it is lost.
    fn send(&mut self, packet: &[u8]) -> Option<usize> {
        if self.torn && self.place.write(b"\n").is_ok() {
            self.torn = false;
        }
        let mut sent = 0;
        loop {
            let rest = packet.get(sent..).unwrap_or_default();
            if rest.is_empty() {
                return Some(sent);
            }
            match self.place.write(rest) {
                Ok(0) => {
                    self.lose(rest, "it accepts nothing");
                    return None;
                }
                // A datagram is sent whole.
                Ok(_) if self.place.takes_datagrams() => return Some(packet.len()),
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(sent),
                Err(error) => {
                    self.torn |= sent > 0 && !packet.get(..sent).unwrap_or_default().ends_with(b"\n");
                    self.lose(rest, &error.to_string());
                    return None;
                }
            }
        }
    }

    /// Sends what waits and there is room for. Returns what to wait for if more is left.
    fn send_waiting(&mut self) -> Option<io::Result<OwnedFd>> {
        while let Some(packet) = self.waiting.pop_front() {
            self.waiting_bytes -= packet.len();
            match self.send(&packet) {
                Some(sent) if sent < packet.len() => {
                    let rest = packet.get(sent..).unwrap_or_default().to_vec();
                    self.waiting_bytes += rest.len();
                    self.waiting.push_front(rest);
                    return Some(self.place.as_fd().try_clone_to_owned());
                }
                _ => {}
            }
        }
        None
    }

    fn lose(&mut self, packet: &[u8], reason: &str) {
        let ends = packet.iter().filter(|&&byte| byte == b'\n').count();
        self.losses.lines += if self.place.takes_datagrams() { 1 } else { ends.max(1) as u64 };
        reason.clone_into(&mut self.losses.reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::io::{BufRead, BufReader};
    use std::net::UdpSocket;
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;

    use anygate_config::SyslogAddress;
    use anygate_sys::lock;

    fn open(target: LogTarget) -> Outlet {
        Outlet::open(Kind::Access, &target, Facility::Local1, None, &MessageFormat::Text).unwrap()
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = vec![0; 100_000];
        let count = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    #[test]
    fn a_full_disk_is_told_once_with_what_was_lost() {
        let outlet = open(LogTarget::File("/dev/full".into()));
        let now = Instant::now();
        assert!(!outlet.needs_tending());
        outlet.lines(b"one\ntwo\n");
        assert!(outlet.needs_tending());
        let (lost, news) = outlet.tend(now);
        assert_eq!(lost, 2);
        let Some(News::Loses(reason)) = news else { panic!("{news:?}") };
        assert!(reason.contains("No space left"), "{reason}");
        outlet.message(Severity::Error, SystemTime::now(), b"three\n");
        assert_eq!(outlet.tend(now + CALM), (1, None));
        assert_eq!(outlet.tend(now + CALM + CALM / 2), (0, None));
        assert_eq!(outlet.tend(now + CALM + CALM), (0, Some(News::Works(3))));
        assert!(!outlet.needs_tending());
        assert_eq!(outlet.tend(now + 9 * CALM), (0, None));
    }

    #[test]
    fn writers_do_not_wait_for_a_reader_and_what_is_not_lost_arrives_whole() {
        const LINES: u64 = 100_000;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let outlet = open(LogTarget::File(path.clone()));
        let filler = "x".repeat(40);
        let mut batch = Vec::new();
        for number in 0..LINES {
            batch.extend_from_slice(format!("{number} {filler}\n").as_bytes());
            if number % 100 == 99 {
                outlet.lines(&std::mem::take(&mut batch));
            }
        }
        let (lost, news) = outlet.tend(Instant::now());
        assert!(lost > 0);
        assert_eq!(news, Some(News::Loses(TOO_SLOW.to_owned())));
        let reader = BufReader::new(File::open(&path).unwrap());
        let mut last = None;
        for line in reader.lines().take(usize::try_from(LINES - lost).unwrap()) {
            let line = line.unwrap();
            let (number, rest) = line.split_once(' ').unwrap();
            let number: u64 = number.parse().unwrap();
            assert!(rest == filler && last.is_none_or(|last| last < number), "{line}");
            last = Some(number);
        }
    }

    #[test]
    fn what_still_waits_at_the_end_is_counted_and_not_waited_for() {
        let (_reader, writer) = io::pipe().unwrap();
        let outlet = open(LogTarget::File("/dev/null".into()));
        outlet.lock().place =
            Destination::Stream(anygate_sys::Output::of(writer.as_fd()).unwrap(), MessageFormat::Text);
        outlet.lines("line\n".repeat(20_000).as_bytes());
        assert_eq!(outlet.tend(Instant::now()), (0, None));
        outlet.finish(Duration::ZERO);
        let (lost, news) = outlet.tend(Instant::now());
        assert!(lost > 0 && lost < 20_000, "{lost}");
        assert_eq!(news, Some(News::Loses(TOO_SLOW.to_owned())));
        assert!(outlet.lock().waiting.is_empty());
    }

    #[test]
    fn syslog_gets_each_line_also_when_it_was_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let outlet = open(LogTarget::Syslog(SyslogAddress::Local(path.clone())));
        outlet.message(Severity::Error, SystemTime::now(), b"one\n\ntwo\n");
        for end in ["]: one", "]: two"] {
            let message = received(&daemon);
            // local1 is 17.
            assert!(message.starts_with("<139>") && message.ends_with(end), "{message}");
        }
        drop(daemon);
        outlet.lines(b"no reader is there\n");
        assert_eq!(outlet.tend(Instant::now()).0, 1);
        fs::remove_file(&path).unwrap();
        let daemon = UnixDatagram::bind(&path).unwrap();
        outlet.lines(b"three\n");
        assert!(received(&daemon).ends_with("]: three"));
    }

    #[test]
    fn a_slow_daemon_gets_everything_that_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let outlet = open(LogTarget::Journald(path));
        let lines: Vec<String> = (0..3000).map(|number| format!("line {number}")).collect();
        outlet.lines((lines.join("\n") + "\n").as_bytes());
        for line in lines {
            assert!(received(&daemon).ends_with(&format!("MESSAGE={line}\n")));
        }
        assert_eq!(outlet.tend(Instant::now()), (0, None));
    }

    #[test]
    fn the_journal_gets_a_message_as_one_entry_and_lines_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let outlet = open(LogTarget::Journald(path));
        outlet.message(Severity::Error, SystemTime::now(), b"Traceback:\n  here\n");
        let entry = received(&daemon);
        assert!(entry.starts_with("PRIORITY=3\n") && entry.ends_with("Traceback:\n  here\n"), "{entry}");
        assert!(entry.contains("SYSLOG_IDENTIFIER=anygate-access\n"), "{entry}");
        outlet.text(b"some ");
        outlet.text(b"text\nmore ");
        assert!(received(&daemon).ends_with("MESSAGE=some text\n"));
        outlet.finish(Duration::ZERO);
        assert!(received(&daemon).ends_with("MESSAGE=more\n"));
    }

    #[test]
    fn a_file_of_json_has_an_object_for_each_message_and_each_line_of_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let target = LogTarget::File(path.clone());
        let outlet =
            Outlet::open(Kind::Error, &target, Facility::default(), None, &MessageFormat::Json).unwrap();
        outlet.message(Severity::Error, SystemTime::now(), b"Traceback:\n  here\n");
        outlet.text(b"some ");
        outlet.text(b"text\nmore ");
        outlet.finish(Duration::ZERO);
        let text = fs::read_to_string(&path).unwrap();
        let ends =
            [r#""message":"Traceback:\n  here"}"#, r#""message":"some text"}"#, r#""message":"more"}"#];
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), ends.len(), "{text}");
        assert!(
            lines.iter().zip(ends).all(|(line, end)| line.starts_with('{') && line.ends_with(end)),
            "{text}"
        );
    }

    #[test]
    fn syslog_across_the_network_is_udp() {
        let daemon = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = daemon.local_addr().unwrap().port();
        let outlet = open(LogTarget::Syslog(SyslogAddress::Udp { host: "127.0.0.1".to_owned(), port }));
        outlet.lines(b"a line\n");
        let mut bytes = [0; 1000];
        let count = daemon.recv(&mut bytes).unwrap();
        let message = String::from_utf8_lossy(&bytes[..count]);
        assert!(message.starts_with("<142>1 ") && message.ends_with(" - - a line"), "{message}");
    }

    #[test]
    fn what_waits_is_sent_by_one_process_only() {
        let outlet = open(LogTarget::File("/dev/null".into()));
        {
            let mut state = outlet.lock();
            state.waiting.push_back(b"a copy".to_vec());
            state.sender = Some(1);
        }
        assert!(outlet.lock().waiting.is_empty());
    }

    #[test]
    fn a_line_that_was_cut_off_is_ended_before_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let outlet = open(LogTarget::File(path.clone()));
        outlet.lines(b"half");
        outlet.lock().torn = true;
        outlet.lines(b"whole\n");
        assert_eq!(fs::read(&path).unwrap(), b"half\nwhole\n");
    }

    #[test]
    fn a_file_is_shared_until_it_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("log"), folder.path().join("old"));
        let outlet = open(LogTarget::File(path.clone()));
        let other = open(LogTarget::File(path.clone()));
        fs::rename(&path, &old).unwrap();
        outlet.lines(b"late\n");
        let is_complete = || lock::exclusive(&File::open(&old).unwrap(), Duration::ZERO).is_ok();
        outlet.reopen().unwrap();
        assert!(!is_complete());
        other.reopen().unwrap();
        assert!(is_complete());
        outlet.lines(b"fresh\n");
        assert_eq!(fs::read(&path).unwrap(), b"fresh\n");
        assert_eq!(fs::read(&old).unwrap(), b"late\n");
    }

    #[test]
    fn what_cannot_be_opened_is_an_error() {
        let nowhere = Path::new("/nowhere/log").to_owned();
        for target in [
            LogTarget::File(nowhere.clone()),
            LogTarget::Syslog(SyslogAddress::Local(nowhere.clone())),
            LogTarget::Journald(nowhere),
        ] {
            assert!(
                Outlet::open(Kind::Error, &target, Facility::Daemon, None, &MessageFormat::Json).is_err(),
                "{target}"
            );
        }
    }
}
