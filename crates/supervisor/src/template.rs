//! The template process of a generation: with `preload` it imports the application once and forks that generation's
//! workers on request, so that they share its memory and the supervisor never runs the application's code. It forks
//! twice: a worker whose parent has ended is the supervisor's child, which is a subreaper.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anygate_sys::orders::{self, OrderSender};
use anygate_sys::packets::Packets;
use anygate_sys::poll;
use anygate_sys::process::{Ended, Pid};
use anygate_sys::signals::Signal;

use crate::children::signal;

/// A template that does not fork within this time never will.
const FORK_MAX: Duration = Duration::from_secs(20);

/// What a template says when it has imported the application.
pub(crate) const READY: &str = "ready";

/// One template.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) pid: Pid,
    pub(crate) generation: u64,
    packets: Packets,
    /// It imports the application, since then; `None`: it has.
    starting: Option<Instant>,
    forking: Vec<Forking>,
    killed: bool,
}

/// A worker that was asked for.
#[derive(Debug)]
struct Forking {
    slot: usize,
    orders: OrderSender,
    since: Instant,
}

/// A worker that was forked.
#[derive(Debug)]
pub(crate) struct Forked {
    pub(crate) slot: usize,
    /// `None`: it could not be.
    pub(crate) pid: Option<Pid>,
    pub(crate) orders: OrderSender,
}

impl Template {
    pub(crate) fn new(pid: Pid, generation: u64, packets: Packets) -> Template {
        let starting = Some(Instant::now());
        Template { pid, generation, packets, starting, forking: Vec::new(), killed: false }
    }

    /// Whether it has imported the application.
    pub(crate) fn is_ready(&self) -> bool {
        self.starting.is_none() && !self.killed
    }

    /// Whether it ever had, killed or not.
    pub(crate) fn was_ready(&self) -> bool {
        self.starting.is_none()
    }

    /// How it ended, in words.
    pub(crate) fn how(&self, ended: Ended) -> String {
        match ended {
            Ended::Signalled(number) if number == Signal::Kill.number() && self.killed => {
                "signal KILL, from its supervisor".to_owned()
            }
            _ => ended.to_string(),
        }
    }

    /// Rows of workers that are being forked.
    pub(crate) fn slots(&self) -> impl Iterator<Item = usize> {
        self.forking.iter().map(|forking| forking.slot)
    }

    /// Asks for a worker.
    pub(crate) fn fork(&mut self, slot: usize) -> io::Result<()> {
        let (sender, receiver) = orders::orders()?;
        self.packets.send(&slot.to_string(), Some(receiver.as_fd()))?;
        self.forking.push(Forking { slot, orders: sender, since: Instant::now() });
        Ok(())
    }

    /// Takes the next message, if there is any: a worker that was forked.
    pub(crate) fn receive(&mut self) -> io::Result<Option<Forked>> {
        while poll::wait_readable(self.packets.as_fd(), Some(Duration::ZERO))? {
            // Its end will be seen as that of a child.
            let Some((text, _)) = self.packets.receive()? else { return Ok(None) };
            if text == READY {
                self.starting = None;
                continue;
            }
            let forked = parse(&text).and_then(|(slot, pid)| {
                let index = self.forking.iter().position(|forking| forking.slot == slot)?;
                let Forking { slot, orders, .. } = self.forking.swap_remove(index);
                Some(Forked { slot, pid, orders })
            });
            if forked.is_some() {
                return Ok(forked);
            }
        }
        Ok(None)
    }

    /// Ends it when its time is up; gives the moment when that may be.
    pub(crate) fn enforce(&mut self, now: Instant, start: Duration) -> Option<Instant> {
        let starting =
            self.starting.map(|since| (since + start, "was not ready within worker_start_timeout"));
        let forking = self.forking.iter().map(|forking| (forking.since + FORK_MAX, "does not fork"));
        let (due, reason) = starting.into_iter().chain(forking).min_by_key(|(due, _)| *due)?;
        if self.killed {
            return None;
        }
        if due <= now {
            tracing::error!("the template {} {reason}; it is killed", self.pid);
            self.kill();
            return None;
        }
        Some(due)
    }

    /// The supervisor stood still for so long.
    pub(crate) fn forgive(&mut self, gap: Duration) {
        if let Some(since) = &mut self.starting {
            *since += gap;
        }
        self.forking.iter_mut().for_each(|forking| forking.since += gap);
    }

    /// Ends it at once: it has nothing to finish.
    pub(crate) fn kill(&mut self) {
        if !std::mem::replace(&mut self.killed, true) {
            signal(self.pid, Signal::Kill);
        }
    }
}

impl AsFd for Template {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.packets.as_fd()
    }
}

/// What a template says of a worker.
pub(crate) fn message(slot: usize, pid: Option<Pid>) -> String {
    format!("{slot} {}", pid.unwrap_or(0))
}

fn parse(text: &str) -> Option<(usize, Option<Pid>)> {
    let (slot, pid) = text.split_once(' ')?;
    let pid: Pid = pid.parse().ok()?;
    Some((slot.parse().ok()?, (pid > 0).then_some(pid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_asked_and_tells() {
        let (ours, its) = Packets::pair().unwrap();
        let mut template = Template::new(70_000, 1, ours);
        assert!(!template.is_ready());
        its.send(READY, None).unwrap();
        assert!(template.receive().unwrap().is_none());
        assert!(template.is_ready());
        template.fork(3).unwrap();
        assert_eq!(template.slots().collect::<Vec<_>>(), [3]);
        let (text, fd) = its.receive().unwrap().unwrap();
        assert_eq!((text.as_str(), fd.is_some()), ("3", true));
        its.send(&message(3, Some(70_001)), None).unwrap();
        let forked = template.receive().unwrap().unwrap();
        assert_eq!((forked.slot, forked.pid), (3, Some(70_001)));
        assert_eq!(template.slots().count(), 0);
    }
}
