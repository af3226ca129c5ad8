//! What has happened to each request, and the gates at which calls wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex};
use std::time::Instant;

use crate::plan::Id;

#[derive(Default)]
pub(crate) struct Ledger {
    book: Mutex<Book>,
    opened: Condvar,
}

#[derive(Default)]
struct Book {
    calls: BTreeMap<Id, CallState>,
    open: BTreeSet<Id>,
    /// Calls at their gates, and what tells them that it is open.
    waiting: BTreeMap<Id, Option<Box<dyn FnOnce() + Send>>>,
    /// When each call has begun.
    begun: BTreeMap<Id, Instant>,
    problems: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallState {
    Begun,
    /// The application has read the whole request and written the whole response.
    Whole,
    /// The client was lost before.
    Broken,
}

impl Ledger {
    /// A call begins: no other call of its connection is in progress, and none of a later request has begun.
    pub(crate) fn begin(&self, id: Id) {
        let mut book = self.book.lock().unwrap();
        if book.calls.contains_key(&id) {
            book.problems.push(format!("request {id:?} was called twice"));
        }
        let others: Vec<_> =
            book.calls.range((id.0, 0)..(id.0 + 1, 0)).map(|(&id, &state)| (id, state)).collect();
        for (other, state) in others {
            if other.1 > id.1 || state == CallState::Begun {
                book.problems.push(format!("request {id:?} was called while {other:?} was {state:?}"));
            }
        }
        book.begun.insert(id, Instant::now());
        book.calls.insert(id, CallState::Begun);
    }

    pub(crate) fn end(&self, id: Id, state: CallState) {
        self.book.lock().unwrap().calls.insert(id, state);
    }

    pub(crate) fn problem(&self, text: String) {
        self.book.lock().unwrap().problems.push(text);
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        self.book.lock().unwrap().problems.clone()
    }

    /// Calls of a client.
    pub(crate) fn calls(&self, client: usize) -> Vec<(Id, CallState)> {
        let book = self.book.lock().unwrap();
        book.calls.range((client, 0)..(client + 1, 0)).map(|(&id, &state)| (id, state)).collect()
    }

    /// Returns when a call has begun, if it has.
    pub(crate) fn begun(&self, id: Id) -> Option<Instant> {
        self.book.lock().unwrap().begun.get(&id).copied()
    }

    /// Waits until the gate of a call is open.
    pub(crate) fn wait(&self, id: Id) {
        let mut book = self.book.lock().unwrap();
        book.waiting.insert(id, None);
        while !book.open.contains(&id) {
            book = self.opened.wait(book).unwrap();
        }
    }

    /// Returns whether the gate of a call is open; calls `news` when it is opened later.
    pub(crate) fn is_open(&self, id: Id, news: impl FnOnce() + Send + 'static) -> bool {
        let mut book = self.book.lock().unwrap();
        let open = book.open.contains(&id);
        if !open {
            book.waiting.insert(id, Some(Box::new(news)));
        }
        open
    }

    /// Opens the gate of one of the calls that wait, which `choose` picks among so many; `false` if none does.
    pub(crate) fn open_one(&self, choose: impl FnOnce(usize) -> usize) -> bool {
        let mut book = self.book.lock().unwrap();
        if book.waiting.is_empty() {
            return false;
        }
        let Some(&id) = book.waiting.keys().nth(choose(book.waiting.len())) else { return false };
        book.open.insert(id);
        let news = book.waiting.remove(&id).flatten();
        drop(book);
        self.opened.notify_all();
        if let Some(news) = news {
            news();
        }
        true
    }
}
