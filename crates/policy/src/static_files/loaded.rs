//! A file that is ready to be sent, with the heads of its responses.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

use anygate_config::site::Coding;
use anygate_proto::error::InvalidHead;
use anygate_proto::head::{RequestHead, ResponseHead};

use crate::compression::negotiation;
use crate::conditional::{Validators, whole_seconds};

/// A file up to this size is held in memory, so that a response needs no system call but the one that sends it.
const MEMORY_MAX_BYTES: u64 = 32 * 1024;

/// One file in all its codings.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) content_type: String,
    plain: Variant,
    /// The smallest first.
    coded: Vec<Variant>,
    /// The codings of `coded`.
    codings: Vec<Coding>,
    pub(super) loaded: SystemTime,
}

/// One form in which a file can be sent.
#[derive(Debug)]
pub(super) struct Variant {
    pub(super) content: Content,
    pub(super) length: u64,
    pub(super) validators: Validators,
    /// The head of the whole.
    pub(super) head: ResponseHead,
}

#[derive(Debug)]
pub(super) enum Content {
    Memory(Box<[u8]>),
    File(File),
}

/// Properties that all forms of a file share.
pub(super) struct Description<'d> {
    pub(super) content_type: String,
    pub(super) cache_control: Option<&'d str>,
    /// The request's field, if any, by which it was chosen.
    pub(super) vary: Option<&'d str>,
}

impl Loaded {
    /// Makes a file ready. `siblings` are files that may hold it in a coding.
    pub(super) fn new(
        file: File,
        metadata: &Metadata,
        siblings: impl Iterator<Item = (Coding, File)>,
        description: Description<'_>,
        now: SystemTime,
    ) -> io::Result<Loaded> {
        let time = whole_seconds(metadata);
        let mut coded = Vec::new();
        for (coding, sibling) in siblings {
            // One that is older is of another version, and one that is larger is of no use.
            let found = sibling.metadata().ok().filter(|found| {
                found.is_file() && found.len() < metadata.len() && whole_seconds(found) >= time
            });
            if let Some(found) = found {
                coded.push((coding, found.len(), sibling, found));
            }
        }
        coded.sort_by_key(|(_, length, ..)| *length);
        let codings: Vec<Coding> = coded.iter().map(|(coding, ..)| *coding).collect();
        let variant = |coding, file, metadata: &Metadata| {
            let mut variant = Variant::new(file, metadata, now)?;
            variant
                .describe(&description, coding)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if !codings.is_empty() {
                negotiation::vary_by(&mut variant.head, "Accept-Encoding");
            }
            Ok::<_, io::Error>(variant)
        };
        let plain = variant(None, file, metadata)?;
        let coded = coded.into_iter().map(|(coding, _, file, found)| variant(Some(coding), file, &found));
        let coded = coded.collect::<io::Result<_>>()?;
        Ok(Loaded { plain, coded, codings, content_type: description.content_type, loaded: now })
    }

    /// The form that a client wants.
    pub(super) fn variant(&self, request: &RequestHead) -> &Variant {
        if self.codings.is_empty() {
            return &self.plain;
        }
        let coding = negotiation::preferred(request, &self.codings);
        let place = coding.and_then(|coding| self.codings.iter().position(|&other| other == coding));
        place.and_then(|place| self.coded.get(place)).unwrap_or(&self.plain)
    }

    /// How many files it keeps open, and bytes in memory.
    pub(super) fn weight(&self) -> (usize, usize) {
        let variants = std::iter::once(&self.plain).chain(&self.coded);
        variants.fold((0, 0), |(files, bytes), variant| match &variant.content {
            Content::Memory(content) => (files, bytes + content.len()),
            Content::File(_) => (files + 1, bytes),
        })
    }
}

impl Variant {
    fn new(file: File, metadata: &Metadata, now: SystemTime) -> io::Result<Variant> {
        let validators = Validators::new(metadata, now);
        let length = metadata.len();
        if length > MEMORY_MAX_BYTES {
            return Ok(Variant {
                content: Content::File(file),
                length,
                validators,
                head: ResponseHead::new(),
            });
        }
        let content = read(&file, length)?;
        let after = file.metadata()?;
        let validators_after = Validators::new(&after, now);
        // A file that changes while it is read is read anew for the next request.
        let whole = content.len() as u64 == length && validators == validators_after;
        let content = if whole { Content::Memory(content.into()) } else { Content::File(file) };
        let (length, validators) = if whole { (length, validators) } else { (after.len(), validators_after) };
        Ok(Variant { content, length, validators, head: ResponseHead::new() })
    }

    /// Builds the head of the whole.
    fn describe(&mut self, description: &Description<'_>, coding: Option<Coding>) -> Result<(), InvalidHead> {
        let head = &mut self.head;
        head.set_status_line(b"200 OK")?;
        head.push_field(b"Content-Type", description.content_type.as_bytes())?;
        head.push_field(b"Content-Length", itoa::Buffer::new().format(self.length).as_bytes())?;
        if let Some(modified) = &self.validators.modified {
            head.push_field(b"Last-Modified", modified.text.as_bytes())?;
        }
        head.push_field(b"ETag", self.validators.tag.as_bytes())?;
        head.push_field(b"Accept-Ranges", b"bytes")?;
        if let Some(coding) = coding {
            head.push_field(b"Content-Encoding", coding.name().as_bytes())?;
        }
        if let Some(value) = description.cache_control {
            head.push_field(b"Cache-Control", value.as_bytes())?;
        }
        if let Some(field) = description.vary {
            negotiation::vary_by(head, field);
        }
        Ok(())
    }
}

/// Reads up to `length` bytes.
fn read(file: &File, length: u64) -> io::Result<Vec<u8>> {
    let mut content = vec![0; usize::try_from(length).unwrap_or_default()];
    let mut filled = 0;
    while let Some(room) = content.get_mut(filled..).filter(|room| !room.is_empty()) {
        match file.read_at(room, filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    content.truncate(filled);
    Ok(content)
}
