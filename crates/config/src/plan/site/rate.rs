//! How often something may happen.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::invalid::Invalid;

/// Rates are counted in units of time, of which a request must fill at least one.
const PER_SECOND_MAX: u64 = 20_000;
/// Maximum time that a client is made to wait.
const DAYS_MAX: u64 = 31;

/// So many requests in so much time, and how many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    requests: NonZeroU32,
    period: Duration,
    burst: NonZeroU32,
}

impl Rate {
    /// `requests` in each `period` (whole seconds), `burst` of them at once.
    ///
    /// Errors: the period is not whole seconds, or the rate is too fast or too slow to be counted.
    pub fn new(requests: NonZeroU32, period: Duration, burst: NonZeroU32) -> Result<Rate, Invalid> {
        if period.as_secs() == 0 || period.subsec_nanos() > 0 {
            return Err(Invalid::Fraction);
        }
        let rate = Rate { requests, period, burst };
        if u64::from(requests.get()).div_ceil(period.as_secs()) > PER_SECOND_MAX {
            return Err(Invalid::TooFast(PER_SECOND_MAX));
        }
        let longest = Duration::from_secs(DAYS_MAX * 24 * 60 * 60);
        if rate.interval().checked_mul(burst.get()).is_none_or(|whole| whole > longest) {
            return Err(Invalid::TooSlow(DAYS_MAX));
        }
        Ok(rate)
    }

    /// How many requests a period has.
    pub fn requests(&self) -> u32 {
        self.requests.get()
    }

    /// How long a period is, in whole seconds.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// How many requests may come at once after a long silence.
    pub fn burst(&self) -> u32 {
        self.burst.get()
    }

    /// How long one request is paid for.
    pub fn interval(&self) -> Duration {
        self.period / self.requests.get()
    }
}
