//! Static files of a site, below prefixes of paths: conditions, ranges, precompressed siblings, a page for all paths of an
//! application that runs in the browser. Nothing outside of the folders is ever opened.
//!
//! * [`Mount`]: one folder and its prefix, as it is configured. `folder`: finds the file of a path below a prefix.
//! * `root`: opening files. `pattern`: names with wildcards.
//! * `loaded`: files that are ready to be sent. `cache`: those that were sent a moment ago.
//! * `listing`: pages that list a folder. [`NamedFiles`]: files that an application names.

mod cache;
mod folder;
mod listing;
mod loaded;
mod named;
mod pattern;
mod root;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use anygate_config::site::StaticPlan;
use anygate_proto::application::{Response, SendError};
use anygate_proto::error::InvalidHead;
use anygate_proto::head::{RequestHead, ResponseHead};

use self::cache::{Cache, Known};
use self::folder::{Folder, Found, NO_CACHE, is_clean};
use self::loaded::{Content, Loaded, Variant};
use crate::accept;
use crate::conditional::Outcome;
use crate::error_pages::ErrorPages;
use crate::range::{self, ByteRange, Wanted};
pub use named::NamedFiles;

/// Methods for files.
const ALLOW: &str = "GET, HEAD, OPTIONS";

/// The static files of one site.
#[derive(Debug)]
pub struct StaticFiles {
    /// Those with longer prefixes come first.
    places: Vec<Folder>,
    pages: Arc<ErrorPages>,
    cache: Cache,
    /// Makes what stands between the parts of a response, so that no file can hold it.
    seed: RandomState,
}

impl StaticFiles {
    /// Opens the folders. `pages` are shown for errors.
    ///
    /// Errors: a folder cannot be opened.
    pub fn new(plans: &[StaticPlan], pages: Arc<ErrorPages>, now: SystemTime) -> io::Result<StaticFiles> {
        let mut places = Vec::new();
        for plan in plans {
            places.push(Folder::new(plan.clone(), now)?);
        }
        places.sort_by_key(|place| std::cmp::Reverse(place.prefix.len()));
        Ok(StaticFiles { places, pages, cache: Cache::default(), seed: RandomState::new() })
    }

    /// Whether a path lies below one of the prefixes, so that it is worth to ask.
    pub fn covers(&self, path: &[u8]) -> bool {
        self.place(path).is_some()
    }

    /// Responds to a request for a file; `None` when it is for nothing of ours, and nothing was started.
    pub fn respond(
        &self,
        request: &RequestHead,
        now: SystemTime,
        response: &mut dyn Response,
    ) -> Option<Result<(), SendError>> {
        let path = request.path();
        let (place, inner) = self.place(path)?;
        if !matches!(request.method(), b"GET" | b"HEAD") {
            return (!place.plan.fall_through).then(|| self.refuse_method(request, response));
        }
        let (found, fallback) = if is_clean(inner) {
            (self.find(place, path, inner, now), place.plan.fallback.as_deref())
        } else {
            (Found::Nothing, None)
        };
        match found {
            Found::File(loaded) => Some(self.send(request, &loaded, response)),
            Found::Folder => Some(redirect(request, response)),
            Found::Listing(folder) => Some(self.list(request, &folder, inner == b"/", response)),
            Found::Trouble => Some(self.error(503, request, &[], response)),
            Found::Nothing => match fallback.and_then(|name| self.fallback(place, name, request, now)) {
                Some(loaded) => Some(self.send(request, &loaded, response)),
                None if place.plan.fall_through => None,
                None => Some(self.error(404, request, &[], response)),
            },
        }
    }

    /// The folder that a path belongs to, and the rest of the path, which is empty or begins with a slash.
    fn place<'p>(&self, path: &'p [u8]) -> Option<(&Folder, &'p [u8])> {
        self.places.iter().find_map(|place| {
            let inner = path.strip_prefix(place.prefix.as_slice())?;
            let is_inside = inner.starts_with(b"/") || (inner.is_empty() && !place.prefix.is_empty());
            is_inside.then_some((place, inner))
        })
    }

    fn find(&self, place: &Folder, path: &[u8], inner: &[u8], now: SystemTime) -> Found {
        match self.cache.find(path, now) {
            Known::File(loaded) => return Found::File(loaded),
            Known::Missing => return Found::Nothing,
            Known::Nothing => {}
        }
        let found = place.find(inner, now);
        match &found {
            Found::File(loaded) => self.cache.keep(path, loaded, now),
            Found::Nothing => self.cache.keep_missing(path, now),
            Found::Folder | Found::Listing(_) | Found::Trouble => {}
        }
        found
    }

    /// The page for paths that only the browser knows. Whatever it loads must be there: a script that is HTML is only a
    /// stranger error.
    fn fallback(
        &self,
        place: &Folder,
        name: &str,
        request: &RequestHead,
        now: SystemTime,
    ) -> Option<Arc<Loaded>> {
        let accept = request.field("accept")?;
        let mut members = accept::weighted(accept);
        if !members.any(|(range, weight)| range.eq_ignore_ascii_case(b"text/html") && weight > 0) {
            return None;
        }
        // No path has a NUL.
        let key = [b"\0", place.prefix.as_slice()].concat();
        if let Known::File(loaded) = self.cache.find(&key, now) {
            return Some(loaded);
        }
        let file = place.root.open(name.as_bytes(), now).ok()?;
        let loaded = place.load(file, name.as_bytes(), Some("Accept"), now).ok()??;
        self.cache.keep(&key, &loaded, now);
        Some(loaded)
    }

    fn send(
        &self,
        request: &RequestHead,
        loaded: &Loaded,
        response: &mut dyn Response,
    ) -> Result<(), SendError> {
        let variant = loaded.variant(request);
        let range = match variant.validators.weigh(request) {
            Outcome::NotModified => return send_head(&not_modified(&variant.head)?, None, response),
            Outcome::Failed => return self.error(412, request, &[], response),
            // RFC 9110 section 14.2: "A server MUST ignore a Range header field received with a request method that is
            // unrecognized or for which range handling is not defined", which it is for GET only.
            Outcome::Send { range } => range && request.method() == b"GET",
        };
        let wanted = match request.field("range").filter(|_| range) {
            Some(value) => range::wanted(value, variant.length),
            None => Wanted::Whole,
        };
        match wanted {
            Wanted::Whole => self.send_whole(request, variant, response),
            Wanted::Part(part) => self.send_part(request, variant, part, response),
            Wanted::Parts(parts) => self.send_parts(request, variant, &loaded.content_type, &parts, response),
            Wanted::Nothing => {
                let size = format!("bytes */{}", variant.length);
                self.error(416, request, &[("Content-Range", &size)], response)
            }
        }
    }

    fn send_whole(
        &self,
        request: &RequestHead,
        variant: &Variant,
        response: &mut dyn Response,
    ) -> Result<(), SendError> {
        if request.method() == b"HEAD" {
            return send_head(&variant.head, None, response);
        }
        match &variant.content {
            Content::Memory(bytes) => {
                send_head(&variant.head, None, response)?;
                response.write(bytes)
            }
            Content::File(file) => {
                let Ok(file) = file.try_clone() else { return self.error(503, request, &[], response) };
                send_head(&variant.head, None, response)?;
                response.send_file(file.into(), 0, variant.length)
            }
        }
    }

    fn send_part(
        &self,
        request: &RequestHead,
        variant: &Variant,
        part: ByteRange,
        response: &mut dyn Response,
    ) -> Result<(), SendError> {
        let Ok(body) = Part::of(variant, part) else { return self.error(503, request, &[], response) };
        let mut head = variant.head.clone();
        checked(partial(&mut head, part.length(), |head| {
            head.push_field(b"Content-Range", part.content_range(variant.length).as_bytes())
        }))?;
        send_head(&head, None, response)?;
        body.send(response)
    }

    /// RFC 9110 section 14.6
    fn send_parts(
        &self,
        request: &RequestHead,
        variant: &Variant,
        content_type: &str,
        parts: &[ByteRange],
        response: &mut dyn Response,
    ) -> Result<(), SendError> {
        let boundary = format!("{:016x}", self.seed.hash_one(&variant.validators.tag));
        let mut pieces = Vec::with_capacity(parts.len());
        let mut length = 0;
        for &part in parts {
            let intro = format!(
                "\r\n--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: {}\r\n\r\n",
                part.content_range(variant.length)
            );
            let Ok(body) = Part::of(variant, part) else { return self.error(503, request, &[], response) };
            length += intro.len() as u64 + part.length();
            pieces.push((intro, body));
        }
        let end = format!("\r\n--{boundary}--\r\n");
        length += end.len() as u64;
        let mut head = variant.head.clone();
        checked(partial(&mut head, length, |head| {
            let content_type = format!("multipart/byteranges; boundary={boundary}");
            head.set_field(b"Content-Type", content_type.as_bytes())
        }))?;
        send_head(&head, None, response)?;
        for (intro, body) in pieces {
            response.write(intro.as_bytes())?;
            body.send(response)?;
        }
        response.write(end.as_bytes())
    }

    fn list(
        &self,
        request: &RequestHead,
        folder: &File,
        is_top: bool,
        response: &mut dyn Response,
    ) -> Result<(), SendError> {
        let Ok(page) = listing::page(folder, request.path(), is_top) else {
            return self.error(503, request, &[], response);
        };
        let fields = [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Cache-Control", NO_CACHE),
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"),
        ];
        let head = checked(new_head(b"200 OK", &fields))?;
        send_page(request, &head, page.as_bytes(), response)
    }

    fn refuse_method(&self, request: &RequestHead, response: &mut dyn Response) -> Result<(), SendError> {
        let allow = [("Allow", ALLOW)];
        if request.method() == b"OPTIONS" {
            return send_head(&checked(new_head(b"204 No Content", &allow))?, None, response);
        }
        self.error(405, request, &allow, response)
    }

    fn error(
        &self,
        status: u16,
        request: &RequestHead,
        fields: &[(&str, &str)],
        response: &mut dyn Response,
    ) -> Result<(), SendError> {
        let (mut head, page) = self.pages.response(status, request);
        for (name, value) in fields {
            checked(head.push_field(name.as_bytes(), value.as_bytes()))?;
        }
        send_page(request, &head, &page, response)
    }
}

/// A part of a body on its way.
enum Part<'v> {
    Memory(&'v [u8]),
    File { file: File, first: u64, length: u64 },
}

impl<'v> Part<'v> {
    /// Gets a part ready before the response begins, because it can fail.
    fn of(variant: &'v Variant, range: ByteRange) -> io::Result<Part<'v>> {
        match &variant.content {
            Content::Memory(bytes) => {
                let place = usize::try_from(range.first).ok().zip(usize::try_from(range.last).ok());
                let part = place.and_then(|(first, last)| bytes.get(first..=last));
                part.map(Part::Memory).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            }
            Content::File(file) => {
                Ok(Part::File { file: file.try_clone()?, first: range.first, length: range.length() })
            }
        }
    }

    fn send(self, response: &mut dyn Response) -> Result<(), SendError> {
        match self {
            Part::Memory(bytes) => response.write(bytes),
            Part::File { file, first, length } => response.send_file(file.into(), first, length),
        }
    }
}

/// Sends the browser to the same path with a slash. It names no host and no whole path, so that it can lead to nowhere
/// else, also behind servers that know the path by another name.
fn redirect(request: &RequestHead, response: &mut dyn Response) -> Result<(), SendError> {
    let last = request.path().rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let location = format!("./{}/", listing::encode(last));
    let with_query = [location.as_bytes(), b"?", request.query()].concat();
    let mut head = checked(new_head(b"301 Moved Permanently", &[("Cache-Control", NO_CACHE)]))?;
    // A query with characters that no head may have is left out.
    let whole = !request.query().is_empty() && head.push_field(b"Location", &with_query).is_ok();
    if !whole {
        checked(head.push_field(b"Location", location.as_bytes()))?;
    }
    send_head(&head, Some(0), response)
}

/// RFC 9110 section 15.4.5: what would have been sent with 200, but nothing about the body.
fn not_modified(head: &ResponseHead) -> Result<ResponseHead, SendError> {
    let mut head = head.clone();
    checked(head.set_status_line(b"304 Not Modified"))?;
    for name in ["content-type", "content-length", "content-encoding", "accept-ranges"] {
        head.remove_field(name);
    }
    Ok(head)
}

/// Makes a head one of a part.
fn partial(
    head: &mut ResponseHead,
    length: u64,
    describe: impl FnOnce(&mut ResponseHead) -> Result<(), InvalidHead>,
) -> Result<(), InvalidHead> {
    head.set_status_line(b"206 Partial Content")?;
    head.set_field(b"Content-Length", itoa::Buffer::new().format(length).as_bytes())?;
    describe(head)
}

fn new_head(status: &[u8], fields: &[(&str, &str)]) -> Result<ResponseHead, InvalidHead> {
    let mut head = ResponseHead::new();
    head.set_status_line(status)?;
    for (name, value) in fields {
        head.push_field(name.as_bytes(), value.as_bytes())?;
    }
    Ok(head)
}

/// Our own heads are valid; should one not be, nothing is sent.
fn checked<T>(built: Result<T, InvalidHead>) -> Result<T, SendError> {
    built.map_err(|_| SendError::Order)
}

fn send_head(head: &ResponseHead, length: Option<u64>, response: &mut dyn Response) -> Result<(), SendError> {
    response.entered();
    response.start(head, length)
}

fn send_page(
    request: &RequestHead,
    head: &ResponseHead,
    page: &[u8],
    response: &mut dyn Response,
) -> Result<(), SendError> {
    send_head(head, Some(page.len() as u64), response)?;
    if request.method() == b"HEAD" { Ok(()) } else { response.write(page) }
}
