//! What the supervisor counts of processes, and how much they have to do.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anygate_policy::metrics::{self, Counts, DeathReason, Outcome, RecycleReason, Totals};
use anygate_policy::shared_memory::process_row::ProcessRow;
use anygate_supervisor::{Death, Event, Load, Reason};

/// Counts what has happened to a process.
pub(crate) fn count(event: Event, counts: Counts<'_>) {
    match event {
        Event::Started => counts.add(metrics::WORKER_STARTS, 1),
        Event::Died(death) => {
            let reason = match death {
                Death::Exit => DeathReason::Exit,
                Death::Signal => DeathReason::Signal,
                Death::Silent => DeathReason::Silent,
                Death::Start => DeathReason::Start,
                Death::Graceful => DeathReason::Graceful,
            };
            counts.add(metrics::cell(metrics::WORKER_DEATHS, reason), 1);
        }
        Event::Recycled(reason) => {
            let reason = match reason {
                Reason::Stuck => RecycleReason::Stuck,
                Reason::Requests => RecycleReason::Requests,
                Reason::Age => RecycleReason::Age,
                Reason::Memory => RecycleReason::Memory,
                Reason::Order => RecycleReason::Order,
            };
            counts.add(metrics::cell(metrics::WORKER_RECYCLES, reason), 1);
        }
        Event::Ran(well) => counts.add(metrics::cell(metrics::CRON_RUNS, Outcome::of(well)), 1),
        Event::Reloaded(well) => counts.add(metrics::cell(metrics::RELOADS, Outcome::of(well)), 1),
        Event::Serving(workers) => counts.set(metrics::WORKERS, workers as u64),
    }
}

/// Returns what workers with these rows have done and have to do.
pub(crate) fn load(rows: &[&[AtomicU64]]) -> Load {
    let totals = Totals::of(rows.iter().map(|row| ProcessRow(row).counts().0));
    let time = |cell| Duration::from_micros(totals.micros(cell));
    Load {
        demand: totals.get(metrics::BUSY) + totals.get(metrics::QUEUED),
        threads: totals.get(metrics::THREADS),
        requests: totals.buckets(metrics::QUEUE_SECONDS).iter().sum(),
        queued: time(metrics::QUEUE_SECONDS),
        locked: time(metrics::LOCK_SECONDS),
    }
}
