//! Static files of web2py's applications, served as web2py serves them (`gluon/streamer.py`) but without it: whole
//! files, one range, 304, `.gz` siblings, versions in the path. Whatever is out of the ordinary is left to web2py.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anygate_proto::application::{Response, SendError};
use anygate_proto::error::InvalidHead;
use anygate_proto::head::{RequestHead, ResponseHead};

use crate::conditional::{date_of_change, whole_seconds};
use crate::range::{self, ByteRange, Member};

/// The static files of one site.
#[derive(Debug)]
pub struct Web2pyStatic {
    applications: PathBuf,
    /// web2py's own table, from endings such as `.css` to types.
    types: HashMap<String, String>,
}

/// File that a path names.
#[derive(Debug, PartialEq, Eq)]
struct Target<'p> {
    application: &'p str,
    file: &'p str,
    versioned: bool,
}

/// A file that is ready to be sent.
struct Found {
    path: PathBuf,
    metadata: Metadata,
    /// When it was changed, unless all its versions may say the same.
    modified: Option<String>,
}

impl Web2pyStatic {
    /// The files below `applications` in the folder `site`.
    pub fn new(site: &Path, types: HashMap<String, String>) -> Web2pyStatic {
        Web2pyStatic { applications: site.join("applications"), types }
    }

    /// Responds to a request for a static file; `None` when it is for nothing of ours, and nothing was started.
    pub fn respond(&self, head: &RequestHead, response: &mut dyn Response) -> Option<Result<(), SendError>> {
        if !matches!(head.method(), b"GET" | b"HEAD") || !head.script_name().is_empty() {
            return None;
        }
        let target = target(std::str::from_utf8(head.path()).ok()?)?;
        let found = self.find(&target)?;
        self.send_found(head, &target, &found, response)
    }

    fn find(&self, target: &Target<'_>) -> Option<Found> {
        let path = self.applications.join(target.application).join("static").join(target.file);
        let metadata = fs::metadata(&path).ok().filter(Metadata::is_file)?;
        let modified = date_of_change(&metadata).map(httpdate::fmt_http_date);
        Some(Found { path, metadata, modified })
    }

    fn send_found(
        &self,
        head: &RequestHead,
        target: &Target<'_>,
        found: &Found,
        response: &mut dyn Response,
    ) -> Option<Result<(), SendError>> {
        let content_type = self.content_type(target.file);
        let mut fields = vec![("X-Powered-By", "web2py".to_owned()), ("Content-Type", content_type)];
        let since = head.field("if-modified-since");
        if since.is_some() && since == found.modified.as_deref().map(str::as_bytes) {
            // As web2py's 304, which has only its type.
            fields.remove(0);
            return Some(send(response, b"304 NOT MODIFIED", &fields, None));
        }
        let size = found.metadata.len();
        let range = match head.field("range") {
            None => None,
            Some(text) => Some(range(text, size)?),
        };
        let gzipped = match range {
            None if accepts_gzip(head) => gzipped(found),
            _ => None,
        };
        let (path, length) = match &gzipped {
            Some((path, length)) => (path.as_path(), *length),
            None => (found.path.as_path(), size),
        };
        // Opened without waiting, should it have become a pipe since it was looked at.
        let file = File::options().read(true).custom_flags(NONBLOCK).open(path).ok()?;
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return None;
        }
        if head.query().starts_with(b"attachment") {
            fields.push(("Content-Disposition", "attachment".to_owned()));
        }
        if target.versioned {
            fields.push(("Cache-Control", "max-age=315360000".to_owned()));
            fields.push(("Expires", "Thu, 31 Dec 2037 23:59:59 GMT".to_owned()));
        }
        if let Some(modified) = &found.modified {
            fields.push(("Last-Modified", modified.clone()));
        }
        fields.push(("Pragma", "cache".to_owned()));
        if !target.versioned {
            fields.push(("Cache-Control", "private".to_owned()));
        }
        if gzipped.is_some() {
            fields.push(("Content-Encoding", "gzip".to_owned()));
            fields.push(("Vary", "Accept-Encoding".to_owned()));
        }
        let (status, first, length): (&[u8], u64, u64) = match range {
            Some(range) => {
                fields.push(("Content-Range", range.content_range(size)));
                (b"206 PARTIAL CONTENT", range.first, range.length())
            }
            None => (b"200 OK", 0, length),
        };
        fields.push(("Content-Length", length.to_string()));
        Some(send(response, status, &fields, Some((file, first, length))))
    }

    /// As `gluon.contenttype.contenttype`: the longer of two endings counts if it is known.
    fn content_type(&self, file: &str) -> String {
        let known = |at: usize| self.types.get(&file.get(at..).unwrap_or_default().to_lowercase());
        let last = file.rfind('.');
        let before = last.and_then(|last| file.get(..last)).and_then(|rest| rest.rfind('.'));
        let found = before.and_then(known).or_else(|| last.and_then(known));
        match found.map_or("text/plain", String::as_str) {
            text if text.starts_with("text/") => format!("{text}; charset=utf-8"),
            other => other.to_owned(),
        }
    }
}

/// `O_NONBLOCK` of Linux, for opening what may be no file.
const NONBLOCK: i32 = 0o4000;

/// Takes `/app/static/file` and `/app/static/_1.2.3/file` apart; `None` for anything that web2py should look at itself.
fn target(path: &str) -> Option<Target<'_>> {
    let (application, rest) = path.strip_prefix('/')?.split_once("/static/")?;
    let is_name = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if !is_name(application) {
        return None;
    }
    let versioned = rest.strip_prefix('_').and_then(|rest| rest.split_once('/')).filter(|(version, _)| {
        let mut numbers = version.split('.');
        let count = numbers
            .by_ref()
            .take(4)
            .filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
            .count();
        count == 3 && version.matches('.').count() == 2
    });
    let (versioned, file) = match versioned {
        Some((_, file)) => (true, file),
        None => (false, rest),
    };
    // No hidden files, no steps upwards, and only characters that web2py takes, of which a space would be changed.
    let plain = |segment: &str| {
        !segment.is_empty()
            && !segment.starts_with('.')
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+=@$%_-.".contains(&byte))
    };
    file.split('/').all(plain).then_some(Target { application, file, versioned })
}

/// What `Range` asks for, read as web2py reads it; `None` if it responds to that itself.
fn range(text: &[u8], size: u64) -> Option<ByteRange> {
    match range::member(text.strip_prefix(b"bytes=")?, size) {
        Member::Bytes(range) => Some(range),
        Member::Invalid | Member::Outside => None,
    }
}

fn accepts_gzip(head: &RequestHead) -> bool {
    head.field("accept-encoding").is_some_and(|value| value.windows(4).any(|part| part == b"gzip"))
}

/// The `.gz` beside a file, if it is not older.
fn gzipped(found: &Found) -> Option<(PathBuf, u64)> {
    let mut name = found.path.file_name()?.to_owned();
    name.push(".gz");
    let path = found.path.with_file_name(name);
    let metadata = fs::metadata(&path).ok().filter(Metadata::is_file)?;
    (metadata.modified().ok()? >= whole_seconds(&found.metadata)?).then_some((path, metadata.len()))
}

fn send(
    response: &mut dyn Response,
    status: &[u8],
    fields: &[(&str, String)],
    body: Option<(File, u64, u64)>,
) -> Result<(), SendError> {
    let head = response_head(status, fields).map_err(|_| SendError::Order)?;
    response.entered();
    response.start(&head, None)?;
    match body {
        Some((file, first, length)) => response.send_file(file.into(), first, length),
        None => Ok(()),
    }
}

fn response_head(status: &[u8], fields: &[(&str, String)]) -> Result<ResponseHead, InvalidHead> {
    let mut head = ResponseHead::new();
    head.set_status_line(status)?;
    for (name, value) in fields {
        head.push_field(name.as_bytes(), value.as_bytes())?;
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_are_ours() {
        let is = |path, application, file, versioned| {
            assert_eq!(target(path), Some(Target { application, file, versioned }), "{path}");
        };
        is("/welcome/static/css/a-b.css", "welcome", "css/a-b.css", false);
        is("/welcome/static/_1.22.3/js/x.js", "welcome", "js/x.js", true);
        is("/welcome/static/_1.2/x.js", "welcome", "_1.2/x.js", false);
        is("/a_1/static/static/x", "a_1", "static/x", false);
        for other in [
            "/welcome/static/",
            "/welcome/static/a/",
            "/welcome/static",
            "/welcome/static/../models/db.py",
            "/welcome/static/a/../../x",
            "/welcome/static/.git/config",
            "/welcome/static/a b",
            "/welcome/static/a\0",
            "/welcome/static//etc/passwd",
            "/../static/x",
            "//static/x",
            "/a/b/static/x",
            "/caf\u{e9}/static/x",
            "/welcome/default/index",
        ] {
            assert_eq!(target(other), None, "{other}");
        }
    }

    #[test]
    fn ranges_are_read_as_web2py_does() {
        for (text, expected) in [
            ("bytes=0-3", Some((0, 3))),
            ("bytes=2-", Some((2, 9))),
            ("bytes=-4", Some((6, 9))),
            ("bytes=-40", Some((0, 9))),
            ("bytes=3-400", Some((3, 9))),
            ("bytes=10-", None),
            ("bytes=5-3", None),
            ("bytes=-", None),
            ("bytes=0-1,3-4", None),
            ("bytes=+1-2", None),
            ("lines=0-3", None),
        ] {
            let expected = expected.map(|(first, last)| ByteRange { first, last });
            assert_eq!(range(text.as_bytes(), 10), expected, "{text}");
        }
        assert_eq!(range(b"bytes=0-", 0), None);
    }

    #[test]
    fn types_are_web2pys() {
        let types =
            [(".css", "text/css"), (".tar.gz", "application/x-compressed-tar"), (".gz", "application/gzip")];
        let types = types.into_iter().map(|(ending, name)| (ending.to_owned(), name.to_owned())).collect();
        let files = Web2pyStatic::new(Path::new("/site"), types);
        for (file, content_type) in [
            ("a.css", "text/css; charset=utf-8"),
            ("a.CSS", "text/css; charset=utf-8"),
            ("x.tar.gz", "application/x-compressed-tar"),
            ("x.css.gz", "application/gzip"),
            ("README", "text/plain; charset=utf-8"),
            ("a.unknown", "text/plain; charset=utf-8"),
        ] {
            assert_eq!(files.content_type(file), content_type, "{file}");
        }
    }
}
