//! How much there may be at once: requests and connections of one client, requests that wait, and bytes of a body. Each
//! limit is a small value that the server, or whatever stands around an application, asks and applies.

use std::sync::Arc;
use std::time::Duration;

use anygate_config::site::{AtOncePlan, ClientBy};
use anygate_config::{Network, Source};
use anygate_proto::head::RequestHead;

use crate::network::Client;
use crate::paths::{self, ByPrefix};
use crate::refusal::Refusal;
use crate::shared_memory::counters::{CountTable, Permit};

/// Value of Retry-After for a client over its limit, because the end of its requests is unknown.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Who is refused because the queue is full may try again so soon.
pub(crate) const QUEUE_RETRY_AFTER: Duration = Duration::from_secs(2);

/// Counts requests of clients.
#[derive(Clone, Debug)]
pub struct RequestLimiter {
    limits: ByPrefix<(u32, AtOncePlan)>,
    table: Arc<CountTable>,
}

impl RequestLimiter {
    /// A limiter that counts in `table`.
    pub fn new(limits: &[AtOncePlan], table: Arc<CountTable>) -> RequestLimiter {
        let limits = (0..).zip(limits.iter().cloned());
        let limits = limits.map(|(number, limit)| (limit.prefix.clone(), (number, limit)));
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
            ClientBy::Field(name) => head.field(name),
            ClientBy::Address => None,
        };
        let permit = match field {
            Some(value) => self.table.enter((number, "field", value), limit.requests_max),
            None => self.table.enter((number, "client", client.site()), limit.requests_max),
        };
        permit.map(Some).ok_or_else(|| Refusal::too_many(RETRY_AFTER))
    }
}

/// Counts connections.
#[derive(Debug)]
pub struct Connections {
    /// Most connections from one address, or from one /64 of IPv6.
    per_client_max: u32,
    /// Proxies and the like, whose connections are those of many clients.
    exempt: Vec<Network>,
    table: Arc<CountTable>,
}

/// A connection is not taken: its client has as many as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// A connection that is counted until this is dropped.
#[derive(Debug)]
#[must_use = "a permit that is dropped counts no longer"]
pub struct ConnectionPermit {
    _of_client: Option<Permit>,
}

impl Connections {
    /// Counts those of clients in `table`. Unix sockets are never counted by address, nor what is `exempt`.
    pub fn new(per_client_max: u32, exempt: &[Source], table: Arc<CountTable>) -> Arc<Connections> {
        let exempt = exempt.iter().filter_map(|source| match source {
            Source::Network(network) => Some(*network),
            Source::Unix => None,
        });
        Arc::new(Connections { per_client_max, exempt: exempt.collect(), table })
    }

    /// Counts a connection of `peer`, which is the other end of the socket, not the client that it forwards.
    pub fn open(&self, peer: Client) -> Result<ConnectionPermit, TooMany> {
        match peer {
            Client::Address(address) if !self.exempt.iter().any(|network| network.contains(address)) => {
                let permit = self.table.enter(("connection", peer.site()), self.per_client_max);
                Ok(ConnectionPermit { _of_client: Some(permit.ok_or(TooMany)?) })
            }
            Client::Address(_) | Client::Unix | Client::Unknown => Ok(ConnectionPermit { _of_client: None }),
        }
    }
}

/// How many requests may wait for a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimit {
    /// Most requests that wait.
    pub length_max: usize,
}

impl QueueLimit {
    /// Refuses one more when `waiting` wait already: 503.
    pub fn admit(&self, waiting: usize) -> Result<(), Refusal> {
        if waiting < self.length_max { Ok(()) } else { Err(Refusal::unavailable(QUEUE_RETRY_AFTER)) }
    }
}

/// How large bodies may be, by path.
#[derive(Clone, Debug)]
pub struct BodyLimits {
    otherwise: u64,
    paths: ByPrefix<u64>,
}

impl BodyLimits {
    /// Prepares limits: those of `paths`, of which the longest counts and may allow more or less, and one for all others.
    pub fn new(otherwise: u64, paths: &[(String, u64)]) -> BodyLimits {
        BodyLimits { otherwise, paths: paths.iter().cloned().collect() }
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
        let limits = ["2", "/report 1", "/api 1 by X-Key"].map(|text| AtOncePlan::read(text).unwrap());
        let limiter = RequestLimiter::new(&limits, Arc::new(CountTable::local(100)));
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
        let none = RequestLimiter::new(&[], Arc::new(CountTable::local(1)));
        assert!(none.enter(&request("/", &[]), one).unwrap().is_none());
    }

    #[test]
    fn connections_are_counted_by_site() {
        let exempt = ["10.0.0.0/8", "unix"].map(|text| Source::read(text).unwrap());
        let connections = Connections::new(2, &exempt, Arc::new(CountTable::local(100)));
        let first = connections.open(client("2001:db8::1")).unwrap();
        let second = connections.open(client("2001:db8::2")).unwrap();
        assert_eq!(connections.open(client("2001:db8::3")).unwrap_err(), TooMany);
        let others: Vec<_> = (0..3).map(|_| connections.open(client("10.0.0.1")).unwrap()).collect();
        let peers: Vec<_> = (0..3).map(|_| connections.open(Client::Unix).unwrap()).collect();
        assert_eq!(connections.open(client("2001:db8::1")).unwrap_err(), TooMany);
        drop(first);
        let third = connections.open(client("2001:db8::3")).unwrap();
        drop((second, third, others, peers));
    }

    #[test]
    fn a_queue_has_a_length() {
        let limit = QueueLimit { length_max: 2 };
        assert!(limit.admit(1).is_ok());
        let refusal = limit.admit(2).unwrap_err();
        assert_eq!(refusal.head().status(), 503);
        assert_eq!(refusal.head().field("retry-after"), Some(&b"2"[..]));
    }

    #[test]
    fn bodies_have_limits_by_path() {
        let limits = BodyLimits::new(100, &[("/upload".to_owned(), 1000), ("/upload/avatar".to_owned(), 10)]);
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
