//! Who gets a minute, and what was missed before it: pure functions of the state.

use crate::entry::Job;
use crate::schedule::Minute;
use crate::state::State;

/// A clock that is put back by no more is waited for; minutes that were passed are not passed again. One that is put
/// back further was wrong before, and is followed at once.
const BACK_MAX: i64 = 5;

/// Minutes (30 days) after which the record of a job that no scheduler has is deleted.
const FORGOTTEN_AFTER: i64 = 30 * 24 * 60;

/// Result of asking for a minute.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Another scheduler has taken it.
    Taken,
    /// It is the caller's.
    Ours {
        /// Minutes between the last claimed one and this.
        gap: u64,
        /// How often jobs were due in these, by name. Jobs that were not are left out.
        missed: Vec<(String, u64)>,
        /// Whether the clock was put back.
        back: bool,
    },
}

/// Asks for `minute`, for a caller that has these jobs.
pub(crate) fn claim(state: &mut State, minute: Minute, jobs: &[&Job]) -> Claim {
    let mut previous = state.minute;
    let back = previous.is_some_and(|previous| previous.saturating_sub(minute.0) > BACK_MAX);
    if back {
        previous = None;
    } else if previous >= Some(minute.0) {
        return Claim::Taken;
    }
    state.minute = Some(minute.0);
    let mut missed = Vec::new();
    for job in jobs {
        // A job that was not there yet has missed nothing.
        if let (Some(previous), Some(record)) = (previous, state.jobs.get_mut(&job.key)) {
            let from = Minute(previous.max(record.seen_minute)).next();
            let count = job.schedule.count(from, minute);
            record.missed = record.missed.saturating_add(count);
            if count > 0 {
                missed.push((job.name.clone(), count));
            }
        }
        state.jobs.entry(job.key.clone()).or_default().seen_minute = minute.0;
    }
    state.jobs.retain(|_, record| minute.0.saturating_sub(record.seen_minute) < FORGOTTEN_AFTER);
    let gap = previous.map_or(0, |previous| minute.0.saturating_sub(previous).saturating_sub(1));
    Claim::Ours { gap: u64::try_from(gap).unwrap_or_default(), missed, back }
}

/// Takes note that another node has a minute, so that nothing of it counts as missed.
pub(crate) fn pass_by(state: &mut State, minute: Minute, jobs: &[&Job]) {
    state.minute = state.minute.max(Some(minute.0));
    for job in jobs {
        state.jobs.entry(job.key.clone()).or_default().seen_minute = minute.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry;
    use crate::testing::{entry, sources};

    #[test]
    fn a_minute_is_given_once_and_what_was_missed_is_counted_once() {
        let jobs = entry::jobs(&sources(vec![entry("often", "*/5 * * * *", "true")])).unwrap();
        let jobs: Vec<_> = jobs.iter().collect();
        let mut state = State::default();
        let ours = |gap, missed: &[(&str, u64)], back| Claim::Ours {
            gap,
            missed: missed.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            back,
        };
        assert_eq!(claim(&mut state, Minute(1000), &jobs), ours(0, &[], false));
        assert_eq!(claim(&mut state, Minute(1000), &jobs), Claim::Taken);
        assert_eq!(claim(&mut state, Minute(1001), &jobs), ours(0, &[], false));
        // 1005, 1010 and 1015 were missed; 1020 is now.
        assert_eq!(claim(&mut state, Minute(1020), &jobs), ours(18, &[("often", 3)], false));
        assert_eq!(state.jobs["entry:often"].missed, 3);
        // A small step back is waited for, a large one is followed.
        assert_eq!(claim(&mut state, Minute(1015), &jobs), Claim::Taken);
        assert_eq!(claim(&mut state, Minute(1014), &jobs), ours(0, &[], true));
        assert_eq!(claim(&mut state, Minute(1014), &jobs), Claim::Taken);
        // Very long ago: counted as far as it is worth, and without jobs all is forgotten.
        assert_eq!(claim(&mut state, Minute(1_000_000), &jobs), ours(998_985, &[("often", 1000)], false));
        claim(&mut state, Minute(2_000_000), &[]);
        assert_eq!(state.jobs.len(), 0);
    }
}
