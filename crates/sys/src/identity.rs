//! Whom processes run as: users and groups.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::unistd::{self, Gid, Uid};

use crate::os::process as os;

/// A user of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name, unless only the number is known.
    pub name: Option<CString>,
    /// User ID.
    pub uid: u32,
    /// ID of the primary group.
    pub gid: u32,
}

/// User and group of processes, if not those of this one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: Option<User>,
    /// The first group, if not the user's own.
    pub group: Option<u32>,
}

/// Finds a user by name or number in the system's table. `None`: there is no such user.
pub fn user(name: &str) -> io::Result<Option<User>> {
    let number = name.parse::<u32>().ok();
    let found = match number {
        Some(uid) => unistd::User::from_uid(uid.into())?,
        None => unistd::User::from_name(name)?,
    };
    let Some(found) = found else {
        // A bare number needs no entry in the table.
        return Ok(number.map(|uid| User { name: None, uid, gid: uid }));
    };
    Ok(Some(User { name: CString::new(found.name).ok(), uid: found.uid.as_raw(), gid: found.gid.as_raw() }))
}

/// Finds a group's number by name or number. `None`: there is no such group.
pub fn group(name: &str) -> io::Result<Option<u32>> {
    if let Ok(gid) = name.parse() {
        return Ok(Some(gid));
    }
    Ok(unistd::Group::from_name(name)?.map(|group| group.gid.as_raw()))
}

impl User {
    /// HOME, USER and LOGNAME of the user, of those that are root's or not set in this process.
    pub fn variables(&self) -> io::Result<Vec<(&'static str, OsString)>> {
        let root = unistd::User::from_uid(Uid::from_raw(0))?;
        let Some((root, user)) = root.zip(unistd::User::from_uid(self.uid.into())?) else {
            // Containers have users without a name.
            return Ok(Vec::new());
        };
        let texts = [
            ("HOME", root.dir.into_os_string(), user.dir.into_os_string()),
            ("USER", root.name.clone().into(), user.name.clone().into()),
            ("LOGNAME", root.name.into(), user.name.into()),
        ];
        let is_free = |name: &str, roots: &OsStr| env::var_os(name).is_none_or(|value| value == roots);
        Ok(texts
            .into_iter()
            .filter(|(name, roots, _)| is_free(name, roots))
            .map(|(name, _, own)| (name, own))
            .collect())
    }
}

impl Identity {
    /// Becomes this user and group, for good, with the user's further groups.
    pub fn assume(&self) -> io::Result<()> {
        Ok(self.rights()?.assume()?)
    }

    /// Has a program run as this user and group, with the user's further groups, home folder and name.
    pub fn give_to(&self, command: &mut Command) -> io::Result<()> {
        if let Some(user) = &self.user {
            command.envs(user.variables()?);
        }
        if *self == Identity::default() {
            return Ok(());
        }
        let rights = self.rights()?;
        // SAFETY: the closure runs in the new process before it executes the program. It makes up to three calls into the kernel,
        // without locks or memory of its own.
        unsafe {
            command.pre_exec(move || Ok(rights.assume()?));
        }
        Ok(())
    }

    fn rights(&self) -> io::Result<Rights> {
        let Some(user) = &self.user else {
            return Ok(Rights { uid: None, gid: self.group.map(Gid::from_raw), groups: None });
        };
        let gid = Gid::from_raw(self.group.unwrap_or(user.gid));
        // A user that is only a number is in no further groups, least of all in those of root.
        let groups = user.name.as_ref().map_or(Ok(vec![gid]), |name| os::groups_of(name, gid))?;
        Ok(Rights { uid: Some(user.uid.into()), gid: Some(gid), groups: Some(groups) })
    }
}

/// What an identity means to the kernel.
struct Rights {
    uid: Option<Uid>,
    gid: Option<Gid>,
    /// All groups of the process.
    groups: Option<Vec<Gid>>,
}

impl Rights {
    fn assume(&self) -> nix::Result<()> {
        if let Some(groups) = &self.groups {
            os::set_groups(groups)?;
        }
        if let Some(gid) = self.gid {
            unistd::setgid(gid)?;
        }
        self.uid.map_or(Ok(()), unistd::setuid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let root = user("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(user("0").unwrap().unwrap().uid, 0);
        assert_eq!(user("no-such-user-here").unwrap(), None);
        assert_eq!(user("4000000001").unwrap().unwrap().name, None);
        assert_eq!(group("root").unwrap(), Some(0));
        assert_eq!(group("no-such-group-here").unwrap(), None);
    }

    #[test]
    fn variables_that_are_not_roots_stay() {
        let root = user("root").unwrap().unwrap();
        // Variables of root's are replaced by equal ones.
        for (name, value) in root.variables().unwrap() {
            assert!(env::var_os(name).is_none_or(|before| before == value), "{name}");
        }
        let nobody = User { name: None, uid: 4_000_000_001, gid: 0 };
        assert_eq!(nobody.variables().unwrap(), []);
    }

    #[test]
    fn a_user_without_a_name_has_no_groups_of_this_process() {
        let identity = Identity { user: user("4000000001").unwrap(), group: Some(7) };
        let rights = identity.rights().unwrap();
        assert_eq!(rights.groups, Some(vec![Gid::from_raw(7)]));
        let unchanged = Identity::default().rights().unwrap();
        assert!(unchanged.groups.is_none() && unchanged.uid.is_none() && unchanged.gid.is_none());
    }
}
