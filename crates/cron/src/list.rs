//! What there is to run, when, and how it went: rows for a program, and a table for a person.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::entry::Sources;
use crate::error::Error;
use crate::schedule::Minute;
use crate::scheduler::Jobs;
use crate::state::{Record, StateFile};

/// One job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobStatus {
    /// Name: an entry's, or `application/crontab:line`.
    pub name: String,
    /// The schedule as it was written.
    pub schedule: String,
    /// Time of the next run, in the job's time zone; "at start" or "never".
    pub next: String,
    /// Time of the last start, in the same form; "never" when there was none.
    pub last_run: String,
    /// How long the last run that ended took.
    pub took: Option<Duration>,
    /// How the last run ended; "running" while it has not.
    pub result: String,
    /// How often it was started.
    pub runs: u64,
    /// How often it failed or could not be started.
    pub failures: u64,
    /// Number of minutes in which it was not started.
    pub missed: u64,
    /// How often it was left out because the last run had not ended.
    pub skipped: u64,
}

/// The jobs of all sources, as they are at `now`.
///
/// Errors: as of [`crate::Scheduler::new`].
pub fn list(sources: Sources, state: PathBuf, now: SystemTime) -> Result<Vec<JobStatus>, Error> {
    let mut jobs = Jobs::new(sources)?;
    jobs.look();
    let state = StateFile::new(state).and_then(|file| file.read()).map_err(Error::State)?;
    let nothing = Record::default();
    let rows = jobs.iter().map(|job| {
        let record = state.jobs.get(&job.key).unwrap_or(&nothing);
        let show = |minute: Minute| job.schedule.show(minute);
        let started = record.started.and_then(|at| UNIX_EPOCH.checked_add(Duration::from_millis(at)));
        let next = match job.schedule.next(Minute::of(now).next()) {
            _ if job.schedule.is_at_start() => "at start".to_owned(),
            next => next.map_or_else(|| "never".to_owned(), show),
        };
        let is_running = record.process.as_ref().is_some_and(|process| process.lives());
        JobStatus {
            name: job.name.clone(),
            schedule: job.written.clone(),
            next,
            last_run: started.map_or_else(|| "never".to_owned(), |at| show(Minute::of(at))),
            took: record.took.map(Duration::from_millis).filter(|_| !is_running),
            result: match &record.result {
                _ if is_running => "running".to_owned(),
                result => result.clone().unwrap_or_else(|| "-".to_owned()),
            },
            runs: record.runs,
            failures: record.failures,
            missed: record.missed,
            skipped: record.skipped,
        }
    });
    Ok(rows.collect())
}

/// The rows under headings, in columns, one line each.
pub fn table(rows: &[JobStatus]) -> String {
    let heading = ["NAME", "SCHEDULE", "NEXT", "LAST RUN", "TOOK", "RESULT", "RUNS"].map(str::to_owned);
    let cells = |row: &JobStatus| {
        [
            row.name.clone(),
            row.schedule.clone(),
            row.next.clone(),
            row.last_run.clone(),
            row.took.map_or_else(|| "-".to_owned(), |took| format!("{took:.1?}")),
            row.result.clone(),
            row.runs.to_string(),
        ]
    };
    let lines: Vec<_> = std::iter::once(heading).chain(rows.iter().map(cells)).collect();
    let mut widths = [0; 7];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut table = String::new();
    for line in &lines {
        let padded: Vec<_> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        table.push_str(padded.join("  ").trim_end());
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{crontabs, entry, sources, write_crontab};

    #[test]
    fn a_table_tells_what_was_and_what_comes() {
        let site = tempfile::tempdir().unwrap();
        write_crontab(site.path(), "shop", "5/10 * * * * root *default/a\n@reboot root *default/b\n");
        let mut sources = sources(vec![entry("backup", "0 3 * * *", "true")]);
        sources.crontabs = Some(crontabs(site.path()));
        let state = site.path().join("cron.json");
        let now = UNIX_EPOCH + Duration::from_secs(1_795_262_400);
        StateFile::new(state.clone())
            .unwrap()
            .change(|state| {
                let record = state.jobs.entry("entry:backup".to_owned()).or_default();
                record.started = Some(1_795_230_000_000);
                record.took = Some(1500);
                record.result = Some("exit code 0".to_owned());
                record.runs = 12;
            })
            .unwrap();
        let rows = list(sources, state, now).unwrap();
        let expected = "\
NAME            SCHEDULE      NEXT                  LAST RUN              TOOK  RESULT       RUNS
backup          0 3 * * *     2026-11-22 03:00 UTC  2026-11-21 03:00 UTC  1.5s  exit code 0  12
shop/crontab:1  5/10 * * * *  never                 never                 -     -            0
shop/crontab:2  @reboot       at start              never                 -     -            0
";
        assert_eq!(table(&rows), expected);
    }
}
