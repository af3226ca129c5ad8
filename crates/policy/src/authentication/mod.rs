//! Who may come in to which paths: by a password ([`basic`]), or by the word of another server ([`forward`]).
//!
//! * `password_file`: hashes of passwords. [`Guesses`]: what all processes know of passwords, and how often a client may be wrong.
//! * `subrequest`: the question to another server.
//!
//! What can be told at once is told when the head of a request has arrived; the rest waits for a thread that may wait. Like
//! `shared`, this room does I/O and reads a clock there.

mod basic;
mod forward;
mod guesses;
mod password_file;
mod subrequest;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anygate_config::site::AuthenticationPlan;
use anygate_proto::head::RequestHead;

use crate::network::Client;
use crate::paths::{self, ByPrefix};
use basic::{Basic, Known};
pub(crate) use forward::Denied;
use forward::{Forward, same};
pub(crate) use guesses::Guesses;
pub use password_file::Unusable;

/// The variables that say who a user is, and how that is known (RFC 3875 sections 4.1.11 and 4.1.1).
const USER: &str = "REMOTE_USER";
const KIND: &str = "AUTH_TYPE";

/// A file of passwords that cannot be used.
#[derive(Debug)]
pub struct UnusableFile {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: Unusable,
}

/// Who may come in.
#[derive(Debug)]
pub(crate) struct Authentication {
    basic: ByPrefix<Arc<Basic>>,
    forward: ByPrefix<Arc<Forward>>,
    /// Fields that only the other server may set.
    identity_fields: Vec<String>,
    guesses: Guesses,
}

/// The areas that a request is for.
#[derive(Debug, Default)]
pub(crate) struct Areas {
    basic: Vec<Arc<Basic>>,
    forward: Vec<Arc<Forward>>,
}

impl Areas {
    /// Whether every client may come in.
    pub(crate) fn is_empty(&self) -> bool {
        self.basic.is_empty() && self.forward.is_empty()
    }
}

impl Areas {
    /// Those of both.
    pub(crate) fn and(mut self, others: &Areas) -> Areas {
        add(&mut self.basic, &others.basic);
        add(&mut self.forward, &others.forward);
        self
    }
}

impl Authentication {
    /// Reads the files of passwords. `None`: every client may come in everywhere.
    ///
    /// Errors: a file cannot be used.
    pub(crate) fn new(
        plan: &AuthenticationPlan,
        guesses: Guesses,
    ) -> Result<Option<Authentication>, UnusableFile> {
        if *plan == AuthenticationPlan::default() {
            return Ok(None);
        }
        let basic = plan.basic.iter().map(|area| {
            let basic =
                Basic::new(area).map_err(|reason| UnusableFile { path: area.file.clone(), reason })?;
            Ok((area.prefix.clone(), Arc::new(basic)))
        });
        let forward = plan.forward.iter().map(|area| (area.prefix.clone(), Arc::new(Forward::new(area))));
        Ok(Some(Authentication {
            basic: basic.collect::<Result<_, _>>()?,
            forward: forward.collect(),
            identity_fields: plan.forward.iter().flat_map(|area| area.fields.clone()).collect(),
            guesses,
        }))
    }

    /// Removes what only the other server may say.
    pub(crate) fn strip(&self, head: &mut RequestHead) {
        if !self.identity_fields.is_empty() {
            head.retain_fields(|name| !self.identity_fields.iter().any(|own| same(name, own.as_bytes())));
        }
    }

    /// The areas that a request is for, in every way in which an application may read its path.
    pub(crate) fn areas(&self, head: &RequestHead) -> Areas {
        let mut areas = Areas::default();
        match paths::readings(head) {
            Some(readings) => {
                for path in readings {
                    add(&mut areas.basic, self.basic.find(&path));
                    add(&mut areas.forward, self.forward.find(&path));
                }
            }
            None => {
                add(&mut areas.basic, self.basic.values());
                add(&mut areas.forward, self.forward.values());
            }
        }
        areas
    }

    /// Decides about a request as far as that needs no waiting: returns the areas for which it must be
    /// [checked](Self::check). Passwords come first, so that no other server hears of a request without the right one.
    pub(crate) fn look(&self, mut areas: Areas, head: &mut RequestHead) -> Result<Areas, Denied> {
        let mut unknown = Vec::new();
        for basic in areas.basic {
            match basic.look(head, &self.guesses) {
                Known::User(user) => set_user(head, Some(&user), "Basic"),
                Known::Refused(refusal) => return Err(refusal.into()),
                Known::Nothing => unknown.push(basic),
            }
        }
        areas.basic = unknown;
        Ok(areas)
    }

    /// Decides about a request, and tells the application who the user is. It may wait. `cookies` gets values of Set-Cookie for
    /// the client.
    pub(crate) fn check(
        &self,
        areas: &Areas,
        head: &mut RequestHead,
        client: Client,
        https: bool,
        now: Duration,
        cookies: &mut Vec<Vec<u8>>,
    ) -> Result<(), Denied> {
        for basic in &areas.basic {
            let user = basic.check(head, &self.guesses, client, now)?;
            set_user(head, Some(&user), "Basic");
        }
        let mut identity = Vec::new();
        let mut user = None;
        for forward in &areas.forward {
            let found = forward.check(head, client, https)?;
            cookies.extend(found.cookies);
            let found = found.identity;
            if let Some(name) = forward.fields().first() {
                user = found.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone());
            }
            identity.extend(found);
        }
        if !areas.forward.is_empty() {
            set_user(head, user.as_deref(), "forward");
        }
        for (name, value) in identity {
            // Heads are far below the size that spans can say. A field the less lets no user pass for another.
            if let (Ok(name), Ok(value)) = (head.push_text(name.as_bytes()), head.push_text(&value)) {
                head.push_field(name, value);
            }
        }
        Ok(())
    }
}

fn add<'a, T: 'a>(areas: &mut Vec<Arc<T>>, found: impl IntoIterator<Item = &'a Arc<T>>) {
    for area in found {
        if !areas.iter().any(|known| Arc::ptr_eq(known, area)) {
            areas.push(Arc::clone(area));
        }
    }
}

/// Says who the user is, in place of what a front server said.
fn set_user(head: &mut RequestHead, user: Option<&[u8]>, kind: &str) {
    head.retain_variables(|name| name != USER.as_bytes() && name != KIND.as_bytes());
    let variables = user.map(|user| (USER, user)).into_iter().chain([(KIND, kind.as_bytes())]);
    for (name, value) in variables {
        if let (Ok(name), Ok(value)) = (head.push_text(name.as_bytes()), head.push_text(value)) {
            head.push_variable(name, value);
        }
    }
}

/// The user that a request is of, if a server has authenticated it: this one, or one in front.
pub(crate) fn user(head: &RequestHead) -> Option<&[u8]> {
    head.variables().find(|(name, _)| *name == USER.as_bytes()).map(|(_, value)| value)
}

/// Whether a server has authenticated the request.
pub(crate) fn is_authenticated(head: &RequestHead) -> bool {
    head.variables().any(|(name, _)| name == USER.as_bytes() || name == KIND.as_bytes())
}
