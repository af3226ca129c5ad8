//! One request by one process: what a CGI server starts (RFC 3875). The request is in the environment and on standard
//! input, the response goes to standard output, and then the process is over.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

use anygate_config::ServerPlan;
use anygate_policy::forwarded::{Applied, Forwarding};
use anygate_policy::policies::{Arrival, ProcessPolicies};
use anygate_proto::application::{Application, Body, Endpoints, Request, Response, SendError};
use anygate_proto::cgi::{self, Mount, StatusForm};
use anygate_proto::head::{RequestHead, ResponseHead};
use anygate_proto::http1::BodyFraming;

use crate::call_records::{CallRecords, CallReport};
use crate::exchange::{Announced, BodyMemory, BodySpool, error_response, refusal, wants_more};
use crate::threads::call::Call;

/// Variables of the environment that say something about the request. Others are the machine's, and not the
/// application's to see in `environ`.
const VARIABLES: [&str; 25] = [
    "AUTH_TYPE",
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "DOCUMENT_ROOT",
    "HTTPS",
    "PATH_INFO",
    "PATH_TRANSLATED",
    "QUERY_STRING",
    "REMOTE_ADDR",
    "REMOTE_HOST",
    "REMOTE_IDENT",
    "REMOTE_PORT",
    "REMOTE_USER",
    "REQUEST_METHOD",
    "REQUEST_SCHEME",
    "REQUEST_URI",
    "SCRIPT_FILENAME",
    "SCRIPT_NAME",
    "SERVER_ADDR",
    "SERVER_ADMIN",
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_PROTOCOL",
    "UNIQUE_ID",
    "REDIRECT_STATUS",
];

/// One read of a body takes at most this.
const READ_BYTES: usize = 64 * 1024;

/// Whether a variable of the environment belongs to a request.
fn is_of_request(name: &[u8]) -> bool {
    name.starts_with(b"HTTP_")
        || name.starts_with(b"SSL_")
        || VARIABLES.iter().any(|known| known.as_bytes() == name)
}

/// Responds to the request that `environment` describes, and records it. The application's language has the calling thread
/// already.
///
/// Errors: standard output cannot be written.
pub fn respond(
    application: &dyn Application,
    site: Option<&Arc<ProcessPolicies>>,
    environment: &[(Vec<u8>, Vec<u8>)],
    plan: &ServerPlan,
    records: &CallRecords,
    input: impl Read + Send + 'static,
    output: &mut (impl Write + Send),
) -> io::Result<()> {
    let mut head = RequestHead::default();
    let record = records.begin(&head, &Endpoints::default(), None, 0);
    let mut response = CgiResponse {
        output,
        head_request: false,
        framing: None,
        announced: Announced::default(),
        body_bytes: 0,
        status: 0,
        head: None,
        keeps_head: records.wants_response_fields(),
    };
    let endpoints = handle(application, site, environment, plan, &mut head, input, &mut response);
    if response.announced.left > 0 {
        tracing::error!(
            "the application announced {} bytes more in Content-Length than it sent",
            response.announced.left
        );
    }
    let flushed = response.output.flush();
    let CgiResponse { status, body_bytes, head: kept, .. } = response;
    records.end(&record, &endpoints, &head, CallReport { status, body_bytes, head: kept });
    flushed
}

/// Has the request responded to; returns the ends between which it travelled.
fn handle(
    application: &dyn Application,
    site: Option<&Arc<ProcessPolicies>>,
    environment: &[(Vec<u8>, Vec<u8>)],
    plan: &ServerPlan,
    head: &mut RequestHead,
    input: impl Read + Send + 'static,
    response: &mut CgiResponse<'_, impl Write + Send>,
) -> Endpoints {
    let decoded = decode(environment, plan, head);
    response.head_request = head.method() == b"HEAD";
    let mut refused_ends = Endpoints::default();
    let is_chunked =
        environment.iter().any(|(name, value)| name == b"HTTP_TRANSFER_ENCODING" && !value.is_empty());
    let body_failure = Arc::new(OnceLock::new());
    let received = decoded.and_then(|decoded| {
        let of_path = site.and_then(|site| site.body_max_bytes(head));
        let max = of_path.unwrap_or(plan.reading.limits.body_max_bytes);
        let body = match body((decoded.length, is_chunked), max, input, &body_failure, plan) {
            Ok(body) => body,
            Err(status) => {
                refused_ends = decoded.endpoints;
                return Err(status);
            }
        };
        let forwarding = Forwarding::new(plan.forwarding.clone());
        let applied = forwarding.apply(head, &decoded.endpoints);
        let hidden_client = applied.hides_client(head, &decoded.endpoints);
        let endpoints = match applied {
            Applied::Believed { ends, .. } => ends,
            Applied::Nothing | Applied::Removed => decoded.endpoints,
        };
        Ok((endpoints, hidden_client, body))
    });
    let refused = received.as_ref().err().copied();
    let is_admitted = received.is_ok();
    let https = received.as_ref().is_ok_and(|(endpoints, _, _)| endpoints.https);
    let mut _entered = None;
    let (failed, endpoints) = match received {
        Err(_) => (true, refused_ends),
        Ok((endpoints, hidden_client, body)) => {
            let length = body.as_ref().and_then(|body| body.length());
            let arrival = Arrival {
                head,
                endpoints: &endpoints,
                is_trusted: true,
                length,
                reloads: false,
                hidden_client,
            };
            let failed = match Call::admit(site, arrival) {
                Err(own) => own.send(head, response).is_err(),
                Ok(mut call) => {
                    _entered = Some(call.enter());
                    call.prepare(head);
                    let endpoints = &endpoints;
                    let request =
                        Request { head, body, endpoints, hidden_client, websocket: false, number: 0 };
                    let result = call.respond(application, request, None, response);
                    call.end(head, result, response).is_err()
                }
            };
            (failed, endpoints)
        }
    };
    if failed && !response.started() {
        let policies = site.map(AsRef::as_ref);
        let of_body = || body_failure.get().copied().and_then(refusal);
        let status = refused.or_else(of_body).unwrap_or(500);
        let (page, body) = error_response(policies, head, is_admitted, https, status);
        // If it cannot be sent, flushing says why.
        let _ = response.start(&page, Some(body.len() as u64)).and_then(|()| response.write(&body));
    }
    endpoints
}

/// Fills `head` from the variables. Returns a status if they make no request.
fn decode(
    environment: &[(Vec<u8>, Vec<u8>)],
    plan: &ServerPlan,
    head: &mut RequestHead,
) -> Result<cgi::Decoded, u16> {
    let variables = environment.iter().filter(|(name, _)| is_of_request(name));
    let variables = variables.map(|(name, value)| (name.as_slice(), value.as_slice()));
    let unnamed = Endpoints { unix: false, ..Endpoints::local() };
    // The variables of a program are those of RFC 3875; only those that were packed by a front server are guessed at.
    let mount = match &plan.reading.mount {
        Mount::Automatic => &Mount::AsGiven,
        mount => mount,
    };
    cgi::decode(variables, mount, &unnamed, head).map_err(|error| {
        tracing::error!("refused a request: {error}");
        error.status()
    })
}

/// The body of a request whose variables say that it has `length` bytes, or is in chunks: its server has taken those apart,
/// and only the end of standard input tells the end. Returns a status if it cannot be had.
fn body(
    (length, is_chunked): (Option<u64>, bool),
    max: u64,
    mut input: impl Read + Send + 'static,
    failure: &Arc<OnceLock<io::ErrorKind>>,
    plan: &ServerPlan,
) -> Result<Option<Box<dyn Body>>, u16> {
    match length {
        Some(length) if length > max => return Err(413),
        Some(length) if length > 0 => {
            let failure = Arc::clone(failure);
            return Ok(Some(Box::new(InputBody { input, length, left: length, failure })));
        }
        None if is_chunked => {}
        _ => return Ok(None),
    }
    let (mut spool, mut buffer, mut left) = (BodySpool::default(), vec![0; READ_BYTES], max);
    let memory = Arc::new(BodyMemory::new(plan.reading.bodies_memory_max_bytes));
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => return Ok(spool.finish()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                tracing::error!("cannot read the body of a request: {error}");
                return Err(400);
            }
        };
        left = left.checked_sub(count as u64).ok_or(413u16)?;
        let read = buffer.get(..count).unwrap_or_default();
        spool.push(read, &memory, plan.reading.temp_dir.as_deref()).map_err(|error| {
            tracing::error!("cannot spool a request body to a temporary file: {error}");
            503u16
        })?;
    }
}

/// Standard input, as far as the request goes.
struct InputBody<R> {
    input: R,
    length: u64,
    left: u64,
    /// Why it cannot be read to its end.
    failure: Arc<OnceLock<io::ErrorKind>>,
}

impl<R: Read + Send> Body for InputBody<R> {
    fn length(&self) -> Option<u64> {
        Some(self.length)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.input.read(buffer.get_mut(..most).unwrap_or_default())?;
        if count == 0 && most > 0 {
            self.failure.get_or_init(|| io::ErrorKind::UnexpectedEof);
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the client closed the connection before the end of the body",
            ));
        }
        self.left = self.left.saturating_sub(count as u64);
        Ok(count)
    }

    fn may_block(&self) -> bool {
        true
    }
}

struct CgiResponse<'a, W> {
    output: &'a mut W,
    head_request: bool,
    framing: Option<BodyFraming>,
    announced: Announced,
    body_bytes: u64,
    status: u16,
    /// The head, if the log has fields of it.
    head: Option<ResponseHead>,
    keeps_head: bool,
}

impl<W: Write> CgiResponse<'_, W> {
    /// How many of `length` more bytes may be sent.
    fn allowed(&mut self, length: u64) -> Result<u64, SendError> {
        self.body_bytes = self.body_bytes.saturating_add(length);
        match self.framing {
            None => Err(SendError::Order),
            Some(BodyFraming::Empty) => Ok(0),
            Some(BodyFraming::UntilClose | BodyFraming::Chunked) => Ok(length),
            Some(BodyFraming::Length(_)) => Ok(self.announced.take(length)),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.output.write_all(bytes).map_err(|_| SendError::Disconnected)
    }
}

impl<W: Write> Response for CgiResponse<'_, W> {
    fn entered(&mut self) {}

    fn start(&mut self, head: &ResponseHead, body_length: Option<u64>) -> Result<(), SendError> {
        if self.framing.is_some() {
            return Err(SendError::Order);
        }
        let mut text = Vec::new();
        let framing = cgi::encode_head(&mut text, head, StatusForm::Field, self.head_request, body_length)?;
        self.framing = Some(framing);
        self.announced = Announced::new(self.framing);
        self.status = head.status();
        self.head = self.keeps_head.then(|| head.clone());
        self.put(&text)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        let allowed = usize::try_from(self.allowed(bytes.len() as u64)?).unwrap_or(bytes.len());
        self.put(bytes.get(..allowed).unwrap_or(bytes))
    }

    fn flush(&mut self) -> Result<(), SendError> {
        self.output.flush().map_err(|_| SendError::Disconnected)
    }

    fn hold_back(&mut self) -> bool {
        false
    }

    fn wants_more(&mut self) -> bool {
        wants_more(self.framing, &self.announced, self.body_bytes)
    }

    fn send_file(&mut self, file: OwnedFd, offset: u64, length: u64) -> Result<(), SendError> {
        let file = File::from(file);
        let (mut at, mut left) = (offset, self.allowed(length)?);
        let mut buffer = vec![0; 64 * 1024];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            match file.read_at(buffer.get_mut(..most).unwrap_or_default(), at) {
                // Shorter than was promised: the response ends here and is seen to be broken.
                Ok(0) | Err(_) => return Err(SendError::Disconnected),
                Ok(count) => {
                    self.put(buffer.get(..count).unwrap_or_default())?;
                    at += count as u64;
                    left = left.saturating_sub(count as u64);
                }
            }
        }
        Ok(())
    }

    fn interim(&mut self, _head: &ResponseHead) -> Result<(), SendError> {
        if self.framing.is_some() { Err(SendError::Order) } else { Ok(()) }
    }

    fn started(&self) -> bool {
        self.framing.is_some()
    }

    fn body_bytes(&self) -> u64 {
        self.body_bytes
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use anygate_config::{Plan, Settings};
    use anygate_proto::application::{Failed, LongCall};

    use super::*;

    struct Panics;

    impl Application for Panics {
        fn start_thread(&self, _name: &str, _work: Box<dyn FnMut() + Send>) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn run_signal_handlers(&self) {}

        fn call(&self, _request: Request<'_>, _response: &mut (dyn Response + Send)) -> Result<(), Failed> {
            panic!("it is broken")
        }

        fn attend_to(&self, _call: &LongCall) {}
    }

    #[test]
    fn a_call_that_panics_gets_a_response() {
        let plan = Plan::check(&Settings::default(), Path::new("/")).expect("defaults are right");
        let environment = [("REQUEST_METHOD", "GET"), ("SERVER_PROTOCOL", "HTTP/1.1"), ("SERVER_NAME", "a")]
            .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        let mut output = Vec::new();
        let records = CallRecords::new(None, None, None, None);
        respond(&Panics, None, &environment, &plan.server, &records, io::empty(), &mut output)
            .expect("memory takes all");
        let text = String::from_utf8(output).expect("it is ASCII");
        assert!(text.starts_with("Status: 500 Internal Server Error\r\n"), "{text}");
        assert!(text.ends_with("500 Internal Server Error\n"), "{text}");
    }
}
