//! Which rules hold for the path of a request. A rule holds for a prefix of whole segments: `/up` is for `/up` and
//! `/up/load`, not for `/upper`; `/up/` is only for what lies below.
//!
//! Many applications take `//up` and `/x/../up` for `/up`. A rule that is there to protect must not be passed by so, and
//! paths are compared as an application might read them at its kindest: percent-decoded, without empty segments and dots.

use std::borrow::Cow;

use anygate_proto::head::RequestHead;

/// The path of a request as rules see it: where the application is mounted, and what is behind. What a proxy took off
/// before does not count: not every proxy forbids its clients to say so.
pub(crate) fn path(head: &RequestHead) -> Cow<'_, [u8]> {
    let mount = head.script_name();
    below(mount.strip_prefix(head.prefix()).unwrap_or(mount), head.path())
}

/// The same as it was sent, but percent-decoded.
pub(crate) fn path_as_sent(head: &RequestHead) -> Vec<u8> {
    let mount = head.script_name();
    [mount.strip_prefix(head.prefix()).unwrap_or(mount), head.path()].concat()
}

/// The same with what a proxy took off, if any did.
pub(crate) fn path_at_proxy(head: &RequestHead) -> Option<Cow<'_, [u8]>> {
    (!head.prefix().is_empty()).then(|| below(head.script_name(), head.path()))
}

/// Steps upwards in a path that are followed one by one.
const STEPS_UP_MAX: usize = 16;

/// Every way in which an application may read the path of a request: as rules see it, and, if it has steps upwards (`..`), where
/// it would be if they were not taken. `None`: there are so many that any rule may hold.
pub(crate) fn readings(head: &RequestHead) -> Option<Vec<Cow<'_, [u8]>>> {
    let mut readings = Vec::new();
    let mount = head.script_name();
    let mounts = [mount.strip_prefix(head.prefix()).unwrap_or(mount), mount];
    for mount in mounts.iter().take(if head.prefix().is_empty() { 1 } else { 2 }) {
        let whole = [mount, head.path()].concat();
        let is_up = |(at, window): (usize, &[u8])| (window == b"/..").then_some(at.saturating_add(1));
        let ups = whole.windows(3).enumerate().filter_map(is_up);
        if ups.clone().count() > STEPS_UP_MAX {
            return None;
        }
        for end in ups.chain([whole.len()]) {
            let part = whole.get(..end).unwrap_or_default();
            // `*` and paths without a slash are in no folder but the root.
            let part = if part.starts_with(b"/") { part.to_vec() } else { [b"/", part].concat() };
            readings.push(Cow::Owned(plain(&part).into_owned()));
        }
    }
    Some(readings)
}

fn below<'p>(mount: &[u8], path: &'p [u8]) -> Cow<'p, [u8]> {
    if mount.is_empty() { plain(path) } else { Cow::Owned(plain(&[mount, path].concat()).into_owned()) }
}

/// Whether `path` is `prefix` or lies below it.
pub(crate) fn is_below(prefix: &str, path: &[u8]) -> bool {
    let prefix = prefix.as_bytes();
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/") || prefix.ends_with(b"/"))
}

/// Whether a path, as rules see it, is one of `prefixes` or lies below one.
pub fn is_below_any(prefixes: &[String], path: &[u8]) -> bool {
    !prefixes.is_empty() && {
        let path = plain(path);
        prefixes.iter().any(|prefix| is_below(prefix, &path))
    }
}

/// A value for each of some prefixes; the longest that fits counts.
#[derive(Clone, Debug)]
pub(crate) struct ByPrefix<T> {
    /// The longest first.
    items: Vec<(String, T)>,
}

impl<T> Default for ByPrefix<T> {
    fn default() -> Self {
        ByPrefix { items: Vec::new() }
    }
}

impl<T> FromIterator<(String, T)> for ByPrefix<T> {
    fn from_iter<I: IntoIterator<Item = (String, T)>>(items: I) -> Self {
        let mut items: Vec<_> = items.into_iter().collect();
        items.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        ByPrefix { items }
    }
}

impl<T> ByPrefix<T> {
    /// The value of the longest prefix that `path` lies below.
    pub(crate) fn find(&self, path: &[u8]) -> Option<&T> {
        self.all(path).next()
    }

    /// The values of all prefixes that `path` lies below, that of the longest first.
    pub(crate) fn all(&self, path: &[u8]) -> impl Iterator<Item = &T> {
        self.items.iter().filter(move |(prefix, _)| is_below(prefix, path)).map(|(_, value)| value)
    }

    /// All values.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.items.iter().map(|(_, value)| value)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// Removes empty segments and those of dots (RFC 3986 section 5.2.4).
fn plain(path: &[u8]) -> Cow<'_, [u8]> {
    let is_odd = path.windows(2).any(|pair| matches!(pair, b"//" | b"/."));
    if !is_odd {
        return Cow::Borrowed(path);
    }
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut ends_in_folder = false;
    for segment in path.split(|&byte| byte == b'/') {
        ends_in_folder = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    let mut plain = Vec::with_capacity(path.len());
    for segment in segments {
        plain.push(b'/');
        plain.extend_from_slice(segment);
    }
    if ends_in_folder {
        plain.push(b'/');
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prefixes_are_whole_segments_and_the_longest_counts() {
        let rules: ByPrefix<u8> = [("/", 1), ("/up", 2), ("/up/load/", 3)]
            .map(|(prefix, value)| (prefix.to_owned(), value))
            .into_iter()
            .collect();
        for (path, expected) in [
            ("/", 1),
            ("/upper", 1),
            ("/up", 2),
            ("/up/", 2),
            ("/up/load", 2),
            ("/up/load/", 3),
            ("/up/load/x", 3),
        ] {
            assert_eq!(rules.find(path.as_bytes()), Some(&expected), "{path}");
        }
        assert_eq!(rules.find(b"*"), None);
        assert_eq!(rules.all(b"/up/load/x").copied().collect::<Vec<_>>(), [3, 2, 1]);
    }

    #[test]
    fn a_path_in_disguise_is_the_path() {
        for (path, expected) in [
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//a///b", "/a/b"),
            ("/./a/./b/.", "/a/b/"),
            ("/x/../a/b", "/a/b"),
            ("/../../a", "/a"),
            ("/a/..", "/"),
            ("/.a/b..", "/.a/b.."),
            ("//", "/"),
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(&*plain(path.as_bytes()), expected.as_bytes(), "{path}");
        }
    }

    #[test]
    fn a_path_in_disguise_is_below_the_same_prefixes() {
        let prefixes = ["/up".to_owned(), "/raw/".to_owned()];
        for path in ["/up", "/up/a", "//up", "/./up", "/x/../up", "/raw/", "/raw/x", "/raw//x"] {
            assert!(is_below_any(&prefixes, path.as_bytes()), "{path}");
        }
        for path in ["/", "/upper", "/raw", "/a/up", "/up/.."] {
            assert!(!is_below_any(&prefixes, path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn where_the_application_is_mounted_counts() {
        let mut head = RequestHead::default();
        let mount = head.push_text(b"/app").unwrap();
        head.set_script_name(mount);
        let rest = head.push_text(b"//login").unwrap();
        head.set_path(rest);
        assert_eq!(&*path(&head), b"/app/login");
        assert_eq!(path_at_proxy(&head), None);
        let mount = head.push_text(b"/outside/app").unwrap();
        head.set_script_name(mount);
        let prefix = head.sub_span(mount, 0, 8).unwrap();
        head.set_prefix(prefix);
        assert_eq!(&*path(&head), b"/app/login");
        assert_eq!(path_at_proxy(&head).as_deref(), Some(&b"/outside/app/login"[..]));
    }

    proptest! {
        #[test]
        fn what_is_plain_stays_so(path in "[/.a]{0,12}") {
            let once = plain(path.as_bytes()).into_owned();
            prop_assert_eq!(&*plain(&once), &once[..]);
            prop_assert!(!once.windows(2).any(|pair| pair == b"//"));
        }
    }
}
