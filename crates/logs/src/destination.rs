//! What a log is written to.

use std::fs;
use std::io;
use std::net::{ToSocketAddrs, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anygate_config::{Facility, LogTarget, MessageFormat, SyslogAddress};
use anygate_sys::output::PIECE_MAX;
use anygate_sys::{Output, lock};
use jiff::Timestamp;

use crate::journal;
use crate::layout;
use crate::severity::Severity;
use crate::syslog::{Form, Sender};

/// An open place.
#[derive(Debug)]
pub(crate) enum Destination {
    /// Bytes, in which messages look like this.
    Stream(Output, MessageFormat),
    /// A message for each line.
    Syslog(Socket, Sender),
    /// An entry for each message.
    Journal { socket: Socket, identifier: &'static str, facility: u8 },
}

/// A socket for datagrams. It never waits.
#[derive(Debug)]
pub(crate) enum Socket {
    Unix(UnixDatagram, PathBuf),
    Udp(UdpSocket),
}

/// Text that is written in one piece.
pub(crate) enum Unit<'a> {
    /// Lines that belong together.
    Message(&'a [u8]),
    /// Lines of the application that belong together.
    Text(&'a [u8]),
    /// Lines that each stand for themselves.
    Lines(&'a [u8]),
}

impl Unit<'_> {
    fn bytes(&self) -> &[u8] {
        let (Unit::Message(text) | Unit::Text(text) | Unit::Lines(text)) = self;
        text
    }
}

impl Destination {
    /// Opens what a plan names. A file becomes `owner`'s if it is another's: that is who opens it anew.
    pub(crate) fn open(
        target: &LogTarget,
        identifier: &'static str,
        facility: Facility,
        owner: Option<u32>,
        format: &MessageFormat,
    ) -> io::Result<Destination> {
        let facility = facility.number();
        let stream = |output| Destination::Stream(output, format.clone());
        Ok(match target {
            LogTarget::Stdout => stream(standard(io::stdout().as_fd())?),
            LogTarget::Stderr => stream(standard(io::stderr().as_fd())?),
            LogTarget::File(path) => stream(file(path, owner)?),
            LogTarget::Syslog(SyslogAddress::Local(path)) => {
                Destination::Syslog(Socket::unix(path)?, Sender::new(Form::Local, identifier, facility))
            }
            LogTarget::Syslog(SyslogAddress::Udp { host, port }) => Destination::Syslog(
                Socket::udp(host, *port)?,
                Sender::new(Form::Network, identifier, facility),
            ),
            LogTarget::Journald(path) => {
                Destination::Journal { socket: Socket::unix(path)?, identifier, facility }
            }
        })
    }

    /// The bytes of a unit, if they go there as they are and in one piece.
    pub(crate) fn as_it_is<'a>(&self, unit: &'a Unit<'_>) -> Option<&'a [u8]> {
        match (self, unit) {
            (Destination::Stream(output, MessageFormat::Text), Unit::Lines(_) | Unit::Text(_))
                if output.file().is_some() =>
            {
                Some(unit.bytes())
            }
            _ => None,
        }
    }

    /// Whether each packet arrives whole or not at all.
    pub(crate) fn takes_datagrams(&self) -> bool {
        match self {
            Destination::Stream(..) => false,
            Destination::Syslog(..) | Destination::Journal { .. } => true,
        }
    }

    /// Whether there is something around each message, so that text is not written before its line is complete.
    pub(crate) fn takes_messages(&self) -> bool {
        !matches!(self, Destination::Stream(_, MessageFormat::Text))
    }

    /// Returns the packets of some lines, one after another.
    pub(crate) fn packets(
        &self,
        severity: Severity,
        unit: &Unit<'_>,
        time: SystemTime,
        mut give: impl FnMut(&[u8]),
    ) {
        let now = Timestamp::try_from(time).unwrap_or_default();
        let text = unit.bytes();
        match (self, unit) {
            (Destination::Stream(_, MessageFormat::Text), Unit::Lines(_) | Unit::Text(_)) => {
                pieces(text, give);
            }
            (Destination::Stream(_, format), Unit::Message(_) | Unit::Text(_)) => {
                let text = text.trim_ascii_end();
                pieces(&layout::message(format, severity, text, now), give);
            }
            (Destination::Stream(_, format), Unit::Lines(_)) => {
                lines(text).for_each(|line| give(&layout::message(format, severity, line, now)));
            }
            (Destination::Syslog(_, sender), _) => {
                lines(text).for_each(|line| give(&sender.message(severity, line, time)));
            }
            (Destination::Journal { identifier, facility, .. }, Unit::Message(_) | Unit::Text(_)) => {
                let text = text.trim_ascii_end();
                give(&journal::entry(identifier, *facility, severity, text));
            }
            (Destination::Journal { identifier, facility, .. }, Unit::Lines(_)) => {
                lines(text).for_each(|line| give(&journal::entry(identifier, *facility, severity, line)));
            }
        }
    }

    /// Sends some of a packet, or all of it.
    ///
    /// Errors: [`io::ErrorKind::WouldBlock`] when there is no room now.
    pub(crate) fn write(&mut self, packet: &[u8]) -> io::Result<usize> {
        match self {
            Destination::Stream(output, _) => output.write(packet),
            Destination::Syslog(socket, _) | Destination::Journal { socket, .. } => socket.send(packet),
        }
    }
}

impl AsFd for Destination {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Destination::Stream(output, _) => output.as_fd(),
            Destination::Syslog(socket, _) | Destination::Journal { socket, .. } => match socket {
                Socket::Unix(socket, _) => socket.as_fd(),
                Socket::Udp(socket) => socket.as_fd(),
            },
        }
    }
}

impl Socket {
    fn unix(path: &Path) -> io::Result<Socket> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(path)?;
        Ok(Socket::Unix(socket, path.to_owned()))
    }

    fn udp(host: &str, port: u16) -> io::Result<Socket> {
        let mut addresses = (host, port).to_socket_addrs()?;
        let address = addresses.next().ok_or_else(|| io::Error::other("the name has no address"))?;
        let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.set_nonblocking(true)?;
        // Connected, it learns when there is no listener.
        socket.connect(address)?;
        Ok(Socket::Udp(socket))
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Udp(socket) => socket.send(packet),
            Socket::Unix(socket, path) => match socket.send(packet) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    // A daemon that was started again listens on another socket of that name.
                    socket.connect(path)?;
                    socket.send(packet)
                }
                sent => sent,
            },
        }
    }
}

fn standard(fd: BorrowedFd<'_>) -> io::Result<Output> {
    // If the program was started with it closed, what would go there goes nowhere.
    Output::of(fd).or_else(|_| Output::append(Path::new("/dev/null")))
}

fn file(path: &Path, owner: Option<u32>) -> io::Result<Output> {
    let output = Output::append(path)?;
    if let Some(file) = output.file() {
        let about = file.metadata()?;
        // Never what a link points to, which may be anything: the folder may be the owner's.
        let is_own_name = fs::symlink_metadata(path).is_ok_and(|named| named.is_file());
        if let Some(owner) = owner.filter(|owner| *owner != about.uid() && is_own_name) {
            // Without it the log goes on until it is to be opened anew, and that is said then.
            let _ = std::os::unix::fs::fchown(file, Some(owner), None);
        }
        // Some file systems have no locks. Then a file may be compressed while it gets its last line.
        let _ = lock::share(file);
    }
    Ok(output)
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end).filter(|line| !line.is_empty())
}

/// Cuts text at the ends of lines, into pieces that a pipe takes whole or not at all.
fn pieces(mut text: &[u8], mut give: impl FnMut(&[u8])) {
    while !text.is_empty() {
        let window = text.get(..PIECE_MAX).unwrap_or(text);
        let ends_line = |&byte: &u8| byte == b'\n';
        let end = match window.iter().rposition(ends_line) {
            _ if window.len() == text.len() => text.len(),
            Some(last) => last + 1,
            // A line that is longer.
            None => text.iter().position(ends_line).map_or(text.len(), |end| end + 1),
        };
        let (piece, rest) = text.split_at(end);
        give(piece);
        text = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_whole_lines() {
        let long = "x".repeat(PIECE_MAX + 1) + "\n";
        let short = "line\n".repeat(PIECE_MAX / 5 + 1);
        for text in [short.clone(), format!("{short}{long}{short}"), "no end".to_owned(), long.clone()] {
            let mut all = Vec::new();
            pieces(text.as_bytes(), |piece| {
                assert!(piece.len() <= PIECE_MAX || piece == long.as_bytes());
                assert!(piece.ends_with(b"\n") || text == "no end");
                all.extend_from_slice(piece);
            });
            assert_eq!(all, text.as_bytes());
        }
    }
}
