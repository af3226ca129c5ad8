//! The last hour, in steps: what a step counted, and what there was at its end. The assistant takes one sample a step, so nothing of
//! it costs a worker anything.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anygate_lock::Mutex;
use anygate_policy::metrics::{self, Totals};
use serde_json::{Value, json};

use crate::processes::{Processes, totals};

/// Time between two samples.
pub const STEP: Duration = Duration::from_secs(10);
/// Steps of an hour.
const POINTS_MAX: usize = 360;
/// A step that has just begun says nothing yet.
const SHORTEST: Duration = Duration::from_millis(500);

/// Figures of the last hour.
pub struct History(Mutex<Stored>);

struct Stored {
    points: VecDeque<Value>,
    /// When the last step ended, and what had been counted by then.
    last: (SystemTime, Totals),
}

impl History {
    /// Begins with what has been counted until `now`.
    pub fn new(processes: &dyn Processes, now: SystemTime) -> History {
        History(Mutex::new(Stored { points: VecDeque::new(), last: (now, totals(processes)) }))
    }

    /// Ends a step.
    pub fn sample(&self, processes: &dyn Processes, now: SystemTime) {
        let mut stored = self.0.lock();
        let totals = totals(processes);
        if let Some(point) = point(processes, &stored.last, (now, &totals)) {
            stored.points.push_back(point);
            let over = stored.points.len().saturating_sub(POINTS_MAX);
            stored.points.drain(..over);
        }
        stored.last = (now, totals);
    }

    /// Returns all steps, the oldest first, with what has begun of the next one.
    pub(crate) fn show(&self, processes: &dyn Processes, now: SystemTime) -> Value {
        let stored = self.0.lock();
        let begun = point(processes, &stored.last, (now, &totals(processes)));
        let points: Vec<&Value> = stored.points.iter().chain(begun.as_ref()).collect();
        json!({ "time": seconds(now), "step": STEP.as_secs(), "points": points })
    }
}

/// One step; `None` if there was no time in it, as when a clock was set back.
fn point(processes: &dyn Processes, from: &(SystemTime, Totals), to: (SystemTime, &Totals)) -> Option<Value> {
    let length = to.0.duration_since(from.0).ok().filter(|length| *length >= SHORTEST)?;
    let step = to.1.since(&from.1);
    let a_second = |count: u64| count as f64 / length.as_secs_f64();
    let [.., failures] = step.statuses();
    let quantile = |family, part| step.quantile(family, part).map(|time| time.as_secs_f64());
    let flight: usize =
        processes.workers().iter().map(|worker| worker.row.in_flight().list(to.0).len()).sum();
    Some(json!({
        "time": seconds(to.0),
        "rate": a_second(step.sum(metrics::REQUESTS)),
        "failures": a_second(failures),
        "median": quantile(metrics::REQUEST_SECONDS, 0.5),
        "high": quantile(metrics::REQUEST_SECONDS, 0.99),
        "queue": quantile(metrics::QUEUE_SECONDS, 0.99),
        "lock": quantile(metrics::LOCK_SECONDS, 0.99),
        "queued": to.1.get(metrics::QUEUED),
        "flight": flight,
        "workers": to.1.get(metrics::WORKERS),
        "memory": to.1.get(metrics::MEMORY),
        "reloads": step.sum(metrics::RELOADS),
    }))
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::application::testing::Fake;

    fn points(history: &History, fake: &Fake, now: SystemTime) -> Vec<Value> {
        history.show(fake, now)["points"].as_array().unwrap().clone()
    }

    #[test]
    fn a_step_has_what_was_counted_in_it() {
        let fake = Fake::serving();
        let begun = SystemTime::now();
        let history = History::new(&fake, begun);
        assert_eq!(points(&history, &fake, begun), [Value::Null; 0]);
        fake.count(20, 200);
        fake.count(10, 500);
        history.sample(&fake, begun + STEP);
        history.sample(&fake, begun + STEP * 2);
        let points = points(&history, &fake, begun + STEP * 2);
        let figures = |name: &str| points.iter().map(|point| point[name].clone()).collect::<Vec<_>>();
        assert_eq!(figures("rate"), [json!(3.0), json!(0.0)]);
        assert_eq!(figures("failures"), [json!(1.0), json!(0.0)]);
        assert_eq!(figures("high")[1], Value::Null);
        assert_eq!(figures("flight"), [1, 1]);
        assert_eq!(figures("memory"), [50 << 20, 50 << 20]);
    }

    #[test]
    fn an_hour_is_kept_and_what_has_begun_is_shown() {
        let fake = Fake::serving();
        let begun = SystemTime::now();
        let history = History::new(&fake, begun);
        for step in 1..=400 {
            history.sample(&fake, begun + STEP * step);
        }
        // A clock that was set back leaves a step out.
        history.sample(&fake, begun + STEP * 399);
        let shown = points(&history, &fake, begun + STEP * 399 + Duration::from_secs(1));
        assert_eq!(shown.len(), 361);
        assert_eq!(shown[0]["time"], seconds(begun + STEP * 41));
    }
}
