//! Files of users and hashes of their passwords, as `htpasswd -B` writes them: `user:hash` a line. Hashes are bcrypt and
//! Argon2. Those that can be guessed quickly are refused, and so is plain text: a file with one would only look safe.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use argon2::password_hash::PasswordHash;
use argon2::{Argon2, Params, PasswordVerifier};

/// Largest file that is read.
const FILE_MAX_BYTES: u64 = 16 << 20;
/// Bytes of `$2b$05$`.
const BCRYPT_HEAD_BYTES: usize = 7;
/// Highest cost of bcrypt: some seconds for one password.
const BCRYPT_COST_MAX: u32 = 16;
/// Most memory and most passes of Argon2, for the same reason.
const ARGON2_MEMORY_MAX_KIB: u32 = 1 << 20;
const ARGON2_PASSES_MAX: u32 = 64;

/// Users and hashes of their passwords.
#[derive(Debug)]
pub(super) struct PasswordFile {
    users: HashMap<Vec<u8>, Hash>,
    /// A hash for each of many unknown users, so that finding out whether they exist takes guessing passwords.
    decoys: Vec<Hash>,
}

/// A hash of a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hash {
    text: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bcrypt,
    Argon2,
}

/// Why a file is not used.
#[derive(Debug)]
pub enum Unusable {
    /// It cannot be read.
    Unreadable(io::Error),
    /// It is larger than any such file.
    TooLarge,
    /// It has no users.
    Empty,
    /// The line of this number is wrong.
    Line(usize, WrongLine),
}

/// What is wrong with a line.
#[derive(Debug)]
pub enum WrongLine {
    /// It is not `user:hash`.
    Form,
    /// The user is there before.
    Twice(String),
    /// The password of this user is hashed in a way that is not accepted.
    Weak(String, &'static str),
    /// The hash of this user is broken.
    Broken(String, String),
    /// Comparing a password with the hash of this user takes too long or too much memory.
    Costly(String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Unusable::TooLarge => write!(f, "is larger than {} MiB", FILE_MAX_BYTES >> 20),
            Unusable::Empty => f.write_str("has no users; htpasswd -B adds one"),
            Unusable::Line(number, wrong) => {
                write!(f, "line {number}: ")?;
                match wrong {
                    WrongLine::Form => f.write_str("must be user:hash"),
                    WrongLine::Twice(user) => write!(f, "the user {user:?} is there twice"),
                    WrongLine::Weak(user, kind) => write!(
                        f,
                        "the password of {user:?} is {kind}, which is not accepted; make it anew with bcrypt: htpasswd -B"
                    ),
                    WrongLine::Broken(user, reason) => write!(f, "the hash of {user:?} is broken: {reason}"),
                    WrongLine::Costly(user) => {
                        write!(f, "the hash of {user:?} costs too much time or memory to compare with")
                    }
                }
            }
        }
    }
}

impl std::error::Error for Unusable {}

impl PasswordFile {
    /// Reads a file.
    ///
    /// Errors: it cannot be read, or any line of it is wrong.
    pub(super) fn read(path: &Path) -> Result<PasswordFile, Unusable> {
        let metadata = fs::metadata(path).map_err(Unusable::Unreadable)?;
        if !metadata.is_file() {
            return Err(Unusable::Unreadable(io::Error::other("it is not a file")));
        }
        if metadata.len() > FILE_MAX_BYTES {
            return Err(Unusable::TooLarge);
        }
        let text = fs::read(path).map_err(Unusable::Unreadable)?;
        PasswordFile::parse(&text)
    }

    fn parse(text: &[u8]) -> Result<PasswordFile, Unusable> {
        let mut users = HashMap::new();
        for (number, line) in (1..).zip(text.split(|&byte| byte == b'\n')) {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.trim_ascii().is_empty() || line.starts_with(b"#") {
                continue;
            }
            let (user, hash) = entry(line).map_err(|wrong| Unusable::Line(number, wrong))?;
            if users.insert(user.to_vec(), hash).is_some() {
                return Err(Unusable::Line(number, WrongLine::Twice(shown(user))));
            }
        }
        if users.is_empty() {
            return Err(Unusable::Empty);
        }
        let decoys = users.values().cloned().collect();
        Ok(PasswordFile { users, decoys })
    }

    /// The hash of a user's password.
    pub(super) fn hash(&self, user: &[u8]) -> Option<&Hash> {
        self.users.get(user)
    }

    /// A hash to compare the password of an unknown user with, always the same one for the same `number`.
    pub(super) fn decoy(&self, number: u64) -> Option<&Hash> {
        let place = number.checked_rem(u64::try_from(self.decoys.len()).ok()?)?;
        self.decoys.get(usize::try_from(place).ok()?)
    }
}

impl Hash {
    fn read(user: &[u8], text: &[u8]) -> Result<Hash, WrongLine> {
        let broken = |reason: &dyn fmt::Display| WrongLine::Broken(shown(user), reason.to_string());
        let text = std::str::from_utf8(text).map_err(|error| broken(&error))?;
        if ["$2a$", "$2b$", "$2y$"].iter().any(|start| text.starts_with(start)) {
            let parts: bcrypt::HashParts =
                text.parse().map_err(|error: bcrypt::BcryptError| broken(&error))?;
            if parts.get_cost() > BCRYPT_COST_MAX {
                return Err(WrongLine::Costly(shown(user)));
            }
            let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
            if !text.bytes().skip(BCRYPT_HEAD_BYTES).all(is_base64) {
                return Err(broken(&"its salt and digest have other characters than those of bcrypt"));
            }
            return Ok(Hash { text: text.to_owned(), kind: Kind::Bcrypt });
        }
        if text.starts_with("$argon2") {
            let parsed = PasswordHash::new(text).map_err(|error| broken(&error))?;
            if !["argon2id", "argon2i", "argon2d"].contains(&parsed.algorithm.as_str()) {
                return Err(broken(&"there is no such kind of Argon2"));
            }
            if parsed.salt.is_none() || parsed.hash.is_none() {
                return Err(broken(&"it has no salt or no digest"));
            }
            let params = Params::try_from(&parsed).map_err(|error| broken(&error))?;
            if params.m_cost() > ARGON2_MEMORY_MAX_KIB || params.t_cost() > ARGON2_PASSES_MAX {
                return Err(WrongLine::Costly(shown(user)));
            }
            return Ok(Hash { text: text.to_owned(), kind: Kind::Argon2 });
        }
        Err(WrongLine::Weak(shown(user), weakness(text)))
    }

    /// Its text, which differs for each hash.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is that of this password. It takes long on purpose.
    pub(super) fn is_of(&self, password: &[u8]) -> bool {
        match self.kind {
            // What cannot be compared is not the password.
            Kind::Bcrypt => bcrypt::verify(password, &self.text).unwrap_or(false),
            Kind::Argon2 => PasswordHash::new(&self.text)
                .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok()),
        }
    }
}

/// A line's user and hash. What follows a second colon is a comment, as for nginx.
fn entry(line: &[u8]) -> Result<(&[u8], Hash), WrongLine> {
    let mut parts = line.split(|&byte| byte == b':');
    let (Some(user), Some(hash)) = (parts.next(), parts.next()) else { return Err(WrongLine::Form) };
    if user.is_empty() || user.iter().any(u8::is_ascii_control) {
        return Err(WrongLine::Form);
    }
    Ok((user, Hash::read(user, hash.trim_ascii())?))
}

/// What a password is that is not accepted.
fn weakness(text: &str) -> &'static str {
    let begins = |start: &str| text.starts_with(start);
    if begins("$apr1$") || begins("$1$") {
        "hashed with MD5"
    } else if begins("{SHA}") || begins("{SSHA}") {
        "hashed with SHA-1"
    } else if begins("$5$") || begins("$6$") {
        "hashed with SHA-2 (crypt)"
    } else if begins("$") || begins("{") {
        "hashed in an unknown way"
    } else {
        "plain text or hashed with DES (crypt)"
    }
}

fn shown(user: &[u8]) -> String {
    String::from_utf8_lossy(user).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCRYPT: &str = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";

    fn argon2(password: &str) -> String {
        use argon2::password_hash::{PasswordHasher, SaltString};
        let params = Params::new(64, 1, 1, None).unwrap();
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let salt = SaltString::encode_b64(b"a salt of some bytes").unwrap();
        argon2.hash_password(password.as_bytes(), &salt).unwrap().to_string()
    }

    #[test]
    fn users_are_known_by_their_passwords() {
        let bcrypt = bcrypt::hash("secret", 4).unwrap();
        let text = format!("# users\r\n\njoe:{bcrypt}:a comment\r\nann:{}\n", argon2("other"));
        let file = PasswordFile::parse(text.as_bytes()).unwrap();
        let is = |user: &str, password: &str| file.hash(user.as_bytes()).unwrap().is_of(password.as_bytes());
        assert!(is("joe", "secret") && is("ann", "other"));
        assert!(!is("joe", "other") && !is("ann", "secret") && !is("joe", "") && !is("joe", "secret\0"));
        assert!(file.hash(b"Joe").is_none() && file.hash(b"").is_none());
        assert!(file.decoy(0).is_some() && file.decoy(u64::MAX).is_some());
        assert_eq!(file.decoy(7), file.decoy(7));
    }

    #[test]
    fn what_could_be_guessed_quickly_is_refused_with_its_line() {
        for (hash, word) in [
            ("$apr1$x$y", "MD5"),
            ("$1$x$y", "MD5"),
            ("{SHA}abc", "SHA-1"),
            ("$6$x$y", "SHA-2"),
            ("$7$x$y", "unknown"),
            ("secret", "plain text"),
            ("", "plain text"),
        ] {
            let error = PasswordFile::parse(format!("\njoe:{hash}\n").as_bytes()).unwrap_err().to_string();
            assert!(
                error.starts_with("line 2: the password of \"joe\" is") && error.contains(word),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_broken_is_refused_with_its_line() {
        let twice = format!("joe:{BCRYPT}\njoe:{BCRYPT}");
        let costly = BCRYPT.replace("$05$", "$31$");
        for (text, reason) in [
            ("", "has no users"),
            ("# only this\n", "has no users"),
            ("joe", "line 1: must be user:hash"),
            (":x", "line 1: must be user:hash"),
            ("j\0e:x", "line 1: must be user:hash"),
            (twice.as_str(), "line 2: the user \"joe\" is there twice"),
            ("joe:$2y$05$short", "line 1: the hash of \"joe\" is broken"),
            (&format!("joe:{}", BCRYPT.replace('Q', "*")), "line 1: the hash of \"joe\" is broken"),
            (&format!("joe:{costly}"), "costs too much"),
            ("joe:$argon2id$v=19$m=8", "line 1: the hash of \"joe\" is broken"),
            (&format!("joe:{}", argon2("x").replace("argon2id", "argon2xx")), "no such kind"),
            (&format!("joe:{}", argon2("x").replace("m=64", "m=4000000000")), "costs too much"),
        ] {
            let error = PasswordFile::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!(matches!(PasswordFile::read(Path::new("/nowhere")), Err(Unusable::Unreadable(_))));
        assert!(matches!(PasswordFile::read(Path::new("/")), Err(Unusable::Unreadable(_))));
    }
}
