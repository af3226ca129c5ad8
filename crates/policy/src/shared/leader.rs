//! Which node of a site runs its cron jobs: a key of Redis holds the name of the leader for [`LEASE`], and the leader renews
//! it. Another key holds the last minute whose jobs were run, which only the leader may advance: so a minute is run once,
//! also when the leader dies in it, or was cut off and believes that it still leads.
//!
//! A thread asks Redis, because the caller, a supervisor, must not wait.

use std::fmt::Write;
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use anygate_config::site::SharedPlan;
use anygate_lock::{Condvar, Mutex};
use redis::{RedisResult, Script};

use super::{InvalidAddress, Redis};

/// Time after which a leader that does not renew its key is replaced.
const LEASE: Duration = Duration::from_secs(10);
/// Interval of renewing, and of asking whether there is a leader: with [`LEASE`], another node takes over within 15 s.
const RENEWAL: Duration = Duration::from_secs(3);
const _: () = assert!(LEASE.as_secs() + RENEWAL.as_secs() < 15);
/// Interval of asking for a minute that is open.
const OPEN: Duration = Duration::from_secs(1);
/// Minimum time for Redis to respond: no caller waits.
const TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Minutes by which a clock may be ahead of another. A last minute that is further ahead was a wrong clock's.
const AHEAD_MAX: i64 = 5;

/// `KEYS`: the leader, the last minute. `ARGV`: the asking node, its lease in ms, a minute or "", how far ahead is right.
/// Returns whether the node leads, and whose the minute is: 0 open, 1 its own, 2 passed.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local leader = redis.call('GET', KEYS[1])
if not leader or leader == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  leader = ARGV[1]
end
local leads = leader == ARGV[1]
local minute = tonumber(ARGV[3])
if not minute then return {leads and 1 or 0, 0} end
local last = tonumber(redis.call('GET', KEYS[2]))
if last and last >= minute and last - minute <= tonumber(ARGV[4]) then return {leads and 1 or 0, 2} end
if not leads then return {0, 0} end
redis.call('SET', KEYS[2], minute, 'EX', 604800)
return {1, 1}",
    )
});

/// Another node may lead at once.
static LEAVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new("if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 0")
});

/// Whose a minute is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// No node's yet, or Redis cannot be asked.
    Open,
    /// This node's.
    Ours,
    /// Another node's.
    Passed,
}

/// One node among those that share a Redis. When it is dropped, another one may lead.
#[derive(Debug)]
pub struct Candidate {
    shared: Arc<Shared>,
    /// Until it is asked first: who does not run jobs yet must not lead.
    node: Option<Node>,
    renewal: Duration,
    /// The process whose thread asks: one that is forked from it has none.
    process: Option<u32>,
}

#[derive(Debug, Default)]
struct Shared {
    asked: Mutex<Question>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Question {
    /// The minute that is wanted.
    minute: Option<i64>,
    /// What is known of it.
    taken: Option<Taken>,
    /// What has changed and is to be told in the log. The thread must not: the process may be forked meanwhile, and the new one
    /// would find the locks of the log held for ever.
    news: Vec<News>,
    is_leaving: bool,
    has_left: bool,
}

/// What is told in the log.
#[derive(Debug)]
enum News {
    Good(String),
    Bad(String),
}

impl Candidate {
    /// Prepares to ask; Redis is asked from the first [`take`](Self::take) on.
    ///
    /// Errors: an address that needs what this build has not, or no random numbers for a name.
    pub fn new(plan: &SharedPlan) -> Result<Candidate, InvalidAddress> {
        Candidate::with(plan, LEASE, RENEWAL)
    }

    fn with(plan: &SharedPlan, lease: Duration, renewal: Duration) -> Result<Candidate, InvalidAddress> {
        let plan = SharedPlan { timeout: plan.timeout.max(TIMEOUT_MIN), ..plan.clone() };
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| InvalidAddress { reason: error.to_string() })?;
        let mut name = format!("{}:", std::process::id());
        for byte in bytes {
            // Writing to a string cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        let node = Node { redis: Redis::new(&plan)?, name, lease, leads: None, lost: false };
        Ok(Candidate { shared: Arc::default(), node: Some(node), renewal, process: None })
    }

    /// Says in the log what has changed. To be called about once a second.
    pub fn report(&mut self) {
        let news = std::mem::take(&mut self.shared.asked.lock().news);
        for one in news {
            match one {
                News::Good(text) => tracing::info!("{text}"),
                News::Bad(text) => tracing::error!("{text}"),
            }
        }
    }

    /// Asks for a minute (of UTC, from 1970) without waiting.
    pub fn take(&mut self, minute: i64) -> Taken {
        if let Some(node) = self.node.take() {
            let (shared, renewal) = (Arc::clone(&self.shared), self.renewal);
            let named = thread::Builder::new().name("cron leader".to_owned());
            match named.spawn(move || node.run(&shared, renewal)) {
                Ok(_) => self.process = Some(std::process::id()),
                Err(error) => tracing::error!("no cron jobs run: cannot start a thread: {error}"),
            }
        }
        let mut asked = self.shared.asked.lock();
        if asked.minute != Some(minute) {
            asked.minute = Some(minute);
            asked.taken = None;
            self.shared.changed.notify_all();
        }
        asked.taken.unwrap_or(Taken::Open)
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        if self.process != Some(std::process::id()) {
            return;
        }
        let until = Instant::now() + TIMEOUT_MIN;
        let mut asked = self.shared.asked.lock();
        asked.is_leaving = true;
        self.shared.changed.notify_all();
        while !asked.has_left && Instant::now() < until {
            asked = self.shared.changed.wait_timeout(asked, TIMEOUT_MIN);
        }
    }
}

/// What the thread has.
#[derive(Debug)]
struct Node {
    redis: Redis,
    name: String,
    lease: Duration,
    /// Whether it led when Redis was asked last; `None` before that.
    leads: Option<bool>,
    /// Redis could not be asked.
    lost: bool,
}

impl Node {
    fn run(mut self, shared: &Shared, renewal: Duration) {
        let mut asked = shared.asked.lock();
        while !asked.is_leaving {
            let minute = asked.minute.filter(|_| !matches!(asked.taken, Some(Taken::Ours | Taken::Passed)));
            drop(asked);
            let (taken, news) = self.ask(minute);
            asked = shared.asked.lock();
            asked.news.extend(news);
            if asked.is_leaving {
                break;
            }
            if minute.is_some() && asked.minute == minute {
                asked.taken = taken;
            } else if asked.minute.is_some() && asked.taken.is_none() {
                // Another minute was asked for meanwhile.
                continue;
            }
            let is_open = asked.minute.is_some() && matches!(asked.taken, None | Some(Taken::Open));
            asked = shared.changed.wait_timeout(asked, if is_open { OPEN.min(renewal) } else { renewal });
        }
        drop(asked);
        if self.leads == Some(true) {
            let (name, key) = (self.name.clone(), self.redis.key(&[b"cron", b"leader"]));
            // If it cannot be told, its lease ends soon.
            let _ = self.redis.try_ask(|connection| LEAVE.key(&key).arg(&name).invoke::<i64>(connection));
        }
        shared.asked.lock().has_left = true;
        shared.changed.notify_all();
    }

    /// Renews the lease and asks for a minute; returns what has changed, too.
    fn ask(&mut self, minute: Option<i64>) -> (Option<Taken>, Vec<News>) {
        let result = self.try_ask(minute);
        let (address, mut news) = (&self.redis.address, Vec::new());
        match result {
            Ok((leads, taken)) => {
                if std::mem::take(&mut self.lost) {
                    news.push(News::Good(format!("redis at {address} responds again, and cron jobs run")));
                }
                if self.leads.replace(leads) != Some(leads) {
                    let who = if leads { "this server runs" } else { "another server runs" };
                    let text = format!("{who} the cron jobs of all servers that share redis at {address}");
                    news.push(News::Good(text));
                }
                (Some(taken), news)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.lost, true) {
                    let text =
                        format!("redis at {address} cannot be used: {error}; no cron jobs run until it can");
                    news.push(News::Bad(text));
                }
                (None, news)
            }
        }
    }

    fn try_ask(&self, minute: Option<i64>) -> RedisResult<(bool, Taken)> {
        let (leader, last) = (self.redis.key(&[b"cron", b"leader"]), self.redis.key(&[b"cron", b"minute"]));
        let mut call = TAKE.key(leader);
        call.key(last).arg(&self.name).arg(u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX));
        call.arg(minute.map_or_else(String::new, |minute| minute.to_string())).arg(AHEAD_MAX);
        let (leads, taken): (i64, i64) = self.redis.try_ask(|connection| call.invoke(connection))?;
        let taken = match taken {
            1 => Taken::Ours,
            2 => Taken::Passed,
            _ => Taken::Open,
        };
        Ok((leads == 1, taken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::{Child, Command, Stdio};

    /// A real Redis, at a socket in this folder.
    struct Server(Child);

    impl Server {
        fn start(folder: &Path) -> Server {
            let mut command = Command::new("redis-server");
            command.args(["--port", "0", "--save", "", "--unixsocket", "redis.sock"]).current_dir(folder);
            let child = command.stdout(Stdio::null()).spawn().expect("Debian's redis-server is installed");
            until(|| folder.join("redis.sock").exists().then_some(()));
            Server(child)
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn until<T>(mut what: impl FnMut() -> Option<T>) -> T {
        loop {
            if let Some(found) = what() {
                return found;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn candidate(folder: &Path) -> Candidate {
        let address = format!("unix://{}", folder.join("redis.sock").display());
        let plan = SharedPlan { address, prefix: "anygate".to_owned(), timeout: Duration::from_secs(1) };
        Candidate::with(&plan, Duration::from_secs(3), Duration::from_millis(20)).unwrap()
    }

    fn taken(candidate: &mut Candidate, minute: i64) -> Taken {
        until(|| Some(candidate.take(minute)).filter(|taken| *taken != Taken::Open))
    }

    #[test]
    fn one_node_gets_all_minutes_until_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let _server = Server::start(folder.path());
        let mut one = candidate(folder.path());
        assert_eq!(taken(&mut one, 1000), Taken::Ours);
        let mut other = candidate(folder.path());
        for minute in 1000..1004 {
            assert_eq!(taken(&mut one, minute), Taken::Ours);
            assert_eq!(taken(&mut one, minute), Taken::Ours, "it may ask again");
            assert_eq!(taken(&mut other, minute), Taken::Passed);
        }
        // A leader that leaves is followed at once, one whose thread is gone when its lease is over.
        drop(one);
        assert_eq!(taken(&mut other, 1003), Taken::Passed, "in its last minute, too");
        assert_eq!(taken(&mut other, 1004), Taken::Ours);
        other.process = None;
        other.shared.asked.lock().is_leaving = true;
        other.shared.changed.notify_all();
        let mut third = candidate(folder.path());
        assert_eq!(taken(&mut third, 1004), Taken::Passed);
        assert_eq!(taken(&mut third, 1005), Taken::Ours);
        // A clock that was far ahead is not waited for.
        assert_eq!(taken(&mut third, 900_000), Taken::Ours);
        assert_eq!(taken(&mut third, 1006), Taken::Ours);
    }

    #[test]
    fn nothing_is_anybodys_while_redis_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut one = candidate(folder.path());
        assert_eq!(one.take(1000), Taken::Open);
        let _server = Server::start(folder.path());
        assert_eq!(taken(&mut one, 1000), Taken::Ours);
    }
}
