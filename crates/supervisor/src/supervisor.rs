//! The supervisor's loop: signals, ends of workers, news from them, and times that are up. One thread, no application
//! code: whatever an application does, this goes on.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant, SystemTime};

use anygate_config::{CRITICAL, Order, ProcessPlan};
use anygate_sys::orders::{OrderSender, WorkerOrder};
use anygate_sys::poll;
use anygate_sys::process::{self, Ended, Pid};
use anygate_sys::signals::{Signal, Signals};

use crate::backoff::Backoff;
use crate::board::Counts;
use crate::children::Children;
use crate::daemons::Daemons;
use crate::handover::{Check, Former};
use crate::load::Scaling;
use crate::notice::{Notice, Reaping};
use crate::notify::ServiceManager;
use crate::orders;
use crate::schedule::Schedule;
use crate::sockets::{self, Socket};
use crate::sources::Sources;
use crate::template::Template;
use crate::touched::Touched;
use crate::worker_body::{Event, News, Reason, WorkerBody};

/// The supervisor looks around at least this often. If it did not, it stood still,
const TICK: Duration = Duration::from_secs(1);
/// if it took longer than this.
const STANDSTILL: Duration = Duration::from_millis(1_500);

/// How the supervisor ended: the exit code of the program.
pub type Exit = i32;

/// The supervisor of one tree.
pub struct Supervisor<'a> {
    pub(crate) plan: ProcessPlan,
    pub(crate) body: &'a mut dyn WorkerBody,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) signals: Signals,
    pub(crate) children: Children,
    /// Templates of the generations that may still need workers.
    pub(crate) templates: Vec<Template>,
    /// There was a template.
    pub(crate) had_template: bool,
    /// What the next template is told first.
    pub(crate) untold: Vec<News>,
    /// Number of workers that the template was told of.
    pub(crate) told_workers: usize,
    /// Workers that were started or asked for.
    pub(crate) born: u64,
    /// Children that ended before a template told of them.
    pub(crate) strangers: Vec<(Pid, Ended)>,
    pub(crate) reaping: Reaping,
    /// Workers that there should be.
    pub(crate) target: usize,
    /// As few as there may be: signals may ask for others than the settings.
    pub(crate) floor: usize,
    /// Workers that the settings say.
    pub(crate) configured: usize,
    pub(crate) scaling: Scaling,
    /// What a reload that fails goes back to: plan, and the numbers of workers (target, floor, configured).
    pub(crate) before: Option<(ProcessPlan, [usize; 3])>,
    pub(crate) generation: u64,
    pub(crate) phase: Phase,
    pub(crate) backoff: Backoff,
    /// Dead workers are not replaced before.
    pub(crate) replace_at: Option<Instant>,
    reload_again: bool,
    pub(crate) touched: Touched,
    /// The files of the application, if their changes are to trigger reloads.
    pub(crate) sources: Option<Sources>,
    /// Workers of the program before this one.
    pub(crate) former: Vec<Former>,
    /// The new program is checked.
    pub(crate) check: Option<Check>,
    /// Has the lock of the pid file.
    pub(crate) lock: Option<BorrowedFd<'a>>,
    /// When a signal told it to end.
    pub(crate) told_at: Option<Instant>,
    /// When it looked around last.
    looked_at: Instant,
    pub(crate) schedule: Option<Schedule>,
    pub(crate) daemons: Daemons,
    pub(crate) assistant: Option<Assistant>,
    pub(crate) manager: ServiceManager,
    pub(crate) news: (io::PipeReader, io::PipeWriter),
}

/// The process that is asked about the workers.
pub(crate) struct Assistant {
    pub(crate) pid: Option<Pid>,
    /// How it is told.
    pub(crate) sender: Option<OrderSender>,
    /// It is not started before.
    pub(crate) start_at: Instant,
    /// It was told to finish, for one with new settings.
    pub(crate) renewed: bool,
    pub(crate) orders: (io::PipeReader, io::PipeWriter),
    /// The beginning of an order.
    begun: Vec<u8>,
}

/// An assistant that ended is started again after so long.
pub(crate) const ASSISTANT_PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The very first workers get ready.
    Starting,
    Serving,
    /// A new generation gets ready beside the old one.
    Reloading,
    /// Clients and balancers are told to go elsewhere, until then; who still comes is served.
    Leaving(Instant),
    /// All finish. The code is the program's.
    Ending(Exit),
}

impl<'a> Supervisor<'a> {
    /// Prepares a supervisor of `workers` workers on `sockets`.
    ///
    /// Errors: whatever the system says to pipes and shared memory.
    pub fn new(
        plan: ProcessPlan,
        workers: usize,
        sockets: Vec<Socket>,
        body: &'a mut dyn WorkerBody,
        Notice { reaping, signals }: Notice,
    ) -> io::Result<Self> {
        let news = io::pipe()?;
        let assistant = match body.wants_assistant() {
            true => Some(Assistant {
                pid: None,
                sender: None,
                start_at: Instant::now(),
                renewed: false,
                orders: io::pipe()?,
                begun: Vec::new(),
            }),
            false => None,
        };
        let scaling = plan.scaling.as_ref();
        let floor = scaling.map_or(workers, |scaling| scaling.workers_min).max(1);
        let most = scaling.map_or(workers, |scaling| scaling.workers_max);
        let children = Children::new(body.counts(), most)?;
        if reaping == Reaping::All {
            process::become_subreaper()?;
        }
        Ok(Supervisor {
            touched: Touched::new(&plan.touch_reload),
            sources: None,
            former: Vec::new(),
            check: None,
            lock: None,
            plan,
            body,
            sockets,
            signals,
            children,
            templates: Vec::new(),
            had_template: false,
            untold: Vec::new(),
            told_workers: 0,
            born: 0,
            strangers: Vec::new(),
            reaping,
            target: workers.max(1),
            floor,
            scaling: Scaling::new(Instant::now()),
            configured: workers,
            before: None,
            generation: 1,
            phase: Phase::Starting,
            backoff: Backoff::default(),
            replace_at: None,
            reload_again: false,
            told_at: None,
            looked_at: Instant::now(),
            schedule: None,
            daemons: Daemons::default(),
            assistant,
            manager: ServiceManager::default(),
            news,
        })
    }

    /// Runs jobs, too, from when the workers serve.
    pub fn set_schedule(&mut self, schedule: Schedule) {
        self.schedule = Some(schedule);
    }

    /// Tells a service manager how things are.
    pub fn set_service_manager(&mut self, manager: ServiceManager) {
        self.manager = manager;
        self.manager.starting(self.plan.worker_start_timeout);
    }

    /// Reloads when a file changes of those that workers write to this pipe, each with NUL at its end.
    ///
    /// Errors: the system has no more watches.
    pub fn watch(&mut self, told: io::PipeReader) -> io::Result<()> {
        self.sources = Some(Sources::new(told)?);
        Ok(())
    }

    /// What the supervisor itself counts.
    pub fn counts(&self) -> Counts {
        self.children.own()
    }

    /// Runs until the tree has ended. In a worker's process it does not return.
    pub fn run(mut self) -> Exit {
        loop {
            match self.turn() {
                Ok(None) => {}
                Ok(Some(exit)) => {
                    self.await_assistant();
                    sockets::close(&self.sockets);
                    self.await_same_signal();
                    return exit;
                }
                Err(error) => {
                    tracing::error!(target: CRITICAL, "the supervisor cannot continue: {error}");
                    self.children.kill(|_| true);
                    self.kill_former();
                    self.daemons.kill();
                    self.templates.iter_mut().for_each(Template::kill);
                    sockets::close(&self.sockets);
                    return 1;
                }
            }
            self.tell_template_of_workers();
            if let Some(role) = self.spawn_missing() {
                self.become_child(role);
            }
        }
    }

    fn turn(&mut self) -> io::Result<Option<Exit>> {
        let now = Instant::now();
        self.notice_standstill(now);
        self.look(now);
        self.children.tell();
        self.body.count(Event::Serving(self.children.ready(self.generation)), self.children.counts());
        self.body.look_at_queues(&self.sockets, self.children.counts());
        if let Some(exit) = self.settle(now) {
            return Ok(Some(exit));
        }
        let logs = self.body.tend_logs();
        if logs.fresh {
            self.reopen_logs();
        }
        let wait = self.wait(now, logs.again);
        let mut watched = vec![self.signals.as_fd(), self.news.0.as_fd()];
        watched.extend(self.assistant.as_ref().map(|assistant| assistant.orders.0.as_fd()));
        watched.extend(self.templates.iter().map(AsFd::as_fd));
        watched.extend(self.daemons.fds());
        watched.extend(self.sources.iter().flat_map(Sources::fds));
        poll::wait_any_readable(&watched, Some(wait))?;
        if poll::wait_readable(self.news.0.as_fd(), Some(Duration::ZERO))? {
            // Only that there is news matters; the board says what.
            let mut bytes = [0; 256];
            let _count = self.news.0.read(&mut bytes)?;
        }
        // Before ends, so that no worker is a stranger whose template has told of it.
        self.hear_templates();
        for signal in self.signals.take() {
            self.obey(signal);
        }
        if let Some(path) = self.touched.look() {
            tracing::info!("{} was touched", path.display());
            self.obey(Signal::Hup);
        }
        if let Some(path) =
            self.sources.as_mut().map(|sources| sources.look(Instant::now())).transpose()?.flatten()
        {
            tracing::info!("{} was changed", path.display());
            self.obey(Signal::Hup);
        }
        for order in self.orders()? {
            self.follow(order);
        }
        self.look(Instant::now());
        self.reap()?;
        Ok(None)
    }

    /// How long nothing is to be done unless something happens.
    fn wait(&mut self, now: Instant, logs: Option<Duration>) -> Duration {
        let start = self.plan.worker_start_timeout;
        let due = self.children.enforce(now, start, self.plan.worker_timeout);
        let due = due.into_iter().chain(self.enforce_former(now));
        let templates: Vec<Instant> =
            self.templates.iter_mut().filter_map(|template| template.enforce(now, start)).collect();
        let jobs = self.jobs();
        let manager = self.manager.turn(now);
        let leaving = match self.phase {
            Phase::Leaving(until) => Some(until),
            _ => None,
        };
        let missing = match self.is_short() && !self.awaits_template() {
            true => Some(self.replace_at.unwrap_or(now)),
            false => None,
        };
        let measuring = self.measure_again(now).into_iter().chain(self.measure_load_again());
        let changed = self.sources.as_ref().and_then(Sources::due);
        let measuring = measuring.chain(self.daemons.turn(now)).chain(changed);
        let moments = measuring.chain(due).chain(templates).chain(leaving).chain(missing);
        let pauses = jobs.into_iter().chain(self.assistant_missing(now)).chain(logs).chain(manager);
        let pauses = pauses.chain(moments.map(|at| at.saturating_duration_since(now)));
        pauses.min().map_or(TICK, |pause| pause.min(TICK))
    }

    /// If this process stood still, its workers did, too, as far as can be known: a suspended machine, a paused container.
    fn notice_standstill(&mut self, now: Instant) {
        let gap = now.saturating_duration_since(self.looked_at);
        self.looked_at = now;
        if gap > STANDSTILL {
            tracing::debug!("this process stood still for {gap:?}");
            self.children.forgive(gap);
            self.templates.iter_mut().for_each(|template| template.forgive(gap));
        }
    }

    /// Takes notice of children that have ended.
    fn reap(&mut self) -> io::Result<()> {
        if self.reaping == Reaping::All {
            while let Some((pid, ended)) = process::reap()? {
                self.ended(pid, ended);
            }
            self.gone().into_iter().for_each(|pid| self.ended(pid, Ended::Exited(0)));
            return Ok(());
        }
        let assistant = self.assistant.as_ref().and_then(|assistant| assistant.pid);
        let own: Vec<Pid> =
            self.children.iter().map(|child| child.pid).chain(assistant).chain(self.daemons.pids()).collect();
        for pid in own {
            if let Some(ended) = process::reap_one(pid)? {
                self.ended(pid, ended);
            }
        }
        if let Some(schedule) = &mut self.schedule {
            schedule.collect(SystemTime::now());
        }
        Ok(())
    }

    /// A child has ended, whichever it is.
    pub(crate) fn ended(&mut self, pid: Pid, ended: Ended) {
        if let Some(child) = self.children.remove(pid) {
            self.bury(&child, ended);
            self.tell_template(News::Exited { number: child.number, pid });
            self.children.leave(&child, |gone, all| self.body.add_up(gone, all));
            self.dismiss_templates();
        } else if self.forget_former(pid, ended) || self.checked(pid, ended) {
        } else if let Some(assistant) = self.assistant.as_mut().filter(|other| other.pid == Some(pid)) {
            assistant.pid = None;
            let wanted = std::mem::take(&mut assistant.renewed);
            assistant.start_at = Instant::now() + if wanted { Duration::ZERO } else { ASSISTANT_PAUSE };
            if !wanted && !matches!(self.phase, Phase::Ending(_)) {
                tracing::warn!(
                    "the assistant (the process of the admin address) ended with {ended}; restarting it"
                );
            }
        } else if let Some(index) = self.templates.iter().position(|template| template.pid == pid) {
            let template = self.templates.swap_remove(index);
            self.bury_template(&template, ended);
        } else if self.daemons.ended(pid, ended, Instant::now()) {
            // It is started again, unless it is to end.
        } else if let Some(schedule) = &mut self.schedule
            && schedule.ended(pid, ended, SystemTime::now())
        {
            let well = ended == Ended::Exited(0);
            self.body.count(Event::Ran(well), self.children.counts());
        } else if self.templates.iter().any(|template| template.slots().next().is_some()) {
            self.strangers.push((pid, ended));
        } else {
            self.strangers.clear();
        }
    }

    /// Reads what workers tell.
    fn look(&mut self, now: Instant) {
        for _ in 0..self.children.look(now) {
            self.body.count(Event::Recycled(Reason::Stuck), self.children.counts());
        }
        self.measure(now);
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
                let is_over = self.children.is_empty()
                    && self.former.is_empty()
                    && self.check.is_none()
                    && self.templates_end()
                    && self.schedule.as_ref().is_none_or(Schedule::is_idle);
                // The workers may need them to the end.
                if is_over {
                    self.daemons.end(self.plan.graceful_timeout);
                }
                let is_over = is_over && self.daemons.is_empty();
                // Status pages may show the end of the workers.
                if is_over {
                    self.tell_assistant(WorkerOrder::Drain);
                }
                return is_over.then_some(exit);
            }
            Phase::Leaving(until) => {
                if until <= now || self.children.is_empty() {
                    self.end(0);
                }
            }
            Phase::Serving => {
                if self.children.ready(self.generation) >= self.target {
                    self.children.retire(now + self.plan.graceful_timeout, |child| child.replaced);
                    self.recycle(now);
                    self.scale_by_load(now);
                }
            }
            Phase::Starting | Phase::Reloading => {
                self.roll(now);
                if self.children.ready(self.generation) >= self.target {
                    self.serve(now);
                }
            }
        }
        if self.phase == Phase::Serving && std::mem::take(&mut self.reload_again) {
            self.reload();
        }
        None
    }

    /// The workers of this generation are ready.
    fn serve(&mut self, now: Instant) {
        let generation = self.generation;
        self.children.retire(now + self.plan.graceful_timeout, |child| child.generation != generation);
        self.daemons.renew(&self.plan.daemons, self.body.identity(), self.plan.graceful_timeout);
        if self.phase == Phase::Starting {
            self.body.serving(&self.sockets);
            self.retire_former(now + self.plan.graceful_timeout);
            if let Some(schedule) = &mut self.schedule {
                schedule.start(SystemTime::now());
            }
        } else {
            self.reloaded();
        }
        self.manager.serving(self.target);
        self.phase = Phase::Serving;
    }

    fn obey(&mut self, signal: Signal) {
        match (signal, self.phase) {
            (Signal::Term | Signal::Int | Signal::Quit, _) => self.told_to_end(signal, Instant::now()),
            (Signal::Hup, Phase::Serving) => self.reload(),
            (Signal::Hup, Phase::Reloading | Phase::Starting) => self.reload_again = true,
            (Signal::Usr1, _) => self.reopen_logs(),
            (Signal::Winch, Phase::Serving) if self.plan.daemon => self.pause(),
            (Signal::Usr2, Phase::Serving) => self.check_new_program(),
            (Signal::Ttin, Phase::Serving | Phase::Reloading) => self.scale(self.floor + 1),
            (Signal::Ttou, Phase::Serving | Phase::Reloading) if self.floor > 1 => {
                self.scale(self.floor - 1);
            }
            _ => {}
        }
    }

    /// A signal says to end. One that comes within a moment after another is the same: `timeout`, terminals and service
    /// managers send it to each process, and then to the group.
    fn told_to_end(&mut self, signal: Signal, now: Instant) {
        if self.same_signal_until().is_some() {
            return;
        }
        self.told_at = Some(now);
        if signal != Signal::Term {
            self.children.tell_all(WorkerOrder::BrokenOff);
        }
        match self.phase {
            Phase::Ending(_) => {
                tracing::warn!("stopping at once");
                self.children.kill(|_| true);
                self.kill_former();
                self.daemons.kill();
                let deaf = !self.body.wants_news();
                let told = self.templates.iter_mut().filter(|template| deaf || template.knows_of_end());
                told.for_each(Template::kill);
                if let Some(schedule) = &mut self.schedule {
                    schedule.cut_off();
                }
            }
            Phase::Leaving(_) => self.end(0),
            // After Ctrl-C, balancers are not waited for.
            Phase::Serving | Phase::Reloading
                if signal != Signal::Int && !self.plan.drain_delay.is_zero() =>
            {
                let delay = self.plan.drain_delay;
                tracing::info!("stopping in {delay:?} (drain_delay); a second signal skips that");
                self.children.tell_all(WorkerOrder::Leave);
                self.manager.leaving(delay, self.plan.graceful_timeout);
                self.phase = Phase::Leaving(now + delay);
            }
            Phase::Starting | Phase::Serving | Phase::Reloading => self.end(0),
        }
    }

    pub(crate) fn tell_assistant(&self, order: WorkerOrder) {
        let sender = self.assistant.as_ref().and_then(|assistant| assistant.sender.as_ref());
        if let Some(Err(error)) = sender.map(|sender| sender.send(order)) {
            tracing::error!("cannot give an order to the assistant: {error}");
        }
    }

    /// Has the assistant finish, and another one take its place.
    pub(crate) fn renew_assistant(&mut self) {
        self.tell_assistant(WorkerOrder::Drain);
        if let Some(assistant) = &mut self.assistant {
            assistant.renewed = assistant.pid.is_some();
        }
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
        Ok(String::from_utf8_lossy(&lines).lines().filter_map(orders::read).collect())
    }

    fn follow(&mut self, order: Order) {
        match (order, self.phase) {
            (Order::Reload, _) => self.obey(Signal::Hup),
            (Order::End, Phase::Ending(_) | Phase::Leaving(_)) => {}
            (Order::End, _) => self.obey(Signal::Term),
            (Order::Scale(target), Phase::Serving | Phase::Reloading) => self.scale(target),
            (Order::Scale(_), Phase::Starting | Phase::Leaving(_) | Phase::Ending(_)) => {}
            // Every turn looks.
            (Order::Look, _) => {}
            // It is replaced as soon as all serve that there should be.
            (Order::Recycle(pid), _) => self.children.condemn(pid),
            (Order::Stacks(pid), _) => self.children.tell_one(pid, WorkerOrder::WriteStacks),
        }
    }

    pub(crate) fn end(&mut self, exit: Exit) {
        if exit == 0 {
            tracing::info!("stopping: workers finish their requests; a second signal stops them at once");
        }
        self.phase = Phase::Ending(exit);
        self.manager.stopping(self.plan.graceful_timeout);
        if let Some(schedule) = &mut self.schedule {
            schedule.end(SystemTime::now(), self.plan.graceful_timeout);
        }
        // Clients that connect from now on are refused, so that they go elsewhere instead of waiting in vain. The
        // workers accept what has come, and close the sockets, too. The assistant goes on to the end.
        let own = self.sockets.extract_if(.., |socket| !socket.admin).collect::<Vec<_>>();
        sockets::refuse_newcomers(&own);
        sockets::close(&own);
        let until = Instant::now() + self.plan.graceful_timeout;
        self.children.retire(until, |_| true);
        self.retire_former(until);
        self.dismiss_templates();
    }
}
