//! One pass for the current minute, for a cron outside (`* * * * * anygate cron run`). It waits for its jobs: web2py's
//! own (its issue 2377) ends before them and takes them along.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime};

use crate::entry::Sources;
use crate::error::Error;
use crate::scheduler::{Scheduler, Summary};

/// How often the jobs are looked at: at first, and when they take long.
const LOOK_MIN: Duration = Duration::from_millis(5);
const LOOK_MAX: Duration = Duration::from_millis(200);

/// Runs the jobs of this minute, unless another process has, and waits until they have ended. Jobs of the start
/// (`@reboot`) are left out, as web2py does.
///
/// Errors: as of [`Scheduler::new`] and [`Scheduler::tick`]; nothing has run then.
pub fn once(sources: Sources, state: PathBuf) -> Result<Summary, Error> {
    let mut scheduler = Scheduler::new(sources, state)?;
    scheduler.pass(SystemTime::now()).map_err(Error::State)?;
    wait(&mut scheduler);
    Ok(scheduler.summary())
}

/// Waits until all runs have ended, those that wait for others too; time limits hold.
pub(crate) fn wait(scheduler: &mut Scheduler) {
    let mut pause = LOOK_MIN;
    loop {
        let now = SystemTime::now();
        scheduler.enforce(now);
        scheduler.collect(now);
        scheduler.promote(now);
        if scheduler.idle() {
            return;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LOOK_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{entry, sources};
    use std::fs;

    #[test]
    fn all_jobs_have_ended_when_it_returns_issue_2377() {
        let folder = tempfile::tempdir().unwrap();
        let entries: Vec<_> = (0..10)
            .map(|number| {
                let file = folder.path().join(format!("done{number}"));
                entry(&number.to_string(), "* * * * *", &format!("sleep 0.2; touch {}", file.display()))
            })
            .collect();
        let state = folder.path().join("cron.json");
        // A minute may begin between two calls; then the second one is not the first one's.
        let before = SystemTime::now();
        let summary = once(sources(entries.clone()), state.clone()).unwrap();
        assert_eq!((summary.started, summary.succeeded), (10, 10));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 10 + 2);
        let again = once(sources(entries), state).unwrap();
        let minutes =
            crate::schedule::Minute::of(SystemTime::now()).0 - crate::schedule::Minute::of(before).0;
        assert!(again.passes == 0 || minutes > 0, "{again:?}");
    }
}
