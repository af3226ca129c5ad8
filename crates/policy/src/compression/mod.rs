//! Responses compressed on their way to the client: which ones, and what their heads then say.
//!
//! Compression tells about secrets (BREACH, <https://breachattack.com>): where a page repeats something of its request
//! and holds a secret, an attacker who can make a browser send requests and sees how long the responses are can guess the secret
//! bit by bit. Applications that put a fresh mask over such secrets (Django and web2py do so with their form keys, or
//! use each key once) are safe; paths of others belong into [`CompressionPlan::excluded_paths`].

mod encoder;
pub mod negotiation;

use std::sync::Arc;

use anygate_config::site::{Coding, CompressionPlan};
use anygate_proto::head::{RequestHead, ResponseHead};

use crate::paths;
use encoder::Encoders;
pub use encoder::{EncodeError, Encoder, Levels};

/// Compresses the responses of one site.
#[derive(Debug)]
pub struct Compression {
    plan: CompressionPlan,
    encoders: Arc<Encoders>,
}

/// Decision about a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// It is none of ours.
    Pass,
    /// Others get it compressed.
    Identity,
    /// This client gets it compressed.
    Coded(Coding),
}

impl Compression {
    /// Compresses by this plan.
    pub fn new(plan: &CompressionPlan) -> Compression {
        Compression { plan: plan.clone(), encoders: Arc::new(Encoders::new(Levels::default())) }
    }

    /// Whether the length alone says that a response goes out as it is, so that nothing need look at its fields. `body_length`:
    /// bytes of the whole body, if they are known other than by Content-Length.
    pub fn is_too_short(&self, request: &RequestHead, status: u16, body_length: Option<u64>) -> bool {
        // Neither the body of a response to HEAD, nor a part of a body, says how long the whole one is.
        body_length.is_some_and(|length| length < self.plan.min_bytes)
            && !matches!(status, 206 | 304)
            && request.method() != b"HEAD"
    }

    /// Decides how a response goes out and puts its head right. `body_length`: bytes of the whole body, if they are known
    /// other than by Content-Length. With an encoder the length is no longer known: `start` must be given `None`.
    ///
    /// A response to HEAD gets the head that GET would get (RFC 9110 section 9.3.2), and no encoder.
    pub fn negotiate(
        &self,
        request: &RequestHead,
        head: &mut ResponseHead,
        body_length: Option<u64>,
    ) -> Option<Encoder> {
        if matches!(head.status(), 206 | 304) {
            self.vary_as_whole(request, head);
            return None;
        }
        let head_request = request.method() == b"HEAD";
        // What an application made no body for says nothing about the length of one.
        let known = if head_request { None } else { body_length };
        let announced = announced(head);
        let length = announced.ok()?.or(known);
        let coding = match self.decide(request, head, length) {
            Decision::Pass => return None,
            Decision::Identity => {
                negotiation::vary_by(head, "Accept-Encoding");
                return None;
            }
            Decision::Coded(coding) => coding,
        };
        let encoder = if head_request { None } else { Some(self.encoders.encoder(coding, length)?) };
        code_head(head, coding);
        head.remove_field("content-length");
        encoder
    }

    /// Compresses a body that is there as a whole and puts the head right; `None`: it goes out as it is, because of the
    /// rules, or because it would not become smaller.
    pub fn compress(&self, request: &RequestHead, head: &mut ResponseHead, body: &[u8]) -> Option<Vec<u8>> {
        if matches!(head.status(), 206 | 304) {
            self.vary_as_whole(request, head);
            return None;
        }
        if request.method() == b"HEAD" {
            let encoder = self.negotiate(request, head, None);
            debug_assert!(encoder.is_none(), "HEAD has no body");
            return None;
        }
        let length = body.len() as u64;
        if announced(head).ok()?.is_some_and(|announced| announced != length) {
            return None;
        }
        let coded = match self.decide(request, head, Some(length)) {
            Decision::Pass => return None,
            Decision::Identity => None,
            Decision::Coded(coding) => self.whole(coding, body).map(|coded| (coding, coded)),
        };
        let Some((coding, coded)) = coded.filter(|(_, coded)| coded.len() < body.len()) else {
            negotiation::vary_by(head, "Accept-Encoding");
            return None;
        };
        code_head(head, coding);
        let set = head.set_field(b"Content-Length", itoa::Buffer::new().format(coded.len()).as_bytes());
        debug_assert!(set.is_ok(), "a number is a valid value");
        Some(coded)
    }

    /// Bytes of a body that would be compressed, if they are known: a caller that has them all should
    /// [compress](Self::compress) them together.
    pub fn length_to_code(
        &self,
        request: &RequestHead,
        head: &ResponseHead,
        body_length: Option<u64>,
    ) -> Option<u64> {
        let length = announced(head).ok()?.or(body_length)?;
        let is_coded = matches!(self.decide(request, head, Some(length)), Decision::Coded(_));
        (is_coded && request.method() != b"HEAD").then_some(length)
    }

    fn whole(&self, coding: Coding, body: &[u8]) -> Option<Vec<u8>> {
        let mut encoder = self.encoders.encoder(coding, Some(body.len() as u64))?;
        let mut out = Vec::with_capacity(body.len() / 2);
        // Where this fails the body goes out as it is.
        encoder.write(body, &mut out).and_then(|()| encoder.finish(&mut out)).ok().map(|()| out)
    }

    fn decide(&self, request: &RequestHead, head: &ResponseHead, length: Option<u64>) -> Decision {
        if matches!(head.status(), 0..200 | 204 | 205 | 206 | 304)
            || length.is_some_and(|length| length < self.plan.min_bytes)
            || self.is_excluded(request)
            || !self.is_meant(head)
        {
            return Decision::Pass;
        }
        match negotiation::preferred(request, &self.plan.codings) {
            Some(coding) => Decision::Coded(coding),
            None => Decision::Identity,
        }
    }

    fn is_excluded(&self, request: &RequestHead) -> bool {
        let excluded = &self.plan.excluded_paths;
        !excluded.is_empty() && {
            let path = paths::path(request);
            excluded.iter().any(|prefix| paths::is_below(prefix, &path))
        }
    }

    /// A part of a response, or a response that says that the client has it, has the Vary of the whole one (RFC 9110 sections
    /// 15.3.7 and 15.4.5). Where its type is not told it may be one of those that are compressed.
    fn vary_as_whole(&self, request: &RequestHead, head: &mut ResponseHead) {
        if head.status() == 304 {
            self.weaken_not_modified(request, head);
        }
        let range = head.field("content-range").unwrap_or_default();
        let total =
            range.rsplit(|&byte| byte == b'/').next().and_then(|digits| std::str::from_utf8(digits).ok());
        let is_short = total
            .and_then(|digits| digits.parse().ok())
            .is_some_and(|total: u64| total < self.plan.min_bytes);
        if !is_short && !self.is_excluded(request) && self.is_meant(head) {
            negotiation::vary_by(head, "Accept-Encoding");
        }
    }

    fn is_meant(&self, head: &ResponseHead) -> bool {
        let is_partial = matches!(head.status(), 206 | 304);
        let mut is_of_type = is_partial;
        for (name, value) in head.fields() {
            // Ranges are of what the application made, and a digest is of what it sends (RFC 9530 section 2).
            let never: [&[u8]; 6] = [
                b"content-encoding",
                b"content-range",
                b"content-md5",
                b"digest",
                b"content-digest",
                b"repr-digest",
            ];
            let is_range = is_partial && name.eq_ignore_ascii_case(b"content-range");
            if !is_range && never.iter().any(|never| name.eq_ignore_ascii_case(never)) {
                return false;
            }
            if name.eq_ignore_ascii_case(b"cache-control") {
                let mut directives = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
                if directives.any(|directive| directive.eq_ignore_ascii_case(b"no-transform")) {
                    return false;
                }
            }
            if name.eq_ignore_ascii_case(b"content-type") {
                let essence = value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
                is_of_type = self.plan.types.iter().any(|pattern| pattern.matches(essence))
                    || (is_partial && essence.eq_ignore_ascii_case(b"multipart/byteranges"));
            }
        }
        is_of_type
    }

    /// A 304 speaks of the representation that the client has. If that was coded by us its tag was made weak, and a
    /// strong one would be taken for another's (RFC 9111 section 4.3.4).
    fn weaken_not_modified(&self, request: &RequestHead, head: &mut ResponseHead) {
        let Some(tag) = head.field("etag").filter(|tag| tag.starts_with(b"\"")) else { return };
        let weak = [b"W/", tag].concat();
        let tags = request.fields().filter(|(name, _)| name.eq_ignore_ascii_case(b"if-none-match"));
        if tags.into_iter().any(|(_, value)| value.windows(weak.len()).any(|part| part == weak)) {
            let set = head.set_field(b"ETag", &weak);
            debug_assert!(set.is_ok(), "a tag stays valid with the mark of weak ones");
            negotiation::vary_by(head, "Accept-Encoding");
        }
    }
}

/// The length that an application announced. An error: the server will complain, so that it must see the fields.
pub(crate) fn announced(head: &ResponseHead) -> Result<Option<u64>, ()> {
    let mut length = None;
    for (_, value) in head.fields().filter(|(name, _)| name.eq_ignore_ascii_case(b"content-length")) {
        let digits = std::str::from_utf8(value).map_err(drop)?;
        if length.is_some() || digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(());
        }
        length = Some(digits.parse().map_err(drop)?);
    }
    Ok(length)
}

/// Says that the body is coded.
fn code_head(head: &mut ResponseHead, coding: Coding) {
    let mut changed = head.push_field(b"Content-Encoding", coding.name().as_bytes());
    // RFC 9110 section 8.8.3.3: "a strong entity tag for a content-encoded representation has to be distinct from the
    // entity tag of an unencoded representation". A weak one says that they mean the same.
    if let Some(tag) = head.field("etag").filter(|tag| tag.starts_with(b"\"")) {
        let weak = [b"W/", tag].concat();
        changed = changed.and_then(|()| head.set_field(b"ETag", &weak));
    }
    debug_assert!(changed.is_ok(), "our own values are valid");
    // Ranges that the application would serve are those of another representation.
    head.remove_field("accept-ranges");
    negotiation::vary_by(head, "Accept-Encoding");
}

#[cfg(test)]
mod tests {
    use anygate_config::site::TypePattern;
    use proptest::prelude::*;

    use super::*;
    use crate::compression::encoder::tests::decoded;
    use crate::fixtures::{field, request, response};

    const HTML: (&str, &str) = ("Content-Type", "text/html; charset=utf-8");

    fn asks(method: &str, path: &str) -> RequestHead {
        request(method, path, &[("Accept-Encoding", "gzip, br, zstd")])
    }

    fn all() -> Compression {
        Compression::new(&plan())
    }

    fn plan() -> CompressionPlan {
        CompressionPlan {
            codings: Coding::ALL.to_vec(),
            types: TypePattern::usual(),
            min_bytes: 1000,
            excluded_paths: Vec::new(),
        }
    }

    #[test]
    fn a_stream_is_coded_and_its_head_says_so() {
        let fields = [
            HTML,
            ("ETag", "\"abc\""),
            ("Content-Length", "6000"),
            ("Accept-Ranges", "bytes"),
            ("Vary", "Cookie"),
        ];
        let mut head = response("200 OK", &fields);
        let mut encoder = all().negotiate(&asks("GET", "/"), &mut head, None).unwrap();
        assert_eq!(field(&head, "content-encoding"), Some("zstd"));
        assert_eq!(field(&head, "etag"), Some("W/\"abc\""));
        assert_eq!(field(&head, "vary"), Some("Cookie, Accept-Encoding"));
        assert!(!head.has_field("content-length") && !head.has_field("accept-ranges"));
        let mut out = Vec::new();
        for _ in 0..3 {
            encoder.write(&[b'x'; 2000], &mut out).unwrap();
        }
        encoder.finish(&mut out).unwrap();
        assert_eq!(decoded(Coding::Zstd, &out).unwrap(), [b'x'; 6000]);
    }

    #[test]
    fn a_whole_body_keeps_a_length() {
        let body = b"<p>paragraph</p>".repeat(100);
        let mut head = response("404 Not Found", &[HTML, ("Content-Length", "1600"), ("ETag", "W/\"a\"")]);
        let coded = all().compress(&asks("POST", "/"), &mut head, &body).unwrap();
        assert_eq!(decoded(Coding::Zstd, &coded).unwrap(), body);
        assert_eq!(field(&head, "content-length"), Some(coded.len().to_string().as_str()));
        assert_eq!(field(&head, "etag"), Some("W/\"a\""));
    }

    #[test]
    fn a_whole_body_that_would_grow_stays_as_it_is() {
        let mut state = 1_u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[1]
        })
        .take(2000)
        .collect();
        let mut head = response("200 OK", &[HTML, ("Content-Length", "2000")]);
        assert_eq!(all().compress(&asks("GET", "/"), &mut head, &noise), None);
        assert_eq!(field(&head, "content-length"), Some("2000"));
        assert_eq!(field(&head, "vary"), Some("Accept-Encoding"));
        assert!(!head.has_field("content-encoding"));
        let mut wrong = response("200 OK", &[HTML, ("Content-Length", "1")]);
        assert_eq!(all().compress(&asks("GET", "/"), &mut wrong, &[b'a'; 5000]), None, "its length is wrong");
    }

    #[test]
    fn other_responses_pass_untouched() {
        for (status, fields) in [
            ("204 No Content", &[HTML][..]),
            ("205 Reset Content", &[HTML]),
            ("206 Partial Content", &[HTML, ("Content-Range", "bytes 0-1/2")]),
            ("304 Not Modified", &[("Content-Type", "image/png"), ("ETag", "\"a\"")]),
            ("304 Not Modified", &[("Content-Encoding", "gzip"), ("ETag", "\"a\"")]),
            ("206 Partial Content", &[("Content-Type", "image/png"), ("Content-Range", "bytes 0-1/5000")]),
            ("101 Switching Protocols", &[HTML]),
            ("200 OK", &[HTML, ("Content-Range", "bytes 0-1/2")]),
            ("200 OK", &[HTML, ("Content-Encoding", "identity")]),
            ("200 OK", &[HTML, ("content-encoding", "gzip")]),
            ("200 OK", &[HTML, ("Cache-Control", "max-age=1, No-Transform")]),
            ("200 OK", &[HTML, ("Repr-Digest", "sha-256=:YQ==:")]),
            ("200 OK", &[HTML, ("Content-Length", "999")]),
            ("200 OK", &[HTML, ("Content-Length", "5000"), ("Content-Length", "6000")]),
            ("200 OK", &[HTML, ("Content-Length", "+5000")]),
            ("200 OK", &[("Content-Type", "image/png")]),
            ("200 OK", &[("Content-Type", "text/event-stream")]),
            ("200 OK", &[]),
        ] {
            let mut head = response(status, fields);
            assert!(all().negotiate(&asks("GET", "/"), &mut head, None).is_none(), "{status} {fields:?}");
            let before: Vec<_> = fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
            assert_eq!(head.fields().collect::<Vec<_>>(), before, "{status} {fields:?}");
        }
        let mut short = response("200 OK", &[HTML]);
        assert!(all().negotiate(&asks("GET", "/"), &mut short, Some(999)).is_none());
        assert!(!short.has_field("vary"));
    }

    #[test]
    fn who_does_not_want_it_hears_that_others_get_it() {
        for accept in [&[][..], &[("Accept-Encoding", "identity")], &[("Accept-Encoding", "deflate")]] {
            let mut head = response("200 OK", &[HTML, ("Content-Length", "5000"), ("ETag", "\"a\"")]);
            assert!(all().negotiate(&request("GET", "/", accept), &mut head, None).is_none());
            assert_eq!(field(&head, "vary"), Some("Accept-Encoding"));
            assert_eq!(field(&head, "content-length"), Some("5000"));
            assert_eq!(field(&head, "etag"), Some("\"a\""));
        }
    }

    #[test]
    fn head_gets_the_head_of_get() {
        let of = |method| {
            let mut head = response("200 OK", &[HTML, ("Content-Length", "5000"), ("ETag", "\"a\"")]);
            let length = if method == "HEAD" { Some(0) } else { None };
            let encoder = all().negotiate(&asks(method, "/"), &mut head, length);
            assert_eq!(encoder.is_some(), method == "GET");
            if method == "HEAD" {
                let mut whole = response("200 OK", &[HTML, ("Content-Length", "5000"), ("ETag", "\"a\"")]);
                assert_eq!(all().compress(&asks(method, "/"), &mut whole, b""), None);
                assert_eq!(whole.fields().collect::<Vec<_>>(), head.fields().collect::<Vec<_>>());
            }
            head.fields().map(|(name, value)| (name.to_vec(), value.to_vec())).collect::<Vec<_>>()
        };
        assert_eq!(of("HEAD"), of("GET"));
    }

    #[test]
    fn not_modified_names_the_tag_that_the_client_has() {
        for (has, expected) in
            [("W/\"a\"", "W/\"a\""), ("\"b\", W/\"a\"", "W/\"a\""), ("\"a\"", "\"a\""), ("*", "\"a\"")]
        {
            let request = request("GET", "/", &[("If-None-Match", has), ("Accept-Encoding", "br")]);
            let mut head = response("304 Not Modified", &[("ETag", "\"a\"")]);
            assert!(all().negotiate(&request, &mut head, None).is_none());
            assert_eq!(field(&head, "etag"), Some(expected), "{has}");
        }
    }

    #[test]
    fn parts_and_304_have_the_vary_of_the_whole() {
        const RANGE: (&str, &str) = ("Content-Range", "bytes 0-1/5000");
        for (status, fields) in [
            ("206 Partial Content", &[HTML, RANGE][..]),
            ("206 Partial Content", &[HTML, ("Content-Range", "bytes 0-1/*")]),
            ("206 Partial Content", &[("Content-Type", "multipart/byteranges; boundary=a")]),
            ("304 Not Modified", &[HTML, ("ETag", "\"a\"")]),
            ("304 Not Modified", &[("ETag", "\"a\"")]),
        ] {
            for accept in [&[][..], &[("Accept-Encoding", "gzip")]] {
                let mut head = response(status, fields);
                assert!(all().negotiate(&request("GET", "/", accept), &mut head, None).is_none());
                assert_eq!(field(&head, "vary"), Some("Accept-Encoding"), "{status} {fields:?}");
                assert_eq!(head.fields().count(), fields.len() + 1);
            }
        }
    }

    #[test]
    fn excluded_paths_are_left_as_they_are() {
        let plan = CompressionPlan { excluded_paths: vec!["/account".to_owned()], ..plan() };
        let compression = Compression::new(&plan);
        for (path, coded) in
            [("/account/keys", false), ("/%61ccount", false), ("//account", false), ("/accounts", true)]
        {
            let mut head = response("200 OK", &[HTML]);
            assert_eq!(compression.negotiate(&asks("GET", path), &mut head, None).is_some(), coded, "{path}");
        }
    }

    proptest! {
        #[test]
        fn heads_stay_true(
            status in 200..600u16,
            length in prop::option::of(0..4000u64),
            body_length in prop::option::of(0..4000u64),
            tag in "(W/)?\"[a-z]{0,3}\"",
            accept in "(gzip|br|zstd|identity|\\*)(;q=0(\\.[0-9])?)?",
            head_request: bool,
        ) {
            let mut head = response(&status.to_string(), &[HTML, ("ETag", &tag)]);
            if let Some(length) = length {
                head.push_field(b"Content-Length", length.to_string().as_bytes()).unwrap();
            }
            let method = if head_request { "HEAD" } else { "GET" };
            let request = request(method, "/", &[("Accept-Encoding", &accept)]);
            let is_true = length.is_none() || length == body_length;
            let is_too_short = is_true && all().is_too_short(&request, status, body_length);
            let encoder = all().negotiate(&request, &mut head, body_length);
            prop_assert!(!is_too_short || !head.has_field("vary") && !head.has_field("content-encoding"));
            let coded = head.has_field("content-encoding");
            prop_assert!(encoder.is_none() || coded);
            prop_assert!(!coded || head_request || encoder.is_some());
            prop_assert_eq!(head.has_field("content-length"), length.is_some() && !coded);
            if coded {
                prop_assert!(head.field("etag").unwrap().starts_with(b"W/"));
                prop_assert_eq!(field(&head, "vary"), Some("Accept-Encoding"));
            } else {
                prop_assert_eq!(field(&head, "etag"), Some(tag.as_str()));
            }
        }
    }
}
