//! Pages that load themselves anew when the application was reloaded (`reload`): what is added to HTML for clients on this
//! machine, the script that it names, and what that script asks. Browsers ask which version is served, and a worker whose
//! version they have responds when it ends: nothing is polled.

use std::sync::Arc;

use anygate_proto::application::Endpoints;
use anygate_proto::head::{RequestHead, ResponseHead};
use anygate_proto::local_host::LocalHosts;

use crate::compression::announced;

/// Path of the script, below the mount point.
const SCRIPT_PATH: &str = "/.anygate/reload.js";
/// Path that the script asks, with the version of its page as the query.
const NEWS_PATH: &str = "/.anygate/news";
const SCRIPT: &str = include_str!("page_reload.js");

/// The version of the application that a process serves, and who may know of it.
#[derive(Clone, Debug)]
pub struct PageReload {
    version: Arc<str>,
    hosts: LocalHosts,
}

/// A response of these paths.
#[derive(Debug)]
pub(crate) enum News {
    /// The script.
    Script,
    /// The page is not of this version.
    Changed,
    /// It is: this is the response when the worker ends.
    Unchanged,
}

/// What is added to the response of one request, if it turns out to be a page.
#[derive(Debug)]
pub(crate) struct Insertion {
    version: Arc<str>,
    tag: Vec<u8>,
    /// The request's conditions had tags of pages of this version.
    is_conditional: bool,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The head of the response is unknown.
    Waiting,
    /// It is a page. Bytes of its own that are still to come, if they are known.
    Page(Option<u64>),
    /// It is a page that is longer than it announced, which was said.
    TooLong,
    /// Nothing is to be added.
    Over,
}

impl PageReload {
    /// `version`: letters and digits that are others after each reload. `hosts`: names of this machine.
    pub fn new(version: &str, hosts: LocalHosts) -> PageReload {
        PageReload { version: version.into(), hosts }
    }

    /// Whether a client is on this machine.
    pub fn is_for(&self, head: &RequestHead, client: &Endpoints, hidden_client: bool) -> bool {
        self.hosts.hold_client(head, client, hidden_client)
    }

    /// What a request asks of the paths here, if it does.
    pub(crate) fn news(&self, head: &RequestHead) -> Option<News> {
        if head.method() != b"GET" {
            return None;
        }
        match head.path() {
            path if path == SCRIPT_PATH.as_bytes() => Some(News::Script),
            path if path == NEWS_PATH.as_bytes() => Some(match head.query() == self.version.as_bytes() {
                true => News::Unchanged,
                false => News::Changed,
            }),
            _ => None,
        }
    }

    /// What is added to the response, if a browser asks for a page. Conditions of any request become those of the page
    /// without the addition.
    pub(crate) fn insertion(&self, head: &mut RequestHead) -> Option<Box<Insertion>> {
        let is_conditional = self.forget_version(head);
        let loads = |kind: &[u8]| matches!(kind, b"document" | b"iframe" | b"frame");
        // What a script of a page asks for becomes a part of that page. Old browsers and other programs do not say.
        if !matches!(head.method(), b"GET" | b"HEAD") || !head.field("sec-fetch-dest").is_none_or(loads) {
            return None;
        }
        let tag = format!(
            "<script src=\"{}{SCRIPT_PATH}\" data-version=\"{}\" async></script>\n",
            escaped(head.script_name()),
            self.version
        );
        let version = Arc::clone(&self.version);
        Some(Box::new(Insertion { version, tag: tag.into(), is_conditional, state: State::Waiting }))
    }

    /// Takes this version off the tags of a request's conditions. Returns whether there were any.
    fn forget_version(&self, head: &mut RequestHead) -> bool {
        const CONDITIONS: [&str; 3] = ["if-none-match", "if-match", "if-range"];
        let ending = format!("-{}\"", self.version).into_bytes();
        let conditions: Vec<_> =
            CONDITIONS.into_iter().filter_map(|name| Some((name, head.field(name)?.to_vec()))).collect();
        let mut has_any = false;
        for (name, value) in conditions {
            let Some(own) = without(&value, &ending) else { continue };
            has_any = true;
            let pushed = head.push_text(name.as_bytes()).and_then(|name| Ok((name, head.push_text(&own)?)));
            head.retain_fields(|field| !field.eq_ignore_ascii_case(name.as_bytes()));
            // A head that is too long for it asks without the condition.
            if let Ok((name, value)) = pushed {
                head.push_field(name, value);
            }
        }
        has_any
    }
}

impl News {
    /// Status, type and body of the response.
    pub(crate) fn response(&self) -> (&'static str, &'static str, &'static str) {
        match self {
            News::Script => ("200 OK", "text/javascript; charset=utf-8", SCRIPT),
            News::Changed => ("200 OK", "text/plain; charset=utf-8", "changed\n"),
            News::Unchanged => ("204 No Content", "", ""),
        }
    }
}

impl Insertion {
    /// Puts the head right for what will be added. Returns the length of the body then, if it is known.
    pub(crate) fn apply(&mut self, head: &mut ResponseHead, body_length: Option<u64>) -> Option<u64> {
        self.state = State::Over;
        if head.status() == 304 && self.is_conditional {
            self.mark(head);
            return body_length;
        }
        let Ok(announced) = announced(head) else { return body_length };
        if !is_page(head) {
            return body_length;
        }
        self.mark(head);
        // Ranges that the application would serve are those of another page.
        head.remove_field("accept-ranges");
        let more = self.tag.len() as u64;
        if let Some(length) = announced {
            let length = length.saturating_add(more);
            let set = head.set_field(b"Content-Length", itoa::Buffer::new().format(length).as_bytes());
            debug_assert!(set.is_ok(), "a number is a valid value");
        }
        self.state = State::Page(announced.or(body_length));
        body_length.map(|length| length.saturating_add(more))
    }

    /// Makes validators those of this version: the page must not be taken for one of another.
    fn mark(&self, head: &mut ResponseHead) {
        head.remove_field("last-modified");
        if let Some(tag) = head.field("etag").and_then(|tag| tag.strip_suffix(b"\"")) {
            let tag = [tag, b"-", self.version.as_bytes(), b"\""].concat();
            let set = head.set_field(b"ETag", &tag);
            debug_assert!(set.is_ok(), "a tag stays valid with letters in it");
        }
    }

    /// Whether something is, or may be, added.
    pub(crate) fn is_pending(&self) -> bool {
        !matches!(self.state, State::Over)
    }

    /// How many of so many further bytes belong to the page: more than it announced must not end up in the addition.
    pub(crate) fn take(&mut self, count: u64) -> u64 {
        let left = match &mut self.state {
            State::Page(Some(left)) => left,
            State::TooLong => return 0,
            State::Waiting | State::Page(None) | State::Over => return count,
        };
        let taken = count.min(*left);
        *left -= taken;
        if taken < count {
            tracing::error!("the application sent more bytes than its Content-Length; the rest is dropped");
            self.state = State::TooLong;
        }
        taken
    }

    /// What comes behind a page that is whole.
    pub(crate) fn end(&mut self) -> &[u8] {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Page(None | Some(0)) | State::TooLong => &self.tag,
            State::Page(Some(_)) | State::Waiting | State::Over => &[],
        }
    }
}

/// Whether a response is HTML that more can be written behind.
fn is_page(head: &ResponseHead) -> bool {
    let never =
        ["content-encoding", "content-range", "content-md5", "digest", "content-digest", "repr-digest"];
    let kind = head.field("content-type").unwrap_or_default().to_ascii_lowercase();
    let mut parts = kind.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    let is_html = parts.next() == Some(b"text/html");
    // In these every character has two bytes or more.
    let is_wide = |part: &[u8]| {
        let charset = part.strip_prefix(b"charset=").unwrap_or_default();
        let charset = charset.strip_prefix(b"\"").unwrap_or(charset);
        charset.starts_with(b"utf-16") || charset.starts_with(b"utf-32")
    };
    let is_file = || {
        let disposition = head.field("content-disposition").unwrap_or_default().to_ascii_lowercase();
        disposition.starts_with(b"attachment")
    };
    is_html
        && !parts.any(is_wide)
        && !matches!(head.status(), 0..200 | 204..=206 | 304)
        && !never.into_iter().any(|name| head.has_field(name))
        && !is_file()
}

/// The value without each `part`, but for the quote at its end; `None` if it has none.
fn without(value: &[u8], part: &[u8]) -> Option<Vec<u8>> {
    let mut own = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.windows(part.len()).position(|window| window == part) {
        own.extend_from_slice(rest.get(..at).unwrap_or_default());
        own.push(b'"');
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    own.extend_from_slice(rest);
    (rest.len() < value.len()).then_some(own)
}

/// A path as it may be in an attribute of HTML.
fn escaped(path: &[u8]) -> String {
    let mut text = String::new();
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{field, request, response};

    fn pages() -> PageReload {
        PageReload::new("v7", LocalHosts::default())
    }

    fn inserted(
        fields: &[(&str, &str)],
        status: &str,
        head: &[(&str, &str)],
    ) -> (ResponseHead, Box<Insertion>) {
        let mut insertion = pages().insertion(&mut request("GET", "/", fields)).unwrap();
        let mut head = response(status, head);
        insertion.apply(&mut head, None);
        (head, insertion)
    }

    #[test]
    fn length_and_tag_become_those_of_the_longer_page() {
        for (tag, expected) in [("\"a\"", "\"a-v7\""), ("W/\"a\"", "W/\"a-v7\"")] {
            let fields = [
                ("Content-Type", "Text/HTML; charset=utf-8"),
                ("Content-Length", "10"),
                ("ETag", tag),
                ("Last-Modified", "Sat, 28 Nov 2026 04:00:00 GMT"),
                ("Accept-Ranges", "bytes"),
            ];
            let (head, mut insertion) = inserted(&[], "200 OK", &fields);
            assert_eq!(field(&head, "etag"), Some(expected));
            assert!(!head.has_field("last-modified") && !head.has_field("accept-ranges"));
            assert_eq!(insertion.take(8), 8);
            assert_eq!(insertion.take(5), 2, "the application gives more than it announced");
            let length = (10 + insertion.end().len()).to_string();
            assert_eq!(field(&head, "content-length"), Some(length.as_str()));
            assert!(insertion.end().is_empty(), "it is added once");
        }
    }

    #[test]
    fn nothing_is_added_to_half_a_page() {
        let fields = [("Content-Type", "text/html"), ("Content-Length", "10")];
        let (_, mut insertion) = inserted(&[], "200 OK", &fields);
        assert_eq!(insertion.take(9), 9);
        assert!(insertion.end().is_empty());
    }

    #[test]
    fn other_responses_pass_untouched() {
        let html = ("Content-Type", "text/html");
        for (status, fields) in [
            ("200 OK", &[("Content-Type", "text/plain")][..]),
            ("200 OK", &[("Content-Type", "application/json")]),
            ("200 OK", &[]),
            ("200 OK", &[html, ("Content-Encoding", "gzip")]),
            ("200 OK", &[html, ("Content-Disposition", "Attachment; filename=a.html")]),
            ("200 OK", &[("Content-Type", "text/html; charset=\"UTF-16\"")]),
            ("200 OK", &[html, ("Content-Length", "1"), ("Content-Length", "2")]),
            ("206 Partial Content", &[html, ("Content-Range", "bytes 0-0/2")]),
            ("204 No Content", &[html]),
            ("304 Not Modified", &[html, ("ETag", "\"a\"")]),
        ] {
            let (head, mut insertion) = inserted(&[], status, fields);
            assert_eq!(
                head.fields().collect::<Vec<_>>(),
                response(status, fields).fields().collect::<Vec<_>>()
            );
            assert!(!insertion.is_pending() && insertion.end().is_empty(), "{status} {fields:?}");
        }
    }

    #[test]
    fn the_application_sees_its_own_tags_in_conditions() {
        let mut head = request("GET", "/", &[("If-None-Match", "\"a-v7\", W/\"b-v7\", \"c-v6\"")]);
        let mut insertion = pages().insertion(&mut head).unwrap();
        assert_eq!(head.field("if-none-match"), Some(&b"\"a\", W/\"b\", \"c-v6\""[..]));
        let mut head = response("304 Not Modified", &[("ETag", "\"a\"")]);
        insertion.apply(&mut head, None);
        assert_eq!(field(&head, "etag"), Some("\"a-v7\""));
    }

    #[test]
    fn only_pages_that_browsers_load_are_changed() {
        let asked = |method: &str, fields: &[(&str, &str)]| {
            pages().insertion(&mut request(method, "/", fields)).is_some()
        };
        assert!(asked("GET", &[]) && asked("HEAD", &[]) && asked("GET", &[("Sec-Fetch-Dest", "document")]));
        let mut head = request("PUT", "/", &[("If-Match", "\"a-v7\"")]);
        assert!(pages().insertion(&mut head).is_none());
        assert_eq!(head.field("if-match"), Some(&b"\"a\""[..]));
        assert!(!asked("POST", &[]) && !asked("GET", &[("Sec-Fetch-Dest", "empty")]));
    }

    #[test]
    fn only_the_own_version_is_no_news() {
        let news = |method: &str, target: &str| pages().news(&request(method, target, &[]));
        assert!(matches!(news("GET", "/.anygate/news?v7"), Some(News::Unchanged)));
        assert!(matches!(news("GET", "/.anygate/news?v6"), Some(News::Changed)));
        assert!(matches!(news("GET", "/.anygate/reload.js"), Some(News::Script)));
        assert!(news("GET", "/").is_none() && news("POST", "/.anygate/news?v7").is_none());
    }

    #[test]
    fn a_mount_point_means_nothing_to_html() {
        assert_eq!(escaped(b"/a\"><b c"), "/a%22%3E%3Cb%20c");
    }
}
