//! Comparing a password with its hash takes long on purpose, so there are bounds: how often a client may
//! be wrong, how many comparisons there may be at the same moment on all of the machine, and which passwords are known to be
//! right. All processes of a server share these, in memory that was made before they parted.

use std::fmt;
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anygate_config::site::Rate;
use aws_lc_rs::{constant_time, hmac};

use crate::network::Client;
use crate::rate_table::{Cells, Key, RateTable};

/// How many wrong passwords of one client are looked at in a minute, and at once.
const GUESSES: u32 = 20;
/// Clients whose wrong passwords are remembered.
const CLIENTS: usize = 8 * 1024;
/// Users whose right passwords are remembered; two of them that share a place are compared more often.
const USERS: usize = 4 * 1024;
/// Numbers of a place: a digest of 256 bits.
const DIGEST_CELLS: usize = 4;
/// After this, a process that compares is taken for dead.
const COMPARISON_MAX: Duration = Duration::from_secs(30);
/// How long a request waits for its comparison to begin.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// How often it looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Names a user and a password together with the hash that they were compared with. Without the key none can be made, and no
/// password can be learnt from one.
#[derive(Clone, Copy)]
pub(super) struct Credentials {
    digest: [u64; DIGEST_CELLS],
    /// Where the user's digest is kept.
    place: u64,
}

/// Why a password is not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoGuess {
    /// The client was wrong too often. It may try again after this time.
    TooMany(Duration),
    /// There are too many comparisons.
    Busy,
}

/// What all processes of a server know about passwords.
#[derive(Clone)]
pub(crate) struct Guesses {
    key: hmac::Key,
    known: Cells,
    /// Moments, in milliseconds, at which comparisons end at the latest.
    slots: Cells,
    wrong: RateTable,
    rate: Rate,
    /// Requests of this process that compare, or wait for that.
    busy: Arc<AtomicUsize>,
    busy_max: usize,
}

impl fmt::Debug for Guesses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guesses").field("busy_max", &self.busy_max).finish_non_exhaustive()
    }
}

impl Guesses {
    /// How much of each memory is needed, in numbers: for [`shared`](Self::shared).
    pub(crate) fn cells() -> [usize; 3] {
        // Half of the machine, so that the other half serves those who are known.
        let processors = thread::available_parallelism().map_or(1, usize::from);
        [USERS * DIGEST_CELLS, (processors / 2).max(1), RateTable::cells_for(CLIENTS)]
    }

    /// Nothing is known yet.
    ///
    /// Errors: the system has no random numbers.
    pub(crate) fn shared([known, slots, wrong]: [Cells; 3]) -> io::Result<Guesses> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        let count = NonZeroU32::new(GUESSES).unwrap_or(NonZeroU32::MIN);
        Ok(Guesses {
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            known,
            slots,
            wrong: RateTable::shared(wrong),
            rate: Rate::new(count, Duration::from_secs(60), count).expect("options can have this rate, too"),
            busy: Arc::default(),
            busy_max: 1,
        })
    }

    /// The same for one process, in which `waiting_max` threads may wait for something.
    pub(crate) fn of_process(&self, waiting_max: usize) -> Guesses {
        Guesses { busy: Arc::default(), busy_max: waiting_max.max(1), ..self.clone() }
    }

    /// A number that is a user's own, and that no client can know.
    pub(super) fn number(&self, user: &[u8]) -> u64 {
        let [number, ..] = self.digest(&[b"user", user]);
        number
    }

    /// Names credentials. `hash`: what the password is to be compared with.
    pub(super) fn credentials(&self, user: &[u8], password: &[u8], hash: &str) -> Credentials {
        Credentials {
            digest: self.digest(&[b"credentials", user, password, hash.as_bytes()]),
            place: self.number(user),
        }
    }

    fn digest(&self, texts: &[&[u8]]) -> [u64; DIGEST_CELLS] {
        let mut context = hmac::Context::with_key(&self.key);
        for text in texts {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text);
        }
        let tag = context.sign();
        let mut numbers = [0; DIGEST_CELLS];
        for (number, bytes) in numbers.iter_mut().zip(tag.as_ref().as_chunks().0) {
            *number = u64::from_be_bytes(*bytes);
        }
        numbers
    }

    /// Whether these were found to be right before.
    pub(super) fn knows(&self, credentials: &Credentials) -> bool {
        let kept = self.place(credentials).iter().map(|cell| cell.load(Ordering::Relaxed));
        let (mut all, mut own) = ([0; DIGEST_CELLS * 8], [0; DIGEST_CELLS * 8]);
        for (bytes, number) in all.as_chunks_mut().0.iter_mut().zip(kept) {
            *bytes = number.to_be_bytes();
        }
        for (bytes, number) in own.as_chunks_mut().0.iter_mut().zip(credentials.digest) {
            *bytes = number.to_be_bytes();
        }
        // A place that another process is writing to means nothing: of two digests that are mixed, no password is known.
        constant_time::verify_slices_are_equal(&all, &own).is_ok()
    }

    fn remember(&self, credentials: &Credentials) {
        for (cell, number) in self.place(credentials).iter().zip(credentials.digest) {
            cell.store(number, Ordering::Relaxed);
        }
    }

    fn place(&self, credentials: &Credentials) -> &[AtomicU64] {
        let cells = (*self.known).as_ref();
        let places = u64::try_from(cells.len() / DIGEST_CELLS).unwrap_or(u64::MAX);
        let place = credentials.place.checked_rem(places).and_then(|place| usize::try_from(place).ok());
        let start = place.and_then(|place| place.checked_mul(DIGEST_CELLS));
        start.and_then(|start| cells.get(start..start.checked_add(DIGEST_CELLS)?)).unwrap_or_default()
    }

    /// Finds out whether a client's credentials are right: they are known, or `compare` says so, which takes long. It may wait.
    /// `now`: the time since a moment that all processes agree on.
    pub(super) fn check(
        &self,
        credentials: &Credentials,
        client: Client,
        now: Duration,
        compare: impl FnOnce() -> bool,
    ) -> Result<bool, NoGuess> {
        let site = client.site().key();
        let key = Key { policy: 0, bytes: site.as_ref() };
        let taken = self.wrong.take(key, &self.rate, now);
        if !taken.allowed {
            return Err(NoGuess::TooMany(taken.wait));
        }
        let result = self.compare(credentials, now, compare);
        if result != Ok(false) {
            self.wrong.give_back(key, &self.rate, now);
        }
        result
    }

    fn compare(
        &self,
        credentials: &Credentials,
        now: Duration,
        compare: impl FnOnce() -> bool,
    ) -> Result<bool, NoGuess> {
        let _busy = Busy::enter(&self.busy, self.busy_max).ok_or(NoGuess::Busy)?;
        let begun = Instant::now();
        let slot = loop {
            // Another request of the same client may have been first.
            if self.knows(credentials) {
                return Ok(true);
            }
            if let Some(slot) = self.slot(now.saturating_add(begun.elapsed())) {
                break slot;
            }
            if begun.elapsed() > WAIT_MAX {
                return Err(NoGuess::Busy);
            }
            thread::sleep(LOOK_INTERVAL);
        };
        let is_right = compare();
        if is_right {
            self.remember(credentials);
        }
        drop(slot);
        Ok(is_right)
    }

    /// Takes the right to compare one password, if there is one.
    fn slot(&self, now: Duration) -> Option<Slot<'_>> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        let (now, until) = (millis(now), millis(now.saturating_add(COMPARISON_MAX)));
        (*self.slots).as_ref().iter().find_map(|cell| {
            let held = cell.load(Ordering::Relaxed);
            let is_free = held == 0 || held < now;
            (is_free && cell.compare_exchange(held, until, Ordering::AcqRel, Ordering::Relaxed).is_ok())
                .then_some(Slot { cell, until })
        })
    }
}

/// The right to compare one password.
struct Slot<'a> {
    cell: &'a AtomicU64,
    until: u64,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        // If it took too long, another request may have it by now.
        let _ = self.cell.compare_exchange(self.until, 0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// A place among the requests of a process that compare.
struct Busy<'a>(&'a AtomicUsize);

impl<'a> Busy<'a> {
    fn enter(count: &'a AtomicUsize, max: usize) -> Option<Busy<'a>> {
        let entered = count.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |count| {
            (count < max).then(|| count.saturating_add(1))
        });
        entered.is_ok().then_some(Busy(count))
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn guesses() -> Guesses {
        let cells = Guesses::cells();
        let memory = |count: usize| {
            let cells: Box<[AtomicU64]> = (0..count).map(|_| AtomicU64::new(0)).collect();
            Arc::new(cells) as Cells
        };
        Guesses::shared([memory(cells[0]), memory(1), memory(cells[2])]).unwrap().of_process(2)
    }

    fn client(last: u8) -> Client {
        Client::from(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn what_was_right_is_not_compared_again() {
        let guesses = guesses();
        let right = guesses.credentials(b"joe", b"secret", "hash");
        assert!(!guesses.knows(&right));
        assert_eq!(guesses.check(&right, client(1), Duration::ZERO, || true), Ok(true));
        let other_process = guesses.of_process(1);
        assert!(other_process.knows(&right));
        for (user, password, hash) in [
            ("joe", "Secret", "hash"),
            ("joe", "secret", "other"),
            ("joes", "ecret", "hash"),
            ("joe", "", "hash"),
        ] {
            let other = guesses.credentials(user.as_bytes(), password.as_bytes(), hash);
            assert!(!guesses.knows(&other), "{user} {password} {hash}");
        }
    }

    #[test]
    fn nothing_is_known_at_the_beginning() {
        let guesses = guesses();
        let zero = Credentials { digest: [0; DIGEST_CELLS], place: 3 };
        // Only a digest of nothing but zeros is equal to an empty place, and no credentials have that one.
        assert!(guesses.knows(&zero));
        assert_ne!(guesses.credentials(b"", b"", "").digest, zero.digest);
    }

    #[test]
    fn a_client_guesses_a_bounded_number_of_times() {
        let guesses = guesses();
        let wrong = guesses.credentials(b"joe", b"guess", "hash");
        for _ in 0..GUESSES {
            assert_eq!(guesses.check(&wrong, client(1), Duration::ZERO, || false), Ok(false));
        }
        let refused = guesses.check(&wrong, client(1), Duration::ZERO, || unreachable!("it is not compared"));
        assert!(matches!(refused, Err(NoGuess::TooMany(wait)) if wait <= Duration::from_secs(4)));
        assert_eq!(guesses.check(&wrong, client(2), Duration::ZERO, || false), Ok(false));
        assert_eq!(guesses.check(&wrong, client(1), Duration::from_secs(5), || false), Ok(false));
    }

    #[test]
    fn who_is_right_is_not_counted() {
        let guesses = guesses();
        for number in 0..3 * GUESSES {
            let right = guesses.credentials(b"joe", &number.to_be_bytes(), "hash");
            assert_eq!(guesses.check(&right, client(1), Duration::ZERO, || true), Ok(true));
        }
    }

    #[test]
    fn comparisons_are_bounded() {
        let guesses = guesses();
        let wrong = guesses.credentials(b"joe", b"guess", "hash");
        let check = |within: &dyn Fn() -> bool| guesses.check(&wrong, client(1), Duration::ZERO, within);
        let inner = check(&|| {
            assert!(guesses.slot(Duration::from_secs(1)).is_none());
            // A process that died while it compared does not have its slot for ever.
            assert!(guesses.slot(Duration::from_secs(60)).is_some());
            true
        });
        assert_eq!(inner, Ok(true));
        assert!(guesses.slot(Duration::from_secs(1)).is_some());
        let (one, two) = (Busy::enter(&guesses.busy, 2), Busy::enter(&guesses.busy, 2));
        assert!(one.is_some() && two.is_some());
        let other = guesses.credentials(b"joe", b"another", "hash");
        assert_eq!(guesses.check(&other, client(1), Duration::ZERO, || true), Err(NoGuess::Busy));
    }
}
