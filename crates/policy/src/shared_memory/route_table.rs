//! Requests of each route, counted in memory that all processes share: one table for all of them, so that nothing is lost or
//! counted twice when a process ends.
//!
//! A route takes the first place that is free, for good: its hash is put there in one step. A process that finds a place without a
//! name writes it, so that a process that dies in between leaves nothing undone. What finds no place is counted as [`OTHER`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::metrics::{Counts, ROUTE_CELLS, ROUTE_SECONDS_CELL};
use crate::rate_table::Cells;
use crate::shared_memory::text;

/// Routes that are counted apart.
pub const ROUTES_MAX: usize = 256;
/// A name is cut off after so many bytes.
pub const NAME_MAX_BYTES: usize = text::text_max_bytes(NAME_WORDS);
/// The name of all routes that have no place.
pub const OTHER: &str = "other";

const NAME_WORDS: usize = 17;
/// A cell that says whether there is a name, the name, and the numbers.
const WORDS: usize = 1 + NAME_WORDS + ROUTE_CELLS;
/// The hash of a name is never this.
const FREE: u64 = 0;

/// The table: a cell that says whether something found no place, the hash of each place, then the places. The last is that of
/// all others.
#[derive(Clone)]
pub struct RouteTable(Cells);

/// Where a route is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteSlot(usize);

/// What is counted as [`OTHER`].
const OTHERS: RouteSlot = RouteSlot(ROUTES_MAX);

impl RouteTable {
    /// Numbers that the table needs.
    pub const CELLS: usize = 1 + ROUTES_MAX + (ROUTES_MAX + 1) * WORDS;

    /// A table in cells that are zero when it is first made of them. One that is too short counts nothing.
    pub fn new(cells: Cells) -> RouteTable {
        RouteTable(cells)
    }

    /// Returns where a route is counted, which gets a place if it has none.
    pub fn place(&self, route: &str) -> RouteSlot {
        let mut name = [0; NAME_MAX_BYTES];
        let name = clean(route, &mut name);
        if name == OTHER.as_bytes() {
            return OTHERS;
        }
        let hash = hash(name);
        let hashes = self.cells().get(1..=ROUTES_MAX).unwrap_or_default();
        for (place, cell) in hashes.iter().enumerate() {
            let mut found = cell.load(Ordering::Relaxed);
            if found == FREE {
                let taken = cell.compare_exchange(FREE, hash, Ordering::Relaxed, Ordering::Relaxed);
                found = taken.map_or_else(|other| other, |_| hash);
            }
            if found == hash {
                self.name(place, name);
                return RouteSlot(place);
            }
        }
        let is_first = self.cells().first().is_some_and(|full| full.swap(1, Ordering::Relaxed) == 0);
        if is_first {
            let name = String::from_utf8_lossy(name);
            tracing::warn!(
                "route_metrics: there are more than {ROUTES_MAX} routes; {name:?} and all further ones are counted as \
                 {OTHER:?}. Routes are templates such as /users/<id>, not paths"
            );
        }
        OTHERS
    }

    /// Counts a response.
    pub fn count(&self, place: RouteSlot, status: u16, duration: Duration) {
        let Some((_, numbers)) = self.words(place.0) else { return };
        let counts = Counts(numbers);
        counts.add(Counts::class(status), 1);
        counts.observe(ROUTE_SECONDS_CELL, duration);
    }

    /// Returns the name of each place in turn with its numbers, and at the end those of all others if there were any. A place
    /// without a name has been taken this moment.
    pub fn routes(&self) -> impl Iterator<Item = (String, [u64; ROUTE_CELLS])> {
        let hashes = self.cells().get(1..=ROUTES_MAX).unwrap_or_default();
        let taken = hashes.iter().take_while(|hash| hash.load(Ordering::Relaxed) != FREE).count();
        (0..taken).chain([OTHERS.0]).filter_map(|place| {
            let (name, numbers) = self.words(place)?;
            let mut values = [0; ROUTE_CELLS];
            for (value, cell) in values.iter_mut().zip(numbers) {
                *value = cell.load(Ordering::Relaxed);
            }
            let name = match name.split_first()? {
                _ if place == OTHERS.0 && values == [0; ROUTE_CELLS] => return None,
                _ if place == OTHERS.0 => OTHER.to_owned(),
                (is_named, words) if is_named.load(Ordering::Acquire) != 0 => text::load(words),
                _ => String::new(),
            };
            Some((name, values))
        })
    }

    /// Writes the name of a place if it has none. Several processes that do so at once write the same.
    fn name(&self, place: usize, name: &[u8]) {
        let Some(([is_named, words @ ..], _)) = self.words(place) else { return };
        if is_named.load(Ordering::Relaxed) == 0 {
            text::store(words, name);
            is_named.store(1, Ordering::Release);
        }
    }

    /// What is at a place: whether it has a name and that name, and its numbers.
    fn words(&self, place: usize) -> Option<(&[AtomicU64], &[AtomicU64])> {
        let words = self.cells().get(1 + ROUTES_MAX + place * WORDS..)?.get(..WORDS)?;
        words.split_at_checked(1 + NAME_WORDS)
    }

    fn cells(&self) -> &[AtomicU64] {
        (*self.0).as_ref()
    }
}

/// Puts down as much of a route as a name has room for, without control characters.
fn clean<'n>(route: &str, name: &'n mut [u8; NAME_MAX_BYTES]) -> &'n [u8] {
    let length = (0..=route.len().min(NAME_MAX_BYTES)).rev().find(|&end| route.is_char_boundary(end));
    let name = name.get_mut(..length.unwrap_or_default()).unwrap_or_default();
    for (to, byte) in name.iter_mut().zip(route.bytes()) {
        *to = if byte.is_ascii_control() { b'_' } else { byte };
    }
    name
}

/// FNV-1a: the same in all processes. Only the application and the settings name routes.
fn hash(name: &[u8]) -> u64 {
    let hash = name.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash.max(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    fn table() -> RouteTable {
        RouteTable::new(Arc::new((0..RouteTable::CELLS).map(|_| AtomicU64::new(0)).collect::<Vec<_>>()))
    }

    fn counted(table: &RouteTable) -> Vec<(String, u64)> {
        let responses = |numbers: [u64; ROUTE_CELLS]| numbers[..ROUTE_SECONDS_CELL].iter().sum();
        table.routes().map(|(name, numbers)| (name, responses(numbers))).collect()
    }

    #[test]
    fn a_route_keeps_its_place_and_counts_by_status() {
        let table = table();
        let place = table.place("/users/<id>");
        table.count(place, 200, Duration::from_micros(90));
        table.count(table.place("/"), 404, Duration::from_millis(2));
        table.count(table.place("/users/<id>"), 503, Duration::from_millis(2));
        assert_eq!(table.place("/users/<id>"), place);
        let routes: Vec<_> = table.routes().collect();
        assert_eq!(routes[0].0, "/users/<id>");
        assert_eq!(routes[0].1[..ROUTE_SECONDS_CELL], [0, 1, 0, 0, 1]);
        assert_eq!((routes[0].1[ROUTE_SECONDS_CELL], routes[0].1[ROUTE_CELLS - 1]), (1, 2090));
        assert_eq!((routes[1].0.as_str(), routes[1].1[3], routes.len()), ("/", 1, 2));
    }

    #[test]
    fn routes_beyond_the_table_are_counted_together() {
        let table = table();
        for number in 0..ROUTES_MAX + 3 {
            table.count(table.place(&format!("/{number}")), 200, Duration::ZERO);
        }
        table.count(table.place("/7"), 200, Duration::ZERO);
        let routes = counted(&table);
        assert_eq!(routes.len(), ROUTES_MAX + 1);
        assert_eq!((&routes[7], &routes[ROUTES_MAX]), (&("/7".to_owned(), 2), &(OTHER.to_owned(), 3)));
    }

    #[test]
    fn names_are_cut_off_between_characters_and_have_no_control_characters() {
        let table = table();
        for (route, name) in [
            ("/a\nb\x7f\0", "/a_b__".to_owned()),
            ("/\u{e4}\"\\", "/\u{e4}\"\\".to_owned()),
            (&format!("/{}", "\u{20ac}".repeat(99)), format!("/{}", "\u{20ac}".repeat(42))),
        ] {
            let place = table.place(route);
            assert_eq!(table.routes().nth(place.0).map(|(found, _)| found), Some(name));
        }
        assert_eq!(table.place(OTHER), OTHERS);
        // What is the same when it is clean is the same.
        assert_eq!(table.place("/a\tb__"), table.place("/a\nb\x7f\0"));
    }

    #[test]
    fn a_place_whose_process_died_before_it_was_named_gets_its_name_from_the_next() {
        let table = table();
        table.cells()[1].store(hash(b"/x"), Ordering::Relaxed);
        assert_eq!(counted(&table), [(String::new(), 0)]);
        table.count(table.place("/x"), 200, Duration::ZERO);
        assert_eq!(counted(&table), [("/x".to_owned(), 1)]);
    }

    #[test]
    fn threads_that_name_the_same_routes_find_the_same_places() {
        let table = table();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..2000 {
                        let place = table.place(&format!("/{}", number % 50));
                        table.count(place, 200, Duration::ZERO);
                    }
                });
            }
        });
        let mut routes = counted(&table);
        routes.sort();
        routes.dedup_by(|one, other| one.0 == other.0);
        assert_eq!(routes.len(), 50);
        assert!(routes.iter().all(|(_, count)| *count == 160));
    }

    #[test]
    fn memory_that_is_too_short_counts_nothing() {
        for cells in [0, 1, 5, 1 + ROUTES_MAX] {
            let table = RouteTable::new(Arc::new((0..cells).map(|_| AtomicU64::new(0)).collect::<Vec<_>>()));
            table.count(table.place("/"), 200, Duration::ZERO);
            assert_eq!(counted(&table), []);
        }
    }
}
