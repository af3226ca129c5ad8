//! Pages for errors, in the form that the client can read best. They say nothing of the request, so that nothing can be
//! reflected into a browser, and nothing of the server.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use anygate_proto::head::{RequestHead, ResponseHead};
use anygate_proto::status::reason;

use crate::accept;

/// A page is no larger than this.
const PAGE_MAX_BYTES: u64 = 1 << 20;
/// An id of a request is left out if it is longer.
const ID_MAX_BYTES: usize = 128;

/// The forms of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    Text,
    Html,
    /// RFC 9457
    Json,
}

impl Form {
    const ALL: [Form; 3] = [Form::Text, Form::Html, Form::Json];

    fn content_type(self) -> &'static str {
        match self {
            Form::Text => "text/plain; charset=utf-8",
            Form::Html => "text/html; charset=utf-8",
            Form::Json => "application/problem+json",
        }
    }

    fn ending(self) -> &'static str {
        match self {
            Form::Text => "txt",
            Form::Html => "html",
            Form::Json => "json",
        }
    }

    /// How precisely a member of Accept means it: 0 for not at all.
    fn precision(self, range: &[u8]) -> u8 {
        let names: &[&str] = match self {
            Form::Text => &["text/plain"],
            Form::Html => &["text/html", "application/xhtml+xml"],
            // A client that accepts JSON accepts a kind of JSON.
            Form::Json => &["application/problem+json", "application/json"],
        };
        let family: &[u8] = if self == Form::Json { b"application/*" } else { b"text/*" };
        if names.iter().any(|name| range.eq_ignore_ascii_case(name.as_bytes())) {
            3
        } else if range.eq_ignore_ascii_case(family) {
            2
        } else {
            u8::from(range == b"*/*")
        }
    }

    /// The form that `accept` prefers; the first one if it does not care or wants something else altogether.
    fn preferred(accept: &[u8]) -> Form {
        let mut best = (Form::Text, 0);
        for form in Form::ALL {
            // RFC 9110 section 12.5.1: "the most specific reference has precedence."
            let meant = accept::weighted(accept)
                .map(|(range, weight)| (form.precision(range), weight))
                .max_by_key(|(precision, _)| *precision)
                .filter(|(precision, _)| *precision > 0);
            // Named before any, at the same weight: `text/html, */*` is a browser's.
            let score = meant.map_or(0, |(precision, weight)| u32::from(weight) * 4 + u32::from(precision));
            if meant.is_some_and(|(_, weight)| weight > 0) && score > best.1 {
                best = (form, score);
            }
        }
        best.0
    }
}

/// Which statuses a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum For {
    One(u16),
    /// 4 or 5, for all that begin so.
    Class(u16),
}

/// Makes the error pages of one site.
#[derive(Clone, Debug, Default)]
pub struct ErrorPages {
    own: HashMap<(For, Form), Vec<u8>>,
}

impl ErrorPages {
    /// Reads the pages that replace ours: `404.html`, `404.json` and `404.txt`, or `4xx.html` and so on for all that have
    /// none. Without a folder they are ours.
    ///
    /// Errors: the folder or a page in it cannot be read, or a page is larger than 1 MiB.
    pub fn new(folder: Option<&Path>) -> io::Result<ErrorPages> {
        let mut own = HashMap::new();
        if let Some(folder) = folder {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if let Some(place) = place(&path) {
                    own.insert(place, read(&path)?);
                }
            }
        }
        Ok(ErrorPages { own })
    }

    /// The page for an error. `accept`: what the client reads, its field Accept. `request_id` is shown, so that support
    /// can be told of it; it is left out if it holds anything but letters, digits and `-_.:`.
    pub fn page(
        &self,
        status: u16,
        accept: Option<&[u8]>,
        request_id: Option<&str>,
    ) -> (ResponseHead, Vec<u8>) {
        let form = Form::preferred(accept.unwrap_or_default());
        let id = request_id.filter(|id| is_plain(id));
        let own = [For::One(status), For::Class(status / 100)];
        let own = own.iter().find_map(|statuses| self.own.get(&(*statuses, form)));
        let title = reason(status);
        let body = own.cloned().unwrap_or_else(|| match form {
            Form::Text => text(status, title, id),
            Form::Html => html(status, title, id),
            Form::Json => json(status, title, id),
        });
        let mut fields = vec![
            ("Content-Type", form.content_type()),
            ("Cache-Control", "no-store"),
            ("Vary", "Accept"),
            ("X-Content-Type-Options", "nosniff"),
        ];
        if form == Form::Html && own.is_none() {
            // The page brings its style along, which a policy of the site may forbid.
            fields.push(("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"));
        }
        let mut head = ResponseHead::new();
        let mut built = head.set_status_line(format!("{status} {title}").as_bytes());
        for (name, value) in fields {
            built = built.and_then(|()| head.push_field(name.as_bytes(), value.as_bytes()));
        }
        debug_assert!(built.is_ok(), "our own pages are valid");
        (head, body)
    }

    /// The page for an error of this request.
    pub fn response(&self, status: u16, request: &RequestHead) -> (ResponseHead, Vec<u8>) {
        self.page(status, request.field("accept"), None)
    }
}

/// Returns the errors and the form that a file is for; `None` if its name names none.
fn place(path: &Path) -> Option<(For, Form)> {
    let ending = path.extension()?;
    let form = Form::ALL.into_iter().find(|form| ending == form.ending())?;
    let statuses = match path.file_stem()?.to_str()? {
        "4xx" => For::Class(4),
        "5xx" => For::Class(5),
        number if number.len() == 3 => {
            For::One(number.parse().ok().filter(|status| (400..600).contains(status))?)
        }
        _ => return None,
    };
    Some((statuses, form))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut page = Vec::new();
    let file = fs::File::open(path).map_err(named)?;
    file.take(PAGE_MAX_BYTES + 1).read_to_end(&mut page).map_err(named)?;
    if page.len() as u64 > PAGE_MAX_BYTES {
        return Err(named(io::Error::new(io::ErrorKind::InvalidData, "the page is larger than 1 MiB")));
    }
    Ok(page)
}

/// Nothing in it means anything to HTML, JSON or a terminal.
fn is_plain(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= ID_MAX_BYTES
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}

fn text(status: u16, title: &str, id: Option<&str>) -> Vec<u8> {
    let mut page = format!("{status} {title}\n");
    if let Some(id) = id {
        page.push_str("Request: ");
        page.push_str(id);
        page.push('\n');
    }
    page.into_bytes()
}

/// RFC 9457 section 4.2.1: with `about:blank` the title is that of the status.
fn json(status: u16, title: &str, id: Option<&str>) -> Vec<u8> {
    let mut page = format!(r#"{{"type":"about:blank","title":"{title}","status":{status}"#);
    if let Some(id) = id {
        page.push_str(r#","request_id":""#);
        page.push_str(id);
        page.push('"');
    }
    page.push_str("}\n");
    page.into_bytes()
}

fn html(status: u16, title: &str, id: Option<&str>) -> Vec<u8> {
    let explanation = match status {
        404 | 410 => "There is no page at this address.",
        401 | 403 => "You are not allowed to see this page.",
        429 => "There were too many requests. Please try again later.",
        400..500 => "The request could not be understood or is not allowed.",
        502..=504 => "The site is not available at the moment. Please try again later.",
        _ => "Something went wrong. It is not your fault.",
    };
    let id = id.map(|id| format!("<p><small>Request: <code>{id}</code></small></p>\n")).unwrap_or_default();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{status} {title}</title>\n\
         <style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem}}\
         h1{{font-size:1.5rem;font-weight:600}}small{{opacity:.7}}</style>\n</head>\n<body>\n\
         <h1>{status} {title}</h1>\n<p>{explanation}</p>\n{id}</body>\n</html>\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::field;

    fn content_type(accept: &str) -> String {
        let (head, _) = ErrorPages::default().page(404, Some(accept.as_bytes()), None);
        field(&head, "content-type").unwrap().split(';').next().unwrap().to_owned()
    }

    #[test]
    fn a_page_has_the_form_that_the_client_wants() {
        for (accept, expected) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"),
            ("*/*", "text/plain"),
            ("", "text/plain"),
            ("text/plain", "text/plain"),
            ("application/json", "application/problem+json"),
            ("application/problem+json, application/json;q=0.5", "application/problem+json"),
            ("application/json, text/plain, */*", "text/plain"),
            ("application/json, */*", "application/problem+json"),
            ("text/html;q=0.1, application/json;q=0.2", "application/problem+json"),
            ("text/html;q=0, */*;q=0.1", "text/plain"),
            ("text/*, text/plain;q=0", "text/html"),
            ("image/png", "text/plain"),
            ("image/*, */*;q=0", "text/plain"),
            ("nonsense", "text/plain"),
        ] {
            assert_eq!(content_type(accept), expected, "{accept:?}");
        }
        let (head, body) = ErrorPages::default().page(503, None, None);
        assert_eq!(field(&head, "content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(body, b"503 Service Unavailable\n");
    }

    #[test]
    fn pages_are_kept_by_nobody_and_differ_by_accept() {
        let (head, _) = ErrorPages::default().page(500, Some(b"text/html"), None);
        assert_eq!((head.status(), head.reason()), (500, &b"Internal Server Error"[..]));
        assert_eq!(field(&head, "cache-control"), Some("no-store"));
        assert_eq!(field(&head, "vary"), Some("Accept"));
        assert!(field(&head, "content-security-policy").unwrap().starts_with("default-src 'none'"));
    }

    #[test]
    fn json_is_problem_details() {
        let (_, body) = ErrorPages::default().page(404, Some(b"application/json"), Some("ab-1"));
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!(
            {"type": "about:blank", "title": "Not Found", "status": 404, "request_id": "ab-1"}
        );
        assert_eq!(body, expected);
    }

    #[test]
    fn pages_are_small() {
        let (_, body) = ErrorPages::default().page(404, Some(b"text/html"), Some("7f3a"));
        let page = String::from_utf8(body).unwrap();
        assert!(page.len() < 1000, "{}", page.len());
        assert!(page.contains("<h1>404 Not Found</h1>") && page.contains("<code>7f3a</code>"));
    }

    #[test]
    fn ids_that_could_mean_something_are_left_out() {
        let long = "a".repeat(129);
        for id in ["<script>", "a\"b", "a\nb", "a b", "", "\u{e9}", long.as_str()] {
            for accept in ["text/html", "application/json", "text/plain"] {
                let pages = ErrorPages::default();
                let accept = Some(accept.as_bytes());
                assert_eq!(pages.page(500, accept, Some(id)).1, pages.page(500, accept, None).1, "{id:?}");
            }
        }
    }

    #[test]
    fn a_folder_replaces_pages() {
        let folder = tempfile::tempdir().unwrap();
        for (name, page) in [
            ("404.html", "own"),
            ("5xx.html", "class"),
            ("503.json", "{}"),
            ("README.md", "no"),
            ("999.html", "no"),
        ] {
            fs::write(folder.path().join(name), page).unwrap();
        }
        let pages = ErrorPages::new(Some(folder.path())).unwrap();
        let body = |status, accept: &str| pages.page(status, Some(accept.as_bytes()), None).1;
        assert_eq!(body(404, "text/html"), b"own");
        assert_eq!(body(404, "text/plain"), b"404 Not Found\n");
        assert_eq!(body(502, "text/html"), b"class");
        assert_eq!(body(503, "application/json"), b"{}");
        assert!(body(403, "text/html").starts_with(b"<!doctype html>"));
        let (head, _) = pages.page(503, Some(b"text/html"), None);
        assert!(!head.has_field("content-security-policy"), "a page of the site has the site's policy");
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        assert!(ErrorPages::new(Some(Path::new("/nonexistent"))).is_err());
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("500.html"), vec![b'x'; (1 << 20) + 1]).unwrap();
        let error = ErrorPages::new(Some(folder.path()));
        assert!(error.unwrap_err().to_string().contains("500.html"));
    }

    proptest! {
        #[test]
        fn there_is_a_page_for_anything(
            status in 100..1000u16,
            accept: Vec<u8>,
            id in prop::option::of(".{0,20}"),
        ) {
            let (head, body) = ErrorPages::default().page(status, Some(&accept), id.as_deref());
            prop_assert_eq!(head.status(), status);
            prop_assert!(!body.is_empty() && !body.contains(&b'\r'));
            if field(&head, "content-type") == Some("application/problem+json") {
                prop_assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok());
            }
        }
    }
}
