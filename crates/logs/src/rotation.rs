//! Fresh files for logs that have grown too large or too old.
//!
//! Several processes append to one file. One of them, the supervisor, looks at it once a second, gives it another name
//! and makes an empty file of the old name; then it has all others open theirs anew, as it does when USR1 says that
//! another program has moved a file. No line is lost meanwhile, because a process that has not done so yet still writes into the
//! file with the new name, and none is torn, because nothing of what was written is touched.
//!
//! A file may only be compressed when no process writes into it any more. Every process that has a log open shares its lock
//! ([`lock::share`]), which the system takes back when the last descriptor is closed, however a process ends. So a file
//! that can be locked exclusively is complete. A thread compresses it, into a file of another name until it is whole.
//!
//! Supervisors of two trees may have the same log. The folder is locked while a file gets its name, and a process that finds that
//! the name of the log stands for another file than before leaves it at that and has its own processes open theirs anew.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use anygate_config::backup_name::{Age, BackupName};
use anygate_config::{LogTarget, RotatePlan};
use anygate_sys::lock;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The logs of a tree of processes.
pub struct Rotation {
    plan: RotatePlan,
    zone: TimeZone,
    logs: Vec<Log>,
    /// Old files that are to be compressed.
    unpacked: Vec<PathBuf>,
    packing: Option<(PathBuf, JoinHandle<io::Result<()>>)>,
}

struct Log {
    path: PathBuf,
    /// Device and number of the file that is open.
    file: (u64, u64),
    /// The number of the interval that its lines are of.
    interval: i64,
    /// It could not be rotated, and that was said.
    failing: bool,
}

/// The calendar begins on a Thursday, weeks begin on Mondays.
const MONDAY: Duration = Duration::from_secs(3 * 86_400);

impl Rotation {
    /// Looks after those logs that are files; `None` if nothing is wanted of them. They have been opened.
    pub fn new<'a>(
        plan: &RotatePlan,
        targets: impl IntoIterator<Item = &'a LogTarget>,
        now: SystemTime,
    ) -> Option<Rotation> {
        if !plan.is_wanted() {
            return None;
        }
        let mut rotation = Rotation {
            plan: plan.clone(),
            zone: TimeZone::system(),
            logs: Vec::new(),
            unpacked: Vec::new(),
            packing: None,
        };
        for target in targets {
            let LogTarget::File(path) = target else { continue };
            // A link stays, and what it points to is given another name.
            let path = path.canonicalize().unwrap_or_else(|_| path.clone());
            let Ok(about) = path.metadata() else { continue };
            if !about.is_file() || rotation.logs.iter().any(|log| log.path == path) {
                continue;
            }
            // The lines in it are as old as the last one.
            let written = about.modified().ok().filter(|_| about.len() > 0);
            let interval = rotation.interval(written.unwrap_or(now));
            rotation.tidy(&path);
            rotation.logs.push(Log { path, file: identity(&about), interval, failing: false });
        }
        (!rotation.logs.is_empty()).then_some(rotation)
    }

    /// Rotates what is due. Says whether logs are to be opened anew now.
    pub fn look(&mut self, now: SystemTime) -> bool {
        let interval = self.interval(now);
        let mut logs = std::mem::take(&mut self.logs);
        let mut moved = false;
        for log in &mut logs {
            match log.turn(&self.plan, interval, now) {
                Ok(false) => log.failing = false,
                Ok(true) => {
                    (moved, log.failing) = (true, false);
                    self.tidy(&log.path);
                }
                Err(error) if !log.failing => {
                    log.failing = true;
                    tracing::error!("cannot rotate {}: {error}", log.path.display());
                }
                Err(_) => {}
            }
        }
        self.logs = logs;
        self.pack();
        moved
    }

    /// The number of the interval that a moment is in, by the local clock.
    fn interval(&self, time: SystemTime) -> i64 {
        let length = i64::try_from(self.plan.interval.as_millis()).unwrap_or(i64::MAX);
        let time = Timestamp::try_from(time).unwrap_or_default();
        let offset = i64::from(self.zone.to_offset(time).seconds()) * 1000;
        let monday = i64::try_from(MONDAY.as_millis()).unwrap_or_default();
        (time.as_millisecond() + offset + monday).checked_div_euclid(length).unwrap_or_default()
    }

    /// Deletes the oldest files of a log, and finds out which are to be compressed.
    fn tidy(&mut self, path: &Path) {
        // What cannot be listed now is found the next time.
        let Ok(mut old) = old_files(path, &self.plan.name) else { return };
        while old.len() > self.plan.keep {
            let Some((_, files)) = old.pop_first() else { break };
            for file in files {
                if let Err(error) = fs::remove_file(&file) {
                    tracing::warn!("cannot delete the old log {}: {error}", file.display());
                }
            }
        }
        if self.plan.gzip {
            let plain = old.into_values().flatten().filter(|file| !is_packed(file));
            self.unpacked.extend(plain);
            self.unpacked.sort();
            self.unpacked.dedup();
        }
    }

    /// Goes on compressing old files, one after another.
    fn pack(&mut self) {
        if let Some((path, thread)) = self.packing.take_if(|(_, thread)| thread.is_finished()) {
            let packed = thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread failed")));
            if let Err(error) = packed {
                tracing::warn!("cannot compress {}: {error}", path.display());
            }
        }
        let mut place = 0;
        while self.packing.is_none()
            && let Some(path) = self.unpacked.get(place)
        {
            // Read and write, since a lock that came across a network needs both.
            let file = OpenOptions::new().read(true).write(true).open(path);
            let locked = file.and_then(|file| lock::exclusive(&file, Duration::ZERO).map(|()| file));
            match locked {
                // A process still writes into it.
                Err(error) if error.kind() == io::ErrorKind::TimedOut => place += 1,
                Ok(file) => {
                    let path = self.unpacked.remove(place);
                    let packed = path.clone();
                    let started =
                        thread::Builder::new().name("gzip".to_owned()).spawn(move || pack(&file, &packed));
                    match started {
                        Ok(thread) => self.packing = Some((path, thread)),
                        Err(error) => tracing::warn!("cannot compress {}: {error}", path.display()),
                    }
                }
                Err(error) => {
                    let path = self.unpacked.remove(place);
                    if error.kind() != io::ErrorKind::NotFound {
                        tracing::warn!("cannot compress {}: {error}", path.display());
                    }
                }
            }
        }
    }
}

impl Log {
    /// Renames the file if it is time. Returns whether it was renamed, by this process or another one.
    fn turn(&mut self, plan: &RotatePlan, interval: i64, now: SystemTime) -> io::Result<bool> {
        let about = match self.path.metadata() {
            Ok(about) if about.is_file() => about,
            Ok(_) => return Ok(false),
            // The process that has moved it will tell us.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if identity(&about) != self.file {
            (self.file, self.interval) = (identity(&about), interval);
            return Ok(true);
        }
        let is_large = plan.size > 0 && about.len() >= plan.size;
        let is_old = interval != self.interval;
        if about.len() == 0 || !(is_large || is_old) {
            self.interval = interval;
            return Ok(false);
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let folder = File::open(folder)?;
        match lock::exclusive(&folder, Duration::ZERO) {
            // Another process is about to do it. It is checked again later.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(false),
            // Without locks it is the only one, most likely.
            Ok(()) | Err(_) => {}
        }
        if identity(&self.path.metadata()?) == self.file {
            fs::rename(&self.path, free_name(&self.path, &plan.name, now)?)?;
            make_like(&self.path, &about)?;
        }
        (self.file, self.interval) = (identity(&self.path.metadata()?), interval);
        Ok(true)
    }
}

/// Returns device and number, which identify a file whatever its name.
fn identity(about: &fs::Metadata) -> (u64, u64) {
    (about.dev(), about.ino())
}

/// Makes an empty file, with the owner and the mode of another one.
fn make_like(path: &Path, other: &fs::Metadata) -> io::Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).mode(other.mode() & 0o777).open(path);
    match made {
        Ok(file) => resemble(&file, other),
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Gives a file the owner and the mode of another one.
fn resemble(file: &File, other: &fs::Metadata) -> io::Result<()> {
    file.set_permissions(other.permissions())?;
    let about = file.metadata()?;
    if (about.uid(), about.gid()) != (other.uid(), other.gid()) {
        // Who may not do so keeps it.
        let _ = fchown(file, Some(other.uid()), Some(other.gid()));
    }
    Ok(())
}

/// A name for the file that is moved away: one more than the largest number where the time has a file already, so that
/// names sort by age. Times are UTC, so that they never come twice.
fn free_name(path: &Path, pattern: &BackupName, now: SystemTime) -> io::Result<PathBuf> {
    let own = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let time = Timestamp::try_from(now).unwrap_or_default();
    let name = pattern.make(own, |letter| time.strftime(&format!("%{letter}")).to_string());
    let wanted = pattern.age(own, &name).map(|(time, _)| time).unwrap_or_default();
    let same = old_files(path, pattern)?.into_keys().filter(|(time, _)| *time == wanted);
    Ok(match same.map(|(_, number)| number).max() {
        None => path.with_file_name(name),
        Some(last) => path.with_file_name(format!("{name}.{}", last + 1)),
    })
}

const PACKED: &str = ".gz";

fn is_packed(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(PACKED.as_bytes())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Lists the old files of a log by age, the oldest first: one of each, or two of which one was compressed from the other.
fn old_files(path: &Path, pattern: &BackupName) -> io::Result<BTreeMap<Age, Vec<PathBuf>>> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let own = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut found = BTreeMap::<Age, Vec<PathBuf>>::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let age = name.to_str().and_then(|name| pattern.age(own, name.strip_suffix(PACKED).unwrap_or(name)));
        if let Some(age) = age {
            found.entry(age).or_default().push(folder.join(&name));
        }
    }
    Ok(found)
}

/// Compresses a file that is complete, and deletes it.
fn pack(mut file: &File, path: &Path) -> io::Result<()> {
    let about = file.metadata()?;
    let whole = with_suffix(path, PACKED);
    let part = with_suffix(&whole, ".part");
    // What a process left that was ended in the middle.
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    let packed = (|| {
        let mut encoder = GzEncoder::new(made, Compression::default());
        io::copy(&mut file, &mut encoder)?;
        let made = encoder.finish()?;
        resemble(&made, &about)?;
        made.set_modified(about.modified()?)?;
        made.sync_all()?;
        fs::rename(&part, &whole)
    })();
    match packed {
        Ok(()) => fs::remove_file(path),
        Err(error) => {
            // The reason is what matters.
            let _ = fs::remove_file(&part);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::time::UNIX_EPOCH;

    use flate2::read::GzDecoder;

    /// Friday, 2025-10-10 23:59:58 UTC.
    fn friday() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_760_140_798)
    }

    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(86_400);

    fn plan(size: u64, interval: Duration) -> RotatePlan {
        RotatePlan { size, interval, keep: 7, ..RotatePlan::default() }
    }

    fn log(folder: &Path, text: &str) -> LogTarget {
        let path = folder.join("a.log");
        fs::write(&path, text).unwrap();
        File::open(&path).unwrap().set_modified(friday()).unwrap();
        LogTarget::File(path)
    }

    fn rotation(plan: &RotatePlan, target: &LogTarget, now: SystemTime) -> Rotation {
        let mut rotation = Rotation::new(plan, [target], now).unwrap();
        rotation.zone = TimeZone::UTC;
        // As it would have been from the beginning.
        let written = now.min(friday());
        rotation.logs[0].interval = rotation.interval(written);
        rotation
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Until nothing is compressed any more.
    fn settle(rotation: &mut Rotation) {
        while rotation.packing.is_some() {
            thread::sleep(Duration::from_millis(1));
            rotation.pack();
        }
    }

    #[test]
    fn a_file_that_is_too_large_gets_another_name() {
        let folder = tempfile::tempdir().unwrap();
        let target = log(folder.path(), "four");
        let path = folder.path().join("a.log");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let mut rotation = rotation(&plan(5, Duration::ZERO), &target, friday());
        assert!(!rotation.look(friday()));
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"!").unwrap();
        assert!(rotation.look(friday()));
        assert_eq!(names(folder.path()), ["a.log", "a.log.20251010-235958"]);
        assert_eq!(fs::read(folder.path().join("a.log.20251010-235958")).unwrap(), b"four!");
        let fresh = path.metadata().unwrap();
        assert_eq!((fresh.len(), fresh.mode() & 0o777), (0, 0o640));
        assert!(!rotation.look(friday()));
        fs::write(&path, "again").unwrap();
        assert!(rotation.look(friday()));
        assert_eq!(names(folder.path())[2], "a.log.20251010-235958.1");
    }

    #[test]
    fn old_files_have_the_name_that_is_wanted_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let target = log(folder.path(), "0");
        let name = BackupName::read("{stem}-%Y%m%d{extension}").unwrap();
        let plan = RotatePlan { name, keep: 2, ..plan(1, Duration::ZERO) };
        let mut rotation = rotation(&plan, &target, friday());
        for text in ["1", "2", "3"] {
            assert!(rotation.look(friday()));
            fs::write(folder.path().join("a.log"), text).unwrap();
        }
        assert!(rotation.look(friday() + DAY));
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(names(folder.path()), ["a-20251010.log.2", "a-20251011.log", "a.log"]);
        assert_eq!((read("a-20251010.log.2"), read("a-20251011.log")), ("2".to_owned(), "3".to_owned()));
    }

    #[test]
    fn a_file_is_rotated_when_its_interval_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let target = log(folder.path(), "");
        let mut rotation = rotation(&plan(0, DAY), &target, friday());
        assert!(!rotation.look(friday() + 5 * DAY), "it is empty");
        fs::write(folder.path().join("a.log"), "x").unwrap();
        assert!(!rotation.look(friday() + 5 * DAY + SECOND));
        assert!(rotation.look(friday() + 5 * DAY + 2 * SECOND), "it is midnight");
        assert!(!rotation.look(friday() + 5 * DAY + 3 * SECOND));
    }

    #[test]
    fn a_file_of_a_former_interval_is_rotated_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let target = log(folder.path(), "x");
        let now = friday() + DAY;
        assert!(rotation(&plan(0, DAY), &target, now).look(now));
    }

    #[test]
    fn days_begin_at_midnight_here_and_weeks_on_mondays() {
        let folder = tempfile::tempdir().unwrap();
        let target = log(folder.path(), "x");
        let mut days = rotation(&plan(0, DAY), &target, friday());
        let monday = friday() + 2 * DAY + 2 * SECOND;
        assert_eq!(days.interval(monday - SECOND) + 1, days.interval(monday));
        days.zone = TimeZone::fixed(jiff::tz::offset(-3));
        assert_eq!(days.interval(monday - SECOND), days.interval(monday));
        assert_ne!(
            days.interval(monday + Duration::from_secs(3 * 3600 - 1)),
            days.interval(monday + 3 * 3600 * SECOND)
        );
        let weeks = rotation(&plan(0, 7 * DAY), &target, friday());
        assert_eq!(weeks.interval(monday - SECOND) + 1, weeks.interval(monday));
        assert_eq!(weeks.interval(monday), weeks.interval(monday + 7 * DAY - SECOND));
    }

    #[test]
    fn old_files_are_deleted_but_for_some_and_others_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let target = log(folder.path(), "x");
        let mine = ["20250101-000000.gz", "20250102-000000", "20250102-000000.gz", "20250103-000000.gz"];
        let others = ["20250101", "2025-101-000000", "1", "20250101-000000.xz"];
        for suffix in mine.iter().chain(&others) {
            fs::write(folder.path().join(format!("a.log.{suffix}")), "").unwrap();
        }
        fs::write(folder.path().join("b.log.20250101-000000"), "").unwrap();
        let plan = RotatePlan { keep: 2, ..plan(1, Duration::ZERO) };
        assert!(rotation(&plan, &target, friday()).look(friday()));
        let left = names(folder.path());
        for suffix in ["20250103-000000.gz", "20251010-235958"].iter().chain(&others) {
            assert!(left.contains(&format!("a.log.{suffix}")), "{suffix} {left:?}");
        }
        assert_eq!(left.len(), 2 + 2 + others.len());
    }

    #[test]
    fn a_file_is_compressed_when_nobody_writes_into_it_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let target = log(folder.path(), "first\n");
        let mut writer = OpenOptions::new().append(true).open(folder.path().join("a.log")).unwrap();
        lock::share(&writer).unwrap();
        let plan = RotatePlan { gzip: true, ..plan(1, Duration::ZERO) };
        let mut rotation = rotation(&plan, &target, friday());
        assert!(rotation.look(friday()));
        settle(&mut rotation);
        assert_eq!(names(folder.path()), ["a.log", "a.log.20251010-235958"]);
        writer.write_all(b"late\n").unwrap();
        drop(writer);
        assert!(!rotation.look(friday()));
        settle(&mut rotation);
        assert_eq!(names(folder.path()), ["a.log", "a.log.20251010-235958.gz"]);
        let packed = File::open(folder.path().join("a.log.20251010-235958.gz")).unwrap();
        let mut text = String::new();
        GzDecoder::new(&packed).read_to_string(&mut text).unwrap();
        assert_eq!(text, "first\nlate\n");
    }

    #[test]
    fn what_an_earlier_process_left_is_compressed() {
        let folder = tempfile::tempdir().unwrap();
        let target = log(folder.path(), "");
        fs::write(folder.path().join("a.log.20250101-000000"), "old").unwrap();
        fs::write(folder.path().join("a.log.20250101-000000.gz.part"), "half").unwrap();
        let plan = RotatePlan { gzip: true, ..plan(1, Duration::ZERO) };
        let mut rotation = rotation(&plan, &target, friday());
        rotation.look(friday());
        settle(&mut rotation);
        assert_eq!(names(folder.path()), ["a.log", "a.log.20250101-000000.gz"]);
    }

    #[test]
    fn of_two_trees_one_rotates_and_both_go_on_in_the_fresh_file() {
        let folder = tempfile::tempdir().unwrap();
        let target = log(folder.path(), "x");
        let plan = plan(1, Duration::ZERO);
        let (mut one, mut other) = (rotation(&plan, &target, friday()), rotation(&plan, &target, friday()));
        assert!(one.look(friday()));
        assert!(other.look(friday()));
        assert_eq!(names(folder.path()).len(), 2);
        assert!(!one.look(friday()) && !other.look(friday()));
    }

    #[test]
    fn what_is_no_file_is_not_rotated() {
        let plan = plan(1, Duration::ZERO);
        for target in [LogTarget::Stdout, LogTarget::File("/dev/null".into())] {
            assert!(Rotation::new(&plan, [&target], friday()).is_none());
        }
        let folder = tempfile::tempdir().unwrap();
        let target = log(folder.path(), "x");
        assert!(Rotation::new(&RotatePlan::default(), [&target], friday()).is_none());
    }
}
