//! Workers that are replaced although they serve: by order, after a number of requests, at an age, above a limit of memory. One at a
//! time: the next one waits until the last one has ended, so there is never more than one worker beside those that there
//! should be.

use std::time::Instant;

use anygate_sys::process;

use crate::children::{Child, Measured, Stage};
use crate::supervisor::Supervisor;
use crate::worker_body::{Event, Reason};

impl Supervisor<'_> {
    /// Has one more worker replaced, if it is time for any. All that there should be serve.
    pub(crate) fn recycle(&mut self, now: Instant) {
        if self.children.iter().any(|child| child.recycled.is_some()) {
            return;
        }
        let (memory_max, age_max) = (self.plan.worker_memory_max, self.plan.worker_max_age);
        let reason = |child: &Child| {
            let Stage::Ready(since) = child.stage else { return None };
            let (memory, age) =
                (child.memory.map_or(0, |measured| measured.bytes), now.saturating_duration_since(since));
            let is_measured_out = child.memory.is_some_and(|measured| !measured.from_birth);
            let urgency = if child.is_condemned {
                (Reason::Order, u64::MAX)
            } else if is_measured_out && memory_max.is_some_and(|max| memory > max) {
                (Reason::Memory, memory)
            } else if child.had_requests {
                (Reason::Requests, 0)
            } else if age_max.is_some_and(|max| age >= max) {
                (Reason::Age, 0)
            } else {
                return None;
            };
            Some((urgency, age))
        };
        let serving = self.children.iter_mut().filter(|child| !child.replaced);
        let chosen = serving.filter_map(|child| Some((reason(child)?, child)));
        // What was ordered first, then the worker with most memory, then the oldest.
        let Some((((reason, memory), age), child)) =
            chosen.max_by_key(|(((_, memory), age), _)| (*memory, *age))
        else {
            return;
        };
        (child.replaced, child.recycled) = (true, Some(reason));
        let pid = child.pid;
        match reason {
            Reason::Memory => tracing::info!(
                "worker {pid} has {} MB in memory, more than worker_memory_max: starting another worker",
                memory >> 20
            ),
            Reason::Order => {
                tracing::info!("worker {pid} is to be replaced by order: starting another worker");
            }
            Reason::Requests => tracing::info!("worker {pid} had max_requests: starting another worker"),
            Reason::Age | Reason::Stuck => {
                tracing::info!(
                    "worker {pid} has served for {age:.0?} (worker_max_age): starting another worker"
                );
            }
        }
        self.body.count(Event::Recycled(reason), self.children.counts());
    }

    /// Measures the memory of workers that serve, if that is limited.
    pub(crate) fn measure(&mut self, now: Instant) {
        let Some(max) = self.plan.worker_memory_max else { return };
        for child in self.children.iter_mut() {
            let due = child.memory.is_none_or(|measured| measured.at + measured.pause(max) <= now);
            if !matches!(child.stage, Stage::Ready(_)) || !due {
                continue;
            }
            // One that has just ended has none.
            let bytes = process::resident_bytes_of(child.pid).unwrap_or_default();
            let from_birth = child.memory.map_or(bytes > max, |before| before.from_birth);
            if child.memory.is_none() && from_birth {
                tracing::error!(
                    "worker {} has {} MB in memory when it has loaded the application, more than worker_memory_max ({} MB): \
                     it is not replaced for that; raise the limit",
                    child.pid,
                    bytes >> 20,
                    max >> 20
                );
            }
            child.memory = Some(Measured { at: now, bytes, from_birth });
        }
    }

    /// When memory is to be measured again, or an age is reached; `None`: no worker waits for that.
    pub(crate) fn measure_again(&self, now: Instant) -> Option<Instant> {
        let serving = || self.children.iter().filter(|child| !child.replaced);
        let memory = self.plan.worker_memory_max.into_iter().flat_map(|max| {
            serving().filter_map(move |child| child.memory.map(|measured| measured.at + measured.pause(max)))
        });
        memory.filter(|&at| at > now).min()
    }
}
