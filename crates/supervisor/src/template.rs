//! The template process of a generation: it imports the application (`preload`) or the site's hooks once and forks that
//! generation's workers on request, so that they share its memory and the supervisor never runs code of the site. It forks
//! twice: a worker whose parent has ended is the supervisor's child, which is a subreaper.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anygate_config::CRITICAL;
use anygate_sys::orders::{self, OrderSender};
use anygate_sys::packets::Packets;
use anygate_sys::poll;
use anygate_sys::process::{Ended, Pid};
use anygate_sys::signals::Signal;

use crate::children::signal;
use crate::worker_body::News;

/// A template that does not fork within this time never will.
const FORK_MAX: Duration = Duration::from_secs(20);

/// What a template says when it has imported the application.
pub(crate) const READY: &str = "ready";
/// What it says when it has done what it was told.
pub(crate) const DONE: &str = "done";

/// One template.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) pid: Pid,
    pub(crate) generation: u64,
    packets: Packets,
    /// It imports the application, since then; `None`: it has.
    starting: Option<Instant>,
    forking: Vec<Forking>,
    /// It was told that its workers serve.
    pub(crate) knows_of_serving: bool,
    /// It was told that no more workers are needed.
    retired: bool,
    /// It was told to end, and has time until then.
    ending: Option<Instant>,
    killed: bool,
}

/// A worker that was asked for.
#[derive(Debug)]
struct Forking {
    slot: usize,
    number: u64,
    orders: OrderSender,
    since: Instant,
}

/// A worker that was forked.
#[derive(Debug)]
pub(crate) struct Forked {
    pub(crate) slot: usize,
    pub(crate) number: u64,
    /// `None`: it could not be.
    pub(crate) pid: Option<Pid>,
    pub(crate) orders: OrderSender,
}

impl Template {
    pub(crate) fn new(pid: Pid, generation: u64, packets: Packets) -> Template {
        let starting = Some(Instant::now());
        Template {
            pid,
            generation,
            packets,
            starting,
            forking: Vec::new(),
            knows_of_serving: false,
            retired: false,
            ending: None,
            killed: false,
        }
    }

    /// Whether it has imported the application, and forks workers.
    pub(crate) fn is_ready(&self) -> bool {
        self.starting.is_none() && !self.retired && !self.killed
    }

    /// Whether it ever had, killed or not.
    pub(crate) fn was_ready(&self) -> bool {
        self.starting.is_none()
    }

    /// How it ended, in words.
    pub(crate) fn describe(&self, ended: Ended) -> String {
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

    /// Asks for a worker, which is the `number`th of this server.
    pub(crate) fn fork(&mut self, slot: usize, number: u64) -> io::Result<()> {
        let (sender, receiver) = orders::orders()?;
        self.packets.send(&TemplateOrder::Fork { slot, number }.to_string(), Some(receiver.as_fd()))?;
        self.forking.push(Forking { slot, number, orders: sender, since: Instant::now() });
        Ok(())
    }

    /// Tells it what has happened.
    pub(crate) fn tell(&mut self, news: News) {
        if news == News::Ending {
            self.ending = Some(Instant::now() + FORK_MAX);
        }
        if let Err(error) = self.packets.send(&TemplateOrder::Hear(news).to_string(), None) {
            tracing::warn!("the template {} cannot be told of {news}: {error}", self.pid);
        }
    }

    /// Whether it was told that the server ends.
    pub(crate) fn knows_of_end(&self) -> bool {
        self.ending.is_some()
    }

    /// Takes the next message, if there is any: a worker that was forked.
    pub(crate) fn receive(&mut self) -> io::Result<Option<Forked>> {
        while poll::wait_readable(self.packets.as_fd(), Some(Duration::ZERO))? {
            // Its end will be seen as that of a child.
            let Some((text, _)) = self.packets.receive()? else { return Ok(None) };
            // Whatever it says, it is at work.
            let now = Instant::now();
            self.forking.iter_mut().for_each(|forking| forking.since = now);
            if text == READY {
                self.starting = None;
                continue;
            }
            let forked = parse(&text).and_then(|(slot, pid)| {
                let index = self.forking.iter().position(|forking| forking.slot == slot)?;
                let Forking { slot, number, orders, .. } = self.forking.swap_remove(index);
                Some(Forked { slot, number, pid, orders })
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
        let ending = self.ending.map(|until| (until, "did not end in time"));
        let (due, reason) = starting.into_iter().chain(forking).chain(ending).min_by_key(|(due, _)| *due)?;
        if self.killed {
            return None;
        }
        if due <= now {
            tracing::error!(target: CRITICAL, "the template {} {reason}; it is killed", self.pid);
            self.kill();
            return None;
        }
        Some(due)
    }

    /// The supervisor stood still for so long.
    pub(crate) fn forgive(&mut self, gap: Duration) {
        for at in [&mut self.starting, &mut self.ending].into_iter().flatten() {
            *at += gap;
        }
        self.forking.iter_mut().for_each(|forking| forking.since += gap);
    }

    /// Tells it that no more workers are needed: it closes its sockets. An import has nothing to finish.
    pub(crate) fn retire(&mut self) {
        if !std::mem::replace(&mut self.retired, true)
            && (self.starting.is_some() || self.send(TemplateOrder::Retire).is_err())
        {
            self.kill();
        }
    }

    /// Tells one that has retired to end as a program does, until then at most: processes that preloaded code has started
    /// end with it.
    pub(crate) fn finish(&mut self, until: Instant) {
        if self.ending.is_none() {
            self.ending = Some(until);
            if self.send(TemplateOrder::End).is_err() {
                self.kill();
            }
        }
    }

    fn send(&self, order: TemplateOrder) -> io::Result<()> {
        self.packets.send(&order.to_string(), None)
    }

    /// Ends it at once.
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

/// What a template is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TemplateOrder {
    /// Fork a worker, for this row, which is the `number`th of this server.
    Fork { slot: usize, number: u64 },
    /// Take notice.
    Hear(News),
    /// Close the sockets: no more workers are needed.
    Retire,
    /// End as a program does.
    End,
}

impl fmt::Display for TemplateOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TemplateOrder::Fork { slot, number } => write!(f, "fork {slot} {number}"),
            TemplateOrder::Hear(news) => news.fmt(f),
            TemplateOrder::Retire => f.write_str("retire"),
            TemplateOrder::End => f.write_str("end"),
        }
    }
}

impl TemplateOrder {
    /// Reads what [`Display`](fmt::Display) wrote.
    pub(crate) fn read(text: &str) -> Option<TemplateOrder> {
        let mut words = text.split(' ');
        let name = words.next()?;
        let mut number = || words.next()?.parse::<u64>().ok();
        Some(match name {
            "fork" => TemplateOrder::Fork { slot: usize::try_from(number()?).ok()?, number: number()? },
            "forked" => {
                TemplateOrder::Hear(News::Forked { number: number()?, pid: Pid::try_from(number()?).ok()? })
            }
            "exited" => {
                TemplateOrder::Hear(News::Exited { number: number()?, pid: Pid::try_from(number()?).ok()? })
            }
            "workers" => TemplateOrder::Hear(News::Workers(usize::try_from(number()?).ok()?)),
            "serving" => TemplateOrder::Hear(News::Serving),
            "upgrading" => TemplateOrder::Hear(News::Upgrading),
            "ending" => TemplateOrder::Hear(News::Ending),
            "retire" => TemplateOrder::Retire,
            "end" => TemplateOrder::End,
            _ => return None,
        })
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
        template.fork(3, 7).unwrap();
        assert_eq!(template.slots().collect::<Vec<_>>(), [3]);
        let (text, fd) = its.receive().unwrap().unwrap();
        assert_eq!(
            (TemplateOrder::read(&text), fd.is_some()),
            (Some(TemplateOrder::Fork { slot: 3, number: 7 }), true)
        );
        its.send(&message(3, Some(70_001)), None).unwrap();
        let forked = template.receive().unwrap().unwrap();
        assert_eq!((forked.slot, forked.number, forked.pid), (3, 7, Some(70_001)));
        assert_eq!(template.slots().count(), 0);
    }

    #[test]
    fn a_template_hears_what_it_is_told() {
        let (ours, its) = Packets::pair().unwrap();
        let mut template = Template::new(70_000, 1, ours);
        for news in [
            News::Forked { number: 7, pid: 70_001 },
            News::Exited { number: 7, pid: 70_001 },
            News::Workers(3),
            News::Serving,
            News::Upgrading,
            News::Ending,
        ] {
            assert!(!template.knows_of_end());
            template.tell(news);
            let (text, _) = its.receive().unwrap().unwrap();
            assert_eq!(TemplateOrder::read(&text), Some(TemplateOrder::Hear(news)));
        }
        assert!(template.knows_of_end());
        assert_eq!(TemplateOrder::read("forked 7"), None);
    }

    #[test]
    fn a_template_retires_and_ends_once() {
        let (ours, its) = Packets::pair().unwrap();
        let mut template = Template::new(70_000, 1, ours);
        its.send(READY, None).unwrap();
        template.receive().unwrap();
        let until = Instant::now() + FORK_MAX;
        for _ in 0..2 {
            template.retire();
            template.finish(until);
        }
        assert!(!template.is_ready());
        assert_eq!(template.enforce(Instant::now(), FORK_MAX), Some(until));
        drop(template);
        let told = [its.receive().unwrap(), its.receive().unwrap()].map(|told| told.unwrap().0);
        assert_eq!(
            told.map(|text| TemplateOrder::read(&text)),
            [Some(TemplateOrder::Retire), Some(TemplateOrder::End)]
        );
        assert!(its.receive().unwrap().is_none());
    }

    #[test]
    fn a_template_that_is_at_work_is_given_time() {
        let (ours, its) = Packets::pair().unwrap();
        let mut template = Template::new(70_000, 1, ours);
        its.send(READY, None).unwrap();
        template.receive().unwrap();
        template.fork(3, 7).unwrap();
        let due = |template: &mut Template| template.enforce(Instant::now(), FORK_MAX).unwrap();
        let before = due(&mut template);
        its.send(DONE, None).unwrap();
        template.receive().unwrap();
        assert!(due(&mut template) > before);
    }
}
