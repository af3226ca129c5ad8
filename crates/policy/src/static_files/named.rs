//! Files that an application names instead of sending them: `X-Sendfile` with a path, `X-Accel-Redirect` with the path of a URI.
//! Both are looked for below one folder and nowhere else. Conditions and ranges are those of other static files; fields of
//! the application that are not about the bytes stay.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anygate_config::site::StaticPlan;
use anygate_proto::application::{Response, SendError};
use anygate_proto::head::{RequestHead, ResponseHead};
use percent_encoding::percent_decode;

use super::folder::{Found, is_clean};
use super::loaded::{Description, Loaded};
use super::{StaticFiles, checked};
use crate::error_pages::ErrorPages;

/// Fields that name a file, in the order in which they count.
const FIELDS: [&str; 2] = ["X-Sendfile", "X-Accel-Redirect"];

/// Fields of the application that say something about bytes that are not sent, or about how another server is to send them.
const DROPPED: [&str; 12] = [
    "X-Sendfile",
    "X-Accel-Redirect",
    "X-Accel-Buffering",
    "X-Accel-Charset",
    "X-Accel-Expires",
    "X-Accel-Limit-Rate",
    "Content-Length",
    "Content-Encoding",
    "Content-Range",
    "Transfer-Encoding",
    "ETag",
    "Last-Modified",
];

/// The folder whose files an application may name.
#[derive(Debug)]
pub struct NamedFiles {
    files: StaticFiles,
    root: PathBuf,
    /// The same without links.
    canonical: Option<PathBuf>,
}

impl NamedFiles {
    /// Opens the folder. `pages` are shown for errors.
    ///
    /// Errors: it cannot be opened.
    pub fn new(root: &Path, pages: Arc<ErrorPages>, now: SystemTime) -> io::Result<NamedFiles> {
        let plan = StaticPlan {
            prefix: "/".to_owned(),
            folder: root.to_owned(),
            index: Vec::new(),
            fallback: None,
            listing: false,
            symlinks: false,
            max_age: None,
            immutable: Vec::new(),
            fall_through: false,
            types: Vec::new(),
        };
        let files = StaticFiles::new(&[plan], pages, now)?;
        Ok(NamedFiles { files, root: root.to_owned(), canonical: root.canonicalize().ok() })
    }

    /// Whether a response names a file.
    pub(crate) fn is_named(&self, head: &ResponseHead) -> bool {
        FIELDS.iter().any(|name| head.has_field(name))
    }

    /// Returns a head without the name of a file: a response that is no success is sent as it is.
    pub(crate) fn without_name(&self, head: &ResponseHead) -> ResponseHead {
        let mut head = head.clone();
        FIELDS.iter().for_each(|name| head.remove_field(name));
        head
    }

    /// Responds with the file that a response names; with 404, and a line in the error log, if there is none below the folder.
    /// The body that the application gives is to be dropped then.
    ///
    /// Errors: the response cannot be sent.
    pub(crate) fn respond(
        &self,
        request: &RequestHead,
        named: &ResponseHead,
        now: SystemTime,
        out: &mut dyn Response,
    ) -> Result<(), SendError> {
        let found = self.find(named, now);
        let mut out = WithFields { named, out };
        match found {
            Ok(loaded) if matches!(request.method(), b"GET" | b"HEAD") => {
                self.files.send(request, &loaded, &mut out)
            }
            // RFC 9110 section 13.1: conditions are about what a request is for, and this is only the response of another method.
            Ok(loaded) => self.files.send_whole(request, loaded.variant(request), &mut out),
            Err(Found::Trouble) => self.files.error(503, request, &[], &mut out),
            Err(_) => self.files.error(404, request, &[], &mut out),
        }
    }

    fn find(&self, named: &ResponseHead, now: SystemTime) -> Result<Loaded, Found> {
        let (field, value) =
            FIELDS.iter().find_map(|field| Some((*field, named.field(field)?))).ok_or(Found::Nothing)?;
        let decoded: Vec<u8> = percent_decode(value).collect();
        let candidates = match field {
            "X-Sendfile" => [self.below(value), self.below(&decoded).filter(|_| decoded != value)],
            _ => {
                let path = value.split(|&byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
                let decoded: Vec<u8> = percent_decode(path).collect();
                [clean(decoded.strip_prefix(b"/").unwrap_or(&decoded)), None]
            }
        };
        let mut result = Err(Found::Nothing);
        for name in candidates.iter().flatten() {
            result = self.load(name, named, now);
            if !matches!(result, Err(Found::Nothing)) {
                break;
            }
        }
        if result.is_err() {
            tracing::error!(
                "{field}: {:?} is no file below sendfile_root ({})",
                value.escape_ascii().to_string(),
                self.root.display()
            );
        }
        result
    }

    /// The name below the folder of a path that is absolute or relative to it.
    fn below(&self, path: &[u8]) -> Option<Vec<u8>> {
        if !path.starts_with(b"/") {
            return clean(path);
        }
        let roots = [Some(&self.root), self.canonical.as_ref()];
        let inside = |root: &PathBuf| {
            let rest = path.strip_prefix(root.as_os_str().as_bytes())?;
            rest.strip_prefix(b"/").or_else(|| root.as_os_str().as_bytes().ends_with(b"/").then_some(rest))
        };
        roots.into_iter().flatten().find_map(inside).and_then(clean)
    }

    fn load(&self, name: &[u8], named: &ResponseHead, now: SystemTime) -> Result<Loaded, Found> {
        let Some(place) = self.files.places.first() else { return Err(Found::Nothing) };
        let file = place.root.open(name, now).map_err(|error| super::folder::missing(&error))?;
        let metadata = file.metadata().map_err(|_| Found::Trouble)?;
        if !metadata.is_file() {
            return Err(Found::Nothing);
        }
        let own_type = named.field("content-type").map(|own| String::from_utf8_lossy(own).into_owned());
        let content_type = own_type.unwrap_or_else(|| place.content_type(name));
        let description = Description { content_type, cache_control: None, vary: None };
        Loaded::new(file, &metadata, std::iter::empty(), description, now).map_err(|_| Found::Trouble)
    }
}

/// A name that may be looked for; not the folder itself.
fn clean(name: &[u8]) -> Option<Vec<u8>> {
    (!name.is_empty() && is_clean(&[b"/", name].concat())).then(|| name.to_vec())
}

/// A response whose head gets the application's fields, too.
struct WithFields<'a> {
    named: &'a ResponseHead,
    out: &'a mut dyn Response,
}

impl WithFields<'_> {
    /// The head of a file with the application's fields: those which both have are the file's, but its type. An error is about
    /// something else, so that it takes cookies alone.
    fn merged(&self, head: &ResponseHead) -> Result<ResponseHead, SendError> {
        let mut merged = head.clone();
        let is_error = head.status() >= 400;
        for (name, value) in self.named.fields() {
            let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
            let is_kept =
                if is_error { is("Set-Cookie") } else { !DROPPED.iter().any(|dropped| is(dropped)) };
            // The type of a file is the application's already, as far as the head has one.
            if is_kept && !is("Content-Type") {
                checked(merged.push_field(name, value))?;
            }
        }
        Ok(merged)
    }
}

impl Response for WithFields<'_> {
    fn entered(&mut self) {
        // The application was called.
    }

    fn start(&mut self, head: &ResponseHead, body_length: Option<u64>) -> Result<(), SendError> {
        let merged = self.merged(head)?;
        self.out.start(&merged, body_length)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> Result<(), SendError> {
        self.out.flush()
    }

    fn hold_back(&mut self) -> bool {
        self.out.hold_back()
    }

    fn send_file(&mut self, file: OwnedFd, offset: u64, length: u64) -> Result<(), SendError> {
        self.out.send_file(file, offset, length)
    }

    fn interim(&mut self, head: &ResponseHead) -> Result<(), SendError> {
        self.out.interim(head)
    }

    fn started(&self) -> bool {
        self.out.started()
    }

    fn body_bytes(&self) -> u64 {
        self.out.body_bytes()
    }
}
