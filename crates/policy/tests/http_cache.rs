//! The cases of the test suite for HTTP caches (cache-tests.fyi) against our cache, with a clock of our own: a client and
//! an application stand around it as the suite's do. What the suite requires, and what it calls optimal, holds, but for
//! the cases that are listed here with their reasons. Its questions, which have no right result, are only asked.
//!
//! `tests/corpus/http-cache/tests.json` has the suite's cases for shared caches as they are in its repository.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a case that cannot be read fails its test"
)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anygate_config::site::{CachePath, CachePlan};
use anygate_policy::cache::{Begin, Cache, Epochs, Lookup, Memory, Recorder, Stored};
use anygate_proto::head::{RequestHead, ResponseHead};
use serde_json::Value;

const COOKIE: &str = "a response that sets a cookie is for one client";
const PARTS: &str = "requests for parts go to the application, and parts are not stored";
const LANGUAGE: &str = "values of Accept-Language are compared as they are";
const DATE: &str = "a date is written as RFC 9110 says, or is none";
const GUESS: &str =
    "no lifetime is guessed: a response says for how long it may be kept, or the site does for its path";
/// What the suite asks for and we do not do.
const DIFFERENT: &[(&str, &str)] = &[
    ("freshness-expires-ansi-c", "its weekday is not that of its date"),
    ("freshness-expires-wrong-case-weekday", DATE),
    ("freshness-expires-wrong-case-month", DATE),
    ("freshness-expires-wrong-case-tz", DATE),
    ("heuristic-200-cached", GUESS),
    ("heuristic-203-cached", GUESS),
    ("heuristic-204-cached", GUESS),
    ("heuristic-404-cached", GUESS),
    ("heuristic-405-cached", GUESS),
    ("heuristic-410-cached", GUESS),
    ("heuristic-414-cached", GUESS),
    ("heuristic-501-cached", GUESS),
    ("heuristic-599-cached", GUESS),
    ("method-POST", "responses to POST are not stored"),
    ("vary-normalise-lang-order", LANGUAGE),
    ("vary-normalise-lang-case", LANGUAGE),
    ("vary-normalise-lang-select", LANGUAGE),
    (
        "conditional-lm-fresh-no-lm",
        "without Last-Modified the Date counts (RFC 9111 section 4.3.2), which is later",
    ),
    ("headers-store-Content-Length", "its length is not that of its body, so half of it may be missing"),
    ("headers-store-Set-Cookie", COOKIE),
    ("other-set-cookie", COOKIE),
    ("partial-store-partial-reuse-partial", PARTS),
    ("partial-store-complete-reuse-partial", PARTS),
    ("partial-store-complete-reuse-partial-no-last", PARTS),
    ("partial-store-complete-reuse-partial-suffix", PARTS),
    ("partial-store-partial-reuse-partial-byterange", PARTS),
    ("partial-store-partial-reuse-partial-absent", PARTS),
    ("partial-store-partial-reuse-partial-suffix", PARTS),
    ("partial-store-partial-complete", PARTS),
    ("partial-use-headers", PARTS),
    ("partial-use-stored-headers", PARTS),
];

const CASES: &str = include_str!("corpus/http-cache/tests.json");
const UUID: &str = "5f0d5f3e-5c0f-4c5e-8f0d-5f3e5c0f4c5e";

type Fields = Vec<(String, String)>;

/// A whole response, as a client sees it.
#[derive(Debug)]
struct SentResponse {
    status: u16,
    fields: Fields,
    body: String,
}

impl SentResponse {
    fn field(&self, name: &str) -> Option<String> {
        let values: Vec<_> = self
            .fields
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    fn new(head: &ResponseHead, body: &[u8]) -> SentResponse {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        SentResponse {
            status: head.status(),
            fields: head.fields().map(|(name, value)| (text(name), text(value))).collect(),
            body: text(body),
        }
    }
}

/// What the application saw.
struct Seen {
    number: usize,
    method: String,
    fields: BTreeMap<String, String>,
    told: Fields,
}

struct World<'a> {
    cache: Arc<Cache>,
    now: SystemTime,
    requests: &'a [Value],
    seen: Vec<Seen>,
}

fn pairs(request: &Value, name: &str) -> Vec<(String, Value, bool)> {
    let list = request.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    list.iter()
        .map(|item| {
            (item[0].as_str().unwrap().to_owned(), item[1].clone(), item.get(2) != Some(&Value::Bool(false)))
        })
        .collect()
}

fn milliseconds(now: SystemTime) -> u128 {
    now.duration_since(UNIX_EPOCH).unwrap().as_millis()
}

/// A value as the suite's server and client make it: dates are seconds from now, locations are below the URI.
fn value(name: &str, value: &Value, request: &Value, now: SystemTime, url: &str) -> String {
    let name = name.to_lowercase();
    let is_date = ["date", "expires", "last-modified", "if-modified-since", "if-unmodified-since"]
        .contains(&name.as_str());
    if let (true, Some(delta)) = (is_date, value.as_i64()) {
        let whole = UNIX_EPOCH + Duration::from_secs(now.duration_since(UNIX_EPOCH).unwrap().as_secs());
        let moved = Duration::from_secs(delta.unsigned_abs());
        let date = if delta < 0 { whole - moved } else { whole + moved };
        let text = httpdate::fmt_http_date(date);
        let old = request.get("rfc850date").and_then(Value::as_array);
        if old.is_some_and(|names| names.iter().any(|other| other == name.as_str())) {
            return rfc850(&text);
        }
        return text;
    }
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if request.get("magic_locations").is_some() && ["location", "content-location"].contains(&name.as_str()) {
        return if text.is_empty() { url.to_owned() } else { format!("{url}/{text}") };
    }
    text
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as `Sunday, 06-Nov-94 08:49:37 GMT`.
fn rfc850(date: &str) -> String {
    let words: Vec<_> = date.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    let day = days.iter().find(|day| day.starts_with(words[0])).unwrap();
    format!("{day}, {}-{}-{} {} GMT", words[1], words[2], &words[3][2..], words[4])
}

impl World<'_> {
    fn url(&self, number: usize) -> String {
        let request = &self.requests[number];
        let mut url = format!("/test/{UUID}");
        if let Some(name) = request.get("filename") {
            write!(url, "/{}", name.as_str().unwrap()).unwrap();
        }
        if let Some(query) = request.get("query_arg") {
            write!(url, "?{}", query.as_str().unwrap()).unwrap();
        }
        url
    }

    fn head(&self, number: usize, before: Option<&SentResponse>) -> RequestHead {
        let request = &self.requests[number];
        let mut head = RequestHead::default();
        let url = self.url(number);
        let method = head.push_text(method(request).as_bytes()).unwrap();
        head.set_method(method);
        let target = head.push_text(url.as_bytes()).unwrap();
        head.set_target(target);
        let path = head.push_text(url.split('?').next().unwrap().as_bytes()).unwrap();
        head.set_path(path);
        let authority = head.push_text(b"example.org").unwrap();
        head.set_authority(authority);
        for (name, given, _) in pairs(request, "request_headers") {
            let told = before.and_then(|response| response.field("server-now"));
            let now = told.map_or(self.now, |text| UNIX_EPOCH + Duration::from_millis(text.parse().unwrap()));
            let text = value(&name, &given, request, now, &url);
            let name = head.push_text(name.as_bytes()).unwrap();
            let text = head.push_text(text.as_bytes()).unwrap();
            head.push_field(name, text);
        }
        head
    }

    /// The application. `None`: it fails.
    fn ask(&mut self, number: usize, head: &RequestHead) -> Option<(ResponseHead, String)> {
        let request = &self.requests[number];
        if let Some(pause) = request.get("response_pause") {
            self.now += Duration::from_secs(pause.as_u64().unwrap());
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut fields: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in head.fields() {
            let name = text(name).to_lowercase();
            fields
                .entry(name)
                .and_modify(|known| *known += &format!(", {}", text(value)))
                .or_insert(text(value));
        }
        let mut status = (200, "OK".to_owned());
        if let Some(given) = request.get("response_status") {
            status = (given[0].as_u64().unwrap(), given[1].as_str().unwrap_or_default().to_owned());
        }
        let kind = request.get("expected_type").and_then(Value::as_str).unwrap_or_default();
        if kind.ends_with("validated") {
            let told = &self.seen.last().unwrap().told;
            let known = |name: &str| {
                told.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
            };
            let is_same = |condition: &str, name: &str| {
                known(name).is_some_and(|value| fields.get(condition) == Some(value))
            };
            status = if is_same("if-modified-since", "last-modified") || is_same("if-none-match", "etag") {
                (304, "Not Modified".to_owned())
            } else {
                (999, "304 Not Generated".to_owned())
            };
        }
        let mut response = ResponseHead::default();
        response.set_status_line(format!("{} {}", status.0, status.1).as_bytes()).unwrap();
        let url = self.url(number);
        let count = self.seen.len() + 1;
        let mut push =
            |name: &str, value: &str| response.push_field(name.as_bytes(), value.as_bytes()).unwrap();
        push("Server-Base-Url", &url);
        push("Server-Request-Count", &count.to_string());
        push("Client-Request-Count", &(number + 1).to_string());
        push("Server-Now", &milliseconds(self.now).to_string());
        let mut told: Fields = Vec::new();
        let (mut has_type, mut has_date) = (false, false);
        for (name, given, is_checked) in pairs(request, "response_headers") {
            let value = value(&name, &given, request, self.now, &url);
            // The server's language sends a list for several lines.
            push(&name, &value);
            has_type |= name.eq_ignore_ascii_case("content-type");
            has_date |= name.eq_ignore_ascii_case("date");
            if is_checked {
                match told.iter_mut().find(|(other, _)| other.eq_ignore_ascii_case(&name)) {
                    Some((_, known)) => *known += &format!(", {value}"),
                    None => told.push((name, value)),
                }
            }
        }
        if !has_type {
            push("Content-Type", "text/plain");
        }
        if !has_date {
            push("Date", &httpdate::fmt_http_date(self.now));
        }
        self.seen.push(Seen { number: number + 1, method: text(head.method()), fields, told });
        if request.get("disconnect").is_some() {
            return None;
        }
        let body = match status.0 {
            204 | 304 => String::new(),
            _ => request.get("response_body").and_then(Value::as_str).unwrap_or(UUID).to_owned(),
        };
        Some((response, body))
    }

    fn forward(&mut self, number: usize, mut head: RequestHead, mut recorder: Recorder) -> SentResponse {
        recorder.prepare(&mut head).unwrap();
        let is_head = head.method() == b"HEAD";
        let Some((response, body)) = self.ask(number, &head) else {
            return match recorder.failed(self.now) {
                Some(stored) => SentResponse::new(stored.head(), stored.body()),
                None => SentResponse { status: 502, fields: Vec::new(), body: String::new() },
            };
        };
        let response = match recorder.start(&response, self.now) {
            Begin::Pass(head) => SentResponse::new(&head, if is_head { b"" } else { body.as_bytes() }),
            Begin::NotModified(head) => SentResponse::new(&head, b""),
            Begin::Instead(stored) => return SentResponse::new(stored.head(), stored.body()),
        };
        recorder.write(body.as_bytes());
        recorder.finish(self.now);
        response
    }

    fn send(&mut self, number: usize, before: Option<&SentResponse>) -> SentResponse {
        let head = self.head(number, before);
        match self.cache.lookup(&head, false, self.now) {
            Lookup::Hit(mut stored) => {
                let response = SentResponse::new(stored.head(), stored.body());
                if let Some(recorder) = Stored::take_refresh(&mut stored) {
                    self.forward(number, head, *recorder);
                }
                response
            }
            Lookup::Miss(recorder) => self.forward(number, head, *recorder),
            Lookup::Wait(_) => panic!("there is no other request"),
            Lookup::Refuse(refusal) => SentResponse::new(refusal.head(), refusal.body()),
            Lookup::Bypass => match self.ask(number, &head) {
                Some((response, body)) => SentResponse::new(&response, body.as_bytes()),
                None => SentResponse { status: 502, fields: Vec::new(), body: String::new() },
            },
        }
    }

    fn check_response(&self, number: usize, response: &SentResponse) -> Result<(), String> {
        let request = &self.requests[number];
        let count = response.field("server-request-count").and_then(|text| text.parse::<usize>().ok());
        let kind = request.get("expected_type").and_then(Value::as_str).unwrap_or_default();
        let place = number + 1;
        match kind {
            "cached" if response.status == 304 && count.is_none() => {}
            "cached" => {
                want(count.is_some_and(|count| count < place), format!("{place}: not from the cache"))?
            }
            "not_cached" => want(count == Some(place), format!("{place}: from the cache"))?,
            _ => {}
        }
        let status = match (request.get("expected_status"), request.get("response_status")) {
            (Some(Value::Null), _) => None,
            (Some(status), _) => status.as_u64(),
            (None, Some(status)) => status[0].as_u64(),
            (None, None) => Some(200),
        };
        if let Some(status) = status {
            want(
                u64::from(response.status) == status,
                format!("{place}: {} is not {status}", response.status),
            )?;
        }
        for expected in
            request.get("expected_response_headers").and_then(Value::as_array).into_iter().flatten()
        {
            if let Some(name) = expected.as_str() {
                want(response.field(name).is_some(), format!("{place}: no {name}"))?;
                continue;
            }
            let name = expected[0].as_str().unwrap();
            let found = response.field(name).ok_or(format!("{place}: no {name}"))?;
            match (expected.get(2), expected[1].as_str()) {
                (Some(other), Some("=")) => {
                    want(
                        Some(&found) == response.field(other.as_str().unwrap()).as_ref(),
                        format!("{place}: {name}"),
                    )?;
                }
                (Some(other), Some(">")) => {
                    let number: i64 = found.parse().map_err(|_| format!("{place}: {name}: {found}"))?;
                    want(number > other.as_i64().unwrap(), format!("{place}: {name}: {found}"))?;
                }
                _ => {
                    let told =
                        response.field("server-now").and_then(|text| text.parse().ok()).unwrap_or_default();
                    let now = UNIX_EPOCH + Duration::from_millis(told);
                    let base = response.field("server-base-url").unwrap_or_default();
                    let text = value(name, &expected[1], request, now, &base);
                    want(found == text, format!("{place}: {name}: {found:?} is not {text:?}"))?;
                }
            }
        }
        for missing in
            request.get("expected_response_headers_missing").and_then(Value::as_array).into_iter().flatten()
        {
            if let Some(name) = missing.as_str() {
                want(response.field(name).is_none(), format!("{place}: {name} is there"))?;
            } else {
                let found = response.field(missing[0].as_str().unwrap()).unwrap_or_default();
                want(!found.contains(missing[1].as_str().unwrap()), format!("{place}: {missing}"))?;
            }
        }
        let no_body = matches!(response.status, 204 | 304) || method(request) == "HEAD";
        if request.get("check_body") == Some(&Value::Bool(false)) {
            return Ok(());
        }
        let body = match (request.get("expected_response_text"), request.get("response_body")) {
            (Some(text), _) => text.as_str(),
            (None, Some(Value::String(text))) => Some(text.as_str()),
            _ if no_body => None,
            _ => Some(UUID),
        };
        match body {
            Some(body) => want(response.body == body, format!("{place}: the body is {:?}", response.body)),
            None => Ok(()),
        }
    }

    fn check_seen(&self, responses: &[SentResponse]) -> Result<(), String> {
        let mut seen = self.seen.iter();
        for (number, (request, response)) in self.requests.iter().zip(responses).enumerate() {
            let place = number + 1;
            let kind = request.get("expected_type").and_then(Value::as_str).unwrap_or_default();
            if kind == "cached" {
                continue;
            }
            let Some(seen) = seen.next() else {
                let asks = kind.ends_with("validated") || request.get("expected_request_headers").is_some();
                want(!asks && kind != "not_cached", format!("{place}: the application did not see it"))?;
                continue;
            };
            let condition = match kind {
                "not_cached" => {
                    want(seen.number == place, format!("{place}: the application saw {}", seen.number))?;
                    None
                }
                "etag_validated" => Some("if-none-match"),
                "lm_validated" => Some("if-modified-since"),
                _ => None,
            };
            if let Some(condition) = condition {
                want(seen.fields.contains_key(condition), format!("{place}: no {condition}"))?;
            }
            for (list, present) in
                [("expected_request_headers", true), ("expected_request_headers_missing", false)]
            {
                for expected in request.get(list).and_then(Value::as_array).into_iter().flatten() {
                    let found = match expected.as_str() {
                        Some(name) => seen.fields.contains_key(&name.to_lowercase()),
                        None => {
                            let name = expected[0].as_str().unwrap().to_lowercase();
                            seen.fields.get(&name).map(String::as_str) == expected[1].as_str()
                        }
                    };
                    want(found == present, format!("{place}: {list} {expected}"))?;
                }
            }
            for (name, value) in seen.told.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("date")) {
                let found = response.field(name);
                want(found.as_ref() == Some(value), format!("{place}: {name} is {found:?}, not {value:?}"))?;
            }
            if let Some(method) = request.get("expected_method").and_then(Value::as_str) {
                want(seen.method == method, format!("{place}: {} is not {method}", seen.method))?;
            }
        }
        Ok(())
    }
}

fn method(request: &Value) -> &str {
    request.get("request_method").and_then(Value::as_str).unwrap_or("GET")
}

fn want(holds: bool, otherwise: String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise) }
}

fn run(requests: &[Value]) -> Result<(), String> {
    let plan = CachePlan {
        paths: vec![CachePath::read("/").unwrap()],
        max_bytes: 1 << 20,
        entry_max_bytes: 1 << 20,
        obey_clients: true,
    };
    let cache = Cache::new(&plan, 1, Arc::new(Memory::new(plan.max_bytes)), Epochs::local());
    let now = UNIX_EPOCH + Duration::from_millis(1_800_000_000_200);
    let mut world = World { cache, now, requests, seen: Vec::new() };
    let mut responses: Vec<SentResponse> = Vec::new();
    for (number, request) in requests.iter().enumerate() {
        let response = world.send(number, responses.last());
        world.check_response(number, &response)?;
        responses.push(response);
        world.now += Duration::from_millis(10);
        if request.get("pause_after").is_some() {
            world.now += Duration::from_secs(3);
        }
    }
    world.check_seen(&responses)
}

#[test]
fn the_cache_does_what_the_suite_requires() {
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    let (mut wrong, mut questions) = (Vec::new(), String::new());
    let mut listed = 0;
    for case in &cases {
        let (suite, id) = (case["suite"].as_str().unwrap(), case["id"].as_str().unwrap());
        let kind = case["kind"].as_str().unwrap();
        let result = run(case["requests"].as_array().unwrap());
        if kind == "check" {
            let verdict = if result.is_ok() { "yes" } else { "no" };
            writeln!(questions, "{suite} {id}: {verdict}").unwrap();
            continue;
        }
        match (result, DIFFERENT.iter().any(|(known, _)| *known == id)) {
            (Ok(()), false) => {}
            (Ok(()), true) => wrong.push(format!("{suite} {id}: is listed as different, but holds")),
            (Err(_), true) => listed += 1,
            (Err(reason), false) => wrong.push(format!("{suite} {id} ({kind}): {reason}")),
        }
    }
    println!("{questions}");
    assert_eq!(listed, DIFFERENT.len(), "a case that is listed is not in the suite");
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
