//! How processes are started: workers, by the supervisor itself or by a template, the template, the assistant.

use std::io;
use std::time::{Duration, Instant};

use anygate_config::CRITICAL;
use anygate_sys::forked;
use anygate_sys::orders::{self, Orders};
use anygate_sys::packets::Packets;
use anygate_sys::process::{self, Fork, Pid};
use anygate_sys::signals::{Held, Signal, Signals, Survivor};
use anygate_sys::title;

use crate::board::{Report, Tree};
use crate::orders::Orders as Requests;
use crate::sockets::Socket;
use crate::supervisor::{ASSISTANT_PAUSE, Assistant, Phase, Supervisor};
use crate::template::{self, Template, TemplateOrder};
use crate::worker_body::{AssistantContext, Birth, Event, News, WorkerBody, WorkerContext};

/// What a worker watches: it tells its supervisor that it was asked to end.
const SIGNALS: [Signal; 4] = [Signal::Term, Signal::Int, Signal::Quit, Signal::Usr1];

/// Role of this process.
pub(crate) enum Role {
    Worker(usize, Orders),
    Template(Packets, Birth),
    Assistant(Orders),
}

impl Supervisor<'_> {
    /// How long it takes until the assistant is to be started, if it must be.
    pub(crate) fn assistant_missing(&self, now: Instant) -> Option<Duration> {
        let assistant = self.assistant.as_ref().filter(|assistant| assistant.pid.is_none())?;
        let ending = matches!(self.phase, Phase::Ending(_));
        (!ending).then(|| assistant.start_at.saturating_duration_since(now))
    }

    /// Whether workers are missing.
    pub(crate) fn is_short(&self) -> bool {
        let forking: usize = self.template().map_or(0, |template| template.slots().count());
        !matches!(self.phase, Phase::Ending(_) | Phase::Leaving(_))
            && self.children.active(self.generation) + forking < self.target
            && !self.rolls_on_later(forking)
    }

    /// Whether missing workers can be started only when a template is ready.
    pub(crate) fn awaits_template(&self) -> bool {
        self.template().is_some_and(|template| !template.is_ready())
    }

    fn template(&self) -> Option<&Template> {
        self.templates.iter().find(|template| template.generation == self.generation)
    }

    /// Starts the processes that are missing, if it is time; says which one this is, in the new process.
    pub(crate) fn spawn_missing(&mut self) -> Option<Role> {
        if self.assistant_missing(Instant::now()) == Some(Duration::ZERO)
            && let Some(role) = self.spawn_assistant()
        {
            return Some(role);
        }
        while self.is_short()
            && !self.awaits_template()
            && self.replace_at.is_none_or(|at| at <= Instant::now())
        {
            let reserved: Vec<usize> = self.templates.iter().flat_map(Template::slots).collect();
            let Some(slot) = self.children.free_slot(&reserved) else {
                tracing::error!("too many workers are still stopping");
                self.replace_at = Some(Instant::now() + Duration::from_secs(1));
                return None;
            };
            let spawned = match self.body.wants_template() {
                true => self.spawn_from_template(slot),
                false => self.spawn_worker(slot),
            };
            match spawned {
                Ok(None) => self.replace_at = None,
                Ok(role) => return role,
                Err(error) => {
                    tracing::error!(target: CRITICAL, "cannot start a worker, trying again soon: {error}");
                    self.replace_at = Some(Instant::now() + Duration::from_secs(1));
                }
            }
        }
        None
    }

    fn spawn_assistant(&mut self) -> Option<Role> {
        let forked = orders::orders().and_then(|ends| Ok((ends, self.fork()?)));
        let assistant = self.assistant.as_mut()?;
        match forked {
            Ok(((_, told), Fork::Child)) => return Some(Role::Assistant(told)),
            Ok(((sender, _), Fork::Parent(pid))) => {
                (assistant.pid, assistant.sender) = (Some(pid), Some(sender));
            }
            Err(error) => {
                tracing::error!(
                    "cannot start the assistant (the process of the admin address), trying again soon: {error}"
                );
                assistant.start_at = Instant::now() + ASSISTANT_PAUSE;
            }
        }
        None
    }

    fn spawn_worker(&mut self, slot: usize) -> io::Result<Option<Role>> {
        let (sender, told) = orders::orders()?;
        match self.fork()? {
            Fork::Child => Ok(Some(Role::Worker(slot, told))),
            Fork::Parent(pid) => {
                self.born += 1;
                self.children.add(pid, slot, self.generation, self.born, sender);
                self.body.count(Event::Started, self.children.counts());
                Ok(None)
            }
        }
    }

    /// Asks the template for a worker; starts it first if there is none.
    fn spawn_from_template(&mut self, slot: usize) -> io::Result<Option<Role>> {
        let generation = self.generation;
        if let Some(template) = self.templates.iter_mut().find(|template| template.generation == generation) {
            self.born += 1;
            return template.fork(slot, self.born).map(|()| None);
        }
        let (ours, its) = Packets::pair()?;
        let urls = self.sockets.iter().filter(|socket| !socket.admin).map(Socket::url).collect();
        let birth = Birth { is_first: !self.had_template, workers: self.target, urls };
        match self.fork()? {
            Fork::Child => Ok(Some(Role::Template(its, birth))),
            Fork::Parent(pid) => {
                let mut template = Template::new(pid, generation, ours);
                template.knows_of_serving = birth.is_first;
                self.told_workers = birth.workers;
                self.had_template = true;
                self.untold.drain(..).for_each(|news| template.tell(news));
                self.templates.push(template);
                Ok(None)
            }
        }
    }

    /// Hears of workers that templates have forked.
    pub(crate) fn hear_templates(&mut self) {
        let mut forked = Vec::new();
        for template in &mut self.templates {
            loop {
                match template.receive() {
                    Ok(Some(worker)) => forked.push((template.generation, worker)),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::error!("the template {} cannot be heard: {error}", template.pid);
                        template.kill();
                        break;
                    }
                }
            }
        }
        let is_empty = forked.is_empty();
        for (generation, template::Forked { slot, number, pid, orders }) in forked {
            let Some(pid) = pid else {
                tracing::error!("cannot start a worker, trying again soon: the template cannot fork");
                self.replace_at = Some(Instant::now() + Duration::from_secs(1));
                continue;
            };
            self.children.add(pid, slot, generation, number, orders);
            self.body.count(Event::Started, self.children.counts());
            self.tell_template(News::Forked { number, pid });
            let ending = matches!(self.phase, Phase::Ending(_));
            if ending || generation != self.generation && self.phase != Phase::Reloading {
                let until = Instant::now() + self.plan.graceful_timeout;
                self.children.retire(until, |child| child.pid == pid);
            }
            if let Some(index) = self.strangers.iter().position(|(stranger, _)| *stranger == pid) {
                let (pid, ended) = self.strangers.swap_remove(index);
                self.ended(pid, ended);
            }
        }
        if !is_empty {
            self.dismiss_templates();
        }
    }

    /// Workers that have ended and are no children of this process, where those of a template cannot be: how is not known.
    pub(crate) fn gone(&self) -> Vec<Pid> {
        if process::ADOPTS {
            return Vec::new();
        }
        let workers =
            self.children.iter().map(|child| child.pid).chain(self.former.iter().map(|former| former.pid));
        // A child of this process exists until its end is taken.
        workers.filter(|pid| !process::exists(*pid)).collect()
    }

    fn fork(&mut self) -> io::Result<Fork> {
        let held = Held::all()?;
        match self.body.fork() {
            // The child lets signals through when its own handlers are there.
            Ok(Fork::Child) => {
                let signals = watch();
                drop(held);
                match signals {
                    Ok(signals) => self.signals = signals,
                    // A child that returned from here with an error would go on as a second supervisor.
                    Err(error) => {
                        tracing::error!("a new process cannot receive signals: {error}");
                        process::exit_now(1);
                    }
                }
                Ok(Fork::Child)
            }
            forked => forked,
        }
    }

    /// Becomes a worker, the template or the assistant, in its process: everything that is the supervisor's alone is
    /// closed.
    pub(crate) fn become_child(self, role: Role) -> ! {
        let Supervisor { plan, body, sockets, signals, children, news, assistant, sources, .. } = self;
        let name = plan.proc_name;
        let is_assistant = matches!(role, Role::Assistant(_));
        let mut sockets: Vec<_> = sockets.into_iter().filter(|socket| socket.admin == is_assistant).collect();
        let (board, bells) = (children.board(), children.bells());
        drop((news.0, children, sources));
        process::exit_now(match (role, assistant) {
            (Role::Worker(slot, told), assistant) => {
                drop(assistant);
                name_worker(&name, slot);
                let report = Report::new(board, bells, slot, news.1);
                body.work(WorkerContext { sockets, signals, told, report })
            }
            (Role::Template(packets, birth), assistant) => {
                drop(assistant);
                match fork_on_request(body, &packets, &birth, &mut sockets, &name) {
                    Ok(Some((slot, told, signals))) => {
                        drop(packets);
                        let report = Report::new(board, bells, slot, news.1);
                        body.work(WorkerContext { sockets, signals, told, report })
                    }
                    Ok(None) => {
                        body.dismissed();
                        0
                    }
                    Err(code) => code,
                }
            }
            (Role::Assistant(told), Some(Assistant { orders: (received, requests), .. })) => {
                drop((news.1, received));
                name_process(&name, "assistant", "assistant");
                let (tree, orders) = (Tree(board), Requests(requests));
                body.assist(AssistantContext { sockets, signals, told, tree, orders })
            }
            (Role::Assistant(_), None) => 1,
        })
    }
}

/// Sees to it that what the application does from now on, from its import on, cannot harm what is ours.
fn watch() -> io::Result<Signals> {
    forked::watch();
    Signals::survive(Survivor::Worker)?;
    Signals::install_beside(&SIGNALS)
}

fn name_worker(name: &str, slot: usize) {
    let number = slot + 1;
    name_process(name, &format!("worker {number}"), &format!("w{number}"));
}

/// Tells `ps` and `top` what this process is.
fn name_process(name: &str, role: &str, short: &str) {
    if let Err(error) = title::set(name, role, short) {
        tracing::debug!("cannot name this process: {error}");
    }
}

/// Lives as a template. Returns in a worker's process, with what it is given; `None`: the supervisor needs no more
/// workers, or is gone.
///
/// Errors: the exit code of a template that cannot go on.
fn fork_on_request(
    body: &mut dyn WorkerBody,
    packets: &Packets,
    birth: &Birth,
    sockets: &mut Vec<Socket>,
    name: &str,
) -> Result<Option<(usize, Orders, Signals)>, i32> {
    let failed = |error: io::Error| {
        tracing::error!(target: CRITICAL, "the template cannot continue: {error}");
        1
    };
    name_process(name, "template", "template");
    body.import(birth)?;
    packets.send(template::READY, None).map_err(failed)?;
    loop {
        let Some((text, told)) = packets.receive().map_err(failed)? else { return Ok(None) };
        let (slot, told) = match (TemplateOrder::read(&text), told) {
            (Some(TemplateOrder::Fork { slot, number }), Some(told)) => {
                body.expect_worker(number);
                (slot, told)
            }
            (Some(TemplateOrder::Hear(news)), _) => {
                body.hear(news);
                if news == News::Ending {
                    return Ok(None);
                }
                packets.send(template::DONE, None).map_err(failed)?;
                continue;
            }
            (Some(TemplateOrder::Retire), _) => {
                // Clients must not connect to a process that only ends.
                sockets.clear();
                continue;
            }
            (Some(TemplateOrder::Fork { .. } | TemplateOrder::End) | None, _) => return Ok(None),
        };
        // It runs where nothing can be logged. A worker of which the supervisor does not learn finds the pipe of its orders closed, and ends.
        let mut tell = |forked: io::Result<Pid>| {
            let _ = packets.send(&template::message(slot, forked.ok()), None);
        };
        let held = Held::all().map_err(failed)?;
        match body.fork_apart(&mut tell) {
            Ok(Fork::Child) => {
                let signals = watch();
                drop(held);
                name_worker(name, slot);
                return Ok(Some((slot, Orders::from(told), signals.map_err(failed)?)));
            }
            Ok(Fork::Parent(between)) => {
                drop(held);
                process::wait(between).map_err(failed)?;
            }
            Err(error) => {
                drop(held);
                tell(Err(error));
            }
        }
    }
}
