//! The figures as uWSGI tells them, for programs that watch uWSGI, above all `uwsgitop`
//! (<https://uwsgi-docs.readthedocs.io/en/latest/StatsServer.html>). What there is no number of is zero.

use std::iter;

use anygate_config::WorkerStage;
use anygate_policy::metrics::{self, BOUNDS, Totals};
use serde_json::{Value, json};

use crate::about::About;
use crate::processes::{Processes, Worker, totals};

/// All of it. Times are in microseconds.
pub fn stats(about: &About, processes: &dyn Processes) -> Value {
    let totals = totals(processes);
    let workers: Vec<Value> = (1..).zip(processes.workers()).map(|(id, worker)| one(id, &worker)).collect();
    json!({
        "version": format!("anygate-{}", about.version),
        "pid": about.pid,
        "listen_queue": totals.get(metrics::QUEUED) + totals.sum(metrics::LISTEN_QUEUE),
        "listen_queue_errors": totals.get(metrics::REJECTED),
        "signal_queue": 0,
        "load": totals.get(metrics::BUSY),
        "locks": [],
        "sockets": [],
        "workers": workers,
    })
}

fn one(id: u64, worker: &Worker<'_>) -> Value {
    let totals = Totals::of(iter::once(worker.row.counts().0));
    let requests = totals.sum(metrics::REQUESTS);
    let running = totals.get(metrics::REQUEST_SECONDS + BOUNDS.len() + 1);
    let [.., failed] = totals.statuses();
    let in_flight = worker.row.in_flight().list(std::time::SystemTime::now()).len();
    let status = match worker.stage {
        WorkerStage::Serving if in_flight > 0 => "busy",
        WorkerStage::Serving => "idle",
        WorkerStage::Starting => "cheap",
        WorkerStage::Draining => "pause",
    };
    let cores: Vec<Value> = (0..in_flight.max(1))
        .map(|core| {
            // Requests are not counted by thread.
            let requests = if core == 0 { requests } else { 0 };
            json!({ "id": core, "requests": requests, "in_request": u8::from(core < in_flight), "vars": [] })
        })
        .collect();
    json!({
        "id": id,
        "pid": worker.pid,
        "accepting": u8::from(worker.stage == WorkerStage::Serving),
        "requests": requests,
        "delta_requests": requests,
        "exceptions": failed,
        "harakiri_count": totals.get(metrics::TIMEOUTS),
        "signals": 0,
        "signal_queue": 0,
        "status": status,
        "rss": totals.get(metrics::MEMORY),
        "vsz": 0,
        "running_time": running,
        "last_spawn": worker.since,
        "respawn_count": 1,
        "tx": totals.get(metrics::RESPONSE_BYTES),
        "avg_rt": running.checked_div(requests).unwrap_or_default(),
        "apps": [],
        "cores": cores,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::application::testing::{Fake, about};

    #[test]
    fn workers_are_told_as_uwsgi_tells_them() {
        let stats = stats(&about(), &Fake::serving());
        let (busy, starting) = (&stats["workers"][0], &stats["workers"][1]);
        assert_eq!((&busy["status"], &starting["status"]), (&json!("busy"), &json!("cheap")));
        assert_eq!((&busy["requests"], &busy["avg_rt"]), (&json!(3), &json!(20_000)));
        assert_eq!((&busy["tx"], &busy["rss"]), (&json!(300), &json!(50 << 20)));
        assert_eq!(busy["cores"][0]["in_request"], 1);
        assert_eq!((&stats["version"], &stats["pid"]), (&json!("anygate-9.9"), &json!(40)));
    }
}
