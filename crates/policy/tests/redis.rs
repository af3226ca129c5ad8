//! What nodes share, with a real Redis. These need one, so they are run by name:
//!
//! `ANYGATE_REDIS_SERVER=redis-server cargo test -p anygate-policy --test redis -- --ignored`

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anygate_config::site::{CachePath, CachePlan, Rate, RatePlan, SharedPlan};
use anygate_policy::cache::{Cache, Epochs, Lookup, Recorder};
use anygate_policy::network::Client;
use anygate_policy::rate_limit::{Ask, Decision, RateLimiter, Shared};
use anygate_policy::rate_table::RateTable;
use anygate_policy::shared::Redis;
use anygate_proto::head::{RequestHead, ResponseHead};

const WITHOUT: &str = "needs a program: ANYGATE_REDIS_SERVER names a redis-server";

/// A server on a unix socket in a folder of its own, ended with the test.
struct Server {
    folder: PathBuf,
    process: Child,
}

impl Server {
    fn start(name: &str) -> Server {
        let folder = std::env::temp_dir().join(format!("anygate-redis-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let process = Server::spawn(&folder);
        Server { folder, process }
    }

    fn spawn(folder: &PathBuf) -> Child {
        let program = std::env::var_os("ANYGATE_REDIS_SERVER").expect(WITHOUT);
        let socket = folder.join("socket");
        let child = Command::new(program)
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--requirepass", "secret"])
            .arg("--unixsocket")
            .arg(&socket)
            .current_dir(folder)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let begin = Instant::now();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(60), "redis-server does not start");
            thread::sleep(Duration::from_millis(5));
        }
        child
    }

    fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        // What a killed server leaves behind.
        let _ = std::fs::remove_file(self.folder.join("socket"));
    }

    fn again(&mut self) {
        self.process = Server::spawn(&self.folder);
    }

    fn node(&self) -> Arc<Redis> {
        let address = format!("unix://{}?pass=secret", self.folder.join("socket").display());
        // These tests are not about speed, and share their machine.
        Arc::new(node(address, Duration::from_secs(2)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

fn node(address: String, timeout: Duration) -> Redis {
    Redis::new(&SharedPlan { address, prefix: "anygate".to_owned(), timeout }).unwrap()
}

fn rate(text: &str) -> Rate {
    RatePlan::read(text).unwrap().rate
}

fn ask<'a>(policy: &'a str, key: &'a [u8], rate: &'a Rate) -> Ask<'a> {
    Ask { policy, key, rate }
}

#[test]
#[ignore = "needs a redis-server"]
fn all_nodes_together_get_one_burst() {
    let server = Server::start("burst");
    let rate = rate("1/1h burst 100");
    let allowed: usize = thread::scope(|scope| {
        let nodes: Vec<_> = (0..4)
            .map(|_| {
                let node = server.node();
                let rate = &rate;
                let one = move || node.take(&[ask("a", b"192.0.2.1", rate)]).unwrap()[0].allowed;
                scope.spawn(move || (0..50).filter(|_| one()).count())
            })
            .collect();
        nodes.into_iter().map(|node| node.join().unwrap()).sum()
    });
    assert_eq!(allowed, 100);
    let node = server.node();
    assert!(node.take(&[ask("a", b"192.0.2.2", &rate)]).unwrap()[0].allowed);
    assert!(node.take(&[ask("b", b"192.0.2.1", &rate)]).unwrap()[0].allowed);
}

#[test]
#[ignore = "needs a redis-server"]
fn rates_are_counted_as_in_one_process() {
    let server = Server::start("rates");
    let node = server.node();
    let (slow, fast): (Rate, Rate) = (rate("30/1h"), rate("10/1s burst 1"));
    let both = || node.take(&[ask("slow", b"k", &slow), ask("fast", b"k", &fast)]).unwrap();
    let first = both();
    assert!(first.iter().all(|taken| taken.allowed));
    assert_eq!((first[0].remaining, first[1].remaining), (29, 0));
    assert!((119..=120).contains(&first[0].wait.as_secs()), "{first:?}");
    // One refuses, so that the other counts nothing.
    let mut remaining = 29;
    for _ in 0..5 {
        let taken = both();
        // On a busy machine a tenth of a second may have passed.
        if taken[1].allowed {
            remaining -= 1;
        } else {
            assert!(taken[1].wait <= Duration::from_millis(100));
        }
        assert_eq!((taken[0].allowed, taken[0].remaining), (true, remaining));
    }
    thread::sleep(Duration::from_millis(110));
    let later = both();
    assert!(later.iter().all(|taken| taken.allowed));
    let (local, slow) = (RateTable::local(8), rate("3/1h"));
    for expected in [true, true, true, false] {
        let key = anygate_policy::rate_table::Key { policy: 0, bytes: b"other" };
        let here = local.take(key, &slow, Duration::from_secs(1));
        let there = node.take(&[ask("slow", b"other", &slow)]).unwrap()[0];
        assert_eq!((here.allowed, here.remaining), (there.allowed, there.remaining));
        assert_eq!(here.allowed, expected);
        assert!(here.wait.abs_diff(there.wait) < Duration::from_secs(60), "{here:?} {there:?}");
    }
}

#[test]
#[ignore = "needs a redis-server"]
fn a_node_alone_limits_until_redis_is_back() {
    let mut server = Server::start("back");
    let node = server.node();
    let rates = [RatePlan::read("1/1h").unwrap()];
    let shared = Arc::clone(&node) as Arc<dyn Shared>;
    let limiter = RateLimiter::new(&rates, RateTable::local(100), Some(shared));
    let mut head = RequestHead::default();
    let path = head.push_text(b"/").unwrap();
    head.set_path(path);
    let begin = Instant::now();
    let passes = |address: &str| {
        let client = Client::from(address.parse::<IpAddr>().unwrap());
        matches!(limiter.check(&head, client, begin.elapsed()), Decision::Pass(_))
    };
    assert!(passes("192.0.2.1"));
    assert!(!passes("192.0.2.1"));
    server.stop();
    assert!(passes("192.0.2.1"), "what only Redis knew is not known here");
    assert!(!passes("192.0.2.1"));
    let other = rate("1/1h");
    let responds = || node.take(&[ask("other", b"k", &other)]).is_some();
    assert!(!responds());
    server.again();
    while !responds() {
        assert!(begin.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(50));
    }
    assert!(passes("192.0.2.1"), "a new Redis knows nothing");
    assert!(!passes("192.0.2.1"));
    // A connection that was closed meanwhile is no failure.
    server.stop();
    server.again();
    assert!(passes("192.0.2.1"));
    assert!(responds());
}

fn request(method: &str, target: &str, fields: &[(&str, &str)]) -> RequestHead {
    let mut head = RequestHead::default();
    let span = head.push_text(method.as_bytes()).unwrap();
    head.set_method(span);
    let span = head.push_text(target.as_bytes()).unwrap();
    head.set_target(span);
    head.set_path(span);
    let span = head.push_text(b"example.org").unwrap();
    head.set_authority(span);
    for (name, value) in fields {
        let name = head.push_text(name.as_bytes()).unwrap();
        let value = head.push_text(value.as_bytes()).unwrap();
        head.push_field(name, value);
    }
    head
}

fn plan() -> CachePlan {
    CachePlan {
        paths: vec![CachePath::read("/").unwrap()],
        max_bytes: 1 << 20,
        entry_max_bytes: 1 << 20,
        obey_clients: true,
    }
}

fn cache(server: &Server) -> Arc<Cache> {
    Cache::new(&plan(), 1, server.node(), Epochs::local())
}

fn respond(mut recorder: Recorder, fields: &[(&str, &str)], body: &str) {
    let mut head = ResponseHead::default();
    head.set_status_line(b"200 OK").unwrap();
    for (name, value) in fields {
        head.push_field(name.as_bytes(), value.as_bytes()).unwrap();
    }
    recorder.start(&head, SystemTime::now());
    recorder.write(body.as_bytes());
    recorder.finish(SystemTime::now());
}

/// What the cache has; without, it gets this.
fn have(cache: &Arc<Cache>, head: &RequestHead, fields: &[(&str, &str)], body: &str) -> Option<String> {
    match cache.lookup(head, false, SystemTime::now()) {
        Lookup::Hit(stored) => Some(String::from_utf8(stored.body().to_vec()).unwrap()),
        Lookup::Miss(recorder) => {
            respond(*recorder, fields, body);
            None
        }
        other => panic!("{other:?}"),
    }
}

const FRESH: (&str, &str) = ("Cache-Control", "max-age=60");

#[test]
#[ignore = "needs a redis-server"]
fn nodes_give_each_others_responses() {
    let server = Server::start("responses");
    let (one, two) = (cache(&server), cache(&server));
    let plain = request("GET", "/a", &[]);
    assert_eq!(have(&one, &plain, &[FRESH], "text"), None);
    assert_eq!(have(&two, &plain, &[], "").as_deref(), Some("text"));
    // Variants, also beside a response without.
    let vary = [FRESH, ("Vary", "Accept-Language, X")];
    let languages = ["de", "en", "fr"].map(|language| request("GET", "/b", &[("Accept-Language", language)]));
    assert_eq!(have(&one, &request("GET", "/b", &[]), &[FRESH, ("Vary", "X")], "none"), None);
    assert_eq!(have(&one, &languages[0], &[FRESH, ("Vary", "X")], "none").as_deref(), Some("none"));
    let forced = [("Accept-Language", "de"), ("Cache-Control", "no-cache")];
    assert_eq!(have(&one, &request("GET", "/b", &forced), &vary, "de"), None);
    for (head, body) in [(&languages[1], "en"), (&languages[2], "fr")] {
        let forced = request("GET", "/b", &[("Cache-Control", "no-cache"), ("Accept-Language", body)]);
        assert_eq!(have(&one, &forced, &vary, body), None);
        assert_eq!(have(&two, head, &[], "").as_deref(), Some(body));
    }
    // A change through one node is one for all.
    let Lookup::Miss(recorder) = two.lookup(&request("POST", "/b", &[]), false, SystemTime::now()) else {
        panic!()
    };
    respond(*recorder, &[], "");
    for head in &languages {
        assert!(matches!(one.lookup(head, false, SystemTime::now()), Lookup::Miss(_)));
    }
    assert_eq!(have(&one, &plain, &[], "").as_deref(), Some("text"));
}

#[test]
#[ignore = "needs a redis-server"]
fn responses_are_purged_by_prefix_and_gone_in_time() {
    let server = Server::start("purge");
    let (one, two) = (cache(&server), cache(&server));
    let targets = ["/x*y/1", "/x*y/2", "/xzy/1", "/[a]/1"];
    let left = || {
        let is_there = |target: &&&str| {
            matches!(two.lookup(&request("GET", target, &[]), false, SystemTime::now()), Lookup::Hit(_))
        };
        targets.iter().filter(is_there).copied().collect::<Vec<_>>()
    };
    for target in targets {
        have(&one, &request("GET", target, &[]), &[FRESH], "text");
    }
    assert_eq!(left(), targets);
    two.purge_prefix(false, b"example.org", b"/x*y");
    assert_eq!(left(), ["/xzy/1", "/[a]/1"]);
    one.purge(false, b"example.org", b"/[a]/1");
    assert_eq!(left(), ["/xzy/1"]);
    one.purge_all();
    assert!(left().is_empty());
}

#[test]
#[ignore = "needs a redis-server"]
fn without_redis_the_application_is_asked() {
    let mut server = Server::start("gone");
    let one = cache(&server);
    let head = request("GET", "/a", &[]);
    assert_eq!(have(&one, &head, &[FRESH], "text"), None);
    server.stop();
    for _ in 0..3 {
        assert_eq!(have(&one, &head, &[FRESH], "text"), None);
    }
    server.again();
}

/// What [`tls_is_spoken`] runs in a process with an environment of its own.
#[test]
#[ignore = "a part of another test"]
fn the_named_one_counts() {
    let Ok(address) = std::env::var("ANYGATE_REDIS_URL") else { return };
    let node = node(address, Duration::from_secs(5));
    let rate = rate("1/1h");
    let allowed = [(); 2].map(|()| node.take(&[ask("a", b"k", &rate)]).map(|taken| taken[0].allowed));
    println!("{allowed:?}");
}

#[test]
#[ignore = "needs a redis-server and openssl"]
fn tls_is_spoken() {
    let folder = std::env::temp_dir().join(format!("anygate-redis-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(&folder)
        .stderr(Stdio::null())
        .status();
    assert!(made.unwrap().success());
    // The kernel chooses a free port; no other program is given the same within these milliseconds.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let process = Command::new(std::env::var_os("ANYGATE_REDIS_SERVER").expect(WITHOUT))
        .args([
            "--port",
            "0",
            "--save",
            "",
            "--tls-auth-clients",
            "no",
            "--bind",
            "127.0.0.1",
            "127.0.0.2",
            "--tls-port",
        ])
        .arg(port.to_string())
        .args(["--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem", "--tls-ca-cert-file", "cert.pem"])
        .current_dir(&folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Server { folder: folder.clone(), process };
    let begin = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begin.elapsed() < Duration::from_secs(60), "redis-server does not start");
        thread::sleep(Duration::from_millis(5));
    }
    let asked = |host: &str, certificates: &str| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "the_named_one_counts"])
            .env("ANYGATE_REDIS_URL", format!("rediss://{host}:{port}"))
            .env("SSL_CERT_FILE", folder.join(certificates))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(asked("127.0.0.1", "cert.pem").contains("[Some(true), Some(false)]"));
    assert!(asked("127.0.0.2", "cert.pem").contains("[None, None]"), "another name");
    assert!(asked("127.0.0.1", "none.pem").contains("[None, None]"), "no authority has signed it");
}
