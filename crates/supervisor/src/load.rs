//! How many workers a load needs: more at once when requests would wait, fewer when the load has been lower for a while.

use std::time::{Duration, Instant};

use anygate_config::ScalingPlan;
use anygate_sys::process::{MachineTime, Pid};

use crate::worker_body::Load;

/// So much of threads and processors may be used before there are more workers,
const HIGH: f64 = 0.8;
/// and so much by those that stay when there are fewer: between the two nothing changes.
const LOW: f64 = 0.6;
/// More workers do not help when the workers use so much of the processors that there are.
const SATURATED: f64 = 0.9;
/// What waits has no processor, rather than no thread or interpreter, when less of the machine's processors than this is free.
const FREE_MIN: f64 = 0.1;
/// So many threads of each worker wait for its interpreter, on average, when one is not enough for them.
const LOCK_WAITERS: f64 = 0.5;
/// Requests that were begun waited for so long, on average, when there are too few threads.
const QUEUE_AGE: Duration = Duration::from_millis(100);

/// What was measured last, and what was needed since.
#[derive(Debug)]
pub(crate) struct Scaling {
    pub(crate) at: Instant,
    load: Load,
    /// Processor time of each worker.
    times: Vec<(Pid, Duration)>,
    machine: MachineTime,
    /// Requests waited for a thread or the interpreter, and not for a processor.
    pub(crate) is_short: bool,
    /// Demand and processors in use, without short peaks.
    pub(crate) demand: f64,
    pub(crate) processors: f64,
    /// The most workers that were needed,
    needed: usize,
    /// since then.
    since: Instant,
}

impl Scaling {
    pub(crate) fn new(now: Instant) -> Scaling {
        Scaling {
            at: now,
            load: Load::default(),
            times: Vec::new(),
            machine: MachineTime::default(),
            is_short: false,
            demand: 0.0,
            processors: 0.0,
            needed: 0,
            since: now,
        }
    }

    /// Takes the next measurement: the load, and the processor time of each worker that serves and of the machine. Returns
    /// how many workers there should be instead of `target`.
    pub(crate) fn decide(
        &mut self,
        now: Instant,
        load: Load,
        (times, machine): (Vec<(Pid, Duration)>, MachineTime),
        target: usize,
        plan: &ScalingPlan,
    ) -> usize {
        let passed = now.saturating_duration_since(self.at).as_secs_f64().max(0.001);
        let part = |time: Duration, before: Duration| time.saturating_sub(before).as_secs_f64() / passed;
        let waiters = part(load.locked, self.load.locked);
        let requests = load.requests.saturating_sub(self.load.requests).max(1);
        let age = load.queued.saturating_sub(self.load.queued).as_secs_f64() / requests as f64;
        // What a worker has used to start does not count.
        let before = |pid: Pid| self.times.iter().find(|(other, _)| *other == pid).map(|(_, time)| *time);
        let used: f64 = times.iter().filter_map(|&(pid, time)| Some(part(time, before(pid)?))).sum();
        let serving = times.len();
        self.demand = f64::midpoint(self.demand, load.demand as f64);
        self.processors = f64::midpoint(self.processors, used);
        let free = machine.free.saturating_sub(self.machine.free) as f64;
        let is_free = free >= FREE_MIN * machine.all.saturating_sub(self.machine.all) as f64;
        (self.at, self.load, self.times, self.machine) = (now, load, times, machine);

        let workers = serving.max(1) as f64;
        let threads = (load.threads as f64 / workers).max(1.0);
        let needed = |part: f64| ceiling(self.demand / (threads * part)).max(ceiling(self.processors / part));
        self.is_short = is_free && (waiters / workers > LOCK_WAITERS || age > QUEUE_AGE.as_secs_f64());
        let high = needed(HIGH).max(if self.is_short { serving + 1 } else { 0 });
        if high > target {
            (self.needed, self.since) = (0, now);
            let saturated = used.max(self.processors) >= SATURATED * plan.processors as f64;
            return if saturated { target } else { high };
        }
        self.needed = self.needed.max(needed(LOW));
        if now.saturating_duration_since(self.since) < plan.workers_cool_down {
            return target;
        }
        let fewer = self.needed.min(target);
        (self.needed, self.since) = (0, now);
        fewer
    }
}

fn ceiling(number: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of workers, which saturates"
    )]
    let whole = number.ceil() as usize;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEASURE: Duration = Duration::from_millis(500);

    const PLAN: ScalingPlan = ScalingPlan {
        workers_min: 1,
        workers_max: 8,
        workers_cool_down: Duration::from_secs(60),
        processors: 4,
    };

    /// Feeds the same load, of workers with 8 threads and `processors` in use, for some seconds.
    fn feed(scaling: &mut Scaling, target: &mut usize, demand: u64, processors: f64, seconds: u32) -> usize {
        let mut changes = 0;
        let mut now = scaling.at;
        for _ in 0..seconds * 2 {
            now += MEASURE;
            let load = Load { demand, threads: 8 * *target as u64, ..Load::default() };
            let used = MEASURE.mul_f64(processors / *target as f64);
            let before = |pid| {
                scaling
                    .times
                    .iter()
                    .find(|(other, _)| *other == pid)
                    .map_or(Duration::ZERO, |(_, time)| *time)
            };
            let times = (1..).take(*target).map(|pid| (pid, before(pid) + used)).collect();
            let times = (times, MachineTime::default());
            let wanted = scaling.decide(now, load, times, *target, &PLAN).clamp(1, 8);
            changes += usize::from(wanted != *target);
            *target = wanted;
        }
        changes
    }

    #[test]
    fn a_step_of_load_is_followed_within_seconds_and_back_after_the_cool_down() {
        let (mut scaling, mut target) = (Scaling::new(Instant::now()), 1);
        feed(&mut scaling, &mut target, 64, 0.5, 4);
        assert_eq!(target, 8);
        assert_eq!(feed(&mut scaling, &mut target, 0, 0.0, 58), 0);
        feed(&mut scaling, &mut target, 0, 0.0, 65);
        assert_eq!(target, 1);
    }

    #[test]
    fn steady_load_changes_nothing_twice() {
        for demand in 0..70 {
            let (mut scaling, mut target) = (Scaling::new(Instant::now()), 1);
            feed(&mut scaling, &mut target, demand, 0.5, 10);
            assert!(feed(&mut scaling, &mut target, demand, 0.5, 300) <= 1, "{demand}");
        }
    }

    #[test]
    fn one_worker_is_not_enough_for_its_interpreter_but_no_number_is_for_the_processors() {
        let (mut scaling, mut target) = (Scaling::new(Instant::now()), 1);
        feed(&mut scaling, &mut target, 4, 0.95, 10);
        assert_eq!(target, 2);
        feed(&mut scaling, &mut target, 64, 3.9, 30);
        assert!(target < 8, "{target}");
    }

    #[test]
    fn requests_that_wait_want_one_worker_more_unless_they_wait_for_processors() {
        let waits = [(200, 0), (0, 600)];
        let machines = [(11, 2), (9, 1)];
        for ((queued, locked), (free, workers)) in
            waits.into_iter().flat_map(|wait| machines.map(|machine| (wait, machine)))
        {
            let mut scaling = Scaling::new(Instant::now());
            let now = scaling.at + Duration::from_secs(1);
            let load = Load {
                demand: 2,
                threads: 8,
                requests: 1,
                queued: Duration::from_millis(queued),
                locked: Duration::from_millis(locked),
            };
            let times = (vec![(1, Duration::ZERO)], MachineTime { free, all: 100 });
            assert_eq!(scaling.decide(now, load, times, 1, &PLAN), workers);
        }
    }
}
