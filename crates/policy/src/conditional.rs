//! What tells one version of a file from another, and requests that depend on it: RFC 9110 sections 8.8 and 13.

use std::fs::Metadata;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anygate_proto::head::RequestHead;

/// A file that was changed so recently may change again without a later time: systems count in steps.
const SETTLED: Duration = Duration::from_secs(2);

/// The end of 1980-01-01 in every time zone, as time since 1970. No file of the web is older.
const NO_DATE: Duration = Duration::from_secs(315_532_800 + 2 * 86_400);

/// The validators of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Validators {
    /// The entity tag with its quotes, `W/` before them if it is weak.
    pub(crate) tag: String,
    pub(crate) modified: Option<Modified>,
}

/// Time of a file's last change, in whole seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Modified {
    time: SystemTime,
    pub(crate) text: String,
}

/// Result of a request's conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Send it; a part of it if `range` and if one is asked for.
    Send { range: bool },
    /// 304
    NotModified,
    /// 412
    Failed,
}

/// The time of the last change without its fraction, as dates in fields have none.
pub(crate) fn whole_seconds(metadata: &Metadata) -> Option<SystemTime> {
    let since = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(since.as_secs()))
}

/// The same as a date for clients; `None` for one that every version of the file may have: archives, Nix and
/// reproducible images set 1970 or the first day of 1980.
pub(crate) fn date_of_change(metadata: &Metadata) -> Option<SystemTime> {
    whole_seconds(metadata).filter(|time| *time > UNIX_EPOCH + NO_DATE)
}

/// When the file's content or attributes were changed, as the system itself notes it.
fn changed(metadata: &Metadata) -> Option<SystemTime> {
    let seconds = u64::try_from(metadata.ctime()).ok()?;
    let nanoseconds = u32::try_from(metadata.ctime_nsec()).ok()?;
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
}

impl Validators {
    /// Those of a file as it is `now`.
    pub(crate) fn new(metadata: &Metadata, now: SystemTime) -> Validators {
        let mut hasher = DefaultHasher::new();
        // Hashed, because clients must not learn the number of a file.
        (metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec()).hash(&mut hasher);
        // A tool can set the time of the last change, as it does for reproducible images, but not this one.
        (metadata.ctime(), metadata.ctime_nsec()).hash(&mut hasher);
        let is_old = |time: SystemTime| now.duration_since(time).is_ok_and(|age| age >= SETTLED);
        let time = date_of_change(metadata);
        let settled = metadata.modified().is_ok_and(is_old)
            && (time.is_some() || changed(metadata).is_some_and(is_old));
        let weak = if settled { "" } else { "W/" };
        let tag = format!("{weak}\"{:x}-{:x}\"", hasher.finish(), metadata.len());
        // RFC 9110 section 8.8.2.1 forbids dates of the future.
        let time = time.filter(|time| *time <= now);
        Validators { tag, modified: time.map(|time| Modified { time, text: httpdate::fmt_http_date(time) }) }
    }

    /// Weighs the conditions of a request that would get 200, in the order of RFC 9110 section 13.2.2.
    pub(crate) fn weigh(&self, request: &RequestHead) -> Outcome {
        let mut conditions = Conditions::default();
        for (name, value) in request.fields() {
            // Every field of every request passes here; the length rules nearly all of them out.
            let place = match name.len() {
                8 if name.eq_ignore_ascii_case(b"if-match") => &mut conditions.matches,
                8 if name.eq_ignore_ascii_case(b"if-range") => &mut conditions.range,
                13 if name.eq_ignore_ascii_case(b"if-none-match") => &mut conditions.none_match,
                17 if name.eq_ignore_ascii_case(b"if-modified-since") => &mut conditions.modified_since,
                19 if name.eq_ignore_ascii_case(b"if-unmodified-since") => &mut conditions.unmodified_since,
                _ => continue,
            };
            place.push(value);
        }
        let Conditions { matches, unmodified_since, none_match, modified_since, range } = conditions;
        if !matches.is_empty() {
            if !matches.iter().any(|value| self.is_among(value, Comparison::Strong)) {
                return Outcome::Failed;
            }
        } else if let Some(false) = self.is_not_after(&unmodified_since) {
            return Outcome::Failed;
        }
        if !none_match.is_empty() {
            if none_match.iter().any(|value| self.is_among(value, Comparison::Weak)) {
                return Outcome::NotModified;
            }
        } else if let Some(true) = self.is_not_after(&modified_since) {
            return Outcome::NotModified;
        }
        Outcome::Send { range: range.iter().all(|value| self.is_same(value)) }
    }

    /// Whether the file is no younger than a date; `None` if there is no date to compare.
    fn is_not_after(&self, values: &[&[u8]]) -> Option<bool> {
        // RFC 9110 section 13.1.3: a recipient must ignore the field if it is no date or a list.
        let [value] = values else { return None };
        let modified = self.modified.as_ref()?;
        if *value == modified.text.as_bytes() {
            return Some(true);
        }
        let date = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
        Some(modified.time <= date)
    }

    /// Whether a list of tags has ours, or is `*`.
    fn is_among(&self, list: &[u8], comparison: Comparison) -> bool {
        let (own_is_weak, own) = opaque(self.tag.as_bytes());
        if list.trim_ascii() == b"*" {
            return true;
        }
        let mut rest = list;
        loop {
            rest = rest.trim_ascii_start();
            if let Some(after) = rest.strip_prefix(b",") {
                rest = after;
                continue;
            }
            let (is_weak, tag) = opaque(rest);
            let Some(inner) = tag.strip_prefix(b"\"") else { return false };
            let Some(length) = inner.iter().position(|&byte| byte == b'"') else { return false };
            let (tag, after) = tag.split_at(length + 2);
            let strong_enough = comparison == Comparison::Weak || !(is_weak || own_is_weak);
            if strong_enough && tag == own {
                return true;
            }
            rest = after;
        }
    }

    /// If-Range: our tag, strong, or exactly our date (RFC 9110 section 13.1.5).
    fn is_same(&self, value: &[u8]) -> bool {
        let (own_is_weak, own) = opaque(self.tag.as_bytes());
        // A tag is weak as long as the date may stand for two versions.
        let date = self.modified.as_ref().is_some_and(|modified| value == modified.text.as_bytes());
        !own_is_weak && (value == own || date)
    }
}

/// RFC 9110 section 8.8.3.2
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

#[derive(Default)]
struct Conditions<'a> {
    matches: Vec<&'a [u8]>,
    unmodified_since: Vec<&'a [u8]>,
    none_match: Vec<&'a [u8]>,
    modified_since: Vec<&'a [u8]>,
    range: Vec<&'a [u8]>,
}

/// A tag without the mark of weak ones, and whether it had it.
fn opaque(tag: &[u8]) -> (bool, &[u8]) {
    match tag.strip_prefix(b"W/") {
        Some(opaque) => (true, opaque),
        None => (false, tag),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::request;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const LATER: &str = "Sunday, 06-Nov-94 08:49:38 GMT";

    fn weigh(tag: &str, fields: &[(&str, &str)]) -> Outcome {
        let time = httpdate::parse_http_date(DATE).unwrap();
        let modified = Some(Modified { time, text: DATE.to_owned() });
        Validators { tag: tag.to_owned(), modified }.weigh(&request("GET", "/", fields))
    }

    #[test]
    fn conditions_have_their_precedence() {
        let sent = Outcome::Send { range: true };
        for (fields, expected) in [
            (&[][..], sent),
            (&[("If-None-Match", "\"a\"")], Outcome::NotModified),
            (&[("If-None-Match", "W/\"a\"")], Outcome::NotModified),
            (&[("If-None-Match", "*")], Outcome::NotModified),
            (&[("If-None-Match", "\"x,\", , W/\"y\" ,\"a\"")], Outcome::NotModified),
            (&[("If-None-Match", "\"x\""), ("if-none-match", "\"a\"")], Outcome::NotModified),
            (&[("If-None-Match", "\"b\"")], sent),
            (&[("If-None-Match", "a")], sent),
            (&[("If-None-Match", "\"a")], sent),
            (&[("If-None-Match", "")], sent),
            (&[("If-Modified-Since", DATE)], Outcome::NotModified),
            (&[("If-Modified-Since", LATER)], Outcome::NotModified),
            (&[("If-Modified-Since", EARLIER)], sent),
            (&[("If-Modified-Since", "yesterday")], sent),
            (&[("If-None-Match", "\"b\""), ("If-Modified-Since", DATE)], sent),
            (&[("If-Match", "\"a\"")], sent),
            (&[("If-Match", "*")], sent),
            (&[("If-Match", "W/\"a\"")], Outcome::Failed),
            (&[("If-Match", "\"b\"")], Outcome::Failed),
            (&[("If-Match", "\"a\""), ("If-Unmodified-Since", EARLIER)], sent),
            (&[("If-Unmodified-Since", EARLIER)], Outcome::Failed),
            (&[("If-Unmodified-Since", DATE)], sent),
            (&[("If-Unmodified-Since", "no date")], sent),
            (&[("If-Match", "\"b\""), ("If-None-Match", "\"a\"")], Outcome::Failed),
            (&[("If-Match", "\"a\""), ("If-None-Match", "\"a\"")], Outcome::NotModified),
            (&[("If-Range", "\"a\"")], sent),
            (&[("If-Range", DATE)], sent),
            (&[("If-Range", "W/\"a\"")], Outcome::Send { range: false }),
            (&[("If-Range", "\"b\"")], Outcome::Send { range: false }),
            (&[("If-Range", LATER)], Outcome::Send { range: false }),
        ] {
            assert_eq!(weigh("\"a\"", fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_weak_tag_is_no_proof_of_equal_bytes() {
        assert_eq!(weigh("W/\"a\"", &[("If-None-Match", "\"a\"")]), Outcome::NotModified);
        assert_eq!(weigh("W/\"a\"", &[("If-Match", "\"a\"")]), Outcome::Failed);
        for value in ["W/\"a\"", "\"a\"", DATE] {
            assert_eq!(weigh("W/\"a\"", &[("If-Range", value)]), Outcome::Send { range: false });
        }
    }

    #[test]
    fn a_file_has_another_tag_when_it_changes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let time = UNIX_EPOCH + Duration::new(1_000_000_000, 5);
        let of = |now| Validators::new(&file.as_file().metadata().unwrap(), now);
        let later = time + Duration::from_secs(10);
        file.as_file().set_modified(time).unwrap();
        let first = of(later);
        assert!(first.tag.starts_with('"') && first.tag.ends_with("-0\""));
        assert_eq!(first.modified.as_ref().unwrap().text, "Sun, 09 Sep 2001 01:46:40 GMT");
        assert_eq!(of(later), first);
        let fresh = of(time + Duration::from_millis(1999));
        assert_eq!(fresh.tag, format!("W/{}", first.tag), "it may change again unseen");
        assert_eq!(of(time - Duration::from_secs(5)).modified, None, "no dates of the future");
        file.as_file().set_modified(time + Duration::from_nanos(1)).unwrap();
        assert_ne!(of(later).tag, first.tag);
    }

    #[test]
    fn a_time_that_all_versions_have_is_no_date_and_the_tag_differs_all_the_same() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let later = SystemTime::now() + Duration::from_secs(10);
        // The epoch, Nix, and the first time that a zip archive can hold.
        for seconds in [0, 1, 315_532_800] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            file.as_file().set_modified(time).unwrap();
            let before = file.as_file().metadata().unwrap();
            let first = Validators::new(&before, later);
            assert_eq!(first.modified, None);
            assert!(
                Validators::new(&before, SystemTime::now()).tag.starts_with("W/"),
                "it may change again unseen"
            );
            // The system counts in steps, so it is changed until its count has gone on.
            let changed = loop {
                std::fs::write(file.path(), "new").unwrap();
                file.as_file().set_modified(time).unwrap();
                let metadata = file.as_file().metadata().unwrap();
                if (metadata.ctime(), metadata.ctime_nsec()) != (before.ctime(), before.ctime_nsec()) {
                    break metadata;
                }
            };
            let (old, new) = (first.tag.split('-').next(), Validators::new(&changed, later).tag);
            assert_ne!(old, new.split('-').next());
        }
    }

    proptest! {
        #[test]
        fn any_condition_is_weighed(value in "[W/\"a,* ]{0,12}", which in 0..5usize) {
            let names = ["If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range"];
            let outcome = weigh("\"a\"", &[(names[which], &value)]);
            if names[which] == "If-None-Match" && outcome == Outcome::NotModified {
                prop_assert!(value.contains("\"a\"") || value.trim() == "*");
            }
        }
    }
}
