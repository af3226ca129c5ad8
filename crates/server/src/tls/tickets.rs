//! Tickets: what a client brings when it comes again, so that its handshake needs no certificate (RFC 5077, RFC 8446
//! section 2.2). Only this server can read them, and all of its workers can: their keys follow from one seed.
//!
//! The seed changes with time by a function that cannot be turned round, in every worker alike. An attacker who
//! learns it cannot read tickets from before the last change.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anygate_lock::Mutex;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{digest, hmac};
use rustls::server::ProducesTickets;

/// How long tickets are issued with one key. They are read for as long again.
const PERIOD_SECONDS: u32 = 6 * 60 * 60;
/// A clock that jumps further is wrong; the keys then differ from those of other workers, which does no harm.
const PERIODS_MAX: u64 = 100_000;

type Seed = [u8; 32];

/// Seed of the ticket keys. Made before the workers are forked.
#[derive(Clone)]
pub struct Tickets {
    seed: Seed,
    period: u64,
}

impl Tickets {
    /// Begins with a random seed.
    ///
    /// Errors: the system has no random numbers.
    pub fn new() -> Result<Tickets, getrandom::Error> {
        let mut seed = Seed::default();
        getrandom::fill(&mut seed)?;
        Ok(Tickets { seed, period: period_now() })
    }

    /// Forgets the seeds of the past.
    pub fn advance(&mut self) {
        self.advance_to(period_now());
    }

    fn advance_to(&mut self, period: u64) {
        let steps = period.saturating_sub(self.period).min(PERIODS_MAX);
        for _ in 0..steps {
            self.seed = derive(&self.seed, &[b"next"]);
        }
        self.period = self.period.max(period);
    }

    /// Issues tickets that are good only where `context` is the same.
    pub(super) fn issuer(&self, context: &[&[u8]]) -> Arc<dyn ProducesTickets> {
        let mut digest = digest::Context::new(&digest::SHA256);
        context.iter().for_each(|part| digest.update(part));
        let context = digest.finish().as_ref().to_vec();
        let keys =
            Keys { current: derive(&self.seed, &[b"key", &context]), previous: None, tickets: self.clone() };
        Arc::new(Issuer { context, keys: Mutex::new(keys) })
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("period", &self.period).finish_non_exhaustive()
    }
}

struct Issuer {
    context: Vec<u8>,
    keys: Mutex<Keys>,
}

struct Keys {
    tickets: Tickets,
    current: Seed,
    previous: Option<Seed>,
}

impl Issuer {
    /// The key of now and the one before.
    fn keys(&self, period: u64) -> (Seed, Option<Seed>) {
        let mut keys = self.keys.lock();
        while keys.tickets.period < period {
            let next = if period - keys.tickets.period > 2 { period - 1 } else { keys.tickets.period + 1 };
            keys.tickets.advance_to(next);
            let current = derive(&keys.tickets.seed, &[b"key", &self.context]);
            keys.previous = Some(std::mem::replace(&mut keys.current, current));
        }
        (keys.current, keys.previous)
    }

    fn encrypt_in(&self, period: u64, plain: &[u8]) -> Option<Vec<u8>> {
        let (key, _) = self.keys(period);
        let mut sealed = plain.to_vec();
        let key = RandomizedNonceKey::new(&AES_256_GCM, &key).ok()?;
        let nonce = key.seal_in_place_append_tag(Aad::empty(), &mut sealed).ok()?;
        Some([nonce.as_ref().as_slice(), &sealed].concat())
    }

    fn decrypt_in(&self, period: u64, ticket: &[u8]) -> Option<Vec<u8>> {
        let (current, previous) = self.keys(period);
        let (nonce, sealed) = ticket.split_at_checked(NONCE_LEN)?;
        let open = |key: Seed| {
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let key = RandomizedNonceKey::new(&AES_256_GCM, &key).ok()?;
            let mut sealed = sealed.to_vec();
            key.open_in_place(nonce, Aad::empty(), &mut sealed).ok().map(|plain| plain.to_vec())
        };
        open(current).or_else(|| previous.and_then(open))
    }
}

impl ProducesTickets for Issuer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        PERIOD_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.encrypt_in(period_now(), plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.decrypt_in(period_now(), ticket)
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issuer")
    }
}

fn period_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    now / u64::from(PERIOD_SECONDS)
}

fn derive(seed: &Seed, label: &[&[u8]]) -> Seed {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, seed));
    label.iter().for_each(|part| context.update(part));
    let mut derived = Seed::default();
    for (to, from) in derived.iter_mut().zip(context.sign().as_ref()) {
        *to = *from;
    }
    derived
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(tickets: &Tickets, context: &[u8]) -> Issuer {
        let keys = Keys {
            current: derive(&tickets.seed, &[b"key", context]),
            previous: None,
            tickets: tickets.clone(),
        };
        Issuer { context: context.to_vec(), keys: Mutex::new(keys) }
    }

    #[test]
    fn workers_read_each_others_tickets_for_two_periods() {
        let tickets = Tickets { seed: [7; 32], period: 100 };
        let (first, second) = (issuer(&tickets, b"a"), issuer(&tickets, b"a"));
        let ticket = first.encrypt_in(100, b"plain").unwrap();
        assert_eq!(second.decrypt_in(100, &ticket).as_deref(), Some(b"plain".as_slice()));
        assert_eq!(second.decrypt_in(101, &ticket).as_deref(), Some(b"plain".as_slice()));
        assert_eq!(second.decrypt_in(102, &ticket), None);
        // A clock that goes back changes nothing.
        let ticket = first.encrypt_in(99, b"plain").unwrap();
        assert_eq!(first.decrypt_in(100, &ticket).as_deref(), Some(b"plain".as_slice()));
    }

    #[test]
    fn a_worker_that_slept_knows_the_keys_of_one_that_did_not() {
        let tickets = Tickets { seed: [7; 32], period: 100 };
        let (awake, asleep) = (issuer(&tickets, b"a"), issuer(&tickets, b"a"));
        for period in 100..120 {
            awake.keys(period);
        }
        for at in [119, 120, 121] {
            let ticket = awake.encrypt_in(at, b"plain").unwrap();
            assert_eq!(asleep.decrypt_in(at + 1, &ticket).as_deref(), Some(b"plain".as_slice()), "{at}");
        }
        let mut later = tickets;
        later.advance_to(121);
        let ticket = awake.encrypt_in(121, b"plain").unwrap();
        assert!(issuer(&later, b"a").decrypt_in(121, &ticket).is_some());
    }

    #[test]
    fn other_contexts_and_broken_tickets_are_refused() {
        let tickets = Tickets { seed: [7; 32], period: 100 };
        let ticket = issuer(&tickets, b"a").encrypt_in(100, b"plain").unwrap();
        assert_eq!(issuer(&tickets, b"b").decrypt_in(100, &ticket), None);
        for length in 0..ticket.len() {
            assert_eq!(issuer(&tickets, b"a").decrypt_in(100, &ticket[..length]), None);
        }
    }
}
