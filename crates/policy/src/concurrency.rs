//! How much there may be at once: requests and connections of one client, requests that wait, and bytes of a body. Each
//! limit is a small value that the server, or whatever stands around an application, asks and applies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anygate_proto::head::RequestHead;

use crate::network::{Client, Network};
use crate::paths::{self, ByPrefix};
use crate::rate_limit::By;
use crate::refusal::Refusal;
use crate::shared_memory::counters::{CountTable, Permit};

/// Value of Retry-After for a client over its limit, because the end of its requests is unknown.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Limits of requests at once, as they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestRules {
    /// One for each prefix; that of the longest holds.
    pub limits: Vec<RequestLimit>,
}

/// How many requests a client may have on paths below a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLimit {
    /// It begins with a slash.
    pub prefix: String,
    /// Property that tells clients apart.
    pub by: By,
    /// Maximum number of concurrent requests.
    pub requests_max: u32,
}

/// Counts requests of clients.
#[derive(Clone, Debug)]
pub struct RequestLimiter {
    limits: ByPrefix<(u32, RequestLimit)>,
    table: Arc<CountTable>,
}

impl RequestLimiter {
    /// A limiter that counts in `table`.
    pub fn new(rules: RequestRules, table: Arc<CountTable>) -> RequestLimiter {
        let limits = (0..).zip(rules.limits).map(|(number, limit)| (limit.prefix.clone(), (number, limit)));
        RequestLimiter { limits: limits.collect(), table }
    }

    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }

    /// Counts a request until the permit is dropped, which should be when its response is given; there is none for paths
    /// without a limit. Refuses what is too many: 429.
    pub fn enter(&self, head: &RequestHead, client: Client) -> Result<Option<Permit>, Refusal> {
        if self.is_empty() {
            return Ok(None);
        }
        let Some((number, limit)) = self.limits.find(&paths::path(head)) else { return Ok(None) };
        let field = match &limit.by {
            By::Field(name) => head.field(name),
            By::Address => None,
        };
        let permit = match field {
            Some(value) => self.table.enter((number, "field", value), limit.requests_max),
            None => self.table.enter((number, "client", client.site()), limit.requests_max),
        };
        permit.map(Some).ok_or_else(|| Refusal::too_many(RETRY_AFTER))
    }
}

/// How many connections there may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionRules {
    /// Maximum number of connections of this process.
    pub connections_max: usize,
    /// Maximum number of connections from one address, or one /64 of IPv6.
    pub per_client_max: Option<u32>,
    /// Proxies and the like, whose connections are those of many clients. Unix sockets are never counted by address.
    pub exempt: Vec<Network>,
}

/// Counts connections.
#[derive(Debug)]
pub struct Connections {
    rules: ConnectionRules,
    open: AtomicUsize,
    table: Arc<CountTable>,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMany {
    /// The process has its maximum number of connections.
    Connections,
    /// The client has its maximum number of connections.
    OfClient,
}

/// A connection that is counted until this is dropped.
#[derive(Debug)]
#[must_use = "a permit that is dropped counts no longer"]
pub struct ConnectionPermit {
    connections: Arc<Connections>,
    _of_client: Option<Permit>,
}

impl Connections {
    /// Counts those of clients in `table`.
    pub fn new(rules: ConnectionRules, table: Arc<CountTable>) -> Arc<Connections> {
        Arc::new(Connections { rules, open: AtomicUsize::new(0), table })
    }

    /// Counts a connection of `peer`, which is whoever it came from, not whom that speaks for.
    pub fn open(self: &Arc<Self>, peer: Client) -> Result<ConnectionPermit, TooMany> {
        if self.open.fetch_add(1, Ordering::AcqRel) >= self.rules.connections_max {
            self.open.fetch_sub(1, Ordering::AcqRel);
            return Err(TooMany::Connections);
        }
        let mut permit = ConnectionPermit { connections: Arc::clone(self), _of_client: None };
        if let (Some(max), Client::Address(address)) = (self.rules.per_client_max, peer)
            && !self.rules.exempt.iter().any(|network| network.contains(address))
        {
            let of_client = self.table.enter(("connection", peer.site()), max).ok_or(TooMany::OfClient)?;
            permit._of_client = Some(of_client);
        }
        Ok(permit)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How many requests may wait for a thread, and how long. Who would wait longer than clients do is better told at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueRules {
    /// Maximum number of waiting requests.
    pub length_max: usize,
    /// The longest that one waits.
    pub age_max: Duration,
    /// Value of Retry-After for rejected requests.
    pub retry_after: Duration,
}

impl QueueRules {
    /// Refuses one more when `waiting` wait already: 503.
    pub fn admit(&self, waiting: usize) -> Result<(), Refusal> {
        if waiting < self.length_max { Ok(()) } else { Err(Refusal::unavailable(self.retry_after)) }
    }

    /// Refuses one that has waited too long before its turn came: 503.
    pub fn start(&self, waited: Duration) -> Result<(), Refusal> {
        if waited <= self.age_max { Ok(()) } else { Err(Refusal::unavailable(self.retry_after)) }
    }
}

/// How large bodies may be, as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyRules {
    /// Maximum where no prefix matches.
    pub body_max_bytes: u64,
    /// Below these prefixes; the longest counts, and may allow more or less.
    pub paths: Vec<(String, u64)>,
}

/// How large bodies may be, by path.
#[derive(Clone, Debug)]
pub struct BodyLimits {
    otherwise: u64,
    paths: ByPrefix<u64>,
}

impl BodyLimits {
    /// Prepares limits.
    pub fn new(rules: BodyRules) -> BodyLimits {
        BodyLimits { otherwise: rules.body_max_bytes, paths: rules.paths.into_iter().collect() }
    }

    /// Most bytes that a request to this path may bring; known before its body is read.
    pub fn max_bytes(&self, head: &RequestHead) -> u64 {
        if self.paths.is_empty() {
            return self.otherwise;
        }
        self.paths.find(&paths::path(head)).copied().unwrap_or(self.otherwise)
    }

    /// Refuses a body of `length` bytes, or of so many until now, if that is too much: 413.
    pub fn check(&self, head: &RequestHead, length: u64) -> Result<(), Refusal> {
        if length <= self.max_bytes(head) { Ok(()) } else { Err(Refusal::too_large()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use std::net::IpAddr;

    fn request(path: &str, fields: &[(&str, &str)]) -> RequestHead {
        fixtures::request("GET", path, fields)
    }

    fn client(address: &str) -> Client {
        Client::from(address.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn a_client_has_so_many_requests_at_once() {
        let limit =
            |prefix: &str, by, requests_max| RequestLimit { prefix: prefix.to_owned(), by, requests_max };
        let rules = RequestRules {
            limits: vec![
                limit("/", By::Address, 2),
                limit("/report", By::Address, 1),
                limit("/api", By::Field("X-Key".to_owned()), 1),
            ],
        };
        let limiter = RequestLimiter::new(rules, Arc::new(CountTable::local(100)));
        let one = client("192.0.2.1");
        let first = limiter.enter(&request("/", &[]), one).unwrap().unwrap();
        let second = limiter.enter(&request("/x", &[]), one).unwrap().unwrap();
        let refusal = limiter.enter(&request("/", &[]), one).unwrap_err();
        assert_eq!(refusal.head().status(), 429);
        assert_eq!(refusal.head().field("retry-after"), Some(&b"1"[..]));
        let report = limiter.enter(&request("/report", &[]), one).unwrap();
        assert!(limiter.enter(&request("//report", &[]), one).is_err());
        let other = limiter.enter(&request("/", &[]), client("192.0.2.2")).unwrap();
        let key = [("x-key", "a")];
        let api = limiter.enter(&request("/api", &key), one).unwrap();
        assert!(limiter.enter(&request("/api", &key), client("192.0.2.2")).is_err());
        drop(first);
        assert!(limiter.enter(&request("/", &[]), one).is_ok());
        drop((second, report, other, api));
        assert!(limiter.enter(&request("/report", &[]), one).is_ok());
        let none = RequestLimiter::new(RequestRules::default(), Arc::new(CountTable::local(1)));
        assert!(none.enter(&request("/", &[]), one).unwrap().is_none());
    }

    #[test]
    fn connections_are_counted_in_all_and_by_site() {
        let rules = ConnectionRules {
            connections_max: 4,
            per_client_max: Some(2),
            exempt: vec!["10.0.0.0/8".parse().unwrap()],
        };
        let connections = Connections::new(rules, Arc::new(CountTable::local(100)));
        let first = connections.open(client("2001:db8::1")).unwrap();
        let second = connections.open(client("2001:db8::2")).unwrap();
        assert_eq!(connections.open(client("2001:db8::3")).unwrap_err(), TooMany::OfClient);
        assert_eq!(connections.count(), 2);
        let proxies: Vec<_> = (0..2).map(|_| connections.open(client("10.0.0.1")).unwrap()).collect();
        assert_eq!(connections.open(Client::Unix).unwrap_err(), TooMany::Connections);
        drop((first, proxies));
        let peers: Vec<_> = (0..3).map(|_| connections.open(Client::Unix).unwrap()).collect();
        drop((second, peers));
        assert_eq!(connections.count(), 0);
    }

    #[test]
    fn a_queue_has_a_length_and_an_age() {
        let rules = QueueRules {
            length_max: 2,
            age_max: Duration::from_secs(5),
            retry_after: Duration::from_secs(3),
        };
        assert!(rules.admit(1).is_ok());
        let refusal = rules.admit(2).unwrap_err();
        assert_eq!(refusal.head().status(), 503);
        assert_eq!(refusal.head().field("retry-after"), Some(&b"3"[..]));
        assert!(rules.start(Duration::from_secs(5)).is_ok());
        assert_eq!(rules.start(Duration::from_millis(5001)).unwrap_err().head().status(), 503);
    }

    #[test]
    fn bodies_have_limits_by_path() {
        let limits = BodyLimits::new(BodyRules {
            body_max_bytes: 100,
            paths: vec![("/upload".to_owned(), 1000), ("/upload/avatar".to_owned(), 10)],
        });
        for (path, max) in [
            ("/", 100),
            ("/upload", 1000),
            ("/upload/x", 1000),
            ("/uploads", 100),
            ("/upload/avatar", 10),
            ("//upload/./avatar", 10),
        ] {
            let head = request(path, &[]);
            assert_eq!(limits.max_bytes(&head), max, "{path}");
            assert!(limits.check(&head, max).is_ok());
            assert_eq!(limits.check(&head, max + 1).unwrap_err().head().status(), 413);
        }
    }
}
