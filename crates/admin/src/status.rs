//! The figures as JSON: what the page draws, and what programs read.

use std::iter;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anygate_policy::metrics::{self, ADDRESSES_MAX, BOUNDS, Route, Totals};
use anygate_policy::shared_memory::process_row::ProcessRow;
use anygate_policy::shared_memory::recent_errors::Message;
use serde_json::{Value, json};

use crate::about::About;
use crate::processes::{Processes, Worker, totals};

/// Messages that are told, the newest first.
const MESSAGES_MAX: usize = 50;

/// Everything at this moment. Times are in seconds, moments in seconds since 1970.
pub(crate) fn status(about: &About, processes: &dyn Processes, now: SystemTime) -> Value {
    let totals = totals(processes);
    let [supervisor, gone] = processes.others();
    let workers = processes.workers();
    let rows = workers.iter().map(|worker| (Some(worker.pid), worker.row));
    let rows = rows.chain([(Some(about.pid), supervisor), (None, gone)]);
    let [_, ok, moved, client, server] = totals.statuses();
    json!({
        "version": about.version,
        "pid": about.pid,
        "time": seconds(now),
        "since": seconds(about.since),
        "uptime": now.duration_since(about.since).unwrap_or_default().as_secs_f64(),
        "log_level": supervisor.log_level().unwrap_or(about.log_level).word(),
        "workers": workers.iter().map(|worker| one(worker, now)).collect::<Vec<_>>(),
        "totals": {
            "workers": totals.get(metrics::WORKERS),
            "requests": totals.sum(metrics::REQUESTS),
            "requests_2xx": ok,
            "requests_3xx": moved,
            "requests_4xx": client,
            "requests_5xx": server,
            "requests_rejected": totals.get(metrics::REJECTED),
            "requests_queued": totals.get(metrics::QUEUED),
            "listen_queue": totals.sum(metrics::LISTEN_QUEUE),
            "listen_queue_share": listen_queue_share(&totals),
            "connections": totals.sum(metrics::CONNECTIONS),
            "connections_accepted": totals.get(metrics::CONNECTIONS_TOTAL),
            "websockets": totals.get(metrics::WEBSOCKETS),
            "threads": totals.get(metrics::THREADS),
            "threads_busy": totals.get(metrics::BUSY),
            "bytes_received": totals.get(metrics::REQUEST_BYTES),
            "bytes_sent": totals.get(metrics::RESPONSE_BYTES),
            "memory_bytes": totals.get(metrics::MEMORY),
            "worker_starts": totals.get(metrics::WORKER_STARTS),
            "worker_deaths": totals.sum(metrics::WORKER_DEATHS),
            "reloads": totals.sum(metrics::RELOADS),
        },
        "latency": {
            "p50": quantile(&totals, metrics::REQUEST_SECONDS, 0.5),
            "p90": quantile(&totals, metrics::REQUEST_SECONDS, 0.9),
            "p99": quantile(&totals, metrics::REQUEST_SECONDS, 0.99),
            "bounds": BOUNDS.map(|micros| Duration::from_micros(micros).as_secs_f64()),
            "counts": totals.buckets(metrics::REQUEST_SECONDS),
        },
        "waiting": {
            "queue": quantile(&totals, metrics::QUEUE_SECONDS, 0.99),
            "lock": quantile(&totals, metrics::LOCK_SECONDS, 0.99),
            "queue_counts": totals.buckets(metrics::QUEUE_SECONDS),
            "lock_counts": totals.buckets(metrics::LOCK_SECONDS),
        },
        "routes": processes.routes().map(|_| routes(&totals)),
        "messages": messages(rows),
    })
}

/// How full the fullest queue of connections is that wait to be accepted: 1 if the next one may be lost.
fn listen_queue_share(totals: &Totals) -> f64 {
    let share = |place| {
        let [waiting, most] =
            [metrics::LISTEN_QUEUE, metrics::LISTEN_QUEUE_MAX].map(|family| totals.get(family + place));
        if most == 0 { 0.0 } else { waiting as f64 / most as f64 }
    };
    (0..ADDRESSES_MAX).map(share).fold(0.0, f64::max)
}

fn routes(totals: &Totals) -> Vec<Value> {
    let route = |route: Route<'_>| {
        json!({
            "route": route.name,
            "requests": route.statuses.iter().sum::<u64>(),
            "requests_4xx": route.statuses.get(3),
            "requests_5xx": route.statuses.get(4),
            "seconds": Duration::from_micros(totals.micros(route.seconds)).as_secs_f64(),
            "p50": quantile(totals, route.seconds, 0.5),
            "p99": quantile(totals, route.seconds, 0.99),
            "counts": totals.buckets(route.seconds),
        })
    };
    totals.routes().map(route).collect()
}

fn one(worker: &Worker<'_>, now: SystemTime) -> Value {
    let totals = Totals::of(iter::once(worker.row.counts().0));
    let in_flight = worker.row.in_flight().list(now);
    let age = seconds(now) - worker.since as f64;
    json!({
        "pid": worker.pid,
        "since": worker.since,
        "age": age.max(0.0),
        "stage": worker.stage.word(),
        "memory_bytes": totals.get(metrics::MEMORY),
        "cpu_seconds": Duration::from_micros(totals.get(metrics::CPU_TIME)).as_secs_f64(),
        "open_files": totals.get(metrics::OPEN_FILES),
        "requests": totals.sum(metrics::REQUESTS),
        "connections": totals.sum(metrics::CONNECTIONS),
        "in_flight": in_flight
            .iter()
            .map(|seen| json!({ "request": seen.request, "age": seen.age.as_secs_f64() }))
            .collect::<Vec<_>>(),
    })
}

fn messages<'t>(rows: impl Iterator<Item = (Option<u64>, ProcessRow<'t>)>) -> Vec<Value> {
    let mut all: Vec<(Option<u64>, Message)> = rows
        .flat_map(|(pid, row)| row.recent().list().into_iter().map(move |message| (pid, message)))
        .collect();
    all.sort_by_key(|(_, message)| std::cmp::Reverse(message.time));
    all.truncate(MESSAGES_MAX);
    all.iter()
        .map(|(pid, Message { time, text, traceback })| {
            // Recorded messages begin with their level.
            let (level, text) = text.split_once(' ').unwrap_or(("", text));
            json!({ "time": seconds(*time), "pid": pid, "level": level.to_ascii_lowercase(), "text": text, "traceback": traceback })
        })
        .collect()
}

fn quantile(totals: &Totals, histogram: usize, part: f64) -> Option<f64> {
    totals.quantile(histogram, part).map(|duration| duration.as_secs_f64())
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::application::testing::{Fake, about};
    use anygate_config::LogLevel;

    #[test]
    fn what_the_dead_counted_is_part_of_the_sums() {
        let status = status(&about(), &Fake::serving(), SystemTime::now());
        let totals = &status["totals"];
        assert_eq!((totals["requests"].as_u64(), totals["requests_5xx"].as_u64()), (Some(9), Some(5)));
        assert_eq!((totals["workers"].as_u64(), totals["memory_bytes"].as_u64()), (Some(2), Some(50 << 20)));
        assert_eq!(status["workers"][0]["requests"], 3);
        assert_eq!(status["workers"][1]["stage"], "starting");
        let counts = status["latency"]["counts"].as_array().unwrap();
        assert_eq!(counts.iter().filter_map(Value::as_u64).sum::<u64>(), 9);
        assert_eq!(counts.len(), status["latency"]["bounds"].as_array().unwrap().len() + 1);
        let median = status["latency"]["p50"].as_f64().unwrap();
        assert!(median > 0.01 && median <= 0.025, "{median}");
    }

    #[test]
    fn requests_in_flight_and_messages_say_whose_they_are() {
        let status = status(&about(), &Fake::serving(), SystemTime::now());
        let flight = &status["workers"][0]["in_flight"][0];
        assert_eq!(flight["request"], "GET /<slow>");
        assert!(flight["age"].as_f64().unwrap() >= 2.0);
        let messages = status["messages"].as_array().unwrap();
        assert_eq!(messages.len(), 2);
        assert_eq!((&messages[0]["level"], &messages[0]["text"]), (&json!("warn"), &json!("odd")));
        assert_eq!((&messages[0]["pid"], &messages[1]["pid"]), (&json!(41), &json!(40)));
        assert_eq!(messages[1]["time"], 70.0);
    }

    #[test]
    fn routes_are_told_if_they_are_counted() {
        let fake = Fake::serving();
        let routes = |fake: &Fake| status(&about(), fake, SystemTime::now())["routes"].clone();
        assert_eq!(routes(&fake), Value::Null);
        let fake = fake.with_routes();
        assert_eq!(routes(&fake), json!([]));
        let table = fake.routes().unwrap();
        for status in [200, 404, 500] {
            table.count(table.place("/<a>"), status, Duration::from_millis(20));
        }
        let told = &routes(&fake)[0];
        assert_eq!((&told["route"], &told["requests"]), (&json!("/<a>"), &json!(3)));
        assert_eq!(
            (&told["requests_4xx"], &told["requests_5xx"], &told["seconds"]),
            (&json!(1), &json!(1), &json!(0.06))
        );
        assert!(told["p50"].as_f64().unwrap() > 0.01);
    }

    #[test]
    fn the_fullest_queue_is_told() {
        let fake = Fake::serving();
        let totals = || status(&about(), &fake, SystemTime::now())["totals"].clone();
        assert_eq!((&totals()["listen_queue"], &totals()["listen_queue_share"]), (&json!(0), &json!(0.0)));
        let queues = [("http://127.0.0.1:1", [3, 100]), ("unix:s", [1, 4]), ("unix:no-limit", [0, 0])];
        fake.others()[0].show_queues(queues.into_iter().map(|(address, queue)| (address.to_owned(), queue)));
        assert_eq!((&totals()["listen_queue"], &totals()["listen_queue_share"]), (&json!(4), &json!(0.25)));
    }

    #[test]
    fn the_level_that_is_wanted_is_told() {
        let fake = Fake::serving();
        let level = || status(&about(), &fake, SystemTime::now())["log_level"].clone();
        assert_eq!(level(), "info");
        fake.others()[0].want_log_level(LogLevel::Debug);
        assert_eq!(level(), "debug");
    }
}
