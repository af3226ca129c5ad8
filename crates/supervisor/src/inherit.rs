//! What passes from one program to the next in the same process, when a preloaded application is reloaded: sockets stay
//! open, workers go on until the new ones are ready. It travels in the environment.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;

use anygate_sys::process::{self, Pid};

use crate::worker::Restart;

/// The variable.
pub const VARIABLE: &str = "ANYGATE_INHERIT";

/// Everything that the next program needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    /// Listening sockets, in the order of the binds.
    pub sockets: Vec<RawFd>,
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
        let sockets = numbers(parts.next()?)?;
        let lifeline = parts.next()?.parse().ok()?;
        let workers = numbers(parts.next()?)?;
        parts.next().is_none().then_some(Inherited { sockets, lifeline, workers })
    }

    fn text(&self) -> String {
        let list = |numbers: &[i32]| numbers.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
        format!("{};{};{};{}", std::process::id(), list(&self.sockets), self.lifeline, list(&self.workers))
    }
}

/// Becomes another program. Returns only if that fails.
pub(crate) fn become_program(
    restart: &Restart,
    sockets: &[BorrowedFd<'_>],
    lifeline: &OwnedFd,
    workers: Vec<Pid>,
) -> io::Error {
    let Some((program, arguments)) = restart.command.split_first() else {
        return io::Error::new(io::ErrorKind::InvalidInput, "no program to become");
    };
    for fd in sockets.iter().copied().chain([lifeline.as_fd()]) {
        if let Err(error) = process::keep_on_exec(fd) {
            return error;
        }
    }
    let inherited = Inherited {
        sockets: sockets.iter().map(AsRawFd::as_raw_fd).collect(),
        lifeline: lifeline.as_raw_fd(),
        workers,
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
        let inherited = Inherited { sockets: vec![3, 4], lifeline: 9, workers: vec![70_000] };
        assert_eq!(Inherited::read(&inherited.text()), Some(inherited));
        let empty = Inherited { sockets: vec![], lifeline: 3, workers: vec![] };
        assert_eq!(Inherited::read(&empty.text()), Some(empty));
        for wrong in ["", "1;3;4;5", "x", "1;;;"] {
            assert_eq!(Inherited::read(wrong), None, "{wrong}");
        }
    }
}
