//! Users and passwords (RFC 7617), checked against a file that is read again when it changes.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anygate_config::site::BasicAuthPlan;
use anygate_lock::Mutex;
use anygate_proto::head::RequestHead;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::guesses::{Guesses, NoGuess};
use super::password_file::{PasswordFile, Unusable};
use crate::network::Client;
use crate::refusal::Refusal;

/// For so long a file is used without looking whether it has changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Longest user and password together.
const CREDENTIALS_MAX_BYTES: usize = 1024;
/// When those who are refused for lack of time may come again.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// An area that needs a password.
#[derive(Debug)]
pub(super) struct Basic {
    path: PathBuf,
    realm: String,
    state: Mutex<FileState>,
}

/// What is known of a file.
#[derive(Debug)]
struct FileState {
    looked: Instant,
    stamp: Option<Stamp>,
    /// `None`: it cannot be used now.
    file: Option<Arc<PasswordFile>>,
    /// What was last said of it.
    trouble: Option<String>,
}

/// What changes with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What is known of a request without waiting.
#[derive(Debug)]
pub(super) enum Known {
    /// It is this user's.
    User(Vec<u8>),
    /// It is no user's.
    Refused(Refusal),
    /// [`Basic::check`] must tell.
    Nothing,
}

impl Basic {
    /// Reads the file.
    ///
    /// Errors: it cannot be used.
    pub(super) fn new(plan: &BasicAuthPlan) -> Result<Basic, Unusable> {
        let stamp = Stamp::of(&plan.file);
        let file = PasswordFile::read(&plan.file)?;
        let state = FileState { looked: Instant::now(), stamp, file: Some(Arc::new(file)), trouble: None };
        Ok(Basic { path: plan.file.clone(), realm: plan.realm.clone(), state: Mutex::new(state) })
    }

    /// Whose request it is, as far as that is known. Never waits.
    pub(super) fn look(&self, head: &RequestHead, guesses: &Guesses) -> Known {
        let Some((user, password)) = credentials(head) else { return Known::Refused(self.challenge()) };
        // A thread that may wait reads the file at this moment.
        let Some(state) = self.state.try_lock() else { return Known::Nothing };
        if state.looked.elapsed() > LOOK_INTERVAL {
            return Known::Nothing;
        }
        let Some(file) = state.file.clone() else { return Known::Nothing };
        drop(state);
        match file.hash(&user) {
            Some(hash) if guesses.knows(&guesses.credentials(&user, &password, hash.text())) => {
                Known::User(user)
            }
            _ => Known::Nothing,
        }
    }

    /// Finds out whose request it is. It may read the file, compare a password with its hash, and wait for others that do.
    pub(super) fn check(
        &self,
        head: &RequestHead,
        guesses: &Guesses,
        client: Client,
        now: Duration,
    ) -> Result<Vec<u8>, Refusal> {
        let (user, password) = credentials(head).ok_or_else(|| self.challenge())?;
        let file = self.current().ok_or_else(|| Refusal::unavailable(BUSY_RETRY_AFTER))?;
        let known = file.hash(&user);
        // An unknown user takes as long as a known one.
        let hash = known.or_else(|| file.decoy(guesses.number(&user))).ok_or_else(|| self.challenge())?;
        let asked = guesses.credentials(&user, &password, hash.text());
        if known.is_some() && guesses.knows(&asked) {
            return Ok(user);
        }
        let is_right = || hash.is_of(&password) && known.is_some();
        match guesses.check(&asked, client, now, is_right) {
            Ok(true) if known.is_some() => Ok(user),
            Ok(_) => Err(self.challenge()),
            Err(NoGuess::TooMany(wait)) => Err(Refusal::too_many(wait)),
            Err(NoGuess::Busy) => Err(Refusal::unavailable(BUSY_RETRY_AFTER)),
        }
    }

    /// The file as it is now; `None` if it cannot be used, which is logged once.
    fn current(&self) -> Option<Arc<PasswordFile>> {
        let mut state = self.state.lock();
        if state.looked.elapsed() <= LOOK_INTERVAL && state.file.is_some() {
            return state.file.clone();
        }
        // Taken before the file is read: a change in between shows the next time.
        let stamp = Stamp::of(&self.path);
        if stamp.is_none() || stamp != state.stamp || state.file.is_none() {
            let path = self.path.display();
            match PasswordFile::read(&self.path) {
                Ok(file) => {
                    if state.trouble.take().is_some() {
                        tracing::info!("basic_auth: {path} can be used again");
                    }
                    state.file = Some(Arc::new(file));
                }
                Err(error) => {
                    let trouble = error.to_string();
                    if state.trouble.as_ref() != Some(&trouble) {
                        tracing::error!("basic_auth: {path} {trouble}; nobody gets in until it can be used");
                        state.trouble = Some(trouble);
                    }
                    state.file = None;
                }
            }
            state.stamp = stamp;
        }
        state.looked = Instant::now();
        state.file.clone()
    }

    /// 401: who is asking?
    fn challenge(&self) -> Refusal {
        let mut realm = String::new();
        for character in self.realm.chars() {
            if matches!(character, '"' | '\\') {
                realm.push('\\');
            }
            realm.push(character);
        }
        Refusal::unauthorized(&format!("Basic realm=\"{realm}\", charset=\"UTF-8\""))
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Stamp> {
        let metadata = path.metadata().ok()?;
        Some(Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// The user and the password of a request (RFC 7617 section 2); `None` if it has none, or more than one.
fn credentials(head: &RequestHead) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut fields = head.fields().filter(|(name, _)| name.eq_ignore_ascii_case(b"authorization"));
    let (_, value) = fields.next()?;
    if fields.next().is_some() {
        return None;
    }
    let (scheme, encoded) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") || encoded.len() > CREDENTIALS_MAX_BYTES * 2 {
        return None;
    }
    let mut user = STANDARD.decode(encoded.trim_ascii()).ok()?;
    let colon = user.iter().position(|&byte| byte == b':')?;
    let password = user.split_off(colon + 1);
    user.truncate(colon);
    let is_plain = |text: &[u8]| !text.iter().any(u8::is_ascii_control);
    (is_plain(&user) && is_plain(&password) && user.len() + password.len() <= CREDENTIALS_MAX_BYTES)
        .then_some((user, password))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn credentials_are_read_as_they_are_written() {
        let read = |values: &[&str]| {
            let fields: Vec<_> = values.iter().map(|value| ("Authorization", *value)).collect();
            let found = credentials(&fixtures::request("GET", "/", &fields))?;
            Some((String::from_utf8(found.0).unwrap(), String::from_utf8(found.1).unwrap()))
        };
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        let is = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(read(&[&basic("joe:secret")]), is("joe", "secret"));
        assert_eq!(read(&[&basic("joe:a:b:")]), is("joe", "a:b:"));
        assert_eq!(read(&["bAsIC  am9lOg=="]), is("joe", ""));
        for wrong in [
            &["Bearer am9lOg=="][..],
            &["Basic"],
            &["Basic am9l"],
            &["Basic *"],
            &[""],
            &[&basic("joe:a\0b")],
            &[&basic("j\re:a")],
            &[&basic(&format!("joe:{}", "x".repeat(2000)))],
            &[&basic("joe:secret"), &basic("joe:secret")],
            &[],
        ] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
