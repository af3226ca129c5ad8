//! The supervisor's loop: signals, ends of workers, news from them, and times that are up. One thread, no application
//! code: whatever an application does, this goes on.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use anygate_config::ProcessPlan;
use anygate_sys::poll;
use anygate_sys::process::{self, Ended, Fork, Pid};
use anygate_sys::signals::{Held, Signal, Signals};

use crate::backoff::Backoff;
use crate::board::{Counts, Report, SLOTS, Tree};
use crate::children::{Child, Children, Stage, signal, was_starting};
use crate::orders::{Order, Orders};
use crate::schedule::Schedule;
use crate::sockets::Socket;
use crate::worker_body::{AssistantContext, Death, Event, WorkerBody, WorkerContext};
use crate::{APPLICATION_FAILED, inherit, sockets};

/// What a worker watches. The others are taken notice of, so that they do not end it: Ctrl-C reaches every process of
/// a terminal, and it is for the supervisor to pass on.
const WORKER_SIGNALS: [Signal; 7] =
    [Signal::Term, Signal::Int, Signal::Quit, Signal::Hup, Signal::Usr1, Signal::Usr2, Signal::Ttin];
const SUPERVISOR_SIGNALS: [Signal; 8] = [
    Signal::Term,
    Signal::Int,
    Signal::Quit,
    Signal::Hup,
    Signal::Usr1,
    Signal::Ttin,
    Signal::Ttou,
    Signal::Chld,
];

/// Workers that can be asked for: half of those that can live, since a reload has twice as many.
const WORKERS_MAX: usize = SLOTS / 2;

/// How the supervisor ended: the exit code of the program.
pub type Exit = i32;

/// The supervisor of one tree.
pub struct Supervisor<'a> {
    plan: &'a ProcessPlan,
    body: &'a mut dyn WorkerBody,
    sockets: Vec<Socket>,
    signals: Signals,
    children: Children,
    /// Workers that there should be.
    target: usize,
    generation: u64,
    phase: Phase,
    backoff: Backoff,
    /// Dead workers are not replaced before.
    replace_at: Option<Instant>,
    reload_again: bool,
    schedule: Option<Schedule>,
    assistant: Option<Assistant>,
    news: (io::PipeReader, io::PipeWriter),
    /// Workers hold the read end, which ends when the supervisor does.
    lifeline: (OwnedFd, OwnedFd),
    /// The same for the workers of the program before.
    old_lifeline: Option<OwnedFd>,
}

/// The process that is asked about the workers.
struct Assistant {
    pid: Option<Pid>,
    /// It is not started before.
    start_at: Instant,
    orders: (io::PipeReader, io::PipeWriter),
    /// The beginning of an order.
    begun: Vec<u8>,
}

/// An assistant that ended is started again after so long.
const ASSISTANT_PAUSE: Duration = Duration::from_secs(1);

/// Role of this process.
enum Role {
    Worker(usize),
    Assistant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The very first workers get ready.
    Starting,
    Serving,
    /// A new generation gets ready beside the old one.
    Reloading,
    /// All finish. The code is the program's.
    Ending(Exit),
}

impl<'a> Supervisor<'a> {
    /// Watches signals, which the program before has held back, before there is a supervisor to obey them.
    pub fn watch() -> io::Result<Signals> {
        let signals = Signals::install(&SUPERVISOR_SIGNALS)?;
        anygate_sys::signals::release()?;
        Ok(signals)
    }

    /// Prepares a supervisor of `workers` workers on `sockets`. Signals are watched from now on, if they are not already.
    ///
    /// Errors: whatever the system says to pipes, shared memory and signal handlers.
    pub fn new(
        plan: &'a ProcessPlan,
        workers: usize,
        sockets: Vec<Socket>,
        body: &'a mut dyn WorkerBody,
        watched: Option<Signals>,
    ) -> io::Result<Self> {
        let news = io::pipe()?;
        let (read, write) = anygate_sys::signals::pipe()?;
        let assistant = match body.wants_assistant() {
            true => Some(Assistant {
                pid: None,
                start_at: Instant::now(),
                orders: io::pipe()?,
                begun: Vec::new(),
            }),
            false => None,
        };
        let children = Children::new(body.counts(), workers)?;
        let signals = match watched {
            Some(signals) => {
                // An application that was loaded meanwhile may have set handlers of its own.
                signals.renew()?;
                signals
            }
            None => Signals::install(&SUPERVISOR_SIGNALS)?,
        };
        Ok(Supervisor {
            plan,
            body,
            sockets,
            signals,
            children,
            target: workers.max(1),
            generation: 1,
            phase: Phase::Starting,
            backoff: Backoff::default(),
            replace_at: None,
            reload_again: false,
            schedule: None,
            assistant,
            news,
            lifeline: (read, write),
            old_lifeline: None,
        })
    }

    /// Runs jobs, too, from when the workers serve.
    pub fn set_schedule(&mut self, schedule: Schedule) {
        self.schedule = Some(schedule);
    }

    /// What the supervisor itself counts.
    pub fn counts(&self) -> Counts {
        self.children.own()
    }

    /// Takes over the workers of the program that this process was before: they finish when ours are ready.
    /// `lifeline` is what keeps them from taking their supervisor for dead.
    pub fn take_over(&mut self, workers: &[Pid], lifeline: OwnedFd) {
        for &pid in workers {
            self.children.add(pid, None, 0, Stage::Ready(Instant::now()));
        }
        self.old_lifeline = Some(lifeline);
        if let Some(schedule) = &mut self.schedule {
            schedule.resume(SystemTime::now());
        }
        self.phase = Phase::Reloading;
    }

    /// Runs until the tree has ended. In a worker's process it does not return.
    pub fn run(mut self) -> Exit {
        loop {
            match self.turn() {
                Ok(None) => {}
                Ok(Some(exit)) => {
                    sockets::close(&self.sockets);
                    return exit;
                }
                Err(error) => {
                    tracing::error!("the supervisor cannot continue: {error}");
                    self.children.kill(|_| true);
                    sockets::close(&self.sockets);
                    return 1;
                }
            }
            if let Some(role) = self.spawn_missing() {
                self.become_child(role);
            }
        }
    }

    fn turn(&mut self) -> io::Result<Option<Exit>> {
        let now = Instant::now();
        self.look(now);
        self.children.tell();
        self.body.count(Event::Serving(self.children.ready(self.generation)), self.children.counts());
        if let Some(exit) = self.settle(now) {
            return Ok(Some(exit));
        }
        let logs = self.body.tend_logs();
        if logs.fresh {
            self.reopen_logs();
        }
        let due = self.children.enforce(now, self.plan.worker_start_timeout, self.plan.worker_timeout);
        let missing = self.is_short().then_some(self.replace_at).flatten();
        let jobs = self.jobs();
        let wait = if self.is_short() && missing.is_none() {
            Some(Duration::ZERO)
        } else {
            let workers = due.into_iter().chain(missing).min().map(|at| at.saturating_duration_since(now));
            let others = jobs.into_iter().chain(self.assistant_missing(now)).chain(logs.again);
            workers.into_iter().chain(others).min()
        };
        let mut watched = vec![self.signals.as_fd(), self.news.0.as_fd()];
        watched.extend(self.assistant.as_ref().map(|assistant| assistant.orders.0.as_fd()));
        poll::wait_any_readable(&watched, wait)?;
        if poll::wait_readable(self.news.0.as_fd(), Some(Duration::ZERO))? {
            // Only that there is news matters; the board says what.
            let mut bytes = [0; 256];
            let _count = self.news.0.read(&mut bytes)?;
        }
        for signal in self.signals.take() {
            self.obey(signal);
        }
        for order in self.orders()? {
            self.follow(order);
        }
        self.look(Instant::now());
        while let Some((pid, ended)) = process::reap()? {
            if let Some(child) = self.children.remove(pid) {
                self.bury(&child, ended);
                self.children.leave(&child, |gone, all| self.body.add_up(gone, all));
            } else if let Some(assistant) = self.assistant.as_mut().filter(|other| other.pid == Some(pid)) {
                assistant.pid = None;
                assistant.start_at = Instant::now() + ASSISTANT_PAUSE;
                if !matches!(self.phase, Phase::Ending(_)) {
                    tracing::warn!(
                        "the assistant (the process of the admin address) ended with {ended}; restarting it"
                    );
                }
            } else if let Some(schedule) = &mut self.schedule
                && schedule.ended(pid, ended, SystemTime::now())
            {
                let well = ended == Ended::Exited(0);
                self.body.count(Event::Ran(well), self.children.counts());
            }
        }
        Ok(None)
    }

    /// Reads what workers tell.
    fn look(&mut self, now: Instant) {
        for _ in 0..self.children.look(now) {
            self.body.count(Event::Stuck, self.children.counts());
        }
    }

    /// Runs the jobs that are due; returns how long none will be.
    fn jobs(&mut self) -> Option<Duration> {
        let traffic = self.children.take_traffic();
        self.schedule.as_mut()?.turn(SystemTime::now(), traffic)
    }

    /// Goes on to the next phase when what it waits for is there.
    fn settle(&mut self, now: Instant) -> Option<Exit> {
        match self.phase {
            Phase::Ending(exit) => {
                let is_over =
                    self.children.is_empty() && self.schedule.as_ref().is_none_or(Schedule::is_idle);
                // Whoever watches may see the end of the workers.
                if is_over
                    && let Some(pid) = self.assistant.as_mut().and_then(|assistant| assistant.pid.take())
                {
                    signal(pid, Signal::Term);
                }
                return is_over.then_some(exit);
            }
            Phase::Serving => {
                if self.children.ready(self.generation) >= self.target {
                    self.children.retire(now + self.plan.graceful_timeout, |child| child.replaced);
                }
            }
            Phase::Starting | Phase::Reloading => {
                if self.children.ready(self.generation) >= self.target {
                    let generation = self.generation;
                    self.children
                        .retire(now + self.plan.graceful_timeout, |child| child.generation != generation);
                    if self.phase == Phase::Starting {
                        self.body.serving(&self.sockets);
                        if let Some(schedule) = &mut self.schedule {
                            schedule.start(SystemTime::now());
                        }
                    } else {
                        tracing::info!(
                            "reloaded: {} new workers are serving, the old ones are finishing",
                            self.target
                        );
                        self.body.count(Event::Reloaded(true), self.children.counts());
                    }
                    self.phase = Phase::Serving;
                }
            }
        }
        if self.phase == Phase::Serving && std::mem::take(&mut self.reload_again) {
            self.reload();
        }
        None
    }

    fn obey(&mut self, signal: Signal) {
        match (signal, self.phase) {
            (Signal::Term | Signal::Int | Signal::Quit, Phase::Ending(_)) => {
                tracing::warn!("stopping at once");
                self.children.kill(|_| true);
                if let Some(schedule) = &mut self.schedule {
                    schedule.cut_off();
                }
            }
            (Signal::Term | Signal::Int | Signal::Quit, _) => {
                tracing::info!("stopping: workers finish their requests; a second signal stops them at once");
                self.end(0);
            }
            (Signal::Hup, Phase::Serving) => self.reload(),
            (Signal::Hup, Phase::Reloading | Phase::Starting) => self.reload_again = true,
            (Signal::Usr1, _) => self.reopen_logs(),
            (Signal::Ttin, Phase::Serving | Phase::Reloading) => self.scale(self.target + 1),
            (Signal::Ttou, Phase::Serving | Phase::Reloading) if self.target > 1 => {
                self.scale(self.target - 1);
            }
            _ => {}
        }
    }

    /// Has all processes go on in fresh log files.
    fn reopen_logs(&mut self) {
        self.body.reopen_logs();
        self.children.signal_all(Signal::Usr1);
        if let Some(pid) = self.assistant.as_ref().and_then(|assistant| assistant.pid) {
            signal(pid, Signal::Usr1);
        }
    }

    /// Has so many workers from now on.
    fn scale(&mut self, target: usize) {
        let target = target.clamp(1, WORKERS_MAX);
        tracing::info!("{} workers instead of {}", target, self.target);
        let surplus = self.children.active(self.generation).saturating_sub(target);
        self.target = target;
        let serving = self.children.iter().filter(|child| !matches!(child.stage, Stage::Retiring(_)));
        let mut last: Vec<Pid> = serving.map(|child| child.pid).collect();
        last.drain(..last.len().saturating_sub(surplus));
        let until = Instant::now() + self.plan.graceful_timeout;
        self.children.retire(until, |child| last.contains(&child.pid));
    }

    /// What the assistant asked for.
    fn orders(&mut self) -> io::Result<Vec<Order>> {
        let Some(assistant) = &mut self.assistant else { return Ok(Vec::new()) };
        if !poll::wait_readable(assistant.orders.0.as_fd(), Some(Duration::ZERO))? {
            return Ok(Vec::new());
        }
        let mut bytes = [0; 1024];
        let count = assistant.orders.0.read(&mut bytes)?;
        assistant.begun.extend_from_slice(bytes.get(..count).unwrap_or_default());
        let whole = assistant.begun.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        let lines: Vec<u8> = assistant.begun.drain(..whole).collect();
        Ok(String::from_utf8_lossy(&lines).lines().filter_map(Order::read).collect())
    }

    fn follow(&mut self, order: Order) {
        match (order, self.phase) {
            (Order::Reload, _) => self.obey(Signal::Hup),
            (Order::End, Phase::Ending(_)) => {}
            (Order::End, _) => self.obey(Signal::Term),
            (Order::Scale(target), Phase::Serving | Phase::Reloading) => self.scale(target),
            (Order::Scale(_), Phase::Starting | Phase::Ending(_)) => {}
            // Every turn looks.
            (Order::Look, _) => {}
            (Order::Stacks(pid), _) => {
                if self.children.iter().any(|child| child.pid == pid) {
                    signal(pid, Signal::Usr2);
                }
            }
        }
    }

    fn end(&mut self, exit: Exit) {
        self.phase = Phase::Ending(exit);
        if let Some(schedule) = &mut self.schedule {
            schedule.end(SystemTime::now(), self.plan.graceful_timeout);
        }
        // Whoever wants to connect from now on is to be refused, and go elsewhere, rather than to wait for nobody. The
        // workers do the same. The assistant goes on to the end.
        let own = self.sockets.extract_if(.., |socket| !socket.admin).collect::<Vec<_>>();
        sockets::close(&own);
        self.children.retire(Instant::now() + self.plan.graceful_timeout, |_| true);
    }

    /// Starts a new generation beside the old one.
    fn reload(&mut self) {
        if let Some(restart) = self.body.restart() {
            tracing::info!("reloading: the supervisor restarts itself");
            // The next program has an assistant of its own, who knows its workers.
            if let Some(pid) = self.assistant.as_ref().and_then(|assistant| assistant.pid) {
                signal(pid, Signal::Term);
            }
            let workers = self.children.iter().map(|child| child.pid).collect();
            let error = inherit::become_program(&restart, &self.sockets, &self.lifeline.1, workers);
            tracing::error!("cannot restart, continuing with the old workers: {error}");
            return;
        }
        tracing::info!("reloading: starting {} new workers", self.target);
        self.generation += 1;
        self.phase = Phase::Reloading;
        self.replace_at = None;
    }

    /// A worker ended: decides what that means.
    fn bury(&mut self, child: &Child, ended: Ended) {
        let pid = child.pid;
        let starting = was_starting(&self.children.board(), child) && !matches!(child.stage, Stage::Ready(_));
        let is_late = child.killed == Some(Death::Start);
        if matches!(child.stage, Stage::Retiring(_)) && !is_late || matches!(self.phase, Phase::Ending(_)) {
            if ended != Ended::Exited(0) {
                tracing::warn!("worker {pid} ended with {ended}");
                self.count_death(child, ended);
            }
            return;
        }
        self.count_death(child, ended);
        if starting && self.phase == Phase::Reloading && child.generation == self.generation {
            tracing::error!(
                "worker {pid} ended with {ended} before it was ready: not reloaded, the old workers continue"
            );
            self.body.count(Event::Reloaded(false), self.children.counts());
            let failed = self.generation;
            self.children
                .retire(Instant::now() + self.plan.graceful_timeout, |child| child.generation == failed);
            // The generation that serves is whichever is left.
            let old = self
                .children
                .iter()
                .filter(|child| child.generation != failed)
                .map(|child| child.generation)
                .max();
            self.generation = old.unwrap_or(failed);
            self.phase = Phase::Serving;
            return;
        }
        if starting && self.phase == Phase::Starting && ended == Ended::Exited(APPLICATION_FAILED) {
            // The worker has said why.
            self.end(APPLICATION_FAILED);
            return;
        }
        let ready = match child.stage {
            Stage::Ready(since) if !starting => Some(since.elapsed()),
            _ => None,
        };
        let pause = self.backoff.after_death(ready);
        self.replace_at = (!pause.is_zero()).then(|| Instant::now() + pause);
        if pause.is_zero() {
            tracing::warn!("worker {pid} ended with {ended}; replacing it");
        } else {
            tracing::error!(
                "worker {pid} ended with {ended} soon after its start; the next one starts in {pause:?}"
            );
        }
    }

    fn count_death(&self, child: &Child, ended: Ended) {
        let how = if matches!(ended, Ended::Exited(_)) { Death::Exit } else { Death::Signal };
        self.body.count(Event::Died(child.killed.unwrap_or(how)), self.children.counts());
    }

    /// How long it takes until the assistant is to be started, if it must be.
    fn assistant_missing(&self, now: Instant) -> Option<Duration> {
        let assistant = self.assistant.as_ref().filter(|assistant| assistant.pid.is_none())?;
        let ending = matches!(self.phase, Phase::Ending(_));
        (!ending).then(|| assistant.start_at.saturating_duration_since(now))
    }

    /// Whether workers are missing.
    fn is_short(&self) -> bool {
        !matches!(self.phase, Phase::Ending(_)) && self.children.active(self.generation) < self.target
    }

    /// Starts the processes that are missing, if it is time; says which one this is, in the new process.
    fn spawn_missing(&mut self) -> Option<Role> {
        if self.assistant_missing(Instant::now()) == Some(Duration::ZERO) {
            let forked = self.fork();
            if let Some(assistant) = &mut self.assistant {
                match forked {
                    Ok(Fork::Child) => return Some(Role::Assistant),
                    Ok(Fork::Parent(pid)) => assistant.pid = Some(pid),
                    Err(error) => {
                        tracing::error!(
                            "cannot start the assistant (the process of the admin address), trying again soon: {error}"
                        );
                        assistant.start_at = Instant::now() + ASSISTANT_PAUSE;
                    }
                }
            }
        }
        while self.is_short() && self.replace_at.is_none_or(|at| at <= Instant::now()) {
            let Some(slot) = self.children.free_slot() else {
                tracing::error!("too many workers are still stopping");
                self.replace_at = Some(Instant::now() + Duration::from_secs(1));
                return None;
            };
            match self.fork() {
                Ok(Fork::Child) => return Some(Role::Worker(slot)),
                Ok(Fork::Parent(pid)) => {
                    self.children.add(pid, Some(slot), self.generation, Stage::Starting(Instant::now()));
                    self.body.count(Event::Started, self.children.counts());
                    self.replace_at = None;
                }
                Err(error) => {
                    tracing::error!("cannot start a worker, trying again soon: {error}");
                    self.replace_at = Some(Instant::now() + Duration::from_secs(1));
                }
            }
        }
        None
    }

    fn fork(&mut self) -> io::Result<Fork> {
        let held = Held::all()?;
        match self.body.fork() {
            // The child lets signals through when its own handlers are there.
            Ok(Fork::Child) => {
                let signals = Signals::install(&WORKER_SIGNALS);
                drop(held);
                self.signals = signals?;
                Ok(Fork::Child)
            }
            forked => forked,
        }
    }

    /// Becomes a worker or the assistant, in its process: everything that is the supervisor's alone is closed.
    fn become_child(self, role: Role) -> ! {
        let Supervisor {
            body,
            sockets,
            signals,
            children,
            news,
            lifeline,
            old_lifeline,
            schedule,
            assistant,
            ..
        } = self;
        let is_assistant = matches!(role, Role::Assistant);
        let sockets = sockets.into_iter().filter(|socket| socket.admin == is_assistant).collect();
        let (board, bells, parent) = (children.board(), children.bells(), lifeline.0);
        drop((news.0, lifeline.1, old_lifeline, schedule));
        process::exit_now(match (role, assistant) {
            (Role::Worker(slot), assistant) => {
                drop(assistant);
                let report = Report::new(board, bells, slot, news.1);
                body.work(WorkerContext { sockets, signals, parent, report })
            }
            (Role::Assistant, Some(Assistant { orders: (received, orders), .. })) => {
                drop((news.1, received));
                let (tree, orders) = (Tree(board), Orders(orders));
                body.assist(AssistantContext { sockets, signals, parent, tree, orders })
            }
            (Role::Assistant, None) => 1,
        })
    }
}
