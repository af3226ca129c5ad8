//! What a supervisor leaves to the program that takes its place under the same process number: listening sockets, workers
//! with what they are told by, how many there are to be, and the lock of the pid file. It stands in an environment variable, a
//! line each.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Instant;

use anygate_config::Protocol;
use anygate_sys::Listener;
use anygate_sys::orders::OrderSender;
use anygate_sys::process::{self, Pid};

use crate::sockets::Socket;

/// The variable.
pub const VARIABLE: &str = "_ANYGATE_HANDOVER";

/// What was left.
#[derive(Debug, Default)]
pub struct Handover {
    /// Listening sockets.
    pub sockets: Vec<Socket>,
    /// Workers of the former program, which finish when others serve.
    pub(crate) workers: Vec<(Pid, OrderSender)>,
    /// How many workers there are to be.
    pub(crate) numbers: Option<Numbers>,
}

/// Numbers of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// So many are wanted now.
    pub(crate) target: usize,
    /// So many at least, as signals and orders have asked for.
    pub(crate) floor: usize,
    /// So many were in the settings.
    pub(crate) configured: usize,
}

/// A worker of the former program.
#[derive(Debug)]
pub(crate) struct Former {
    pub(crate) pid: Pid,
    pub(crate) orders: OrderSender,
    /// It was told to finish, until then.
    pub(crate) until: Option<Instant>,
}

/// A line that describes something which cannot be taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandoverError(String);

impl fmt::Display for HandoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot take over from the former program: {}", self.0)
    }
}

impl std::error::Error for HandoverError {}

/// The child that checks the new program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Check {
    pub(crate) pid: Pid,
    pub(crate) until: Instant,
}

impl Handover {
    /// Describes what is to be left, and lets it stay open in the next program.
    ///
    /// Errors: whatever the system says to a descriptor.
    pub(crate) fn describe<'w>(
        sockets: &[Socket],
        workers: impl Iterator<Item = (Pid, &'w OrderSender)>,
        numbers: Numbers,
        pid_file: Option<BorrowedFd<'_>>,
    ) -> std::io::Result<String> {
        let mut text = format!("process {}\n", std::process::id());
        for Socket { protocol, listener, admin } in sockets {
            process::keep_on_exec(listener.as_fd())?;
            let (fd, protocol) = (listener.as_fd().as_raw_fd(), protocol.scheme());
            let made = listener.made().map_or(String::new(), |path| path.display().to_string());
            text.push_str(&format!("socket {fd} {protocol} {admin} {made}\n"));
        }
        for (pid, orders) in workers {
            process::keep_on_exec(orders.as_fd())?;
            text.push_str(&format!("worker {pid} {}\n", orders.as_fd().as_raw_fd()));
        }
        let Numbers { target, floor, configured } = numbers;
        text.push_str(&format!("numbers {target} {floor} {configured}\n"));
        if let Some(file) = pid_file {
            process::keep_on_exec(file)?;
            text.push_str(&format!("lock {}\n", file.as_raw_fd()));
        }
        Ok(text)
    }

    /// Takes over what `text` describes; `None`: it was left to another process.
    ///
    /// Errors: something cannot be taken over.
    pub fn take(text: &str) -> Result<Option<Handover>, HandoverError> {
        let mut lines = text.lines();
        let own = std::process::id().to_string();
        if lines.next().and_then(|line| line.strip_prefix("process ")) != Some(&own) {
            return Ok(None);
        }
        let mut handover = Handover::default();
        for line in lines {
            handover.take_line(line).ok_or_else(|| HandoverError(line.to_owned()))?;
        }
        Ok(Some(handover))
    }

    fn take_line(&mut self, line: &str) -> Option<()> {
        let mut words = line.splitn(5, ' ');
        match words.next()? {
            "socket" => {
                let mut listener = Listener::take_over(words.next()?.parse().ok()?).ok()?;
                let protocol = Protocol::of_scheme(words.next()?)?;
                let admin = words.next()?.parse().ok()?;
                let made = PathBuf::from(words.next()?);
                if !made.as_os_str().is_empty() {
                    listener = listener.made_at(&made).ok()?;
                }
                self.sockets.push(Socket { protocol, listener, admin });
            }
            "worker" => {
                let pid = words.next()?.parse().ok()?;
                let fd = process::inherit(words.next()?.parse().ok()?).ok()?;
                self.workers.push((pid, OrderSender::from(fd)));
            }
            "numbers" => {
                let [target, floor, configured] = [words.next()?, words.next()?, words.next()?];
                self.numbers = Some(Numbers {
                    target: target.parse().ok()?,
                    floor: floor.parse().ok()?,
                    configured: configured.parse().ok()?,
                });
            }
            // To close any descriptor of that file would give up the lock, which this process has already.
            "lock" => std::mem::forget(process::inherit(words.next()?.parse().ok()?).ok()?),
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets;
    use anygate_config::{Bind, BindAddress, SocketPlan};
    use anygate_sys::orders::orders;

    #[test]
    fn what_is_left_is_taken_over_by_the_same_process_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b.sock");
        let bind = Bind { protocol: Protocol::Scgi, address: BindAddress::Unix(path.clone()) };
        let plan = SocketPlan { backlog: 8, unix_mode: None, unix_owner: None };
        let left = sockets::open(&[bind], &plan, false).unwrap();
        let (sender, told) = orders().unwrap();
        let numbers = Numbers { target: 5, floor: 3, configured: 2 };
        let text = Handover::describe(&left, [(70_000, &sender)].into_iter(), numbers, None).unwrap();
        assert!(Handover::take(&text.replacen("process ", "process 1", 1)).unwrap().is_none());
        let taken = Handover::take(&text).unwrap().unwrap();
        // The descriptors have one owner now.
        std::mem::forget((left, sender));
        assert_eq!(taken.sockets[0].url(), format!("scgi+unix:{}", path.display()));
        assert_eq!(taken.sockets[0].listener.made(), Some(path.as_path()));
        assert_eq!(taken.workers[0].0, 70_000);
        assert_eq!(taken.numbers, Some(numbers));
        drop(taken);
        assert_eq!(told.take().unwrap(), (vec![], false));
        assert!(
            Handover::take(&format!("process {}\nsocket 99999 http false \n", std::process::id())).is_err()
        );
    }
}
