//! Rates that all nodes count together: the same algorithm as in `rate_table`, in one script, so that what several nodes
//! ask at the same moment is asked one after another. The clock is that of Redis.

use std::fmt::Write;
use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::digest;
use redis::Script;

use super::{Redis, unexpected};
use crate::rate_limit::{Ask, Shared};
use crate::rate_table::Taken;

/// A key holds the moment at which all requests will have been paid for, in microseconds, and is gone when it comes.
static SCRIPT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local debts, results, refused = {}, {}, false
for i, key in ipairs(KEYS) do
  local interval, whole = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local debt = (tonumber(redis.call('GET', key)) or 0) - now
  if debt < 0 then debt = 0 end
  if debt > whole then debt = whole end
  debts[i] = debt
  if debt + interval > whole then refused = true end
end
for i, key in ipairs(KEYS) do
  local interval, whole = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local debt, allowed = debts[i], 1
  if debt + interval > whole then
    allowed = 0
  elseif not refused then
    debt = debt + interval
    redis.call('SET', key, string.format('%.0f', now + debt), 'PX', math.ceil(debt / 1000))
  end
  local remaining = math.floor((whole - debt) / interval)
  results[3 * i - 2] = allowed
  results[3 * i - 1] = remaining
  results[3 * i] = interval * (remaining + 1) + debt - whole
end
return results",
    )
});

impl Shared for Redis {
    fn take(&self, asks: &[Ask<'_>]) -> Option<Vec<Taken>> {
        let mut call = SCRIPT.prepare_invoke();
        for ask in asks {
            // The key may be a client's secret, which no other client may read.
            let hash = digest::digest(&digest::SHA256, ask.key);
            let mut name = String::new();
            for byte in hash.as_ref().iter().take(16) {
                // Writing to a string cannot fail.
                let _ = write!(name, "{byte:02x}");
            }
            let interval = ask.rate.interval().as_nanos().div_ceil(1000);
            let whole = interval.saturating_mul(u128::from(ask.rate.burst()));
            call.key(self.key(&[b"rate", ask.policy.as_bytes(), name.as_bytes()]));
            call.arg(interval.to_string()).arg(whole.to_string());
        }
        self.ask(|connection| {
            let numbers: Vec<i64> = call.invoke(connection)?;
            let read = |part: &[i64]| match *part {
                [allowed, remaining, wait] => Some(Taken {
                    allowed: allowed == 1,
                    remaining: u32::try_from(remaining).ok()?,
                    wait: Duration::from_micros(u64::try_from(wait).ok()?),
                }),
                _ => None,
            };
            let taken: Option<Vec<_>> = numbers.chunks(3).map(read).collect();
            let taken = taken.filter(|taken| taken.len() == asks.len());
            taken.ok_or_else(|| unexpected("not the result of the script for rates"))
        })
    }
}
