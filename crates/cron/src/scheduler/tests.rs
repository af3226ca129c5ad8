//! A scheduler over simulated minutes, with real and short processes.

use super::*;
use anygate_config::{CronJob, CronTask, Overlap};

use crate::once::wait;
use crate::testing::{crontabs, entry, sources, write_crontab};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// 2026-11-21 12:00 UTC.
fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_262_400)
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

fn scheduler(folder: &TempDir, entries: Vec<CronJob>) -> Scheduler {
    Scheduler::new(sources(entries), folder.path().join("cron.json")).unwrap()
}

/// A command that notes a run in a file of that name.
fn note(folder: &TempDir, name: &str) -> String {
    format!("echo run >> {}", folder.path().join(name).display())
}

fn notes(folder: &TempDir, name: &str) -> usize {
    fs::read_to_string(folder.path().join(name)).map_or(0, |text| text.lines().count())
}

fn record(folder: &TempDir, name: &str) -> crate::state::Record {
    let state = StateFile::new(folder.path().join("cron.json")).unwrap().read().unwrap();
    state.jobs[&format!("entry:{name}")].clone()
}

/// Waits for a condition that comes, however slow the machine is.
fn until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A command that says that it runs and goes on until the file `go` is there.
fn waiting(folder: &TempDir, name: &str) -> String {
    let go = folder.path().join("go");
    format!("{}; while [ ! -e {} ]; do sleep 0.01; done", note(folder, name), go.display())
}

fn go(folder: &Path) {
    fs::write(folder.join("go"), "").unwrap();
}

#[test]
fn two_schedulers_run_each_job_once_a_minute() {
    let folder = tempfile::tempdir().unwrap();
    let entries = vec![
        entry("each", "* * * * *", &note(&folder, "each")),
        entry("third", "*/3 * * * *", &note(&folder, "third")),
    ];
    let mut all = [scheduler(&folder, entries.clone()), scheduler(&folder, entries)];
    for second in (0..12 * 60).step_by(7) {
        for scheduler in &mut all {
            let now = noon() + Duration::from_secs(second);
            let next = scheduler.tick(now).unwrap().unwrap();
            assert_eq!(next, noon() + minutes(second / 60 + 1));
            wait(scheduler);
        }
    }
    assert_eq!((notes(&folder, "each"), notes(&folder, "third")), (12, 4));
    assert_eq!(all.iter().map(|scheduler| scheduler.summary().passes).sum::<u64>(), 12);
    assert_eq!((record(&folder, "each").runs, record(&folder, "each").missed), (12, 0));
}

#[test]
fn minutes_that_nobody_saw_are_counted_and_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut scheduler = scheduler(&folder, vec![entry("each", "* * * * *", &note(&folder, "each"))]);
    for minute in [0, 1, 11, 12] {
        scheduler.tick(noon() + minutes(minute)).unwrap();
        wait(&mut scheduler);
    }
    assert_eq!((notes(&folder, "each"), record(&folder, "each").missed), (4, 9));
}

#[test]
fn a_tick_late_in_its_minute_is_no_miss_and_the_next_one_comes_early() {
    // web2py refuses passes less than 59.99 seconds apart.
    let folder = tempfile::tempdir().unwrap();
    let mut scheduler = scheduler(&folder, vec![entry("each", "* * * * *", &note(&folder, "each"))]);
    for milliseconds in [59_900, 60_000, 120_015, 180_001] {
        scheduler.tick(noon() + Duration::from_millis(milliseconds)).unwrap();
        wait(&mut scheduler);
    }
    assert_eq!(notes(&folder, "each"), 4);
}

#[test]
fn the_start_runs_its_jobs_only() {
    let folder = tempfile::tempdir().unwrap();
    write_crontab(folder.path(), "shop", &format!("@reboot root sh -c '{}'", note(&folder, "shop")));
    let mut sources = sources(vec![
        entry("start", "@reboot", &note(&folder, "start")),
        entry("each", "* * * * *", &note(&folder, "each")),
    ]);
    sources.crontabs = Some(crontabs(folder.path()));
    let mut scheduler = Scheduler::new(sources, folder.path().join("cron.json")).unwrap();
    scheduler.start(noon()).unwrap();
    wait(&mut scheduler);
    assert_eq!(["shop", "start", "each"].map(|name| notes(&folder, name)), [1, 1, 0]);
    scheduler.tick(noon()).unwrap();
    wait(&mut scheduler);
    assert_eq!(["shop", "start", "each"].map(|name| notes(&folder, name)), [1, 1, 1]);
}

#[test]
fn a_crontab_runs_in_the_folder_of_web2py_and_changes_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let crontabs = Some(crontabs(folder.path()));
    let sources = Sources { crontabs, ..Sources::default() };
    let mut scheduler = Scheduler::new(sources, folder.path().join("cron.json")).unwrap();
    scheduler.tick(noon()).unwrap();
    assert!(scheduler.idle());
    write_crontab(folder.path(), "shop", "* * * * * root sh -c 'pwd > here'");
    scheduler.tick(noon() + minutes(1)).unwrap();
    wait(&mut scheduler);
    let here = fs::read_to_string(folder.path().join("here")).unwrap();
    assert_eq!(Path::new(here.trim()), folder.path().canonicalize().unwrap());
}

#[test]
fn jobs_that_cannot_start_stop_no_others_issue_2318() {
    let folder = tempfile::tempdir().unwrap();
    let task = CronTask::Command(vec!["/no/such/program".to_owned()]);
    let mut entries: Vec<_> = (0..20)
        .map(|number| CronJob { task: task.clone(), ..entry(&format!("bad{number:02}"), "* * * * *", "") })
        .collect();
    entries.push(entry("good", "* * * * *", &note(&folder, "good")));
    let mut scheduler = scheduler(&folder, entries);
    for minute in 0..3 {
        scheduler.tick(noon() + minutes(minute)).unwrap();
        wait(&mut scheduler);
    }
    assert_eq!(notes(&folder, "good"), 3);
    assert_eq!(scheduler.summary().not_started, 60);
    let bad = record(&folder, "bad07");
    assert_eq!((bad.runs, bad.failures), (0, 3));
    assert!(bad.result.unwrap().contains("cannot start"));
}

#[test]
fn by_default_a_run_is_left_out_while_the_last_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let entries = vec![entry("long", "* * * * *", &waiting(&folder, "long"))];
    let mut first = scheduler(&folder, entries.clone());
    // Another process's scheduler sees it too.
    let mut second = scheduler(&folder, entries);
    first.tick(noon()).unwrap();
    first.tick(noon() + minutes(1)).unwrap();
    second.tick(noon() + minutes(2)).unwrap();
    assert_eq!((first.summary().skipped, second.summary().skipped, second.idle()), (1, 1, true));
    go(folder.path());
    wait(&mut first);
    second.tick(noon() + minutes(3)).unwrap();
    wait(&mut second);
    assert_eq!((notes(&folder, "long"), record(&folder, "long").skipped), (2, 2));
}

#[test]
fn one_run_waits_in_the_queue() {
    let folder = tempfile::tempdir().unwrap();
    let job = CronJob { overlap: Overlap::Queue, ..entry("long", "* * * * *", &waiting(&folder, "long")) };
    let mut scheduler = scheduler(&folder, vec![job]);
    for minute in 0..4 {
        scheduler.tick(noon() + minutes(minute)).unwrap();
    }
    assert_eq!((scheduler.summary().started, scheduler.summary().skipped), (1, 2));
    go(folder.path());
    wait(&mut scheduler);
    assert_eq!((notes(&folder, "long"), scheduler.summary().started), (2, 2));
}

#[test]
fn the_last_run_is_ended_for_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let job = CronJob { overlap: Overlap::Kill, ..entry("long", "* * * * *", &waiting(&folder, "long")) };
    let mut scheduler = scheduler(&folder, vec![job]);
    scheduler.tick(noon()).unwrap();
    until(|| notes(&folder, "long") == 1);
    scheduler.tick(noon() + minutes(1)).unwrap();
    assert_eq!(scheduler.summary().started, 1);
    go(folder.path());
    wait(&mut scheduler);
    assert_eq!((notes(&folder, "long"), scheduler.summary().started), (2, 2));
}

#[test]
fn runs_that_are_allowed_together_have_a_bound() {
    let folder = tempfile::tempdir().unwrap();
    let job = CronJob { overlap: Overlap::Allow, ..entry("long", "* * * * *", &waiting(&folder, "long")) };
    let mut scheduler = scheduler(&folder, vec![job]);
    for minute in 0..8 {
        scheduler.tick(noon() + minutes(minute)).unwrap();
    }
    assert_eq!((scheduler.summary().started, scheduler.summary().skipped), (5, 3));
    go(folder.path());
    wait(&mut scheduler);
}

#[test]
fn a_time_limit_ends_all_processes_of_a_run_even_those_that_do_not_want_to() {
    let folder = tempfile::tempdir().unwrap();
    let command = format!("trap '' TERM; sleep 1000 & {}; wait; sleep 1000", note(&folder, "long"));
    let limit = Duration::from_secs(90);
    let job = CronJob { time_limit: Some(limit), ..entry("long", "0 * * * *", &command) };
    let mut scheduler = scheduler(&folder, vec![job]);
    assert_eq!(scheduler.tick(noon()).unwrap(), Some(noon() + minutes(1)));
    until(|| notes(&folder, "long") == 1);
    // The limit is before the next minute, then the killing is.
    assert_eq!(scheduler.tick(noon() + minutes(1)).unwrap(), Some(noon() + limit));
    let killing = noon() + limit + Duration::from_secs(5);
    assert_eq!(scheduler.tick(noon() + limit).unwrap(), Some(killing));
    scheduler.collect(killing);
    assert!(!scheduler.idle());
    let pid = scheduler.running[0].pid;
    assert_eq!(scheduler.tick(killing).unwrap(), Some(noon() + minutes(2)));
    wait(&mut scheduler);
    let record = record(&folder, "long");
    assert!(record.result.unwrap().contains("KILL"));
    // Its group is empty: signal 0 finds no process once the last one has been reaped.
    until(|| !group_lives(pid));
}

fn group_lives(leader: Pid) -> bool {
    let stats = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    let mut groups = stats.filter_map(|text| {
        let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect();
        (fields[0] != "Z").then(|| fields[2].clone())
    });
    groups.any(|group| group == leader.to_string())
}

#[test]
fn stopping_ends_what_runs_and_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut scheduler = scheduler(&folder, vec![entry("long", "* * * * *", &waiting(&folder, "long"))]);
    scheduler.tick(noon()).unwrap();
    scheduler.stop(noon());
    assert_eq!(
        scheduler.tick(noon() + Duration::from_secs(1)).unwrap(),
        Some(noon() + Duration::from_secs(5))
    );
    wait(&mut scheduler);
    assert_eq!(scheduler.tick(noon() + minutes(1)).unwrap(), None);
    assert_eq!((scheduler.summary().started, scheduler.summary().failed), (1, 1));
}

#[test]
fn an_owner_may_reap_and_strangers_are_not_ours() {
    let folder = tempfile::tempdir().unwrap();
    let mut scheduler = scheduler(&folder, vec![entry("each", "* * * * *", "exit 3")]);
    scheduler.tick(noon()).unwrap();
    assert!(!scheduler.ended(1, Ended::Exited(0), noon()));
    let pid = scheduler.running[0].pid;
    scheduler.running[0].child.wait().unwrap();
    assert!(scheduler.ended(pid, Ended::Exited(3), noon() + Duration::from_secs(2)));
    assert!(scheduler.idle());
    let record = record(&folder, "each");
    assert_eq!((record.took, record.result.as_deref()), (Some(2000), Some("exit code 3")));
    assert_eq!((record.succeeded, record.process), (Some(false), None));
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn output_and_odd_lines_are_logged() {
    let folder = tempfile::tempdir().unwrap();
    write_crontab(folder.path(), "shop", "* * * * mon-fri root *a/b\n* * * *\n* * * * * root *a/b");
    let mut sources = sources(vec![entry("bad", "* * * * *", "echo one; echo two >&2; exit 3")]);
    sources.crontabs = Some(crontabs(folder.path()));
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        let mut scheduler = Scheduler::new(sources, folder.path().join("cron.json")).unwrap();
        for minute in 0..2 {
            scheduler.tick(noon() + minutes(minute)).unwrap();
            wait(&mut scheduler);
        }
    });
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for (text, count) in [
        ("INFO anygate::cron: bad: one\n", 2),
        ("INFO anygate::cron: bad: two\n", 2),
        ("WARN anygate::cron: bad: exit code 3 after", 2),
        ("its last lines: one | two\n", 2),
        ("INFO anygate::cron: shop/crontab:3: --cron_job --no_banner --no_gui --plain -S shop/a/b -M\n", 2),
        // Said once, not each minute.
        ("shop/cron/crontab:1: the weekday field \"mon-fri\" matches nothing", 1),
        ("shop/cron/crontab:2: the line is skipped: it has 4 of the seven fields", 1),
    ] {
        assert_eq!(log.matches(text).count(), count, "{text}: {log}");
    }
}

#[test]
fn a_state_that_cannot_be_written_starts_nothing_and_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut scheduler = scheduler(&folder, vec![entry("each", "* * * * *", &note(&folder, "each"))]);
    // A folder in the place of the new file: not even root can write there.
    let obstacle = folder.path().join("cron.json.new");
    fs::create_dir(&obstacle).unwrap();
    assert!(scheduler.tick(noon()).is_err());
    assert!(scheduler.idle());
    fs::remove_dir(&obstacle).unwrap();
    scheduler.tick(noon() + Duration::from_secs(5)).unwrap();
    wait(&mut scheduler);
    assert_eq!(notes(&folder, "each"), 1);
}

/// Results for each minute, in turn.
#[derive(Debug)]
struct Planned(Vec<(i64, Share)>);

impl Nodes for Planned {
    fn take(&mut self, minute: i64) -> Share {
        let (expected, share) = self.0.remove(0);
        assert_eq!(minute, expected);
        share
    }
}

#[test]
fn among_nodes_only_minutes_of_its_own_are_run() {
    let folder = TempDir::new().unwrap();
    let mut scheduler = scheduler(&folder, vec![entry("job", "* * * * *", &note(&folder, "job"))]);
    let first = Minute::of(noon()).0;
    scheduler.share(Box::new(Planned(vec![
        (first, Share::Open),
        (first, Share::Ours),
        (first + 1, Share::Passed),
        (first + 2, Share::Ours),
    ])));
    // An open minute is asked for again while it lasts.
    assert_eq!(scheduler.tick(noon()).unwrap(), Some(noon() + ASK_AGAIN));
    assert_eq!(scheduler.summary().started, 0);
    for (minute, started) in [(0, 1), (1, 1), (2, 2)] {
        let next = scheduler.tick(noon() + minutes(minute)).unwrap();
        assert_eq!(next, Some(noon() + minutes(minute + 1)));
        assert_eq!(scheduler.summary().started, started);
        wait(&mut scheduler);
        // What another node ran was not missed.
        assert_eq!(record(&folder, "job").missed, 0);
    }
    assert_eq!(notes(&folder, "job"), 2);
}
