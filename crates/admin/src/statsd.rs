//! The figures as lines for a StatsD server (<https://github.com/statsd/statsd/blob/master/docs/metric_types.md>):
//! counters as what was added since the last time, gauges as they are, and of a histogram so many values of each bucket
//! as were added, as one line with a sample rate. Labels are parts of names, or DogStatsD's tags.

use anygate_policy::metrics::{BOUNDS, Kind, Sample, Totals};

/// A packet is no longer, so that it passes an Ethernet in one piece.
const PACKET_MAX_BYTES: usize = 1432;

/// State between two transmissions: the values sent so far.
#[derive(Debug)]
pub struct Statsd {
    prefix: String,
    tags: bool,
    /// By cell. Numbers of a worker that just died are missing for a moment, so these only grow.
    told: Vec<u64>,
}

impl Statsd {
    /// Tells what is added to `now` from now on. Names begin with `prefix`; `tags`: labels are tags.
    pub fn new(prefix: String, tags: bool, now: &Totals) -> Statsd {
        let mut statsd = Statsd { prefix, tags, told: Vec::new() };
        statsd.packets(now);
        statsd
    }

    /// Returns the changes since the last call, in packets of whole lines.
    pub fn packets(&mut self, now: &Totals) -> Vec<String> {
        let mut packets = vec![String::new()];
        for sample in now.samples() {
            for line in self.lines(&sample, now) {
                match packets.last_mut() {
                    Some(packet) if packet.is_empty() => packet.push_str(&line),
                    Some(packet) if packet.len() + 1 + line.len() <= PACKET_MAX_BYTES => {
                        packet.push('\n');
                        packet.push_str(&line);
                    }
                    _ => packets.push(line),
                }
            }
        }
        packets.retain(|packet| !packet.is_empty());
        packets
    }

    fn lines(&mut self, sample: &Sample, now: &Totals) -> Vec<String> {
        let (name, tags) = self.name(sample);
        match sample.family.kind {
            Kind::Gauge(_) | Kind::Address => vec![format!("{name}:{}|g{tags}", now.get(sample.cell))],
            Kind::Resource(resource) => {
                vec![format!("{name}:{}|g{tags}", resource.shown(now.get(sample.cell)))]
            }
            Kind::Counter(_) | Kind::RouteCounter(_) => match self.added(sample.cell, now) {
                0 => Vec::new(),
                added => vec![format!("{name}:{added}|c{tags}")],
            },
            Kind::Histogram | Kind::RouteHistogram => {
                let lower = std::iter::once(0).chain(BOUNDS);
                let upper = BOUNDS.into_iter().chain(BOUNDS.last().copied());
                let mut lines = Vec::new();
                for (place, (lower, upper)) in lower.zip(upper).enumerate() {
                    let value = (lower + upper) as f64 / 2000.0;
                    match self.added(sample.cell + place, now) {
                        0 => {}
                        1 => lines.push(format!("{name}:{value}|ms{tags}")),
                        added => lines.push(format!("{name}:{value}|ms|@{}{tags}", 1.0 / added as f64)),
                    }
                }
                lines
            }
        }
    }

    fn name(&self, sample: &Sample) -> (String, String) {
        let family = sample.family;
        // StatsD's times are milliseconds.
        let own = match family.kind {
            Kind::Histogram | Kind::RouteHistogram => family.name.trim_end_matches("_seconds"),
            _ => family.name,
        };
        let mut name = format!("{}{own}", self.prefix);
        if self.tags && !sample.labels.is_empty() {
            let pairs: Vec<String> =
                sample.labels.iter().map(|(label, value)| format!("{label}:{}", tag(value))).collect();
            return (name, format!("|#{}", pairs.join(",")));
        }
        for (_, value) in &sample.labels {
            name.push('.');
            name.push_str(&part(value));
        }
        (name, String::new())
    }

    fn added(&mut self, cell: usize, now: &Totals) -> u64 {
        if self.told.len() <= cell {
            self.told.resize(cell + 1, 0);
        }
        let Some(told) = self.told.get_mut(cell) else { return 0 };
        let added = now.get(cell).saturating_sub(*told);
        *told += added;
        added
    }
}

/// A label as part of a name: without what ends a name, or a part of it.
fn part(value: &str) -> String {
    value.replace(|c: char| !(c.is_alphanumeric() || c == '-'), "_")
}

/// A label as a tag: without what ends it.
fn tag(value: &str) -> String {
    value.replace([',', '|', '\n'], "_")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    use anygate_policy::metrics::{self, Counts, Request};

    use super::*;

    fn totals(row: &[AtomicU64]) -> Totals {
        Totals::of(std::iter::once(row))
    }

    fn request(row: &[AtomicU64]) {
        Counts(row).request(&Request {
            method: b"GET",
            status: 200,
            duration: Duration::from_millis(2),
            queued: Duration::ZERO,
            lock: Duration::ZERO,
            received: 0,
            sent: 7,
        });
    }

    #[test]
    fn what_was_added_is_told_once() {
        let row: Vec<AtomicU64> = (0..metrics::CELLS).map(|_| AtomicU64::new(0)).collect();
        request(&row);
        let mut plain = Statsd::new("a.".to_owned(), false, &totals(&row));
        let mut tagged = Statsd::new(String::new(), true, &totals(&row));
        for _ in 0..4 {
            request(&row);
        }
        Counts(&row).set(metrics::WORKERS, 3);
        Counts(&row).set(metrics::LISTEN_QUEUE, 2);
        let addresses = || vec!["http://[::1]:80".to_owned()];
        let packets = plain.packets(&totals(&row).at(addresses()));
        assert!(packets.iter().all(|packet| packet.len() <= PACKET_MAX_BYTES));
        let text = packets.join("\n");
        let lines: Vec<&str> = text.lines().collect();
        for line in [
            "a.requests_total.GET.2xx:4|c",
            "a.response_body_bytes_total:28|c",
            "a.workers:3|g",
            "a.listen_queue.http______1__80:2|g",
            "a.request_duration:1.75|ms|@0.25",
        ] {
            assert!(lines.contains(&line), "{line}\n{text}");
        }
        let routes = [("/<a>".to_owned(), std::array::from_fn(|cell| u64::from(cell == 9)))].into_iter();
        let text = plain.packets(&totals(&row).with_routes(routes)).join("\n");
        assert!(text.lines().any(|line| line == "a.route_request_duration.__a_:1.75|ms"), "{text}");
        let text = tagged.packets(&totals(&row).at(addresses())).join("\n");
        for line in ["requests_total:4|c|#method:GET,status:2xx", "listen_queue:2|g|#address:http://[::1]:80"]
        {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        request(&row);
        let text = plain.packets(&totals(&row)).join("\n");
        assert!(
            text.contains("a.requests_total.GET.2xx:1|c\n") && text.contains("a.request_duration:1.75|ms\n")
        );
        assert!(!plain.packets(&totals(&row)).join("\n").contains("|c"));
    }

    #[test]
    fn what_is_missing_for_a_moment_is_not_told_again() {
        let row: Vec<AtomicU64> = (0..metrics::CELLS).map(|_| AtomicU64::new(0)).collect();
        let mut statsd = Statsd::new(String::new(), false, &totals(&row));
        request(&row);
        assert!(statsd.packets(&totals(&row)).join("\n").contains("|c"));
        assert!(!statsd.packets(&totals(&[])).join("\n").contains("|c"));
        assert!(!statsd.packets(&totals(&row)).join("\n").contains("|c"));
    }
}
