//! The crontabs below a web2py folder: which applications there are, and when their files have changed. What the lines
//! say is in [`crate::crontab`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anygate_config::text;
use jiff::tz::TimeZone;

use crate::crontab::{self, When};
use crate::entry::{Crontabs, Job};
use crate::error::Error;
use crate::schedule::{Schedule, zone};

/// The crontabs that were read, and are read again when they change.
#[derive(Debug)]
pub(crate) struct Folder {
    settings: Crontabs,
    zone: TimeZone,
    files: BTreeMap<String, Read>,
    /// Problem of the directory as a whole, logged once.
    trouble: Option<String>,
}

/// One file as it was read.
#[derive(Debug)]
struct Read {
    /// Time of the last change, and size, because a second change may come within the clock's step.
    version: (Option<SystemTime>, u64),
    jobs: Vec<Job>,
}

impl Folder {
    /// Errors: a time zone that is not known. A folder that is missing is none: it may come.
    pub(crate) fn new(settings: Crontabs) -> Result<Folder, Error> {
        let zone = zone(settings.timezone.as_deref(), "web2py's crontabs")?;
        Ok(Folder { settings, zone, files: BTreeMap::new(), trouble: None })
    }

    pub(crate) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.files.values().flat_map(|file| &file.jobs)
    }

    /// Looks for applications that came or went and files that changed. What cannot be read is logged, once.
    pub(crate) fn look(&mut self) {
        let apps = match self.applications() {
            Ok(apps) => apps,
            Err(error) => {
                let trouble = error.to_string();
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::warn!(target: "anygate::cron", "{}: {trouble}", self.settings.folder.display());
                    self.trouble = Some(trouble);
                }
                return;
            }
        };
        self.trouble = None;
        let mut before = std::mem::take(&mut self.files);
        for (app, folder) in apps {
            let path = folder.join("cron/crontab");
            // An application without a crontab is the usual case, and one that vanishes while we look is like it.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let version = (metadata.modified().ok(), metadata.len());
            let known = before.remove(&app).filter(|file| file.version == version);
            let file = known.unwrap_or_else(|| Read { version, jobs: self.read(&app, &path) });
            self.files.insert(app, file);
        }
    }

    /// The applications by name. One that is a link to a folder that is there under its own name is left out.
    fn applications(&self) -> io::Result<Vec<(String, PathBuf)>> {
        let parent = self.settings.folder.join("applications");
        let mut found = Vec::new();
        for entry in fs::read_dir(&parent)? {
            let entry = entry?;
            let path = entry.path();
            // web2py names applications by words, so a name that is no text is none.
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if path.is_dir()
                && (self.settings.applications.is_empty() || self.settings.applications.contains(&name))
            {
                found.push((path.is_symlink(), name, path));
            }
        }
        // Folders first, then links, so that which name stays does not depend on the order of the directory.
        found.sort();
        let mut seen = BTreeSet::new();
        found.retain(|(_, _, path)| fs::canonicalize(path).is_ok_and(|real| seen.insert(real)));
        Ok(found.into_iter().map(|(_, name, path)| (name, path)).collect())
    }

    /// The jobs of one file; warns of every line that is odd or cannot run.
    fn read(&self, app: &str, path: &Path) -> Vec<Job> {
        let unreadable = |reason: String| {
            tracing::warn!(target: "anygate::cron", "{}: {reason}", path.display());
            Vec::new()
        };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => return unreadable(format!("cannot be read: {error}")),
        };
        let text = match text::decode(&bytes) {
            Ok(text) => text,
            Err(error) => return unreadable(error.to_string()),
        };
        let mut jobs: Vec<Job> = Vec::new();
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for line in crontab::parse(text) {
            let line = match line {
                Ok(line) => line,
                Err(error) => {
                    tracing::warn!(target: "anygate::cron", "{}:{}: {error}", path.display(), error.number);
                    continue;
                }
            };
            if !line.oddities.is_empty() {
                let oddities: Vec<_> = line.oddities.iter().map(ToString::to_string).collect();
                let oddities = oddities.join("; ");
                tracing::warn!(target: "anygate::cron", "{}:{}: {oddities}", path.display(), line.number);
            }
            // A line keeps its past when others are added above it; equal lines are told apart by their order.
            let count = times.entry(line.text.clone()).or_default();
            *count += 1;
            let suffix = if *count > 1 { format!("#{count}") } else { String::new() };
            jobs.push(Job {
                key: format!("crontab:{app}:{}{suffix}", line.text),
                name: format!("{app}/crontab:{}", line.number),
                written: line.schedule,
                schedule: match line.when {
                    When::Start => Schedule::at_start(self.zone.clone()),
                    When::Minutes(fields) => Schedule::web2py(fields, self.zone.clone()),
                },
                arguments: line.command.arguments(&self.settings.launcher, app),
                folder: Some(self.settings.folder.clone()),
                environment: BTreeMap::new(),
                overlap: self.settings.overlap,
                time_limit: self.settings.time_limit,
            });
        }
        jobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{crontabs, write_crontab};

    fn names(folder: &Folder) -> Vec<&str> {
        folder.jobs().map(|job| job.name.as_str()).collect()
    }

    #[test]
    fn applications_and_files_are_found_when_they_come_change_and_go() {
        let site = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(crontabs(site.path())).unwrap();
        folder.look();
        assert_eq!(names(&folder), [""; 0]);
        write_crontab(site.path(), "shop", "# tidy\n0 * * * * root *default/tidy\n");
        folder.look();
        assert_eq!(names(&folder), ["shop/crontab:2"]);
        let key = folder.jobs().next().unwrap().key.clone();
        write_crontab(
            site.path(),
            "shop",
            "# one\n# more\nbad\n0 * * * * root *default/tidy\n@daily root x\n",
        );
        write_crontab(site.path(), "blog", "@reboot root *default/a\n@reboot root *default/a");
        folder.look();
        assert_eq!(names(&folder), ["blog/crontab:1", "blog/crontab:2", "shop/crontab:4", "shop/crontab:5"]);
        let keys: BTreeSet<_> = folder.jobs().map(|job| &job.key).collect();
        assert!(keys.len() == 4 && keys.contains(&key), "{keys:?}");
        fs::remove_dir_all(site.path().join("applications/shop")).unwrap();
        folder.look();
        assert_eq!(names(&folder), ["blog/crontab:1", "blog/crontab:2"]);
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_first_line() {
        let site = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(crontabs(site.path())).unwrap();
        write_crontab(site.path(), "shop", "\u{feff}@daily root x\r\n0 * * * * root y\r\n");
        write_crontab(site.path(), "blog", "\u{feff}# jobs\n@daily root x\n");
        folder.look();
        assert_eq!(names(&folder), ["blog/crontab:2", "shop/crontab:1", "shop/crontab:2"]);
        assert!(folder.jobs().all(|job| !job.key.contains('\u{feff}')));
        // A file that is not text has no jobs, and the others go on.
        let wide: Vec<u8> = "@daily root x\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        fs::write(site.path().join("applications/shop/cron/crontab"), wide).unwrap();
        folder.look();
        assert_eq!(names(&folder), ["blog/crontab:2"]);
    }

    #[test]
    fn a_link_to_an_application_is_left_out_and_a_link_elsewhere_is_not() {
        let site = tempfile::tempdir().unwrap();
        write_crontab(site.path(), "shop", "@daily root x");
        let elsewhere = tempfile::tempdir().unwrap();
        write_crontab(elsewhere.path(), "far", "@daily root x");
        let applications = site.path().join("applications");
        std::os::unix::fs::symlink("shop", applications.join("a_link")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join("applications/far"), applications.join("far"))
            .unwrap();
        let mut folder = Folder::new(crontabs(site.path())).unwrap();
        folder.look();
        assert_eq!(names(&folder), ["far/crontab:1", "shop/crontab:1"]);
    }

    #[test]
    fn only_the_named_applications_are_looked_at() {
        let site = tempfile::tempdir().unwrap();
        write_crontab(site.path(), "shop", "@daily root x");
        write_crontab(site.path(), "blog", "@daily root x");
        let settings = Crontabs { applications: vec!["blog".to_owned()], ..crontabs(site.path()) };
        let mut folder = Folder::new(settings).unwrap();
        folder.look();
        assert_eq!(names(&folder), ["blog/crontab:1"]);
    }
}
