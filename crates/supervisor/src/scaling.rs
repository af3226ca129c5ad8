//! The number of workers: as signals and orders want it, and as the load needs it.

use std::time::{Duration, Instant};

use anygate_sys::process::{self, Pid};

use crate::board::SLOTS;
use crate::children::Stage;
use crate::supervisor::{Phase, Supervisor};

/// Workers that can be asked for: half of those that can live, since a reload has twice as many.
const WORKERS_MAX: usize = SLOTS / 2;

/// How often the load is measured.
const MEASURE: Duration = Duration::from_millis(500);
impl Supervisor<'_> {
    /// Has so many workers from now on, or more if the load needs them.
    pub(crate) fn scale(&mut self, floor: usize) {
        self.floor = floor.clamp(1, WORKERS_MAX);
        let target = if self.plan.scaling.is_some() { self.target.max(self.floor) } else { self.floor };
        tracing::info!("{target} workers instead of {}", self.target);
        self.set_target(target);
    }

    /// Has no workers until a reload, or until a signal or order asks for some; clients wait.
    pub(crate) fn pause(&mut self) {
        tracing::info!("all workers finish (WINCH); HUP starts new ones");
        self.set_target(0);
    }

    fn set_target(&mut self, target: usize) {
        self.manager.scaled(target);
        let surplus = self.children.active(self.generation).saturating_sub(target);
        self.target = target;
        let serving = self.children.iter().filter(|child| !matches!(child.stage, Stage::Retiring(_)));
        let mut last: Vec<Pid> = serving.map(|child| child.pid).collect();
        last.drain(..last.len().saturating_sub(surplus));
        let until = Instant::now() + self.plan.graceful_timeout;
        self.children.retire(until, |child| last.contains(&child.pid));
    }

    /// Has as many workers as the load needs, if that may change.
    pub(crate) fn scale_by_load(&mut self, now: Instant) {
        let Some(plan) = self.plan.scaling.clone() else { return };
        let serving: Vec<_> = self
            .children
            .iter()
            .filter(|child| matches!(child.stage, Stage::Ready(_)) && !child.replaced)
            .collect();
        if self.phase != Phase::Serving
            || self.target == 0
            || self.scaling.at + MEASURE > now
            || serving.len() < self.target
        {
            return;
        }
        let load = self.children.tree_load(|rows| self.body.load(rows));
        // Where the system does not say, none is used.
        let used = |pid| process::processor_time_of(pid).unwrap_or_default();
        let times = serving.iter().map(|child| (child.pid, used(child.pid))).collect();
        let machine = process::machine_time().unwrap_or_default();
        let wanted = self.scaling.decide(now, load, (times, machine), self.target, &plan);
        let wanted = wanted.clamp(self.floor, plan.workers_max.max(self.floor));
        if wanted != self.target {
            tracing::info!(
                "{wanted} workers instead of {}: {:.0} of {} threads or greenlets are wanted, {:.1} processors are used{}",
                self.target,
                self.scaling.demand,
                load.threads,
                self.scaling.processors,
                if self.scaling.is_short { ", and requests wait" } else { "" }
            );
            self.set_target(wanted);
        }
    }

    /// When the load is to be measured again.
    pub(crate) fn measure_load_again(&self) -> Option<Instant> {
        self.plan.scaling.is_some().then_some(self.scaling.at + MEASURE)
    }
}
