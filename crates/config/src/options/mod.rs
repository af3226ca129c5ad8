//! The table of options: one row each, with a typed key, in a file for each section. The rows of request policies (access, limits,
//! health checks, CORS, compression, static files, cache) are in `site`.
//!
//! `access` has those of authentication and routing.
//!
//! * `opt`: what a row says. * `key`: the keys, and which type each kind of option has. * `choices`: options that are one of
//!   several words.

mod access;
mod admin;
mod application;
mod choices;
mod interpreter;
mod key;
mod limits;
mod logs;
mod opt;
mod processes;
mod site;
mod sockets;

pub use access::*;
pub use admin::*;
pub use application::*;
pub use choices::{
    ClientCert, Concurrency, CronMode, Facility, ForwardedHeader, LogLevel, MemoryMax, QueueMax, ReloadMode,
    SecurityProfile, WorkerCount,
};
pub use interpreter::*;
pub use key::{DefaultValue, Key, Shape, Typed};
pub use limits::*;
pub use logs::*;
use opt::BASE;
pub(crate) use opt::BYTES_MAX;
pub use opt::{Kind, Opt, Owner, Reach, Section};
pub use processes::*;
pub use site::*;
pub use sockets::*;

/// Every option.
pub const OPTIONS: &[Opt] = &TABLE;

/// The rows of each file, in order.
const FILES: [&[Opt]; 9] = [
    application::ROWS,
    sockets::ROWS,
    processes::ROWS,
    interpreter::ROWS,
    limits::ROWS,
    access::ROWS,
    site::ROWS,
    logs::ROWS,
    admin::ROWS,
];

/// Number of rows in `files`.
const fn count(mut files: &[&[Opt]]) -> usize {
    let mut rows = 0;
    while let [file, rest @ ..] = files {
        rows += file.len();
        files = rest;
    }
    rows
}

static TABLE: [Opt; count(&FILES)] = {
    let mut table = [BASE; count(&FILES)];
    let mut rest: &mut [Opt] = &mut table;
    let mut files: &[&[Opt]] = &FILES;
    while let [file, others @ ..] = files {
        let (rows, behind) = rest.split_at_mut(file.len());
        rows.copy_from_slice(file);
        (rest, files) = (behind, others);
    }
    table
};

/// Returns the option of that name; `-` and `_` are equivalent.
pub fn find(name: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|option| same(option.name, name))
}

/// Whether an option works around an application under any server.
pub fn works_under_any_server(name: &str) -> bool {
    find(name).is_some_and(|option| option.reach == Reach::AnyServer)
}

/// Whether an option protects an application under anygate's own server only.
pub fn protects_under_own_server(name: &str) -> bool {
    find(name).is_some_and(|option| option.reach == Reach::OwnServerProtection)
}

fn same(name: &str, given: &str) -> bool {
    name.len() == given.len()
        && name.bytes().zip(given.bytes()).all(|(a, b)| a == b || (a == b'_' && b == b'-'))
}

/// Returns the option whose name is most similar to `given`, if any is similar.
pub fn nearest(given: &str) -> Option<&'static Opt> {
    let given = given.replace('-', "_").to_lowercase();
    OPTIONS
        .iter()
        .map(|option| (strsim::jaro_winkler(option.name, &given), option))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, option)| option)
}
