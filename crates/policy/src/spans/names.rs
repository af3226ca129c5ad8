//! Numbers of traces and spans: the places of a counter, in an order that no other process knows. Asking the system for random
//! bytes, or whether this is still the same process, would cost as much as all else that a span does.

use std::sync::atomic::{AtomicU64, Ordering};

/// What numbers of one process are made of. Another process has another one.
pub(super) struct Names {
    counter: AtomicU64,
    secrets: [u64; 3],
}

/// One place of the counter.
#[derive(Clone, Copy)]
pub(super) struct Turn(u64);

impl Names {
    pub(super) fn new() -> Result<Names, getrandom::Error> {
        let mut secrets = [0; 3];
        for secret in &mut secrets {
            *secret = getrandom::u64()?;
        }
        Ok(Names { counter: AtomicU64::new(0), secrets })
    }

    /// What the numbers of one request are made of.
    pub(super) fn next(&self) -> Turn {
        Turn(self.counter.fetch_add(1, Ordering::Relaxed))
    }

    /// A number that no other trace has; not zero.
    pub(super) fn trace(&self, Turn(turn): Turn) -> u128 {
        let [high, low, _] = self.secrets;
        let name =
            u128::from(mixed(high.wrapping_add(turn))) << 64 | u128::from(mixed(low.wrapping_add(turn)));
        name.max(1)
    }

    /// A number that no other span of its trace has; not zero.
    pub(super) fn span(&self, Turn(turn): Turn) -> u64 {
        let [.., secret] = self.secrets;
        mixed(secret.wrapping_add(turn)).max(1)
    }
}

/// One of 2^64 numbers for each (SplitMix64, <https://prng.di.unimi.it/splitmix64.c>).
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_names_are_the_same() {
        let names: Vec<Names> = (0..4).map(|_| Names::new().unwrap()).collect();
        let spans: HashSet<u64> =
            names.iter().flat_map(|names| (0..5000).map(|_| names.span(names.next()))).collect();
        let traces: HashSet<u128> =
            names.iter().flat_map(|names| (0..5000).map(|_| names.trace(names.next()))).collect();
        assert_eq!((spans.len(), traces.len()), (20_000, 20_000));
    }

    #[test]
    fn names_are_spread_evenly() {
        let names = Names { counter: AtomicU64::new(0), secrets: [1, 2, 3] };
        let lower =
            (0..10_000).filter(|_| names.trace(names.next()) & u128::from(u64::MAX) < 1 << 62).count();
        assert!((2200..2800).contains(&lower), "{lower}");
    }
}
