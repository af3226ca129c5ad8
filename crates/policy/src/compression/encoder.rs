//! Bodies to codings, piece by piece. An encoder is pushed into and owned, so that it suits every caller that passes a body on.
//!
//! Its memory does not grow with the body: windows are small. A large one finds repetitions that lie far apart, which
//! pages and JSON have few of, and is paid for by every response under way.

use std::io::{self, Write};
use std::sync::Arc;

use anygate_config::site::Coding;
use anygate_lock::{Mutex, MutexGuard};
use brotli::CompressorWriter;
use flate2::{Compress, Crc, FlushCompress, Status};
use zstd::stream::raw::{CParameter, Encoder as ZstdContext, InBuffer, Operation, OutBuffer};

/// 256 KiB (RFC 7932 section 9.1).
const BROTLI_WINDOW_BITS: u32 = 18;
/// 128 KiB; RFC 9659 lets clients refuse more than 8 MiB.
const ZSTD_WINDOW_BITS: u32 = 17;
/// Room that is made for output at once.
const ROOM_BYTES: usize = 8 * 1024;
/// How many contexts of one kind wait for the next body.
const KEPT_MAX: usize = 16;
/// No name, no time, any system (RFC 1952 section 2.3).
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// How hard encoders try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// 1 to 9; others are taken for the nearest.
    pub gzip: u8,
    /// 0 to 11; others are taken for the nearest.
    pub brotli: u8,
    /// 1 to 19; others are taken for the nearest.
    pub zstd: u8,
}

impl Default for Levels {
    /// Where the next step costs more time than it saves bytes on pages that are made anew for each request.
    fn default() -> Self {
        Levels { gzip: 5, brotli: 4, zstd: 3 }
    }
}

/// Why a body cannot be coded to its end. What was given out already must not look whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// The body was announced to be longer.
    Shorter,
    /// The library gave up: there was no memory.
    Failed,
}

impl std::fmt::Display for EncodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            EncodeError::Shorter => "the body is shorter than its Content-Length",
            EncodeError::Failed => "the body could not be compressed",
        })
    }
}

impl std::error::Error for EncodeError {}

/// Makes encoders, out of the memory of those that are through.
pub(crate) struct Encoders {
    levels: Levels,
    gzip: Mutex<Vec<Compress>>,
    zstd: Mutex<Vec<ZstdContext<'static>>>,
}

/// One body on its way.
pub struct Encoder {
    state: State,
    /// Remaining bytes of a declared length.
    left: Option<u64>,
    /// Something was taken in since the last flush.
    unflushed: bool,
    /// Something was lost, so that there must be no end.
    failed: bool,
    encoders: Arc<Encoders>,
}

enum State {
    Gzip(Box<Gzip>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(Box<ZstdContext<'static>>),
    Ended,
}

struct Gzip {
    compress: Compress,
    crc: Crc,
    begun: bool,
}

impl Encoders {
    pub(crate) fn new(levels: Levels) -> Encoders {
        let levels = Levels {
            gzip: levels.gzip.clamp(1, 9),
            brotli: levels.brotli.min(11),
            zstd: levels.zstd.clamp(1, 19),
        };
        Encoders { levels, gzip: Mutex::default(), zstd: Mutex::default() }
    }

    /// An encoder for a body whose length may be known. `None` when there is no memory for it.
    pub(crate) fn encoder(self: &Arc<Self>, coding: Coding, length: Option<u64>) -> Option<Encoder> {
        let state = match coding {
            Coding::Gzip => {
                let compress = lock(&self.gzip).pop().unwrap_or_else(|| {
                    // The container is ours, so that it can be written without what only some backends have.
                    Compress::new(flate2::Compression::new(self.levels.gzip.into()), false)
                });
                State::Gzip(Box::new(Gzip { compress, crc: Crc::new(), begun: false }))
            }
            Coding::Brotli => State::Brotli(Box::new(CompressorWriter::new(
                Vec::new(),
                ROOM_BYTES,
                self.levels.brotli.into(),
                brotli_window_bits(length),
            ))),
            Coding::Zstd => State::Zstd(Box::new(self.zstd_context(length).ok()?)),
        };
        Some(Encoder { state, left: length, unflushed: false, failed: false, encoders: Arc::clone(self) })
    }

    fn zstd_context(&self, length: Option<u64>) -> io::Result<ZstdContext<'static>> {
        let kept = lock(&self.zstd).pop();
        let mut context = match kept {
            Some(context) => context,
            None => {
                let mut context = ZstdContext::new(self.levels.zstd.into())?;
                context.set_parameter(CParameter::WindowLog(ZSTD_WINDOW_BITS))?;
                context
            }
        };
        // Smaller tables do for a small body.
        context.set_pledged_src_size(length)?;
        Ok(context)
    }
}

/// A window larger than the body would only be cleared in vain.
fn brotli_window_bits(length: Option<u64>) -> u32 {
    let bits = length.map_or(BROTLI_WINDOW_BITS, |length| u64::BITS - length.leading_zeros());
    // RFC 7932 section 9.1: a window is 16 bytes smaller than its power of two, and no smaller than 2^10.
    (bits + 1).clamp(10, BROTLI_WINDOW_BITS)
}

fn lock<T>(kept: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    // Nothing that could panic is done under the lock.
    kept.lock()
}

impl Encoder {
    /// Takes in a piece of the body and adds to `out` what is ready. Bytes past an announced length are dropped.
    pub fn write(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let mut bytes = bytes;
        if let Some(left) = &mut self.left {
            let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
            bytes = bytes.get(..taken).unwrap_or_default();
            *left -= taken as u64;
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.unflushed = true;
        let result = match &mut self.state {
            State::Gzip(gzip) => gzip.run(bytes, FlushCompress::None, out),
            State::Brotli(writer) => {
                let result = writer.write_all(bytes).map_err(|_| EncodeError::Failed);
                out.append(writer.get_mut());
                result
            }
            State::Zstd(context) => {
                let mut input = InBuffer::around(bytes);
                let mut result = Ok(());
                while result.is_ok() && input.pos() < bytes.len() {
                    result = zstd_step(out, |output| context.run(&mut input, output)).map(drop);
                }
                result
            }
            State::Ended => Ok(()),
        };
        self.failed |= result.is_err();
        result
    }

    /// Adds to `out` whatever a client needs to read all that was taken in so far. It costs some bytes.
    pub fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if !std::mem::take(&mut self.unflushed) {
            return Ok(());
        }
        let result = match &mut self.state {
            State::Gzip(gzip) => gzip.run(&[], FlushCompress::Sync, out),
            State::Brotli(writer) => {
                let result = writer.flush().map_err(|_| EncodeError::Failed);
                out.append(writer.get_mut());
                result
            }
            State::Zstd(context) => drain(out, |output| context.flush(output)),
            State::Ended => Ok(()),
        };
        self.failed |= result.is_err();
        result
    }

    /// Adds the end of the coded body to `out`. A second call does nothing.
    ///
    /// Errors: also when fewer bytes were taken in than announced. The end is missing then.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(EncodeError::Shorter);
        }
        if self.failed {
            return Err(EncodeError::Failed);
        }
        let result = self.end(out);
        self.failed = result.is_err();
        result
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Gzip(mut gzip) => {
                gzip.run(&[], FlushCompress::Finish, out)?;
                out.extend_from_slice(&gzip.crc.sum().to_le_bytes());
                out.extend_from_slice(&gzip.crc.amount().to_le_bytes());
                gzip.compress.reset();
                keep(&self.encoders.gzip, gzip.compress);
            }
            State::Brotli(writer) => out.append(&mut writer.into_inner()),
            State::Zstd(mut context) => {
                drain(out, |output| context.finish(output, true))?;
                if context.reinit().is_ok() {
                    keep(&self.encoders.zstd, *context);
                }
            }
            State::Ended => {}
        }
        Ok(())
    }
}

impl std::fmt::Debug for Encoders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoders").field("levels", &self.levels).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("left", &self.left).finish_non_exhaustive()
    }
}

fn keep<T>(kept: &Mutex<Vec<T>>, context: T) {
    let mut kept = lock(kept);
    if kept.len() < KEPT_MAX {
        kept.push(context);
    }
}

impl Gzip {
    fn run(&mut self, mut bytes: &[u8], flush: FlushCompress, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if !self.begun {
            out.extend_from_slice(&GZIP_HEADER);
            self.begun = true;
        }
        self.crc.update(bytes);
        loop {
            out.reserve(ROOM_BYTES);
            let before = self.compress.total_in();
            let status = self.compress.compress_vec(bytes, out, flush).map_err(|_| EncodeError::Failed)?;
            let taken = usize::try_from(self.compress.total_in() - before).unwrap_or(usize::MAX);
            bytes = bytes.get(taken..).unwrap_or_default();
            let through = match flush {
                FlushCompress::Finish => status == Status::StreamEnd,
                // "If deflate returns with avail_out == 0, this function must be called again with the same value of
                // the flush parameter" (zlib.h).
                _ => bytes.is_empty() && out.len() < out.capacity(),
            };
            if through {
                return Ok(());
            }
        }
    }
}

/// Takes steps until nothing is left in a zstd context.
fn drain(
    out: &mut Vec<u8>,
    mut step: impl FnMut(&mut OutBuffer<'_, Vec<u8>>) -> io::Result<usize>,
) -> Result<(), EncodeError> {
    while zstd_step(out, &mut step)? > 0 {}
    Ok(())
}

/// One step of a zstd context into the free room of `out`. Returns what the step gives.
fn zstd_step(
    out: &mut Vec<u8>,
    step: impl FnOnce(&mut OutBuffer<'_, Vec<u8>>) -> io::Result<usize>,
) -> Result<usize, EncodeError> {
    out.reserve(ROOM_BYTES);
    let start = out.len();
    step(&mut OutBuffer::around_pos(out, start)).map_err(|_| EncodeError::Failed)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    /// What a client makes of a coded body; an error when its end is missing.
    pub(crate) fn decoded(coding: Coding, mut bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut body).map(drop)?,
            Coding::Brotli => brotli::BrotliDecompress(&mut bytes, &mut body)?,
            Coding::Zstd => body = zstd::decode_all(bytes)?,
        }
        Ok(body)
    }

    fn encoded(encoders: &Arc<Encoders>, coding: Coding, pieces: &[Vec<u8>], length: Option<u64>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = encoders.encoder(coding, length).unwrap();
        for piece in pieces {
            encoder.write(piece, &mut out).unwrap();
        }
        encoder.finish(&mut out).unwrap();
        out
    }

    fn page(size: usize) -> Vec<u8> {
        (0..)
            .flat_map(|line: u32| {
                format!("<li>line {line} of {}</li>\n", line.wrapping_mul(2_654_435_761)).into_bytes()
            })
            .take(size)
            .collect()
    }

    #[test]
    fn bodies_of_any_size_come_back() {
        let encoders = Arc::new(Encoders::new(Levels::default()));
        for coding in Coding::ALL {
            for size in [0, 1, 100, 8 * 1024, 65_536, 1_000_000] {
                let body = page(size);
                for length in [None, Some(size as u64)] {
                    let out = encoded(&encoders, coding, std::slice::from_ref(&body), length);
                    assert_eq!(decoded(coding, &out).unwrap(), body, "{coding:?} {size}");
                    assert!(size < 1000 || out.len() < size / 2, "{coding:?} {size}: {}", out.len());
                }
            }
        }
    }

    #[test]
    fn what_was_flushed_can_be_read() {
        let encoders = Arc::new(Encoders::new(Levels::default()));
        for coding in Coding::ALL {
            let mut encoder = encoders.encoder(coding, None).unwrap();
            let (mut out, mut sent) = (Vec::new(), Vec::new());
            for number in 0..50 {
                let piece = format!("event {number}\n").into_bytes();
                encoder.write(&piece, &mut out).unwrap();
                encoder.flush(&mut out).unwrap();
                let length = out.len();
                encoder.flush(&mut out).unwrap();
                assert_eq!(out.len(), length, "nothing new, nothing to flush");
                sent.extend_from_slice(&piece);
                let mut got = vec![0; sent.len()];
                match coding {
                    Coding::Gzip => flate2::read::GzDecoder::new(&out[..]).read_exact(&mut got).unwrap(),
                    Coding::Brotli => brotli::Decompressor::new(&out[..], 4096).read_exact(&mut got).unwrap(),
                    Coding::Zstd => {
                        zstd::stream::read::Decoder::new(&out[..]).unwrap().read_exact(&mut got).unwrap();
                    }
                }
                assert_eq!(got, sent, "{coding:?}");
            }
        }
    }

    #[test]
    fn a_body_that_is_shorter_than_announced_has_no_end() {
        let encoders = Arc::new(Encoders::new(Levels::default()));
        for coding in Coding::ALL {
            let mut encoder = encoders.encoder(coding, Some(10)).unwrap();
            let mut out = Vec::new();
            encoder.write(b"123456789", &mut out).unwrap();
            encoder.flush(&mut out).unwrap();
            assert_eq!(encoder.finish(&mut out), Err(EncodeError::Shorter));
            assert!(decoded(coding, &out).is_err(), "{coding:?}");
        }
    }

    #[test]
    fn bytes_past_the_announced_length_are_dropped() {
        let encoders = Arc::new(Encoders::new(Levels::default()));
        for coding in Coding::ALL {
            let out =
                encoded(&encoders, coding, &[b"12345".to_vec(), b"67".to_vec(), b"8".to_vec()], Some(6));
            assert_eq!(decoded(coding, &out).unwrap(), b"123456", "{coding:?}");
        }
    }

    #[test]
    fn contexts_are_used_again_also_after_bodies_that_broke_off() {
        let encoders = Arc::new(Encoders::new(Levels::default()));
        for coding in Coding::ALL {
            for length in [Some(3), None, Some(3)] {
                let out = encoded(&encoders, coding, &[b"abc".to_vec()], length);
                assert_eq!(decoded(coding, &out).unwrap(), b"abc");
                let mut broken = encoders.encoder(coding, Some(100)).unwrap();
                broken.write(b"half", &mut Vec::new()).unwrap();
            }
        }
        assert_eq!((lock(&encoders.gzip).len(), lock(&encoders.zstd).len()), (0, 0));
        encoded(&encoders, Coding::Zstd, &[], None);
        encoded(&encoders, Coding::Gzip, &[], None);
        assert_eq!((lock(&encoders.gzip).len(), lock(&encoders.zstd).len()), (1, 1));
    }

    #[test]
    fn levels_out_of_range_are_taken_for_the_nearest() {
        for level in [0, u8::MAX] {
            let encoders = Arc::new(Encoders::new(Levels { gzip: level, brotli: level, zstd: level }));
            for coding in Coding::ALL {
                let out = encoded(&encoders, coding, &[page(5000)], None);
                assert_eq!(decoded(coding, &out).unwrap(), page(5000), "{coding:?} {level}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_pieces_come_back(
            pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..3000), any::<bool>()), 0..12),
            which in 0..3usize,
            announced: bool,
        ) {
            let coding = Coding::ALL[which];
            let body: Vec<u8> = pieces.iter().flat_map(|(piece, _)| piece.clone()).collect();
            let encoders = Arc::new(Encoders::new(Levels::default()));
            // Twice, so that the second one uses the memory of the first.
            for _ in 0..2 {
                let mut encoder = encoders.encoder(coding, announced.then_some(body.len() as u64)).unwrap();
                let mut out = Vec::new();
                for (piece, flush) in &pieces {
                    encoder.write(piece, &mut out).unwrap();
                    if *flush {
                        encoder.flush(&mut out).unwrap();
                    }
                }
                encoder.finish(&mut out).unwrap();
                let length = out.len();
                encoder.finish(&mut out).unwrap();
                prop_assert_eq!(out.len(), length);
                prop_assert_eq!(decoded(coding, &out).unwrap(), body.clone());
            }
        }
    }
}
