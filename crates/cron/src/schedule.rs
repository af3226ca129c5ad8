//! When a job is due: minutes, time zones, and the two kinds of schedule. A schedule of the configuration is that of
//! the cron of Unix, in the `croner` crate; one of a crontab has web2py's meaning ([`crate::fields`]).
//!
//! Where clocks are put forward, a job at one time of the day that the day does not have runs right after the gap;
//! where they are put back, it runs once. Lines of a crontab compare with the clock, as web2py does: the first never
//! runs on such a day, the second runs twice.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::error::Error;
use crate::fields::Fields;

/// Weekdays and days of months meet within this: a 29 February is a given weekday every 28 years, and once in 40
/// where a century is no leap year.
const DAYS_MAX: usize = 366 * 41;

/// More occurrences than this are not counted: the number is for a person to read.
const COUNT_MAX: u64 = 1000;

/// A minute of UTC, from 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Minute(pub(crate) i64);

impl Minute {
    /// The minute that `time` is in. Before 1970 it is the first.
    pub(crate) fn of(time: SystemTime) -> Minute {
        let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Minute(i64::try_from(seconds / 60).unwrap_or(i64::MAX))
    }

    pub(crate) fn next(self) -> Minute {
        Minute(self.0.saturating_add(1))
    }

    /// Returns the time at which it begins.
    pub(crate) fn start(self) -> SystemTime {
        let minutes = u64::try_from(self.0).unwrap_or_default();
        UNIX_EPOCH.checked_add(Duration::from_secs(minutes.saturating_mul(60))).unwrap_or(UNIX_EPOCH)
    }

    /// On the clocks of `zone`; `None` beyond the year 9999.
    pub(crate) fn zoned(self, zone: &TimeZone) -> Option<Zoned> {
        Timestamp::from_second(self.0.checked_mul(60)?).ok().map(|at| at.to_zoned(zone.clone()))
    }
}

/// When a job is due.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    rule: Rule,
    zone: TimeZone,
    /// Asked from the first minute on, the second is the next one: the response holds for every minute between.
    known: Cell<Option<(Minute, Option<Minute>)>>,
}

#[derive(Clone, Debug)]
enum Rule {
    Start,
    Unix(Box<Cron>),
    Web2py(Fields),
}

impl Schedule {
    fn new(rule: Rule, zone: TimeZone) -> Schedule {
        Schedule { rule, zone, known: Cell::new(None) }
    }

    /// Once, when the scheduler starts.
    pub(crate) fn at_start(zone: TimeZone) -> Schedule {
        Schedule::new(Rule::Start, zone)
    }

    /// In the minutes of a crontab's line.
    pub(crate) fn web2py(fields: Fields, zone: TimeZone) -> Schedule {
        Schedule::new(Rule::Web2py(fields), zone)
    }

    /// In the minutes of a pattern of the cron of Unix: five fields or a nickname.
    ///
    /// Errors: the pattern cannot be read, or matches no minute at all.
    pub(crate) fn unix(text: &str, zone: TimeZone, job: &str) -> Result<Schedule, Error> {
        let failed =
            |reason: String| Error::Schedule { job: job.to_owned(), schedule: text.to_owned(), reason };
        let pattern = match text.trim().to_ascii_lowercase().as_str() {
            "@reboot" => return Ok(Schedule::at_start(zone)),
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            nickname if nickname.starts_with('@') => {
                return Err(failed("there is no such nickname".to_owned()));
            }
            _ => text.trim(),
        };
        let fields = pattern.split_whitespace().count();
        if fields != 5 {
            return Err(failed(format!("it has {fields} fields instead of five")));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(pattern).map_err(|error| failed(error.to_string()))?;
        let schedule = Schedule::new(Rule::Unix(Box::new(cron)), zone);
        // 2000 has every date, and every weekday of every date comes within DAYS_MAX of it.
        if schedule.search(Minute(15_778_080)).is_none() {
            return Err(failed("no day of any year matches it".to_owned()));
        }
        Ok(schedule)
    }

    pub(crate) fn is_at_start(&self) -> bool {
        matches!(self.rule, Rule::Start)
    }

    pub(crate) fn is_due(&self, minute: Minute) -> bool {
        match &self.rule {
            Rule::Start => false,
            Rule::Web2py(fields) => minute.zoned(&self.zone).is_some_and(|at| fields.contains(&at)),
            Rule::Unix(_) => self.next(minute) == Some(minute),
        }
    }

    /// The first minute from `from` on, `from` included, in which the job is due.
    pub(crate) fn next(&self, from: Minute) -> Option<Minute> {
        if let Some((asked, found)) = self.known.get()
            && asked <= from
            && found.is_none_or(|found| from <= found)
        {
            return found;
        }
        let found = self.search(from);
        self.known.set(Some((from, found)));
        found
    }

    /// Counts the minutes in `from..to` in which the job is due; of very many, only the first ones.
    pub(crate) fn count(&self, from: Minute, to: Minute) -> u64 {
        let mut count = 0;
        let mut at = from;
        while count < COUNT_MAX
            && let Some(due) = self.search(at).filter(|due| *due < to)
        {
            count += 1;
            at = due.next();
        }
        count
    }

    /// A minute on the clocks that the schedule goes by, for a person.
    pub(crate) fn show(&self, minute: Minute) -> String {
        let at = minute.zoned(&self.zone);
        at.map_or_else(|| "?".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M %Z").to_string())
    }

    fn search(&self, from: Minute) -> Option<Minute> {
        match &self.rule {
            Rule::Start => None,
            Rule::Unix(cron) => {
                let from = from.zoned(&self.zone)?;
                // The only error is that nothing was found.
                let found = cron.find_next_occurrence(&from, true).ok()?;
                Some(Minute(found.timestamp().as_second().div_euclid(60)))
            }
            Rule::Web2py(fields) => self.search_fields(fields, from),
        }
    }

    fn search_fields(&self, fields: &Fields, from: Minute) -> Option<Minute> {
        if fields.is_never() {
            return None;
        }
        let today = from.zoned(&self.zone)?.date();
        // Days are looked at by the calendar, and the minutes of a day by the clock, because a day that clocks are
        // changed on is longer or shorter.
        for date in today.series(jiff::Span::new().days(1)).take(DAYS_MAX) {
            if !fields.contains_day(date) {
                continue;
            }
            let first = date.to_zoned(self.zone.clone()).ok()?.timestamp().as_second().div_euclid(60);
            let end = date.tomorrow().ok()?.to_zoned(self.zone.clone()).ok()?.timestamp().as_second();
            let minutes = first.max(from.0)..end.div_euclid(60);
            let found = minutes
                .map(Minute)
                .find(|minute| minute.zoned(&self.zone).is_some_and(|at| fields.contains(&at)));
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

/// The zone of that name; without a name, the system's.
pub(crate) fn zone(name: Option<&str>, job: &str) -> Result<TimeZone, Error> {
    let Some(name) = name else { return Ok(TimeZone::system()) };
    TimeZone::get(name).map_err(|error| Error::Zone {
        job: job.to_owned(),
        zone: name.to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields;
    use proptest::prelude::*;

    fn berlin() -> TimeZone {
        TimeZone::get("Europe/Berlin").unwrap()
    }

    fn minute(text: &str) -> Minute {
        let at: Timestamp = text.parse().unwrap();
        Minute(at.as_second() / 60)
    }

    /// All minutes of the day of UTC in which the schedule is due, as the zone shows them.
    fn due(schedule: &Schedule, day: &str) -> Vec<String> {
        let first = minute(&format!("{day}T00:00Z")).0;
        (first..first + 24 * 60)
            .map(Minute)
            .filter(|at| schedule.is_due(*at))
            .map(|at| schedule.show(at))
            .collect()
    }

    fn unix(text: &str) -> Schedule {
        Schedule::unix(text, berlin(), "test").unwrap()
    }

    fn web2py(text: &str) -> Schedule {
        let texts: Vec<_> = text.split(' ').collect();
        Schedule::web2py(fields::read(texts.try_into().unwrap()).unwrap().fields, berlin())
    }

    #[test]
    fn a_time_that_a_day_does_not_have_runs_after_the_gap_and_one_that_comes_twice_runs_once() {
        assert_eq!(due(&unix("30 2 * * *"), "2026-03-29"), ["2026-03-29 03:00 CEST"]);
        assert_eq!(due(&unix("30 2 * * *"), "2026-10-25"), ["2026-10-25 02:30 CEST"]);
        // By web2py's comparison of the clock.
        assert_eq!(due(&web2py("30 2 * * *"), "2026-03-29"), [""; 0]);
        assert_eq!(
            due(&web2py("30 2 * * *"), "2026-10-25"),
            ["2026-10-25 02:30 CEST", "2026-10-25 02:30 CET"]
        );
    }

    #[test]
    fn what_runs_all_the_time_runs_through_changes_of_the_clock() {
        for day in ["2026-03-29", "2026-10-25", "2026-11-21"] {
            assert_eq!(due(&unix("*/15 * * * *"), day).len(), 96, "{day}");
            assert_eq!(due(&web2py("*/15 * * * *"), day).len(), 96, "{day}");
            assert_eq!(due(&unix("* * * * *"), day).len(), 1440, "{day}");
        }
    }

    #[test]
    fn days_are_one_or_the_other_in_unix_and_both_in_web2py() {
        let november =
            |schedule: &Schedule| schedule.count(minute("2026-11-01T12:00Z"), minute("2026-11-30T12:00Z"));
        // The 13th is one of the four Fridays.
        assert_eq!(november(&unix("0 0 13,14 * 5")), 5);
        assert_eq!(november(&web2py("0 0 13,14 * 5")), 1);
    }

    #[test]
    fn the_next_minute_is_found_however_far() {
        let from = minute("2026-11-21T12:00Z");
        let next = |schedule: &Schedule| schedule.next(from).map(|at| schedule.show(at));
        assert_eq!(next(&web2py("0 3 29 2 1")).as_deref(), Some("2044-02-29 03:00 CET"));
        assert_eq!(next(&unix("0 3 29 2 *")).as_deref(), Some("2028-02-29 03:00 CET"));
        assert_eq!(next(&web2py("* * * * *")).as_deref(), Some("2026-11-21 13:00 CET"));
        assert_eq!(next(&web2py("0 0 30 2 *")), None);
        assert_eq!(next(&web2py("5/10 * * * *")), None);
    }

    #[test]
    fn a_minute_that_is_known_is_right_when_the_clock_goes_back() {
        let schedule = unix("0 * * * *");
        let noon = minute("2026-11-21T12:00Z");
        assert_eq!(schedule.next(noon.next()), Some(Minute(noon.0 + 60)));
        assert!(schedule.is_due(noon));
        assert!(schedule.is_due(Minute(noon.0 - 60)));
        assert!(!schedule.is_due(Minute(noon.0 - 59)));
    }

    #[test]
    fn errors_name_what_was_typed_and_what_to_do() {
        for text in ["", "61 * * * *", "* * * *", "0 0 * * * *", "@often", "0 0 30 2 *", "a b c d e"] {
            let error = Schedule::unix(text, berlin(), "backup").unwrap_err().to_string();
            assert!(error.contains(&format!("\"{text}\"")) && error.contains("backup"), "{error}");
            assert!(error.contains("@hourly"), "{error}");
        }
        let error = zone(Some("Mars/Olympus"), "backup").unwrap_err().to_string();
        assert!(error.contains("Mars/Olympus") && error.contains("Europe/Berlin"), "{error}");
    }

    #[test]
    fn nicknames_are_known() {
        assert!(unix("@reboot").is_at_start());
        assert_eq!(due(&unix("@daily"), "2026-11-21"), ["2026-11-22 00:00 CET"]);
        assert_eq!(due(&unix("@Hourly"), "2026-11-21").len(), 24);
    }

    proptest! {
        /// Looking minute by minute and searching for the next one agree, around a change of the clock too.
        #[test]
        fn due_and_next_agree(at in -3000_i64..3000, minutes in "[0-5]?[0-9]|\\*/[1-9]", hours in "[0-3]|\\*") {
            for change in ["2026-03-29T01:00Z", "2026-10-25T01:00Z"] {
                let from = Minute(minute(change).0 + at);
                let pattern = format!("{minutes} {hours} * * *");
                for schedule in [unix(&pattern), web2py(&pattern)] {
                    let next = schedule.search(from).unwrap();
                    let walked = (from.0..).map(Minute).find(|at| schedule.is_due(*at)).unwrap();
                    prop_assert_eq!(next, walked);
                    prop_assert!(schedule.search(next.next()) > Some(next));
                }
            }
        }

        #[test]
        fn no_schedule_panics(text in "([-*/,#LW0-9a-z]{0,6} ){0,6}|\\PC{0,20}") {
            let _either = Schedule::unix(&text, TimeZone::UTC, "test");
        }
    }
}
