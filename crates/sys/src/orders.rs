//! Orders of a supervisor to one of its workers: a byte each, in a pipe, so that no signal from elsewhere is one. The end
//! of the pipe is the end of the supervisor.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::signals::set_nonblocking;

/// What a worker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerOrder {
    /// Have clients and balancers go elsewhere, and serve those that still come.
    Leave,
    /// The server was broken off: by INT (Ctrl-C) or QUIT.
    BrokenOff,
    /// Finish.
    Drain,
    /// Open log files anew.
    ReopenLogs,
    /// Write down what all threads do.
    WriteStacks,
}

impl WorkerOrder {
    fn byte(self) -> u8 {
        match self {
            WorkerOrder::Leave => b'l',
            WorkerOrder::BrokenOff => b'b',
            WorkerOrder::Drain => b'd',
            WorkerOrder::ReopenLogs => b'r',
            WorkerOrder::WriteStacks => b's',
        }
    }
}

/// The supervisor's end.
#[derive(Debug)]
pub struct OrderSender(io::PipeWriter);

/// The worker's end.
#[derive(Debug)]
pub struct Orders(io::PipeReader);

/// Makes both ends, closed on exec. Neither waits.
pub fn orders() -> io::Result<(OrderSender, Orders)> {
    let (read, write) = io::pipe()?;
    set_nonblocking(read.as_fd())?;
    set_nonblocking(write.as_fd())?;
    Ok((OrderSender(write), Orders(read)))
}

impl OrderSender {
    /// Gives an order. A worker that is gone needs none.
    ///
    /// Errors: the worker has not read thousands of orders.
    pub fn send(&self, order: WorkerOrder) -> io::Result<()> {
        match (&self.0).write(&[order.byte()]) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }
}

impl From<OwnedFd> for OrderSender {
    fn from(fd: OwnedFd) -> OrderSender {
        OrderSender(fd.into())
    }
}

impl AsFd for OrderSender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Orders {
    /// Reads the orders that came since the last call, and whether the supervisor is still there.
    pub fn take(&self) -> io::Result<(Vec<WorkerOrder>, bool)> {
        let mut taken = Vec::new();
        let mut bytes = [0; 64];
        loop {
            match (&self.0).read(&mut bytes) {
                Ok(0) => return Ok((taken, false)),
                Ok(count) => taken.extend(bytes.iter().take(count).filter_map(|&byte| {
                    [
                        WorkerOrder::Leave,
                        WorkerOrder::BrokenOff,
                        WorkerOrder::Drain,
                        WorkerOrder::ReopenLogs,
                        WorkerOrder::WriteStacks,
                    ]
                    .into_iter()
                    .find(|order| order.byte() == byte)
                })),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok((taken, true)),
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Orders {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Orders {
    fn from(fd: OwnedFd) -> Orders {
        Orders(fd.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_arrive_in_turn_and_end_with_their_sender() {
        let (sender, orders) = orders().unwrap();
        assert_eq!(orders.take().unwrap(), (vec![], true));
        sender.send(WorkerOrder::ReopenLogs).unwrap();
        sender.send(WorkerOrder::Drain).unwrap();
        assert_eq!(orders.take().unwrap(), (vec![WorkerOrder::ReopenLogs, WorkerOrder::Drain], true));
        sender.send(WorkerOrder::Leave).unwrap();
        sender.send(WorkerOrder::BrokenOff).unwrap();
        sender.send(WorkerOrder::WriteStacks).unwrap();
        drop(sender);
        assert_eq!(
            orders.take().unwrap(),
            (vec![WorkerOrder::Leave, WorkerOrder::BrokenOff, WorkerOrder::WriteStacks], false)
        );
    }
}
