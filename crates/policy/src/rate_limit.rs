//! How many requests a client may send, by path. A client is an address (of IPv6 its /64), or the value of a field, such
//! as the key of an API. Responses on a limited path say what is left, as draft-ietf-httpapi-ratelimit-headers-11 has it.
//!
//! The policies of the longest prefix that a path lies below hold, all of them: `10/s` and `1000/h` together, for
//! example. A request that one of them refuses is counted by none.
//!
//! Rates hold for all processes that share a [`RateTable`]; for all nodes where one is asked that they share
//! ([`Shared`]), which may take a moment, so that it is nothing for a thread that serves others meanwhile.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use anygate_config::site::{ClientBy, Rate, RatePlan};
use anygate_proto::error::InvalidHead;
use anygate_proto::head::{RequestHead, ResponseHead};

use crate::network::{Client, ClientKey};
use crate::paths::{self, ByPrefix};
use crate::rate_table::{Key, RateTable, Taken};
use crate::refusal::{Refusal, whole_seconds};

const POLICY_FIELD: &str = "RateLimit-Policy";
const LIMIT_FIELD: &str = "RateLimit";

/// One rate of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Policy {
    /// What responses call it.
    name: String,
    by: ClientBy,
    rate: Rate,
}

/// Rates that all nodes share.
pub trait Shared: Send + Sync + fmt::Debug {
    /// Takes one request from each, or from none if one refuses. The results are in the order of the questions; `None`
    /// when the store cannot be asked now.
    fn take(&self, asks: &[Ask<'_>]) -> Option<Vec<Taken>>;
}

/// One policy's question about one client.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The policy's name.
    pub policy: &'a str,
    /// Whose request it is: bytes that may be secret.
    pub key: &'a [u8],
    /// The policy's rate.
    pub rate: &'a Rate,
}

/// Decision about a request.
#[derive(Clone, Debug)]
pub enum Decision {
    /// No policy applies to its path.
    Unlimited,
    /// It may pass; its response gets these fields.
    Pass(RateFields),
    /// It gets this response.
    Refuse(Refusal),
}

/// Fields of a response that describe the rates of its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateFields {
    policies: Arc<str>,
    limits: String,
}

impl RateFields {
    /// The fields, as name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [(POLICY_FIELD, &*self.policies), (LIMIT_FIELD, &*self.limits)].into_iter()
    }

    /// Adds the fields to a head.
    pub fn apply(&self, head: &mut ResponseHead) -> Result<(), InvalidHead> {
        self.iter().try_for_each(|(name, value)| head.push_field(name.as_bytes(), value.as_bytes()))
    }
}

/// The limiter of a site.
#[derive(Clone, Debug)]
pub struct RateLimiter {
    groups: ByPrefix<Group>,
    table: RateTable,
    shared: Option<Arc<dyn Shared>>,
}

/// The policies of one prefix.
#[derive(Clone, Debug)]
struct Group {
    /// Value of RateLimit-Policy.
    told: Arc<str>,
    policies: Vec<(u32, Policy)>,
}

/// Client that a policy counts a request for.
enum Counted<'a> {
    Client(ClientKey),
    Field(&'a [u8]),
}

impl AsRef<[u8]> for Counted<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Counted::Client(key) => key.as_ref(),
            Counted::Field(value) => value,
        }
    }
}

impl RateLimiter {
    /// A limiter that counts in `table`, and where all nodes see it if `shared` is there. Responses tell of the rates in this
    /// order.
    pub fn new(rates: &[RatePlan], table: RateTable, shared: Option<Arc<dyn Shared>>) -> RateLimiter {
        let mut groups: Vec<(&str, Vec<(u32, Policy)>)> = Vec::new();
        for (number, RatePlan { prefix, rate, by }) in (0..).zip(rates) {
            let name = if number == 0 { "default".to_owned() } else { format!("rate-{number}") };
            let policy = (number, Policy { name, by: by.clone(), rate: *rate });
            match groups.iter_mut().find(|(other, _)| other == prefix) {
                Some((_, policies)) => policies.push(policy),
                None => groups.push((prefix, vec![policy])),
            }
        }
        let group = |policies: Vec<(u32, Policy)>| Group { told: told(&policies).into(), policies };
        let groups = groups.into_iter().map(|(prefix, policies)| (prefix.to_owned(), group(policies)));
        RateLimiter { groups: groups.collect(), table, shared }
    }

    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Whether [`check`](Self::check) may wait for what nodes share.
    pub fn may_block(&self) -> bool {
        self.shared.is_some() && !self.is_empty()
    }

    /// Counts a request. `now` as for [`RateTable::take`].
    pub fn check(&self, head: &RequestHead, client: Client, now: Duration) -> Decision {
        if self.is_empty() {
            return Decision::Unlimited;
        }
        let Some(group) = self.groups.find(&paths::path(head)) else { return Decision::Unlimited };
        let site = client.site().key();
        let counted: Vec<_> = group
            .policies
            .iter()
            .map(|(number, policy)| {
                let key = match &policy.by {
                    ClientBy::Field(name) => head.field(name).map_or(Counted::Client(site), Counted::Field),
                    ClientBy::Address => Counted::Client(site),
                };
                (*number, policy, key)
            })
            .collect();
        let taken = self.take_shared(&counted).unwrap_or_else(|| self.take(&counted, now));
        let fields = RateFields { policies: Arc::clone(&group.told), limits: limits(&counted, &taken) };
        // RFC 6585 section 4: how long until all policies let the client through.
        let wait = taken.iter().filter(|taken| !taken.allowed).map(|taken| taken.wait).max();
        match wait {
            None => Decision::Pass(fields),
            Some(wait) => {
                let mut refusal = Refusal::too_many(wait);
                for (name, value) in fields.iter() {
                    refusal.push(name, value);
                }
                Decision::Refuse(refusal)
            }
        }
    }

    fn take_shared(&self, counted: &[(u32, &Policy, Counted<'_>)]) -> Option<Vec<Taken>> {
        let asks: Vec<_> = counted
            .iter()
            .map(|(_, policy, key)| Ask { policy: &policy.name, key: key.as_ref(), rate: &policy.rate })
            .collect();
        self.shared.as_ref()?.take(&asks).filter(|taken| taken.len() == counted.len())
    }

    fn take(&self, counted: &[(u32, &Policy, Counted<'_>)], now: Duration) -> Vec<Taken> {
        let key = |number, key| Key { policy: number, bytes: key };
        let mut taken: Vec<Taken> = counted
            .iter()
            .map(|(number, policy, bytes)| self.table.take(key(*number, bytes.as_ref()), &policy.rate, now))
            .collect();
        if taken.iter().any(|taken| !taken.allowed) {
            for ((number, policy, bytes), taken) in counted.iter().zip(&mut taken) {
                if taken.allowed {
                    self.table.give_back(key(*number, bytes.as_ref()), &policy.rate, now);
                    taken.remaining = taken.remaining.saturating_add(1);
                }
            }
        }
        taken
    }
}

/// The value of RateLimit-Policy (section 3): "The field value SHOULD remain consistent over a sequence of HTTP responses."
fn told(policies: &[(u32, Policy)]) -> String {
    let mut value = String::new();
    for (_, Policy { name, rate, .. }) in policies {
        separate(&mut value);
        // Writing to a string cannot fail.
        let _ = write!(value, "\"{name}\";q={};w={}", rate.requests(), rate.period().as_secs());
        if rate.burst() != rate.requests() {
            let _ = write!(value, ";anygate-burst={}", rate.burst());
        }
    }
    value
}

/// The value of RateLimit (section 4). `t` is how long the client "can use no more than the available quota".
fn limits(counted: &[(u32, &Policy, Counted<'_>)], taken: &[Taken]) -> String {
    let mut value = String::new();
    for ((_, policy, _), taken) in counted.iter().zip(taken) {
        separate(&mut value);
        // Writing to a string cannot fail.
        let _ = write!(
            value,
            "\"{}\";r={};t={}",
            policy.name,
            if taken.allowed { taken.remaining } else { 0 },
            whole_seconds(taken.wait)
        );
    }
    value
}

fn separate(value: &mut String) {
    if !value.is_empty() {
        value.push_str(", ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use std::net::IpAddr;
    use std::sync::Mutex;

    const NOW: Duration = Duration::from_secs(1000);

    fn rates(texts: &[&str]) -> Vec<RatePlan> {
        texts.iter().map(|text| RatePlan::read(text).unwrap()).collect()
    }

    fn limiter(texts: &[&str]) -> RateLimiter {
        RateLimiter::new(&rates(texts), RateTable::local(1000), None)
    }

    fn request(path: &str, fields: &[(&str, &str)]) -> RequestHead {
        fixtures::request("GET", path, fields)
    }

    fn client(address: &str) -> Client {
        Client::from(address.parse::<IpAddr>().unwrap())
    }

    fn said(decision: &Decision) -> (u16, String, String) {
        match decision {
            Decision::Unlimited => (0, String::new(), String::new()),
            Decision::Pass(fields) => {
                let mut head = ResponseHead::default();
                fields.apply(&mut head).unwrap();
                let text = |name| String::from_utf8(head.field(name).unwrap().to_vec()).unwrap();
                (200, text("ratelimit-policy"), text("ratelimit"))
            }
            Decision::Refuse(refusal) => {
                let text = |name| String::from_utf8(refusal.head().field(name).unwrap().to_vec()).unwrap();
                assert!(!text("retry-after").is_empty());
                (refusal.head().status(), text("ratelimit-policy"), text("ratelimit"))
            }
        }
    }

    #[test]
    fn every_response_of_a_limited_path_says_what_is_left() {
        let limiter = limiter(&["2/1m"]);
        let check = |now| limiter.check(&request("/x", &[]), client("192.0.2.1"), now);
        let policies = "\"default\";q=2;w=60".to_owned();
        assert_eq!(said(&check(NOW)), (200, policies.clone(), "\"default\";r=1;t=30".to_owned()));
        assert_eq!(said(&check(NOW)), (200, policies.clone(), "\"default\";r=0;t=30".to_owned()));
        let refused = check(NOW + Duration::from_secs(10));
        assert_eq!(said(&refused), (429, policies, "\"default\";r=0;t=20".to_owned()));
        let Decision::Refuse(refusal) = refused else { unreachable!() };
        assert_eq!(refusal.head().field("retry-after"), Some(&b"20"[..]));
        assert!(matches!(check(NOW + Duration::from_secs(31)), Decision::Pass(_)));
    }

    #[test]
    fn clients_are_addresses_and_sites_of_ipv6() {
        let limiter = limiter(&["1/1m"]);
        for (address, passes) in [
            ("192.0.2.1", true),
            ("192.0.2.2", true),
            ("::ffff:192.0.2.2", false),
            ("2001:db8::1", true),
            ("2001:db8::2", false),
            ("2001:db8:0:1::1", true),
        ] {
            let decision = limiter.check(&request("/", &[]), client(address), NOW);
            assert_eq!(matches!(decision, Decision::Pass(_)), passes, "{address}");
        }
    }

    #[test]
    fn a_field_tells_clients_apart_where_there_is_one() {
        let limiter = limiter(&["1/1m by X-Key"]);
        for (address, key, passes) in [
            ("192.0.2.1", Some("a"), true),
            ("192.0.2.2", Some("a"), false),
            ("192.0.2.1", Some("b"), true),
            ("192.0.2.1", None, true),
            ("192.0.2.1", None, false),
        ] {
            let fields: Vec<_> = key.map(|key| ("x-key", key)).into_iter().collect();
            let decision = limiter.check(&request("/", &fields), client(address), NOW);
            assert_eq!(matches!(decision, Decision::Pass(_)), passes, "{address} {key:?}");
        }
    }

    #[test]
    fn the_policies_of_the_longest_prefix_hold() {
        let limiter = limiter(&["100/1s", "/login 1/1m"]);
        let check = |path| limiter.check(&request(path, &[]), client("192.0.2.1"), NOW);
        assert_eq!(said(&check("/login")).1, "\"rate-1\";q=1;w=60");
        assert_eq!(said(&check("//login")).0, 429);
        assert_eq!(said(&check("/")).1, "\"default\";q=100;w=1");
        let limiter = self::limiter(&["/login 1/1m"]);
        assert!(matches!(limiter.check(&request("/", &[]), client("192.0.2.1"), NOW), Decision::Unlimited));
    }

    #[test]
    fn a_request_that_one_policy_refuses_is_counted_by_none() {
        let limiter = limiter(&["10/1h", "60/1m burst 1"]);
        let check = |now| said(&limiter.check(&request("/", &[]), client("192.0.2.1"), now));
        let policies = "\"default\";q=10;w=3600, \"rate-1\";q=60;w=60;anygate-burst=1";
        let (status, told, limits) = check(NOW);
        assert_eq!((status, told.as_str()), (200, policies));
        assert_eq!(limits, "\"default\";r=9;t=360, \"rate-1\";r=0;t=1");
        for _ in 0..20 {
            let (status, _, limits) = check(NOW);
            assert_eq!(status, 429);
            assert!(limits.starts_with("\"default\";r=9;t="), "{limits}");
        }
        assert_eq!(check(NOW + Duration::from_secs(2)).2, "\"default\";r=8;t=358, \"rate-1\";r=0;t=1");
    }

    #[derive(Debug, Default)]
    struct SharedTable {
        gone: Mutex<bool>,
    }

    impl Shared for SharedTable {
        fn take(&self, asks: &[Ask<'_>]) -> Option<Vec<Taken>> {
            let taken = Taken { allowed: false, remaining: 0, wait: Duration::from_secs(7) };
            (!*self.gone.lock().unwrap()).then(|| vec![taken; asks.len()])
        }
    }

    #[test]
    fn what_nodes_share_counts_as_long_as_it_responds() {
        let shared = Arc::new(SharedTable::default());
        let rules = rates(&["1/1m"]);
        let limiter =
            RateLimiter::new(&rules, RateTable::local(8), Some(Arc::clone(&shared) as Arc<dyn Shared>));
        let check = || said(&limiter.check(&request("/", &[]), client("192.0.2.1"), NOW));
        assert_eq!((check().0, check().2.as_str()), (429, "\"default\";r=0;t=7"));
        *shared.gone.lock().unwrap() = true;
        assert_eq!(check().0, 200);
        assert_eq!(check().0, 429);
    }
}
