//! Spans as OpenTelemetry's conventions describe those of HTTP servers
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>).

use anygate_policy::spans::record::{Moments, Outcome, Record};
use anygate_proto::head::Version;
use prost::Message;

use crate::messages::{
    Event, ExportTraceServiceRequest, KeyValue, Resource, ResourceSpans, ScopeSpans, Span, SpanKind, Status,
    StatusCode, Value, attribute, scope,
};

const SCHEMA: &str = "https://opentelemetry.io/schemas/1.36.0";
/// Methods that conventions know; names of others are clients' to choose.
const METHODS: [&str; 10] =
    ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "QUERY"];
/// Bits of flags: the trace is recorded; it is known whether the parent is of another process, and it is.
const SAMPLED: u32 = 1;
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Makes the message with these records. What is no record is left out.
pub(crate) fn request<'r>(resource: &Resource, records: impl Iterator<Item = &'r [u8]>) -> Vec<u8> {
    let spans: Vec<Span> = records.filter_map(Record::decode).map(|record| span(&record)).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope()), spans, schema_url: SCHEMA.to_owned() }];
    let resource_spans = vec![ResourceSpans { resource: Some(resource.clone()), scope_spans }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

fn span(record: &Record<String>) -> Span {
    let method = known_method(record);
    let name = method.unwrap_or("HTTP");
    let is_remote = if record.parent == 0 { 0 } else { IS_REMOTE };
    Span {
        trace_id: record.trace.to_be_bytes().to_vec(),
        span_id: record.span.to_be_bytes().to_vec(),
        trace_state: record.state.clone(),
        parent_span_id: if record.parent == 0 { Vec::new() } else { record.parent.to_be_bytes().to_vec() },
        name: if record.route.is_empty() { name.to_owned() } else { format!("{name} {}", record.route) },
        kind: SpanKind::Server.into(),
        start_time_unix_nano: record.begun,
        end_time_unix_nano: record.begun.saturating_add(record.moments.ended),
        attributes: attributes(record, method),
        events: events(record),
        status: error(record).map(|_| Status { code: StatusCode::Error.into() }),
        flags: SAMPLED | HAS_IS_REMOTE | is_remote,
    }
}

fn known_method(record: &Record<String>) -> Option<&'static str> {
    METHODS.into_iter().find(|method| *method == record.method)
}

fn attributes(record: &Record<String>, method: Option<&str>) -> Vec<KeyValue> {
    let mut attributes = vec![
        attribute("http.request.method", method.unwrap_or("_OTHER")),
        attribute("url.scheme", if record.https { "https" } else { "http" }),
        attribute("http.response.status_code", u64::from(record.status)),
        attribute(
            "network.protocol.version",
            match record.version {
                Version::Http10 => "1.0",
                Version::Http11 => "1.1",
                Version::Http2 => "2",
                Version::Http3 => "3",
            },
        ),
        attribute("http.response.body.size", record.sent),
    ];
    let mut add =
        |key: &str, value: Option<Value>| attributes.extend(value.map(|value| attribute(key, value)));
    let text = |text: &str| (!text.is_empty()).then(|| Value::from(text));
    add("http.request.method_original", text(if method.is_none() { &record.method } else { "" }));
    add("url.path", text(&record.path));
    let (host, port) = address(&record.host);
    add("server.address", text(host));
    add("server.port", port.map(Value::from));
    add("client.address", text(&record.client));
    add("user_agent.original", text(&record.user_agent));
    add("http.route", text(&record.route));
    add("http.request.body.size", (record.received > 0).then(|| record.received.into()));
    add("error.type", error(record).map(Value::from));
    add("anygate.proxy_queue.duration", record.proxy_queue.map(|nanos| Value::Double(nanos as f64 / 1e9)));
    attributes
}

/// What went wrong on this side, if anything did: the status, or that the response is not whole.
fn error(record: &Record<String>) -> Option<String> {
    match record.status {
        500.. => Some(record.status.to_string()),
        _ if record.outcome == Outcome::BrokenOff => Some("broken_off".to_owned()),
        _ => None,
    }
}

/// Host and port of what a client asked for.
fn address(host: &str) -> (&str, Option<u64>) {
    let (name, port) = match host.rsplit_once(':') {
        // The colons of an IPv6 address are in brackets.
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
        _ => (host, None),
    };
    (name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name), port)
}

fn events(record: &Record<String>) -> Vec<Event> {
    let Moments { queued, taken_up, entered, first_byte, ended: _ } = record.moments;
    let event = |(name, at): (&str, Option<u64>)| {
        Some(Event { time_unix_nano: record.begun.saturating_add(at?), name: name.to_owned() })
    };
    let moments = [
        ("anygate.queue", queued),
        ("anygate.interpreter_lock", taken_up.filter(|_| entered.is_some())),
        ("anygate.application", entered),
        ("anygate.first_byte", first_byte),
    ];
    moments.into_iter().filter_map(event).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record<String> {
        Record { method: "GET".to_owned(), status: 200, trace: 1, span: 2, begun: 1000, ..Record::default() }
    }

    fn value(span: &Span, key: &str) -> Option<Value> {
        span.attributes.iter().find(|one| one.key == key)?.value.as_ref()?.value.clone()
    }

    #[test]
    fn a_span_has_the_name_of_its_route_and_times_of_its_waits() {
        let mut record = record();
        assert_eq!(span(&record).name, "GET");
        assert!(span(&record).events.is_empty() && span(&record).parent_span_id.is_empty());
        record.route = "/users/<id>".to_owned();
        record.parent = 3;
        record.moments =
            Moments { queued: Some(1), taken_up: Some(2), entered: Some(3), first_byte: Some(4), ended: 5 };
        let span = span(&record);
        assert_eq!((span.name.as_str(), span.end_time_unix_nano), ("GET /users/<id>", 1005));
        assert_eq!((span.parent_span_id.as_slice(), span.flags), (&[0, 0, 0, 0, 0, 0, 0, 3][..], 0x301));
        let events: Vec<_> =
            span.events.iter().map(|event| (event.name.as_str(), event.time_unix_nano)).collect();
        assert_eq!(
            events,
            [
                ("anygate.queue", 1001),
                ("anygate.interpreter_lock", 1002),
                ("anygate.application", 1003),
                ("anygate.first_byte", 1004)
            ]
        );
    }

    #[test]
    fn faults_of_this_side_are_errors_and_those_of_clients_are_not() {
        for (status, outcome, error) in [
            (200, Outcome::Whole, None),
            (404, Outcome::Whole, None),
            (200, Outcome::BrokenOff, Some("broken_off")),
            (500, Outcome::BrokenOff, Some("500")),
            (503, Outcome::Whole, Some("503")),
        ] {
            let span = span(&Record { status, outcome, ..record() });
            assert_eq!(value(&span, "error.type"), error.map(Value::from), "{status}");
            assert_eq!(span.status.is_some_and(|status| status.code == 2), error.is_some(), "{status}");
        }
    }

    #[test]
    fn a_method_that_is_not_known_is_no_name() {
        let span = span(&Record { method: "BREW".to_owned(), ..record() });
        assert_eq!(span.name, "HTTP");
        assert_eq!(value(&span, "http.request.method"), Some("_OTHER".into()));
        assert_eq!(value(&span, "http.request.method_original"), Some("BREW".into()));
    }

    #[test]
    fn hosts_are_taken_apart() {
        for (host, name, port) in [
            ("a", "a", None),
            ("a:80", "a", Some(80)),
            ("[::1]", "::1", None),
            ("[::1]:80", "::1", Some(80)),
            ("", "", None),
            ("a:x", "a", None),
        ] {
            assert_eq!(address(host), (name, port), "{host}");
        }
    }
}
