//! Requests on the admin address, and their responses.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::SystemTime;

use anygate_config::{LogLevel, Order};
use anygate_policy::cache::Cache;
use anygate_proto::application::{Application, Failed, LongCall, Request, Response};
use anygate_proto::head::{RequestHead, ResponseHead};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::about::About;
use crate::guard::{Guard, OWN_FIELD, Refused};
use crate::history::History;
use crate::processes::{Processes, prometheus};
use crate::{apps, status, uwsgi};

/// Placeholder for the nonce in the page.
const NONCE: &str = "NONCE";
const PAGE: &str = include_str!("page.html");
const JSON: &str = "application/json";
/// Maximum of the option `workers`.
const WORKERS_MAX: usize = 1024;

/// The application behind the admin address.
pub struct Admin {
    about: About,
    guard: Guard,
    processes: Arc<dyn Processes>,
    /// Shares with the workers what is out of date.
    cache: Option<Arc<Cache>>,
    history: Arc<History>,
}

/// One response.
struct AdminResponse {
    status: &'static str,
    kind: &'static str,
    body: String,
    fields: Vec<(&'static str, String)>,
}

impl AdminResponse {
    fn json(body: &Value) -> AdminResponse {
        AdminResponse { status: "200 OK", kind: JSON, body: format!("{body}\n"), fields: Vec::new() }
    }

    fn accepted(what: &str) -> AdminResponse {
        AdminResponse { status: "202 Accepted", ..AdminResponse::json(&json!({ "accepted": what })) }
    }

    fn error(status: &'static str, message: &str) -> AdminResponse {
        AdminResponse { status, ..AdminResponse::json(&json!({ "error": message })) }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> AdminResponse {
        self.fields.push((name, value.into()));
        self
    }
}

impl Admin {
    /// Shows `processes` to clients that `guard` admits, and purges their `cache`.
    pub fn new(
        about: About,
        guard: Guard,
        processes: Arc<dyn Processes>,
        cache: Option<Arc<Cache>>,
        history: Arc<History>,
    ) -> Admin {
        Admin { about, guard, processes, cache, history }
    }

    fn response_to(&self, request: &Request<'_>) -> AdminResponse {
        let head = request.head;
        let reads = matches!(head.method(), b"GET" | b"HEAD");
        if let Err(refused) = self.guard.check(head, request.endpoints, !reads) {
            return refuse(refused);
        }
        let processes = self.processes.as_ref();
        let Ok(path) = std::str::from_utf8(head.path()) else { return nowhere() };
        match path {
            "/" | "/metrics" | "/stats" | "/health" | "/api/status" | "/api/history" if !reads => {
                not_allowed("GET, HEAD")
            }
            "/" => page(),
            "/health" => AdminResponse::json(&json!({ "status": "ok" })),
            "/metrics" => AdminResponse {
                status: "200 OK",
                kind: "text/plain; version=0.0.4; charset=utf-8",
                body: prometheus(processes),
                fields: Vec::new(),
            },
            "/stats" => AdminResponse::json(&uwsgi::stats(&self.about, processes)),
            "/api/status" => {
                let mut status = status::status(&self.about, processes, SystemTime::now());
                apps::add_to(&mut status, &processes.ask_apps("GET", "/api/status"));
                AdminResponse::json(&status)
            }
            "/api/history" => AdminResponse::json(&self.history.show(processes, SystemTime::now())),
            "/api/reload" | "/api/scale" | "/api/end" | "/api/log-level" | "/api/recycle" | "/api/stacks"
            | "/api/purge"
                if head.method() != b"POST" =>
            {
                not_allowed("POST")
            }
            "/api/reload" => self.order(Order::Reload, "reload"),
            "/api/end" => self.order(Order::End, "end"),
            "/api/scale" => match argument(head, "workers").and_then(|text| text.parse().ok()) {
                Some(count @ 1..=WORKERS_MAX) => self.order(Order::Scale(count), "scale"),
                _ => AdminResponse::error(
                    "400 Bad Request",
                    "workers must be a number from 1 to 1024: /api/scale?workers=4",
                ),
            },
            "/api/log-level" => match argument(head, "level").and_then(LogLevel::of_word) {
                Some(level) => {
                    let [supervisor, _] = processes.others();
                    supervisor.want_log_level(level);
                    self.order(Order::Look, "log-level")
                }
                None => {
                    let message = format!("level must be one of {}", LogLevel::WORDS.join(", "));
                    AdminResponse::error("400 Bad Request", &message)
                }
            },
            "/api/recycle" => self.recycle(argument(head, "pid")),
            "/api/stacks" => self.stacks(argument(head, "pid")),
            "/api/purge" => self.purge(head),
            _ => nowhere(),
        }
    }

    fn order(&self, order: Order, what: &str) -> AdminResponse {
        match self.processes.order(order) {
            Ok(()) => AdminResponse::accepted(what),
            Err(error) => gone(&error),
        }
    }

    fn recycle(&self, pid: Option<&str>) -> AdminResponse {
        let is_worker =
            |pid: i32| self.processes.workers().iter().any(|one| u64::try_from(pid) == Ok(one.pid));
        match pid.and_then(|pid| pid.parse().ok()) {
            Some(pid) if is_worker(pid) => self.order(Order::Recycle(pid), "recycle"),
            Some(pid) if self.app_has_accepted(&format!("/api/recycle?pid={pid}")) => {
                AdminResponse::accepted("recycle")
            }
            Some(pid) => {
                let reason = format!("no worker has the process ID {pid}: /api/status lists them");
                AdminResponse::error("404 Not Found", &reason)
            }
            None => {
                AdminResponse::error("404 Not Found", "pid must be that of a worker: /api/recycle?pid=4711")
            }
        }
    }

    /// Whether one of the applications has done what is ordered.
    fn app_has_accepted(&self, order: &str) -> bool {
        self.processes.ask_apps("POST", order).iter().any(|told| told.body.is_some())
    }

    fn purge(&self, head: &RequestHead) -> AdminResponse {
        let Some(cache) = &self.cache else {
            return AdminResponse::error("409 Conflict", "nothing is cached: the option cache is not set");
        };
        let given = |name| argument(head, name).map(|value| percent_decode_str(value).collect::<Vec<u8>>());
        match (&given("url"), &given("prefix"), head.query()) {
            (Some(url), None, _) if let Some((https, authority, target)) = parts(url) => {
                cache.purge(https, authority, target);
            }
            (None, Some(prefix), _) if let Some((https, authority, target)) = parts(prefix) => {
                cache.purge_prefix(https, authority, target);
            }
            (None, None, b"all") => cache.purge_all(),
            _ => {
                return AdminResponse::error(
                    "400 Bad Request",
                    "name what to purge: /api/purge?url=http://example.org/page, ?prefix=http://example.org/news/ or ?all",
                );
            }
        }
        AdminResponse::accepted("purge")
    }

    fn stacks(&self, only: Option<&str>) -> AdminResponse {
        let mut stacks = Vec::new();
        for worker in self.processes.workers() {
            if only.is_some_and(|only| only != worker.pid.to_string()) {
                continue;
            }
            match self.processes.stacks(worker.pid) {
                Ok(text) => stacks.push(json!({ "pid": worker.pid, "stacks": without_idle(&text) })),
                Err(error) => return gone(&error),
            }
        }
        // Whose worker it is only the applications know.
        let target = match only.map(str::parse::<u32>) {
            None => Some("/api/stacks".to_owned()),
            Some(Ok(pid)) if stacks.is_empty() => Some(format!("/api/stacks?pid={pid}")),
            Some(_) => None,
        };
        if let Some(target) = target {
            stacks.extend(apps::stacks(&self.processes.ask_apps("POST", &target)));
        }
        AdminResponse::json(&json!({ "workers": stacks }))
    }
}

impl Application for Admin {
    fn start_thread(&self, name: &str, work: Box<dyn FnMut() + Send>) -> io::Result<()> {
        thread::Builder::new().name(name.to_owned()).spawn(work).map(|_| ())
    }

    /// There are none.
    fn run_signal_handlers(&self) {}

    /// Nothing here takes long.
    fn attend_to(&self, _call: &LongCall) {}

    fn call(&self, request: Request<'_>, response: &mut (dyn Response + Send)) -> Result<(), Failed> {
        response.entered();
        let AdminResponse { status, kind, fields, body } = self.response_to(&request);
        let mut head = ResponseHead::new();
        let always = [
            ("Content-Type", kind),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ];
        let fields = fields.iter().map(|(name, value)| (*name, value.as_str()));
        let named = head.set_status_line(status.as_bytes()).and_then(|()| {
            always
                .into_iter()
                .chain(fields)
                .try_for_each(|(name, value)| head.push_field(name.as_bytes(), value.as_bytes()))
        });
        debug_assert!(named.is_ok(), "all of it is written here");
        let body = body.as_bytes();
        // A client that is gone needs no response.
        let _ = response.start(&head, Some(body.len() as u64)).and_then(|()| response.write(body));
        Ok(())
    }
}

fn page() -> AdminResponse {
    let nonce = match nonce() {
        Ok(nonce) => nonce,
        Err(error) => {
            return AdminResponse::error(
                "500 Internal Server Error",
                &format!("cannot generate random numbers: {error}"),
            );
        }
    };
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let body = PAGE.replace(NONCE, &nonce);
    AdminResponse { status: "200 OK", kind: "text/html; charset=utf-8", body, fields: Vec::new() }
        .with("Content-Security-Policy", policy)
        .with("X-Frame-Options", "DENY")
}

fn nonce() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn refuse(refused: Refused) -> AdminResponse {
    match refused {
        Refused::Token => AdminResponse::error(
            "401 Unauthorized",
            "the token is missing or wrong: Authorization: Bearer TOKEN",
        )
        .with("WWW-Authenticate", "Bearer realm=\"anygate\"")
        .with("WWW-Authenticate", "Basic realm=\"anygate\", charset=\"UTF-8\""),
        Refused::Host => AdminResponse::error(
            "421 Misdirected Request",
            "the request is for another host: use the loopback address that is bound",
        ),
        Refused::Origin => {
            AdminResponse::error("403 Forbidden", "the request comes from a page of another site")
        }
        Refused::Form => AdminResponse::error(
            "403 Forbidden",
            &format!(
                "send {OWN_FIELD}: 1, or Content-Type: {JSON}, so that no form of another site can do this"
            ),
        ),
    }
}

fn not_allowed(methods: &'static str) -> AdminResponse {
    AdminResponse::error("405 Method Not Allowed", &format!("use {methods}")).with("Allow", methods)
}

fn nowhere() -> AdminResponse {
    AdminResponse::error(
        "404 Not Found",
        "there are /, /metrics, /health, /stats, /api/status, /api/history, /api/reload, /api/scale, /api/recycle, \
         /api/end, /api/log-level, /api/stacks and /api/purge",
    )
}

fn gone(error: &io::Error) -> AdminResponse {
    AdminResponse::error("503 Service Unavailable", &format!("the supervisor does not respond: {error}"))
}

/// Whether a thread runs no Python, but perhaps the functions that started it.
fn is_idle(thread: &str) -> bool {
    let last = thread.lines().nth(1).unwrap_or_default();
    last.contains("<no Python frame>")
        || (last.contains("threading.py\"") && last.ends_with(" in run"))
        || last.contains("anygate/app_threads.py\"")
}

/// Returns the stacks without threads that run no Python: they wait for requests.
fn without_idle(stacks: &str) -> String {
    let (idle, mut busy): (Vec<&str>, Vec<&str>) =
        stacks.trim().split("\n\n").partition(|thread| is_idle(thread));
    let count = match idle.len() {
        0 => return stacks.to_owned(),
        1 => "1 thread runs no Python.".to_owned(),
        count => format!("{count} threads run no Python."),
    };
    busy.push(&count);
    format!("{}\n", busy.join("\n\n"))
}

/// Whether a URL is of https, its authority and its target.
fn parts(url: &[u8]) -> Option<(bool, &[u8], &[u8])> {
    let (https, rest) = match url.strip_prefix(b"https://") {
        Some(rest) => (true, rest),
        None => (false, url.strip_prefix(b"http://")?),
    };
    let end = rest.iter().position(|&byte| byte == b'/')?;
    rest.split_at_checked(end).map(|(authority, target)| (https, authority, target))
}

/// A value of the query.
fn argument<'r>(head: &'r RequestHead, name: &str) -> Option<&'r str> {
    let query = std::str::from_utf8(head.query()).ok()?;
    query
        .split('&')
        .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
        .map(|(_, value)| value)
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::testing::{Fake, Taken, ask, head};

    use anygate_config::site::{CachePath, CachePlan};
    use anygate_policy::cache::{Epochs, Lookup, Memory};

    use super::*;

    #[test]
    fn every_path_responds_with_its_kind() {
        let fake = Fake::serving();
        for (path, kind) in [
            ("/", "text/html; charset=utf-8"),
            ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
            ("/health", JSON),
            ("/stats", JSON),
            ("/api/status", JSON),
            ("/api/history", JSON),
        ] {
            let taken = ask(&fake, &head("GET", path, "localhost", &[]));
            assert_eq!((taken.status, taken.field("Content-Type")), (200, kind), "{path}");
            assert_eq!(taken.field("Cache-Control"), "no-store");
            let refused = ask(&fake, &head("POST", path, "localhost", &[("X-Anygate", "1")]));
            assert_eq!((refused.status, refused.field("Allow")), (405, "GET, HEAD"), "{path}");
        }
        assert_eq!(ask(&fake, &head("GET", "/nowhere", "localhost", &[])).status, 404);
        assert_eq!(ask(&fake, &head("GET", "/", "evil.example", &[])).status, 421);
    }

    #[test]
    fn the_page_runs_only_what_stands_in_it() {
        let fake = Fake::serving();
        let first = ask(&fake, &head("GET", "/", "localhost", &[]));
        let second = ask(&fake, &head("GET", "/", "localhost", &[]));
        let policy = first.field("Content-Security-Policy");
        let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
        assert_eq!(first.body.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
        assert_ne!(policy, second.field("Content-Security-Policy"));
        assert!(
            !policy.contains("inline") && !first.body.contains("http:") && !first.body.contains("https:")
        );
        assert!(!first.body.contains("innerHTML") && !first.body.contains("insertAdjacentHTML"));
    }

    #[test]
    fn orders_reach_the_supervisor() {
        let fake = Fake::serving();
        let post = |target: &str| ask(&fake, &head("POST", target, "localhost", &[("X-Anygate", "1")]));
        let (reload, scale, end) = (post("/api/reload"), post("/api/scale?workers=7"), post("/api/end"));
        assert_eq!([reload.status, scale.status, end.status], [202; 3]);
        assert_eq!(post("/api/log-level?level=debug").status, 202);
        assert_eq!(fake.orders(), [Order::Reload, Order::Scale(7), Order::End, Order::Look]);
        assert_eq!(fake.others()[0].log_level(), Some(LogLevel::Debug));
        for wrong in [
            "/api/scale",
            "/api/scale?workers=0",
            "/api/scale?workers=-1",
            "/api/scale?workers=9999",
            "/api/log-level",
            "/api/log-level?level=loud",
        ] {
            assert_eq!(post(wrong).status, 400, "{wrong}");
        }
        assert_eq!(post("/api/recycle?pid=42").status, 202);
        assert_eq!(fake.orders().last(), Some(&Order::Recycle(42)));
        for wrong in ["/api/recycle", "/api/recycle?pid=40", "/api/recycle?pid=x"] {
            assert_eq!(post(wrong).status, 404, "{wrong}");
        }
        let taken: Taken = post("/api/stacks");
        assert!(taken.body.contains("\"pid\":41") && taken.body.contains("Thread of 41"));
        assert!(!post("/api/stacks?pid=42").body.contains("Thread of 41"));
        assert_eq!(ask(&fake, &head("GET", "/api/reload", "localhost", &[])).field("Allow"), "POST");
        assert_eq!(ask(&fake, &head("POST", "/api/reload", "localhost", &[])).status, 403);
        assert_eq!(fake.orders().len(), 5);
        fake.lose_the_supervisor();
        assert_eq!(post("/api/reload").status, 503);
    }

    #[test]
    fn what_is_cached_is_forgotten_on_demand() {
        let mut fake = Fake::serving();
        let post = |fake: &Fake, query: &str| {
            let target = format!("/api/purge?{query}");
            ask(fake, &head("POST", &target, "localhost", &[("X-Anygate", "1")])).status
        };
        assert_eq!(post(&fake, "all"), 409);
        let plan = CachePlan {
            paths: vec![CachePath::read("/ 1m").unwrap()],
            max_bytes: 1 << 20,
            entry_max_bytes: 1 << 20,
            obey_clients: true,
        };
        // Another process with the same epochs.
        let epochs = Epochs::local();
        fake.cache = Some(Cache::new(&plan, 1, Arc::new(Memory::new(1000)), epochs.clone()));
        let worker = Cache::new(&plan, 1, Arc::new(Memory::new(100_000)), epochs);
        let request = head("GET", "/a?b=c", "example.org", &[]);
        let is_kept = || matches!(worker.lookup(&request, false, SystemTime::now()), Lookup::Hit(_));
        for (query, is_gone) in [
            ("url=http://example.org/a", false),
            ("url=https://example.org/a%3Fb=c", false),
            ("url=http://example.org/a%3Fb=c", true),
            ("prefix=http%3A%2F%2Fexample.org/", true),
            ("all", true),
        ] {
            let Lookup::Miss(mut recorder) = worker.lookup(&request, false, SystemTime::now()) else {
                panic!("{query}")
            };
            let mut head = ResponseHead::new();
            head.set_status_line(b"200 OK").unwrap();
            recorder.start(&head, SystemTime::now());
            recorder.write(b"body");
            recorder.finish(SystemTime::now());
            assert!(is_kept(), "{query}");
            assert_eq!(post(&fake, query), 202, "{query}");
            assert_eq!(is_kept(), !is_gone, "{query}");
            worker.purge_all();
        }
        for wrong in ["", "url=example.org/a", "url=http://example.org", "url=http://a/&prefix=http://a/"] {
            assert_eq!(post(&fake, wrong), 400, "{wrong}");
        }
    }

    #[test]
    fn threads_that_wait_are_only_counted() {
        let (idle, busy) =
            ("Thread 1 (most recent call first):\n  <no Python frame>", "Thread 2:\n  File \"a.py\"");
        assert_eq!(
            without_idle(&format!("{idle}\n\n{busy}\n")),
            format!("{busy}\n\n1 thread runs no Python.\n")
        );
        assert_eq!(without_idle(&format!("{idle}\n\n{idle}\n")), "2 threads run no Python.\n");
        assert_eq!(without_idle(busy), busy);
        assert_eq!(without_idle(""), "");
    }

    #[test]
    fn who_does_not_know_the_token_is_told_how_to_send_it() {
        let mut fake = Fake::serving();
        fake.token = Some("sesame".to_owned());
        let taken = ask(&fake, &head("GET", "/health", "localhost", &[]));
        assert_eq!((taken.status, taken.field("WWW-Authenticate")), (401, "Bearer realm=\"anygate\""));
        let taken = ask(&fake, &head("GET", "/health", "localhost", &[("Authorization", "Bearer sesame")]));
        assert_eq!(taken.status, 200);
    }
}
