//! What all nodes of a site share, in Redis: rates and stored responses. This is the one room of policies that does I/O and
//! reads a clock: a caller may wait for the whole timeout, so it must not be a thread that serves others
//! meanwhile.
//!
//! * [`Redis`]: connections, and what happens when there are none. `rates`: requests counted by all nodes. `responses`:
//!   a store for the cache. [`Candidate`]: which node runs cron jobs.
//!
//! When Redis cannot be reached, every lookup returns "unknown": limits then hold in each node, and nothing
//! is cached. It is asked again after a pause that grows, by one request at a time, so a Redis that does not respond costs a
//! few requests its timeout and not every one.

mod leader;
mod rates;
mod responses;

pub use leader::{Candidate, Taken};

use std::fmt;
use std::time::{Duration, Instant};

use anygate_config::site::SharedPlan;
use anygate_lock::{Mutex, MutexGuard};
use redis::{Client, Connection, ConnectionLike, IntoConnectionInfo, RedisError, RedisResult};

/// The pause after the first failure, and the longest one.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Connections that are kept for the next question. Each thread needs one at a time.
const IDLE_MAX: usize = 16;

/// The address is one that the client does not understand, or that needs what this build has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidAddress {
    reason: String,
}

impl fmt::Display for InvalidAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "must be redis://host:6379/0, rediss://host or unix:///path ({})", self.reason)
    }
}

impl std::error::Error for InvalidAddress {}

impl From<RedisError> for InvalidAddress {
    fn from(error: RedisError) -> InvalidAddress {
        InvalidAddress { reason: error.to_string() }
    }
}

/// A Redis and the connections to it.
pub struct Redis {
    client: Client,
    /// Where it is, without the password.
    address: String,
    /// The longest that one question waits, to connect and again for the response. Looking up a name is not part of it: an
    /// address, or a name in `/etc/hosts`, is never slow.
    timeout: Duration,
    /// What all keys begin with.
    prefix: Vec<u8>,
    idle: Mutex<Vec<Connection>>,
    breaker: Mutex<Breaker>,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Redis {
    /// Prepares connections; none is made yet. It belongs to one process: a worker makes its own.
    ///
    /// Errors: an address that needs what this build has not.
    pub fn new(plan: &SharedPlan) -> Result<Redis, InvalidAddress> {
        // The cryptography of TLS is installed once in a process; an earlier caller installed the same.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let info = plan.address.as_str().into_connection_info()?;
        Ok(Redis {
            address: info.addr().to_string(),
            client: Client::open(info)?,
            timeout: plan.timeout,
            prefix: plan.prefix.clone().into_bytes(),
            idle: Mutex::default(),
            breaker: Mutex::default(),
        })
    }

    /// Asks; `None` when that failed or it is not asked now.
    fn ask<T>(&self, question: impl Fn(&mut Connection) -> RedisResult<T>) -> Option<T> {
        if !lock(&self.breaker).may_ask(Instant::now()) {
            return None;
        }
        match self.try_ask(question) {
            Ok(result) => {
                if lock(&self.breaker).succeed() {
                    tracing::info!("redis at {} responds again", self.address);
                }
                Some(result)
            }
            Err(error) => {
                if lock(&self.breaker).fail(Instant::now()) {
                    let address = &self.address;
                    tracing::warn!(
                        "redis at {address} cannot be used: {error}; until it can, rates are counted per server and \
                         responses are not cached"
                    );
                }
                None
            }
        }
    }

    fn try_ask<T>(&self, question: impl Fn(&mut Connection) -> RedisResult<T>) -> RedisResult<T> {
        let kept = lock(&self.idle).pop();
        if let Some(mut connection) = kept {
            match question(&mut connection) {
                Err(error) if error.is_connection_dropped() && !error.is_timeout() => {
                    // It was closed while it was idle, and so were the others, most likely.
                    lock(&self.idle).clear();
                }
                result => return self.keep(connection, result),
            }
        }
        let mut connection = self.client.get_connection_with_timeout(self.timeout)?;
        connection.set_read_timeout(Some(self.timeout))?;
        connection.set_write_timeout(Some(self.timeout))?;
        let result = question(&mut connection);
        self.keep(connection, result)
    }

    /// Keeps a connection on which nothing is under way. After an error a response could come late, and be taken for that
    /// to another question.
    fn keep<T>(&self, connection: Connection, result: RedisResult<T>) -> RedisResult<T> {
        if result.is_ok() && connection.is_open() {
            let mut idle = lock(&self.idle);
            if idle.len() < IDLE_MAX {
                idle.push(connection);
            }
        }
        result
    }

    fn key(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut key = self.prefix.clone();
        for part in parts {
            key.push(b':');
            key.extend_from_slice(part);
        }
        key
    }
}

/// Pause after failures, before Redis is tried again.
#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    /// Time before which Redis is not tried.
    again_at: Option<Instant>,
}

impl Breaker {
    /// Whether to ask now. While it fails, one at a time does.
    fn may_ask(&mut self, now: Instant) -> bool {
        match self.again_at {
            Some(at) if now < at => false,
            Some(_) => {
                self.again_at = now.checked_add(self.pause());
                true
            }
            None => true,
        }
    }

    /// Notes a failure; returns whether it is the first.
    fn fail(&mut self, now: Instant) -> bool {
        self.again_at = now.checked_add(self.pause());
        self.failures = self.failures.saturating_add(1);
        self.failures == 1
    }

    /// Notes a response; returns whether there were failures.
    fn succeed(&mut self) -> bool {
        std::mem::take(self).failures > 0
    }

    fn pause(&self) -> Duration {
        PAUSE_MIN.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks can leave half a change.
    mutex.lock()
}

/// A response that is not what was asked for.
fn unexpected(what: &'static str) -> RedisError {
    RedisError::from((redis::ErrorKind::UnexpectedReturnType, what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn redis(path: &std::path::Path) -> Redis {
        Redis::new(&plan(&format!("unix://{}", path.display()))).unwrap()
    }

    fn plan(address: &str) -> SharedPlan {
        let prefix = "anygate".to_owned();
        SharedPlan { address: address.to_owned(), prefix, timeout: Duration::from_millis(50) }
    }

    fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("anygate-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn addresses_are_read_and_passwords_not_told() {
        for (text, shown) in [
            ("redis://127.0.0.1:6380/2", "127.0.0.1:6380"),
            ("redis://user:secret@example.org", "example.org:6379"),
            ("rediss://:secret@example.org", "example.org:6379"),
            ("unix:///run/redis.sock?pass=secret", "/run/redis.sock"),
        ] {
            let redis = Redis::new(&plan(text)).unwrap();
            assert_eq!(redis.address, shown);
            assert!(!format!("{redis:?}").contains("secret"));
        }
        for text in ["", "redis", "http://example.org", "redis://", "redis://h:x", "memcached://h"] {
            assert!(Redis::new(&plan(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_breaker_asks_again_after_pauses_that_grow() {
        let mut breaker = Breaker::default();
        let start = Instant::now();
        assert!(breaker.may_ask(start));
        assert!(breaker.fail(start));
        assert!(!breaker.may_ask(start));
        let later = start + PAUSE_MIN;
        assert!(breaker.may_ask(later));
        assert!(!breaker.may_ask(later), "one at a time");
        assert!(!breaker.fail(later), "it is told once");
        assert!(!breaker.may_ask(later + PAUSE_MIN));
        assert!(breaker.may_ask(later + PAUSE_MIN * 2));
        for _ in 0..100 {
            breaker.fail(later);
        }
        assert_eq!(breaker.pause(), PAUSE_MAX);
        assert!(breaker.succeed());
        assert!(breaker.may_ask(later));
        assert!(!breaker.succeed());
    }

    #[test]
    fn an_absent_server_is_no_error() {
        let folder = folder("absent");
        let redis = redis(&folder.join("none"));
        assert_eq!(redis.ask(|_| Ok(())), None);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn one_that_does_not_respond_costs_one_timeout() {
        let folder = folder("silent");
        let path = folder.join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        let redis = redis(&path);
        let begin = Instant::now();
        for _ in 0..100 {
            assert_eq!(redis.ask(|connection| redis::cmd("PING").query::<String>(connection)), None);
        }
        let took = begin.elapsed();
        assert!(took >= redis.timeout / 2 && took < redis.timeout * 50, "{took:?}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
