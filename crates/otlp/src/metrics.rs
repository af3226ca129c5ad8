//! The figures of `/metrics` as OTLP has them, under the same names: counters and histograms as sums since the start, gauges
//! as they are.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use anygate_policy::metrics::{BOUNDS, Kind, Sample, Totals};
use prost::Message;

use crate::messages::{
    AggregationTemporality, Data, ExportMetricsServiceRequest, Gauge, Histogram, HistogramDataPoint,
    KeyValue, Metric, Number, NumberDataPoint, Resource, ResourceMetrics, ScopeMetrics, Sum, attribute,
    scope,
};

/// Makes the message with all figures.
pub(crate) fn request(resource: &Resource, totals: &Totals, since: SystemTime) -> Vec<u8> {
    let (start, time) = (nanos(since), nanos(SystemTime::now()));
    let mut families: BTreeMap<&str, Metric> = BTreeMap::new();
    for sample in totals.samples() {
        let metric = families.entry(sample.family.name).or_insert_with(|| metric(&sample));
        match &mut metric.data {
            Some(Data::Sum(Sum { data_points, .. }) | Data::Gauge(Gauge { data_points })) => {
                data_points.push(number(&sample, totals, start, time));
            }
            Some(Data::Histogram(Histogram { data_points, .. })) => {
                data_points.push(histogram(&sample, totals, start, time));
            }
            None => {}
        }
    }
    let metrics = families.into_values().collect();
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics }];
    let resource_metrics = vec![ResourceMetrics { resource: Some(resource.clone()), scope_metrics }];
    ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
}

fn metric(sample: &Sample) -> Metric {
    let (name, family) = (sample.family.name, sample.family);
    let unit = match name.trim_end_matches("_total") {
        name if name.ends_with("seconds") => "s",
        name if name.ends_with("bytes") => "By",
        _ => "1",
    };
    let aggregation_temporality = AggregationTemporality::Cumulative.into();
    let data = match family.kind {
        Kind::Counter(_) | Kind::RouteCounter(_) => {
            Data::Sum(Sum { is_monotonic: true, aggregation_temporality, data_points: Vec::new() })
        }
        Kind::Gauge(_) | Kind::Resource(_) | Kind::Address => Data::Gauge(Gauge::default()),
        Kind::Histogram | Kind::RouteHistogram => {
            Data::Histogram(Histogram { aggregation_temporality, data_points: Vec::new() })
        }
    };
    Metric {
        name: format!("anygate_{name}"),
        description: family.help.to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
    }
}

fn number(sample: &Sample, totals: &Totals, start: u64, time: u64) -> NumberDataPoint {
    let value = totals.get(sample.cell);
    let value = match sample.family.kind {
        Kind::Resource(resource) => Number::Double(resource.shown(value).parse().unwrap_or_default()),
        _ => Number::Integer(i64::try_from(value).unwrap_or(i64::MAX)),
    };
    NumberDataPoint {
        start_time_unix_nano: start,
        time_unix_nano: time,
        value: Some(value),
        attributes: attributes(sample),
    }
}

fn attributes(sample: &Sample) -> Vec<KeyValue> {
    sample.labels.iter().map(|(label, value)| attribute(label, value.as_ref())).collect()
}

fn histogram(sample: &Sample, totals: &Totals, start: u64, time: u64) -> HistogramDataPoint {
    let bucket_counts = totals.buckets(sample.cell);
    HistogramDataPoint {
        start_time_unix_nano: start,
        time_unix_nano: time,
        count: bucket_counts.iter().sum(),
        sum: Some(seconds(totals.micros(sample.cell))),
        bucket_counts,
        explicit_bounds: BOUNDS.iter().map(|&bound| seconds(bound)).collect(),
        attributes: attributes(sample),
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn nanos(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    use anygate_policy::metrics::{CELLS, Counts, FAMILIES, MEMORY, REQUEST_SECONDS, ROUTE_CELLS, Request};

    use super::*;

    #[test]
    fn all_figures_are_sent_under_their_names() {
        let row: Vec<_> = (0..CELLS).map(|_| AtomicU64::new(0)).collect();
        Counts(&row).request(&Request {
            method: b"GET",
            status: 200,
            duration: Duration::from_millis(2),
            queued: Duration::ZERO,
            lock: Duration::ZERO,
            received: 0,
            sent: 7,
        });
        Counts(&row).set(MEMORY, 5);
        let totals = Totals::of(std::iter::once(row.as_slice())).at(vec!["http://127.0.0.1:8000".to_owned()]);
        let routes = [("/<a>".to_owned(), [2; ROUTE_CELLS]), ("/b".to_owned(), [1; ROUTE_CELLS])];
        let totals = totals.with_routes(routes.into_iter());
        let since = UNIX_EPOCH + Duration::from_secs(1);
        let message = request(&Resource::default(), &totals, since);
        let message = ExportMetricsServiceRequest::decode(message.as_slice()).unwrap();
        let metrics = &message.resource_metrics[0].scope_metrics[0].metrics;
        assert_eq!(metrics.len(), FAMILIES.len());
        let find = |name: &str| metrics.iter().find(|metric| metric.name == name).unwrap();
        let Some(Data::Sum(sum)) = &find("anygate_requests_total").data else { panic!("no sum") };
        let counted: Vec<_> =
            sum.data_points.iter().filter(|point| point.value == Some(Number::Integer(1))).collect();
        assert_eq!(counted.len(), 1);
        assert_eq!(counted[0].attributes, [attribute("method", "GET"), attribute("status", "2xx")]);
        assert_eq!((counted[0].start_time_unix_nano, sum.is_monotonic), (1_000_000_000, true));
        let duration = find("anygate_request_duration_seconds");
        assert_eq!(duration.unit, "s");
        let Some(Data::Histogram(histogram)) = &duration.data else { panic!("no histogram") };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum, point.bucket_counts[4]), (1, Some(0.002), 1));
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        assert_eq!(totals.buckets(REQUEST_SECONDS).len(), point.bucket_counts.len());
        let durations = find("anygate_route_request_duration_seconds");
        let Some(Data::Histogram(histogram)) = &durations.data else { panic!("no histogram") };
        let [first, second] = histogram.data_points.as_slice() else { panic!("not two routes") };
        assert_eq!(
            (first.count, second.count, &first.attributes),
            (34, 17, &vec![attribute("route", "/<a>")])
        );
        let Some(Data::Gauge(memory)) = &find("anygate_worker_memory_bytes").data else { panic!("no gauge") };
        assert_eq!(memory.data_points[0].value, Some(Number::Double(5.0)));
    }
}
