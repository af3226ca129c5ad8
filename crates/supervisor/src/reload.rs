//! Generations: a new one gets ready beside the old one, and either takes its place or, whatever went wrong, goes again.

use std::time::Instant;

use anygate_config::{CRITICAL, ReloadMode};
use anygate_sys::orders::WorkerOrder;
use anygate_sys::process::{Ended, Pid};

use crate::backoff::{Backoff, SERVED_MIN};
use crate::children::{Child, Stage, was_starting};
use crate::supervisor::{Phase, Supervisor};
use crate::template::Template;
use crate::touched::Touched;
use crate::worker_body::{Death, Event, Renewed};
use crate::{APPLICATION_FAILED, DESCRIPTORS_CLOSED, SERVER_FAILED};

impl Supervisor<'_> {
    /// Starts a new generation beside the old one, with the settings as they are now.
    pub(crate) fn reload(&mut self) {
        // Logs are often rotated by HUP, after which most servers write to fresh files.
        self.reopen_logs();
        let renewed = match self.body.renew() {
            Ok(renewed) => renewed,
            Err(reason) => {
                tracing::error!("{reason}: not reloaded, the old workers continue");
                self.body.count(Event::Reloaded(false), self.children.counts());
                return;
            }
        };
        self.before = Some((self.plan.clone(), [self.target, self.floor, self.configured]));
        if let Some(Renewed { plan, workers }) = renewed {
            self.plan = plan;
            // What signals asked for holds, unless the settings ask for something new.
            if workers != self.configured {
                (self.target, self.configured) = (workers.max(1), workers);
                self.floor = self.plan.scaling.as_ref().map_or(workers, |scaling| scaling.workers_min).max(1);
            }
        }
        if self.target == 0 {
            self.target = self.floor;
        }
        tracing::info!("reloading: starting {}", new_workers(self.target));
        let (start, finish) = (self.plan.worker_start_timeout, self.plan.graceful_timeout);
        self.manager.reloading(match self.plan.reload_mode {
            ReloadMode::Beside => start,
            ReloadMode::Rolling => {
                (start + finish).saturating_mul(u32::try_from(self.target).unwrap_or(u32::MAX))
            }
        });
        self.touched = Touched::new(&self.plan.touch_reload);
        self.generation += 1;
        self.phase = Phase::Reloading;
        self.replace_at = None;
        self.backoff = Backoff::default();
    }

    /// Has all processes go on in fresh log files.
    pub(crate) fn reopen_logs(&mut self) {
        self.body.reopen_logs();
        self.children.tell_all(WorkerOrder::ReopenLogs);
        self.tell_assistant(WorkerOrder::ReopenLogs);
    }

    /// Whether workers are replaced one after another.
    fn is_rolling(&self) -> bool {
        self.phase == Phase::Reloading && self.plan.reload_mode == ReloadMode::Rolling
    }

    /// Whether the next worker of a rolling reload is to wait: until the last one is ready, and an old one has ended, since
    /// there is never more than one beside those that there should be.
    pub(crate) fn rolls_on_later(&self, forking: usize) -> bool {
        let all = self.children.iter().count() + forking;
        let starts = self.children.iter().any(|child| matches!(child.stage, Stage::Starting(_)));
        self.is_rolling() && (starts || forking > 0 || all > self.target)
    }

    /// Ends as many old workers as new ones serve in their place.
    pub(crate) fn roll(&mut self, now: Instant) {
        if !self.is_rolling() {
            return;
        }
        let new = self.children.ready(self.generation);
        let old = |child: &&Child| {
            child.generation != self.generation && !matches!(child.stage, Stage::Retiring(_))
        };
        let mut old: Vec<Pid> = self.children.iter().filter(old).map(|child| child.pid).collect();
        old.truncate((old.len() + new).saturating_sub(self.target));
        self.children.retire(now + self.plan.graceful_timeout, |child| old.contains(&child.pid));
    }

    /// The new generation serves.
    pub(crate) fn reloaded(&mut self) {
        let are = if self.target == 1 { "is" } else { "are" };
        tracing::info!("reloaded: {} {are} serving, the old ones are finishing", new_workers(self.target));
        self.body.count(Event::Reloaded(true), self.children.counts());
        self.before = None;
        if self.body.settle(true) {
            self.renew_assistant();
        }
        // The phase is about to be another.
        self.phase = Phase::Serving;
        self.dismiss_templates();
    }

    /// The new generation does not get ready: the one before goes on.
    fn not_reloaded(&mut self) {
        self.body.count(Event::Reloaded(false), self.children.counts());
        self.body.settle(false);
        let failed = self.generation;
        // Those that serve in the place of old ones go on until there are others.
        let rolling = self.plan.reload_mode == ReloadMode::Rolling;
        let serves = |child: &Child| rolling && matches!(child.stage, Stage::Ready(_));
        for child in self.children.iter_mut().filter(|child| child.generation == failed && serves(child)) {
            child.replaced = true;
        }
        let until = Instant::now() + self.plan.graceful_timeout;
        self.children.retire(until, |child| child.generation == failed && !child.replaced);
        if let Some((plan, numbers)) = self.before.take() {
            self.plan = plan;
            [self.target, self.floor, self.configured] = numbers;
        }
        // A generation that failed is gone, so the one that serves is the latest of those that are left.
        let templates = self.templates.iter().map(|template| template.generation);
        let old = self.children.iter().map(|child| child.generation).chain(templates);
        self.generation = old.filter(|&generation| generation != failed).max().unwrap_or(failed);
        self.phase = Phase::Serving;
        self.dismiss_templates();
        self.manager.serving(self.target);
    }

    /// Ends templates whose generation needs no more workers, after those that it has: they may use processes that the
    /// template has started.
    pub(crate) fn dismiss_templates(&mut self) {
        let ending = matches!(self.phase, Phase::Ending(_));
        let (generation, reloading) = (self.generation, self.phase == Phase::Reloading);
        let until = Instant::now() + self.plan.graceful_timeout;
        let wants_news = self.body.wants_news();
        for template in &mut self.templates {
            let needed = !ending && (template.generation == generation || reloading);
            if needed || template.slots().next().is_some() {
                continue;
            }
            template.retire();
            // It is told of the end, once its workers have ended.
            let hears = wants_news && template.generation == generation;
            if !hears && !self.children.iter().any(|child| child.generation == template.generation) {
                template.finish(until);
            }
        }
    }

    /// A worker ended: decides what that means.
    pub(crate) fn bury(&mut self, child: &Child, ended: Ended) {
        let (pid, how) = (child.pid, child.describe(ended));
        let starting = was_starting(&self.children.board(), child) && !matches!(child.stage, Stage::Ready(_));
        let is_late = child.killed == Some(Death::Start);
        let ending = matches!(self.phase, Phase::Ending(_));
        if child.unwanted {
            tracing::debug!("worker {pid} ended with {how}");
            return;
        }
        if matches!(child.stage, Stage::Retiring(_)) && !is_late || ending {
            if ended != Ended::Exited(0) {
                tracing::warn!("worker {pid} ended with {how}");
                self.count_death(child, ended);
            }
            return;
        }
        self.count_death(child, ended);
        if starting && self.gives_up(&format!("worker {pid}"), child.generation, ended, &how) {
            return;
        }
        let ready = match child.stage {
            Stage::Ready(since) if !starting => Some(since.elapsed()),
            _ => None,
        };
        // One that fails by itself as soon as it is ready has not served, and nor will the next.
        let ready = ready.filter(|served| ended != Ended::Exited(SERVER_FAILED) || *served >= SERVED_MIN);
        if child.generation != self.generation {
            tracing::warn!("worker {pid} of the old generation ended with {how}");
            return;
        }
        let pause = self.backoff.after_death(ready);
        self.replace_at = (!pause.is_zero()).then(|| Instant::now() + pause);
        if ready.is_some() {
            tracing::warn!("worker {pid} ended with {how}; replacing it");
        } else {
            tracing::error!(
                target: CRITICAL,
                "worker {pid} ended with {how} soon after its start; the next one starts in {pause:?}"
            );
        }
    }

    /// A template ended: decides what that means.
    pub(crate) fn bury_template(&mut self, template: &Template, ended: Ended) {
        let Template { pid, generation, .. } = *template;
        let ending = matches!(self.phase, Phase::Ending(_));
        let needed = generation == self.generation || self.phase == Phase::Reloading;
        if ending || !needed {
            return;
        }
        let how = template.describe(ended);
        let was_ready = template.was_ready();
        if !was_ready && self.gives_up(&format!("the template {pid}"), generation, ended, &how) {
            return;
        }
        if generation != self.generation {
            return;
        }
        let pause = self.backoff.after_death(None);
        self.replace_at = Some(Instant::now() + pause);
        let when = if was_ready { "" } else { " soon after its start" };
        tracing::error!(target: CRITICAL, "the template {pid} ended with {how}{when}; the next one starts in {pause:?}");
    }

    /// A process ended before it was ready: whether that is the end of what it was for.
    fn gives_up(&mut self, who: &str, generation: u64, ended: Ended, how: &str) -> bool {
        if ended == Ended::Exited(DESCRIPTORS_CLOSED) {
            tracing::error!(
                target: CRITICAL,
                "{who} cannot serve: while it was imported, the application closed descriptors that are the server's (with \
                 os.closerange, or a library that sends its process to the background): leave that out; with daemon, the \
                 server goes to the background itself"
            );
        }
        if self.phase == Phase::Reloading && generation == self.generation {
            tracing::error!(
                "{who} ended with {how} before it was ready: not reloaded, the old workers continue"
            );
            self.not_reloaded();
            return true;
        }
        if self.phase == Phase::Starting
            && matches!(ended, Ended::Exited(APPLICATION_FAILED | DESCRIPTORS_CLOSED))
            && self.former.is_empty()
        {
            // It has said why.
            self.end(APPLICATION_FAILED);
            return true;
        }
        false
    }

    fn count_death(&self, child: &Child, ended: Ended) {
        let how = if matches!(ended, Ended::Exited(_)) { Death::Exit } else { Death::Signal };
        self.body.count(Event::Died(child.killed.unwrap_or(how)), self.children.counts());
    }
}

/// How many, in words for the log.
fn new_workers(number: usize) -> String {
    if number == 1 { "1 new worker".to_owned() } else { format!("{number} new workers") }
}
