//! Opening files below a folder and nowhere else.
//!
//! Where symlinks must not lead out of the folder the kernel watches over every step (openat2 with `RESOLVE_BENEATH`), so
//! that a directory cannot be exchanged for a link between a check and the opening. `rustix` has the call, `std` has not.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anygate_lock::Mutex;
use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;

/// The folder itself may be exchanged, as deployments do with a link to the current version; it is looked for again as
/// often as this.
const FRESH: Duration = Duration::from_secs(1);

/// One folder with public files.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    follow_symlinks: bool,
    /// The folder, and when it was opened.
    folder: Mutex<(Arc<OwnedFd>, SystemTime)>,
    told_of_link: AtomicBool,
}

impl Root {
    /// Opens the folder.
    pub(super) fn new(path: PathBuf, follow_symlinks: bool, now: SystemTime) -> io::Result<Root> {
        let folder = Arc::new(open_folder(&path)?);
        Ok(Root {
            path,
            follow_symlinks,
            folder: Mutex::new((folder, now)),
            told_of_link: AtomicBool::new(false),
        })
    }

    /// Opens what is at `path`, which has no `..` and does not begin with a slash; empty for the folder itself. It may be
    /// anything: nothing waits, should it be a pipe.
    pub(super) fn open(&self, path: &[u8], now: SystemTime) -> io::Result<File> {
        let folder = self.folder(now)?;
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = if self.follow_symlinks {
            openat(folder.as_fd(), path, flags, Mode::empty())?
        } else {
            open_beneath(folder.as_fd(), path, flags).inspect_err(|error| {
                if *error == Errno::XDEV {
                    self.tell_of_link(path);
                }
            })?
        };
        Ok(File::from(file))
    }

    /// Says in the log, once, why a file that is there is not found.
    fn tell_of_link(&self, path: &[u8]) {
        if !self.told_of_link.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{}/{}: is not served, since a symbolic link is absolute or leads out of the folder \
                 (--static-symlinks follows such links of --static)",
                self.path.display(),
                String::from_utf8_lossy(path).escape_debug()
            );
        }
    }

    fn folder(&self, now: SystemTime) -> io::Result<Arc<OwnedFd>> {
        // The pair is whole after every statement.
        let mut folder = self.folder.lock();
        // A clock that was set back makes it old, too.
        if now.duration_since(folder.1).map_or(true, |age| age >= FRESH) {
            *folder = (Arc::new(open_folder(&self.path)?), now);
        }
        Ok(Arc::clone(&folder.0))
    }
}

fn open_folder(path: &std::path::Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(all(target_os = "linux", not(feature = "portable")))]
fn open_beneath(
    folder: std::os::fd::BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{ResolveFlags, openat2};

    /// The kernel asks to try again when something was renamed meanwhile.
    const TRIES: usize = 4;
    for _ in 0..TRIES {
        match openat2(folder, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
        {
            Err(Errno::AGAIN) => {}
            // A kernel before 5.6, or a sandbox that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => return open_stepwise(folder, path, flags),
            opened => return opened,
        }
    }
    Err(Errno::AGAIN)
}

#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
use open_stepwise as open_beneath;

/// Opens one folder after the other and follows links only as long as they stay beneath the first. A step upwards goes
/// back to the folder that was opened before, so that directories cannot be exchanged between the steps.
fn open_stepwise(
    folder: std::os::fd::BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    const THROUGH: OFlags =
        OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
    /// As many links as Linux follows in one path.
    const LINKS_MAX: usize = 40;
    let mut links = 0;
    // The folders from the first to where we are, without the first, and the steps that are left, the next one last.
    let mut folders: Vec<OwnedFd> = Vec::new();
    let mut steps: Vec<Vec<u8>> = Vec::new();
    push_steps(&mut steps, path);
    loop {
        let inside = folders.last().map_or(folder, AsFd::as_fd);
        let Some(step) = steps.pop() else { return openat(inside, c".", flags, Mode::empty()) };
        if step == b".." {
            if folders.pop().is_none() {
                return Err(Errno::XDEV);
            }
            continue;
        }
        let is_last = steps.is_empty();
        let how = if is_last { flags | OFlags::NOFOLLOW } else { THROUGH };
        match openat(inside, step.as_slice(), how, Mode::empty()) {
            Ok(opened) if is_last => return Ok(opened),
            Ok(opened) => folders.push(opened),
            // What a link is called depends on whether a folder was wanted.
            Err(error @ (Errno::LOOP | Errno::NOTDIR)) => {
                let Ok(target) = readlinkat(inside, step.as_slice(), Vec::new()) else { return Err(error) };
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::LOOP);
                }
                if target.as_bytes().starts_with(b"/") {
                    return Err(Errno::XDEV);
                }
                push_steps(&mut steps, target.as_bytes());
            }
            Err(error) => return Err(error),
        }
    }
}

/// Puts the steps of a path before those that are left.
fn push_steps(steps: &mut Vec<Vec<u8>>, path: &[u8]) {
    let parts = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    steps.extend(parts.map(<[u8]>::to_vec).rev());
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    fn read(file: io::Result<impl Into<File>>) -> Option<String> {
        let mut text = String::new();
        file.ok()?.into().read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// A folder `public` beside a secret, with links of all kinds.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("public/sub")).unwrap();
        fs::create_dir(at("other")).unwrap();
        fs::write(at("secret"), "secret").unwrap();
        fs::write(at("other/secret"), "secret").unwrap();
        fs::write(at("public/sub/file"), "file").unwrap();
        symlink("sub/file", at("public/inner")).unwrap();
        symlink("sub", at("public/folder")).unwrap();
        symlink("../secret", at("public/outer")).unwrap();
        symlink(at("secret"), at("public/absolute")).unwrap();
        symlink("../other", at("public/out")).unwrap();
        symlink("loop", at("public/loop")).unwrap();
        folder
    }

    #[test]
    fn links_that_leave_the_folder_are_refused_unless_followed() {
        let folder = folder();
        let now = SystemTime::now();
        let root = |follow| Root::new(folder.path().join("public"), follow, now).unwrap();
        let (strict, lax) = (root(false), root(true));
        for path in ["sub/file", "inner", "folder/file"] {
            for root in [&strict, &lax] {
                assert_eq!(read(root.open(path.as_bytes(), now)).as_deref(), Some("file"), "{path}");
            }
        }
        for path in ["outer", "absolute", "out/secret"] {
            assert!(strict.open(path.as_bytes(), now).is_err(), "{path}");
            assert_eq!(read(lax.open(path.as_bytes(), now)).as_deref(), Some("secret"), "{path}");
        }
        // Paths like these are not requested, but if they were:
        for path in ["../secret", "/etc/passwd", "sub/../../secret", "loop"] {
            assert!(strict.open(path.as_bytes(), now).is_err(), "{path}");
        }
        assert!(strict.open(b"", now).unwrap().metadata().unwrap().is_dir());
    }

    #[test]
    fn without_the_kernels_help_links_are_followed_beneath_the_folder_alone() {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        // As Kubernetes mounts a ConfigMap.
        fs::create_dir(at("public/..2026_01")).unwrap();
        fs::write(at("public/..2026_01/key"), "value").unwrap();
        symlink("..2026_01", at("public/..data")).unwrap();
        symlink("..data/key", at("public/key")).unwrap();
        symlink("../inner", at("public/sub/back")).unwrap();
        symlink("../../secret", at("public/sub/outer")).unwrap();
        symlink("sub/..", at("public/self")).unwrap();
        let public = File::open(at("public")).unwrap();
        let open = |path: &str| {
            read(open_stepwise(public.as_fd(), path.as_bytes(), OFlags::RDONLY).map_err(Into::into))
        };
        for path in [
            "sub/file",
            "sub//file",
            "inner",
            "folder/file",
            "sub/back",
            "self/self/inner",
            "folder/../inner",
        ] {
            assert_eq!(open(path).as_deref(), Some("file"), "{path}");
        }
        assert_eq!(open("key").as_deref(), Some("value"));
        for path in ["outer", "absolute", "out/secret", "sub/outer", "self/outer", "loop", "loop/x"] {
            assert_eq!(open(path), None, "{path}");
        }
        for path in ["sub/missing", "sub/file/x", "../secret", "sub/../../secret"] {
            assert_eq!(open(path), None, "{path}");
        }
    }

    #[test]
    fn a_folder_that_was_exchanged_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for version in ["1", "2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("file"), version).unwrap();
        }
        symlink("1", at("current")).unwrap();
        let now = SystemTime::now();
        let root = Root::new(at("current"), false, now).unwrap();
        symlink("2", at("next")).unwrap();
        fs::rename(at("next"), at("current")).unwrap();
        assert_eq!(read(root.open(b"file", now)).as_deref(), Some("1"));
        assert_eq!(read(root.open(b"file", now + FRESH)).as_deref(), Some("2"));
        assert_eq!(read(root.open(b"file", now - FRESH)).as_deref(), Some("2"));
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        assert!(Root::new("/nonexistent".into(), true, SystemTime::now()).is_err());
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Root::new(file.path().to_owned(), true, SystemTime::now()).is_err());
    }
}
