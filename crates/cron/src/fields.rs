//! The five time fields of a web2py crontab, with the meaning that gluon/newcron.py gives them: `rangetolist` and
//! `parsecronline` there. It differs from the cron of Unix; what differs is kept, and told as an [`Oddity`].
//!
//! ```text
//! field = "*" | value *( "," value )
//! value = number | "-1" | a "-" b | a "-" b "/" n | "*/" n | name     (names in the weekday field only)
//! ```

use std::fmt;

use jiff::Zoned;

/// Which of the five fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// 0 to 59.
    Minute,
    /// 0 to 23.
    Hour,
    /// Day of the month, 1 to 31.
    Day,
    /// 1 to 12.
    Month,
    /// 0 (Sunday) to 6.
    Weekday,
}

impl Field {
    pub(crate) const ALL: [Field; 5] = [Field::Minute, Field::Hour, Field::Day, Field::Month, Field::Weekday];

    fn bounds(self) -> (u64, u64) {
        match self {
            Field::Minute => (0, 59),
            Field::Hour => (0, 23),
            Field::Day => (1, 31),
            Field::Month => (1, 12),
            Field::Weekday => (0, 6),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Field::Minute => "minute",
            Field::Hour => "hour",
            Field::Day => "day",
            Field::Month => "month",
            Field::Weekday => "weekday",
        })
    }
}

/// Difference from Unix cron. The line keeps web2py's meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// The whole field matches no moment, so the line never runs.
    Never(Field, String),
    /// This part of a field matches nothing, other parts do.
    Nothing(Field, String),
    /// The number is outside of what the field can be.
    OutOfRange(Field, String),
    /// The step counts from zero and not from the beginning of its range.
    Step(Field, String, Vec<u64>),
    /// Both days are given, and both must match; the cron of Unix wants one of them.
    BothDays,
    /// The nickname is replaced in the command too.
    NicknameTwice(String),
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Oddity::Never(field, text) => {
                write!(
                    f,
                    "the {field} field \"{text}\" matches nothing, so this line never runs; {}",
                    advice(*field)
                )
            }
            Oddity::Nothing(field, text) => {
                write!(f, "\"{text}\" in the {field} field matches nothing; {}", advice(*field))
            }
            Oddity::OutOfRange(field, text) => {
                let (first, last) = field.bounds();
                write!(
                    f,
                    "\"{text}\" in the {field} field is not within {first} to {last}; {}",
                    advice(*field)
                )
            }
            Oddity::Step(field, text, values) => {
                let values: Vec<_> = values.iter().map(u64::to_string).collect();
                let values = values.join(",");
                write!(
                    f,
                    "\"{text}\" in the {field} field counts from zero, as web2py does: it means {values}"
                )
            }
            Oddity::BothDays => f.write_str(
                "day and weekday are both given: web2py runs the line when both match, not when one does",
            ),
            Oddity::NicknameTwice(name) => {
                write!(f, "{name} stands in the line again, and web2py replaces it there too")
            }
        }
    }
}

fn advice(field: Field) -> &'static str {
    match field {
        Field::Weekday => {
            "web2py knows numbers from 0 (Sunday) to 6, ranges and steps of them (1-5, */2), and single names (mon,tue)"
        }
        Field::Month => {
            "web2py knows numbers from 1 to 12, ranges and steps of them (3-5, */2), but no names"
        }
        Field::Minute | Field::Hour | Field::Day => {
            "web2py knows numbers, ranges and steps of them (10-20, */5)"
        }
    }
}

/// A step of zero: web2py divides by it, and drops the whole file for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StepOfZero(pub(crate) Field);

/// The moments of one line: for each field a set of numbers, one bit each. `None` is a lone `*`, which always matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields([Option<u64>; 5]);

/// Parsed time fields of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) fields: Fields,
    /// The minute is `-1` and nothing else: at the start, whatever the other fields are.
    pub(crate) at_start: bool,
    pub(crate) oddities: Vec<Oddity>,
}

impl Fields {
    /// Whether a minute of local time belongs to the line. All fields must match, the two days too.
    pub fn contains(&self, at: &Zoned) -> bool {
        self.contains_day(at.date()) && self.contains_time(at.time())
    }

    pub(crate) fn contains_day(&self, date: jiff::civil::Date) -> bool {
        self.has(Field::Day, date.day())
            && self.has(Field::Month, date.month())
            && self.has(Field::Weekday, date.weekday().to_sunday_zero_offset())
    }

    fn contains_time(&self, time: jiff::civil::Time) -> bool {
        self.has(Field::Minute, time.minute()) && self.has(Field::Hour, time.hour())
    }

    /// Whether no moment can match, because a field is empty.
    pub(crate) fn is_never(&self) -> bool {
        self.0.iter().zip(Field::ALL).any(|(set, field)| set.is_some_and(|set| set & possible(field) == 0))
    }

    fn has(&self, field: Field, value: i8) -> bool {
        let set = self.0.iter().zip(Field::ALL).find(|(_, other)| *other == field).and_then(|(set, _)| *set);
        set.is_none_or(|set| u32::try_from(value).is_ok_and(|value| bit(u64::from(value)) & set != 0))
    }
}

/// Reads the five fields of a line.
pub(crate) fn read(texts: [&str; 5]) -> Result<Times, StepOfZero> {
    let mut oddities = Vec::new();
    let mut sets = [None; 5];
    let mut at_start = false;
    for ((set, field), text) in sets.iter_mut().zip(Field::ALL).zip(texts) {
        let mut odd = Vec::new();
        let read = read_field(field, text, &mut odd)?;
        *set = read.set;
        // At the start the other fields do not matter, so nothing in them is odd.
        if !at_start {
            oddities.append(&mut odd);
        }
        at_start |= field == Field::Minute && read.is_start;
    }
    let [_, _, day, _, weekday] = texts;
    if !at_start && day != "*" && weekday != "*" {
        oddities.push(Oddity::BothDays);
    }
    Ok(Times { fields: Fields(sets), at_start, oddities })
}

/// One parsed field.
struct Read {
    set: Option<u64>,
    /// One `-1`, and nothing else that web2py makes a number of: the start, in the minute field.
    is_start: bool,
}

fn read_field(field: Field, text: &str, oddities: &mut Vec<Oddity>) -> Result<Read, StepOfZero> {
    if text == "*" {
        return Ok(Read { set: None, is_start: false });
    }
    let parts: Vec<_> = text.split(',').collect();
    let mut odd = Vec::new();
    let mut set = 0;
    let mut is_start = parts.iter().filter(|part| **part == "-1").count() == 1;
    for part in &parts {
        let values = read_part(field, part, &mut odd)?;
        set |= values.unwrap_or(0);
        is_start &= values.is_none();
    }
    is_start &= field == Field::Minute;
    // A -1 that is not the start is a number that no moment has.
    for part in parts.iter().filter(|part| !(is_start && **part == "-1")) {
        let values = read_part(field, part, &mut Vec::new())?.unwrap_or(0);
        if values & possible(field) == 0 {
            let outside = Oddity::OutOfRange(field, (*part).to_owned());
            if !odd.contains(&outside) {
                odd.push(Oddity::Nothing(field, (*part).to_owned()));
            }
        }
    }
    if set & possible(field) == 0 && !is_start {
        oddities.push(Oddity::Never(field, text.to_owned()));
    } else {
        oddities.append(&mut odd);
    }
    Ok(Read { set: Some(set), is_start })
}

/// The set of one part between commas; `None` when web2py makes no number of it, or it is `-1`. A set may be empty
/// although there are numbers, where all are too large for any field.
fn read_part(field: Field, part: &str, odd: &mut Vec<Oddity>) -> Result<Option<u64>, StepOfZero> {
    let (first, last) = field.bounds();
    if part == "-1" {
        return Ok(None);
    }
    if part.contains('/') || part.contains('-') {
        let range = match part.strip_prefix('*') {
            Some(rest) => format!("{first}-{last}{rest}"),
            None if part.contains('/') => part.to_owned(),
            None => format!("{part}/1"),
        };
        let Some((from, to, step)) = read_range(&range) else { return Ok(None) };
        if from > to {
            return Ok(None);
        }
        if step == 0 {
            return Err(StepOfZero(field));
        }
        // Numbers of 64 and more fit no field, nor any set.
        let values: Vec<u64> = (from..=to.min(63)).filter(|value| value % step == 0).collect();
        if (!part.starts_with('*') && from < first) || to > last {
            odd.push(Oddity::OutOfRange(field, part.to_owned()));
        }
        if step > 1 && from % step != 0 && !values.is_empty() {
            odd.push(Oddity::Step(field, part.to_owned(), values.clone()));
        }
        let is_empty = to - to % step < from;
        return Ok((!is_empty).then(|| values.into_iter().fold(0, |set, value| set | bit(value))));
    }
    if let Some(value) = digits(part).filter(|(_, rest)| rest.is_empty()).map(|(value, _)| value) {
        if !(first..=last).contains(&value) {
            odd.push(Oddity::OutOfRange(field, part.to_owned()));
        }
        return Ok(Some(bit(value)));
    }
    if field == Field::Weekday {
        // web2py looks at the first three letters only.
        let name: String = part.chars().take(3).flat_map(char::to_lowercase).collect();
        let names = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
        if let Some((number, _)) = (0..).zip(names).find(|(_, other)| *other == name) {
            return Ok(Some(bit(number)));
        }
    }
    Ok(None)
}

/// `a-b/n`, and whatever stands behind is ignored: web2py matches the beginning only.
fn read_range(text: &str) -> Option<(u64, u64, u64)> {
    let (from, rest) = digits(text)?;
    let (to, rest) = digits(rest.strip_prefix('-')?)?;
    let (step, _) = digits(rest.strip_prefix('/')?)?;
    Some((from, to, step))
}

/// The number that a text begins with, and the rest. A number too large for the type is the largest.
fn digits(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at_checked(end)?;
    if number.is_empty() {
        return None;
    }
    Some((number.parse().unwrap_or(u64::MAX), rest))
}

fn bit(value: u64) -> u64 {
    u32::try_from(value).ok().and_then(|value| 1_u64.checked_shl(value)).unwrap_or(0)
}

/// All numbers that a field can be.
fn possible(field: Field) -> u64 {
    let (first, last) = field.bounds();
    (first..=last).fold(0, |set, value| set | bit(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The values of one field, `None` for all, and what is odd.
    fn values(field: Field, text: &str) -> (Option<Vec<u64>>, Vec<Oddity>) {
        let mut oddities = Vec::new();
        let set = read_field(field, text, &mut oddities).unwrap().set;
        let set = set.map(|set| (0..64).filter(|value| bit(*value) & set & possible(field) != 0).collect());
        (set, oddities)
    }

    #[test]
    fn fields_mean_what_web2py_makes_of_them() {
        use Field::*;
        // Each list is what `parsecronline` of web2py gives, without the numbers that no moment has.
        let table: &[(Field, &str, &[u64])] = &[
            (Minute, "5", &[5]),
            (Minute, "007", &[7]),
            (Minute, "5,10,15", &[5, 10, 15]),
            (Minute, "10-13", &[10, 11, 12, 13]),
            (Minute, "*/15", &[0, 15, 30, 45]),
            (Minute, "0-10/5", &[0, 5, 10]),
            (Minute, "*/40", &[0, 40]),
            (Hour, "*/6", &[0, 6, 12, 18]),
            (Weekday, "0", &[0]),
            (Weekday, "sun", &[0]),
            (Weekday, "MON,tuesday,Wedding", &[1, 2, 3]),
            (Weekday, "1-5", &[1, 2, 3, 4, 5]),
            (Weekday, "*/2", &[0, 2, 4, 6]),
            (Day, "31", &[31]),
            (Month, "*/1", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        ];
        for (field, text, expected) in table {
            assert_eq!(values(*field, text), (Some(expected.to_vec()), vec![]), "{field} {text}");
        }
        assert_eq!(values(Minute, "*"), (None, vec![]));
    }

    #[test]
    fn quirks_are_kept_and_told() {
        use Field::*;
        let never = |field, text: &str| vec![Oddity::Never(field, text.to_owned())];
        let nothing = |field, text: &str| vec![Oddity::Nothing(field, text.to_owned())];
        let outside = |field, text: &str| vec![Oddity::OutOfRange(field, text.to_owned())];
        let step =
            |field, text: &str, values: &[u64]| vec![Oddity::Step(field, text.to_owned(), values.to_vec())];
        let odd_minutes: Vec<u64> = (2..59).step_by(2).collect();
        let table: Vec<(Field, &str, Vec<u64>, Vec<Oddity>)> = vec![
            // Steps count from zero.
            (Minute, "1-59/2", odd_minutes.clone(), step(Minute, "1-59/2", &odd_minutes)),
            (Minute, "5-20/10", vec![10, 20], step(Minute, "5-20/10", &[10, 20])),
            (Day, "*/10", vec![10, 20, 30], step(Day, "*/10", &[10, 20, 30])),
            (Month, "*/3", vec![3, 6, 9, 12], step(Month, "*/3", &[3, 6, 9, 12])),
            (Minute, "11-19/20", vec![], never(Minute, "11-19/20")),
            (Month, "*/13", vec![], never(Month, "*/13")),
            // A step without a range, names in ranges, names of months.
            (Minute, "5/10", vec![], never(Minute, "5/10")),
            (Minute, "/10", vec![], never(Minute, "/10")),
            (Weekday, "mon-fri", vec![], never(Weekday, "mon-fri")),
            (Weekday, "mon/2", vec![], never(Weekday, "mon/2")),
            (Month, "jan", vec![], never(Month, "jan")),
            (Month, "1,feb", vec![1], nothing(Month, "feb")),
            (Minute, "soon", vec![], never(Minute, "soon")),
            (Minute, "*,5", vec![5], nothing(Minute, "*")),
            (Minute, "22-2", vec![], never(Minute, "22-2")),
            (Minute, "5,", vec![5], nothing(Minute, "")),
            (Minute, "-1,5", vec![5], nothing(Minute, "-1")),
            (Minute, "-5", vec![], never(Minute, "-5")),
            (Hour, "-1", vec![], never(Hour, "-1")),
            // Numbers that no moment has.
            (Weekday, "7", vec![], never(Weekday, "7")),
            (Weekday, "0,7", vec![0], outside(Weekday, "7")),
            (Weekday, "5-7", vec![5, 6], outside(Weekday, "5-7")),
            (Minute, "60", vec![], never(Minute, "60")),
            (Hour, "22-30", vec![22, 23], outside(Hour, "22-30")),
            (Day, "0-3", vec![1, 2, 3], outside(Day, "0-3")),
            (
                Minute,
                "0-99999999999999999999999/30",
                vec![0, 30],
                outside(Minute, "0-99999999999999999999999/30"),
            ),
            // Only the beginning is looked at.
            (Minute, "0-30/10/2x", vec![0, 10, 20, 30], vec![]),
            (Minute, "*-5", vec![], never(Minute, "*-5")),
        ];
        for (field, text, expected, oddities) in table {
            assert_eq!(values(field, text), (Some(expected), oddities), "{field} {text}");
        }
    }

    #[test]
    fn a_step_of_zero_is_an_error_when_web2py_divides_by_it() {
        assert_eq!(read(["*/0", "*", "*", "*", "*"]), Err(StepOfZero(Field::Minute)));
        assert!(read(["5-3/0", "*", "*", "*", "*"]).is_ok());
    }

    #[test]
    fn both_days_must_match() {
        let times = read(["0", "0", "13", "*", "5"]).unwrap();
        assert_eq!(times.oddities, [Oddity::BothDays]);
        // 13 November 2026 is a Friday, 13 December is not, nor is 20 November the 13th.
        for (day, expected) in [("2026-11-13", true), ("2026-12-13", false), ("2026-11-20", false)] {
            let at: Zoned = format!("{day}T00:00[UTC]").parse().unwrap();
            assert_eq!(times.fields.contains(&at), expected, "{day}");
        }
        assert_eq!(read(["0", "0", "*", "*", "5"]).unwrap().oddities, []);
    }

    #[test]
    fn only_a_lone_minus_one_is_the_start() {
        assert!(read(["-1", "5", "jan", "*", "7"]).unwrap().at_start);
        assert_eq!(read(["-1", "5", "jan", "*", "7"]).unwrap().oddities, []);
        // What web2py makes no number of does not count, what is too large does.
        assert!(read(["soon,-1", "*", "*", "*", "*"]).unwrap().at_start);
        let soon = Oddity::Nothing(Field::Minute, "soon".to_owned());
        assert_eq!(read(["soon,-1", "*", "*", "*", "7"]).unwrap().oddities, [soon]);
        assert!(!read(["99,-1", "*", "*", "*", "*"]).unwrap().at_start);
        assert!(!read(["-1,5", "*", "*", "*", "*"]).unwrap().at_start);
        assert!(read(["-1,-1", "*", "*", "*", "*"]).unwrap().fields.is_never());
    }

    proptest! {
        #[test]
        fn no_field_panics(text in "[-*/,0-9a-z]{0,16}|\\PC{0,12}", index in 0_usize..5) {
            let mut texts = ["*"; 5];
            texts[index] = &text;
            if let Ok(times) = read(texts) {
                for oddity in &times.oddities {
                    prop_assert!(!oddity.to_string().is_empty());
                }
            }
        }
    }
}
