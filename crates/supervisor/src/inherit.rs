//! What passes from one program to the next in the same process, when a preloaded application is reloaded: sockets stay
//! open, workers go on until the new ones are ready. It travels in the environment.

use std::ffi::OsString;
use std::fmt::Write;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use anygate_config::Protocol;
use anygate_sys::process::{self, Pid};
use anygate_sys::signals::Held;
use anygate_sys::{BindError, Listener};

use crate::sockets::Socket;
use crate::worker_body::Restart;

/// The variable.
pub const VARIABLE: &str = "_ANYGATE_INHERIT";

/// One listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InheritedSocket {
    /// Protocol.
    pub protocol: Protocol,
    /// Descriptor.
    pub fd: RawFd,
    /// The path of a unix socket whose file is ours.
    pub path: Option<PathBuf>,
    /// It is the assistant's.
    pub admin: bool,
}

/// Prefix of the protocol for the assistant's sockets.
const ADMIN: &str = "admin+";

/// Everything that the next program needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    /// Listening sockets, in the order of the binds.
    pub sockets: Vec<InheritedSocket>,
    /// The write end of the pipe whose end tells old workers that their supervisor is gone.
    pub lifeline: RawFd,
    /// Workers of the program before.
    pub workers: Vec<Pid>,
}

impl Inherited {
    /// Reads the variable's text; `None` when it makes no sense, as when a user set it.
    pub fn read(text: &str) -> Option<Inherited> {
        let mut parts = text.split(';');
        let pid: u32 = parts.next()?.parse().ok()?;
        if pid != std::process::id() {
            return None;
        }
        let numbers = |part: &str| -> Option<Vec<i32>> {
            part.split(',').filter(|item| !item.is_empty()).map(|item| item.parse().ok()).collect()
        };
        let socket = |item: &str| -> Option<InheritedSocket> {
            let (protocol, item) = item.split_once(':')?;
            let admin = protocol.strip_prefix(ADMIN);
            let (fd, path) = item.split_once('=')?;
            let path = (!path.is_empty()).then(|| bytes(path)).map(|path| path.map(OsString::from_vec));
            Some(InheritedSocket {
                protocol: Protocol::of_scheme(admin.unwrap_or(protocol))?,
                fd: fd.parse().ok()?,
                path: match path {
                    None => None,
                    Some(path) => Some(path?.into()),
                },
                admin: admin.is_some(),
            })
        };
        let sockets: Option<Vec<_>> =
            parts.next()?.split(',').filter(|item| !item.is_empty()).map(socket).collect();
        let sockets = sockets?;
        let lifeline = parts.next()?.parse().ok()?;
        let workers = numbers(parts.next()?)?;
        parts.next().is_none().then_some(Inherited { sockets, lifeline, workers })
    }

    fn text(&self) -> String {
        let list = |numbers: &[i32]| numbers.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
        let mut sockets = String::new();
        for InheritedSocket { protocol, fd, path, admin } in &self.sockets {
            let _ = write!(sockets, "{}{}:{fd}=", if *admin { ADMIN } else { "" }, protocol.scheme());
            for byte in path.as_ref().map(|path| path.as_os_str().as_bytes()).unwrap_or_default() {
                let _ = write!(sockets, "{byte:02x}");
            }
            sockets.push(',');
        }
        format!("{};{sockets};{};{}", std::process::id(), self.lifeline, list(&self.workers))
    }

    /// Takes the sockets over.
    ///
    /// Errors: one of them is not what it was.
    pub fn sockets(&self) -> Result<Vec<Socket>, BindError> {
        let socket = |inherited: &InheritedSocket| {
            let listener = Listener::from_fd(process::take_over(inherited.fd)?)?;
            let listener = match &inherited.path {
                Some(path) if path.symlink_metadata().is_ok() => listener.made_at(path)?,
                // Somebody has removed the file; the socket is there all the same.
                _ => listener,
            };
            Ok(Socket { protocol: inherited.protocol, listener, admin: inherited.admin })
        };
        self.sockets.iter().map(socket).collect()
    }
}

/// A path's bytes out of hexadecimal digits, which need no care in any environment.
fn bytes(text: &str) -> Option<Vec<u8>> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// Becomes another program. Returns only if that fails.
pub(crate) fn become_program(
    restart: &Restart,
    sockets: &[Socket],
    lifeline: &OwnedFd,
    workers: Vec<Pid>,
) -> io::Error {
    let Some((program, arguments)) = restart.command.split_first() else {
        return io::Error::new(io::ErrorKind::InvalidInput, "no program to become");
    };
    for fd in sockets.iter().map(|socket| socket.listener.as_fd()).chain([lifeline.as_fd()]) {
        if let Err(error) = process::keep_on_exec(fd) {
            return error;
        }
    }
    let inherited = Inherited {
        sockets: sockets
            .iter()
            .map(|Socket { protocol, listener, admin }| InheritedSocket {
                protocol: *protocol,
                fd: listener.as_raw_fd(),
                path: listener.made().map(PathBuf::from),
                admin: *admin,
            })
            .collect(),
        lifeline: lifeline.as_raw_fd(),
        workers,
    };
    // The next program can obey no signal before it has begun: until then they wait, instead of ending it.
    let _held = match Held::all() {
        Ok(held) => held,
        Err(error) => return error,
    };
    std::process::Command::new(program)
        .args(arguments)
        .current_dir(&restart.folder)
        .env(VARIABLE, inherited.text())
        .exec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_only_by_the_same_process() {
        let inherited = Inherited {
            sockets: vec![
                InheritedSocket { protocol: Protocol::Http, fd: 3, path: None, admin: true },
                InheritedSocket {
                    protocol: Protocol::Scgi,
                    fd: 4,
                    path: Some("/run/a;b,c=d:e".into()),
                    admin: false,
                },
            ],
            lifeline: 9,
            workers: vec![70_000],
        };
        assert_eq!(Inherited::read(&inherited.text()), Some(inherited));
        let empty = Inherited { sockets: vec![], lifeline: 3, workers: vec![] };
        assert_eq!(Inherited::read(&empty.text()), Some(empty));
        for wrong in ["", "1;3;4;5", "x", "1;;;"] {
            assert_eq!(Inherited::read(wrong), None, "{wrong}");
        }
    }
}
