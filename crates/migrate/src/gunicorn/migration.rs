//! The settings of one gunicorn, and what became of them so far.

use serde_json::Value;

use super::settings::Setting;
use crate::draft::Draft;

/// The settings of a gunicorn while they become ours.
pub(super) struct Gunicorn {
    pub(super) settings: Vec<Setting>,
    pub(super) draft: Draft,
}

/// The kind of worker, as far as it differs here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// One request at a time.
    Sync,
    Threads,
    Greenlets,
    /// Of another interface.
    Other,
}

impl Gunicorn {
    /// The last value of a setting.
    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.settings.iter().rev().find(|setting| setting.name == name).map(|setting| &setting.value)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.value(name).and_then(Value::as_str)
    }

    pub(super) fn class(&self) -> Class {
        let has_threads = self.value("threads").and_then(number).is_some_and(|threads| threads > 1);
        match self.text("worker_class").unwrap_or("sync").rsplit(['.', '#']).next().unwrap_or_default() {
            "sync" | "SyncWorker" | "" if has_threads => Class::Threads,
            "sync" | "SyncWorker" | "" => Class::Sync,
            "gthread" | "ThreadWorker" => Class::Threads,
            "gevent"
            | "eventlet"
            | "GeventWorker"
            | "gevent_wsgi"
            | "gevent_pywsgi"
            | "EventletWorker"
            | "GeventWebSocketWorker"
            | "ggevent" => Class::Greenlets,
            _ => Class::Other,
        }
    }
}

/// A number, also where a command line has it as text.
pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_u64(),
    }
}
