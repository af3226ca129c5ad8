//! How far a response is.

use std::time::{Instant, SystemTime};

use anygate_policy::shared_memory::route_table::RouteSlot;
use anygate_proto::head::ResponseHead;
use anygate_proto::http1::BodyFraming;

use super::body::BodyStream;
use crate::finished::Noted;
use crate::sampling::Started;
use crate::time_of_day::time_of_day;

/// How far a response is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Progress {
    /// The head has not been sent.
    #[default]
    NotStarted,
    /// Its head was given; its body is framed so.
    Started(BodyFraming),
    /// The client has the end of the message, although the call goes on.
    Concluded(BodyFraming),
}

impl Progress {
    /// How the body is framed, once the head was given.
    pub(super) fn framing(self) -> Option<BodyFraming> {
        match self {
            Progress::NotStarted => None,
            Progress::Started(framing) | Progress::Concluded(framing) => Some(framing),
        }
    }

    /// Whether nothing tells how long the body is, as that of a stream of events.
    pub(super) fn is_of_unknown_length(self) -> bool {
        matches!(self.framing(), Some(BodyFraming::Chunked | BodyFraming::UntilClose))
    }

    /// The client has the end of the message.
    pub(super) fn conclude(&mut self) {
        if let Progress::Started(framing) = *self {
            *self = Progress::Concluded(framing);
        }
    }

    /// Whether the client has the end of the message.
    pub(super) fn is_concluded(self) -> bool {
        matches!(self, Progress::Concluded(_))
    }
}

/// How a message ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The client sees its end.
    Whole,
    /// Its end is that of the connection.
    Close,
    /// Something is missing.
    Short,
}

/// The beginning of the application's own code, where it is reported.
#[derive(Default)]
pub(super) enum Beginning<T> {
    #[default]
    Unwanted,
    Awaited,
    Noted(T),
}

impl<T> Beginning<T> {
    /// Whether anything is to be noted.
    pub(super) fn is_wanted(&self) -> bool {
        !matches!(self, Beginning::Unwanted)
    }

    pub(super) fn wanted(wanted: bool) -> Self {
        if wanted { Beginning::Awaited } else { Beginning::Unwanted }
    }

    /// Notes what `now` says, if it is wanted.
    pub(super) fn note(&mut self, now: impl FnOnce() -> T) {
        if self.is_wanted() {
            *self = Beginning::Noted(now());
        }
    }

    pub(super) fn noted(&self) -> Option<&T> {
        match self {
            Beginning::Noted(noted) => Some(noted),
            Beginning::Unwanted | Beginning::Awaited => None,
        }
    }
}

/// Progress of a response.
#[derive(Default)]
pub(super) struct Given {
    pub(super) progress: Progress,
    pub(super) keep_alive: bool,
    /// No block waits for those that follow it.
    pub(super) is_prompt: bool,
    /// The request's body, when the application reads it while it arrives: unless it was received to its end, the
    /// connection cannot stay.
    pub(super) body: Option<BodyStream>,
    pub(super) announced: Announced,
    /// Bytes of body that the application gave.
    pub(super) body_bytes: u64,
    /// Bytes of body that were sent, or wait in the outbox.
    pub(super) sent_bytes: u64,
    pub(super) status: u16,
    /// The head, kept when the access log may want a field of it.
    pub(super) kept_head: Option<ResponseHead>,
    /// For a measured call.
    pub(super) usage: Beginning<Started>,
    /// Where responses are counted or traced.
    pub(super) entered: Beginning<Instant>,
    /// Where they are traced: when the response began, and the template of the path.
    pub(super) first_byte: Beginning<Instant>,
    pub(super) route: Option<Box<str>>,
    /// Where that is counted, if it is.
    pub(super) route_slot: Option<RouteSlot>,
}

impl Given {
    /// The time of day, for the Date field.
    pub(super) fn time(&self) -> SystemTime {
        self.first_byte.noted().map_or_else(SystemTime::now, |moment| time_of_day(*moment))
    }

    /// What was noted while the application responded.
    pub(super) fn noted(&mut self) -> Noted {
        let [entered, first_byte] = [&self.entered, &self.first_byte].map(|at| at.noted().copied());
        Noted { entered, first_byte, route: self.route.take(), route_slot: self.route_slot }
    }
}

/// What the application announced with Content-Length and has not yet given.
#[derive(Default)]
pub(crate) struct Announced {
    pub(crate) left: u64,
    exceeded: bool,
}

impl Announced {
    pub(crate) fn new(framing: Option<BodyFraming>) -> Announced {
        let left = if let Some(BodyFraming::Length(length)) = framing { length } else { 0 };
        Announced { left, exceeded: false }
    }

    /// How many of `length` more bytes may be sent; says so once when the application gives more than it announced.
    pub(crate) fn take(&mut self, length: u64) -> u64 {
        if length > self.left && !self.exceeded {
            self.exceeded = true;
            tracing::error!("the application sent more bytes than its Content-Length; the rest is dropped");
        }
        let taken = length.min(self.left);
        self.left -= taken;
        taken
    }
}

/// [`Response::wants_more`](anygate_proto::application::Response::wants_more) of a body that is framed so, of which the
/// application has given `body_bytes`.
pub(crate) fn wants_more(framing: Option<BodyFraming>, announced: &Announced, body_bytes: u64) -> bool {
    match framing {
        Some(BodyFraming::Empty) => body_bytes == 0,
        Some(BodyFraming::Length(_)) => !announced.exceeded,
        Some(BodyFraming::UntilClose | BodyFraming::Chunked) | None => true,
    }
}

/// Which facts about a response are recorded.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wanted {
    /// Fields of its head.
    pub(crate) keep_head: bool,
    /// How much of the call was waiting.
    pub(crate) measured: bool,
    /// When the application's own code began.
    pub(crate) timed: bool,
    /// When the response began, and the template of the path.
    pub(crate) traced: bool,
}
