//! A WebSocket that an application has accepted. Its client speaks with the server, the application with us, and whole
//! messages go from one to the other, each way on a thread of its own: so it is the same over HTTP/1.1 and HTTP/2, with
//! compression and without.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anygate_lock::{Condvar, Mutex};
use anygate_proto::application::{Call, Failed, HubQueue, Received, Socket};
use anygate_proto::head::ResponseHead;
use anygate_proto::websocket::encoder::{encode_client_close, encode_pong};
use anygate_proto::websocket::frame::{Opcode, encode_head};
use anygate_proto::websocket::{Decoder, Event, Limits, code};

/// Longest message of an application. Those of clients have the server's limit.
const LIMITS: Limits = Limits { message_max_bytes: 64 << 20, fragments_max: 1 << 17 };
const PIECE_BYTES: usize = 16 * 1024;
/// The threads' own need is small.
const STACK_BYTES: usize = 256 * 1024;
/// How long the room of a slow client is waited for before another look.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Fields that the server writes itself.
const OWN_FIELDS: [&str; 4] = ["sec-websocket-accept", "sec-websocket-extensions", "date", "server"];

/// What the thread of a WebSocket and that of the hub have in common.
#[derive(Default)]
pub(crate) struct Link {
    /// There may be room for a slow client.
    news: Mutex<bool>,
    told: Condvar,
    /// The call, when it is over, with its result.
    ended: Mutex<Option<Ended>>,
}

/// A call and its result.
type Ended = (Box<dyn Call>, Result<(), Failed>);

impl Link {
    /// Wakes the thread that waits for room.
    pub(crate) fn wake(&self) {
        *self.news.lock() = true;
        self.told.notify_all();
    }

    /// The call, if it is over.
    pub(crate) fn take_ended(&self) -> Option<Ended> {
        self.ended.lock().take()
    }

    fn wait(&self) {
        let mut news = self.news.lock();
        if !*news {
            news = self.told.wait_timeout(news, LOOK_AGAIN);
        }
        *news = false;
    }
}

/// Accepts the WebSocket of `call` as the application has, in `head`, and passes messages on from then on. `early`: what came
/// behind the head. `queue` is told of the number of the call when it has ended. `None`: that cannot be, and the call is over.
pub(crate) fn start(
    mut call: Box<dyn Call>,
    queue: Arc<dyn HubQueue>,
    head: &ResponseHead,
    stream: mio::net::UnixStream,
    early: Vec<u8>,
) -> Option<Arc<Link>> {
    let stream = UnixStream::from(stream);
    let mut fields = ResponseHead::new();
    let own = |name: &[u8]| OWN_FIELDS.iter().any(|own| name.eq_ignore_ascii_case(own.as_bytes()));
    let is_protocol = |name: &[u8]| name.eq_ignore_ascii_case(b"sec-websocket-protocol");
    for (name, value) in head.fields().filter(|(name, _)| !own(name) && !is_protocol(name)) {
        // It was a field before.
        let _ = fields.push_field(name, value);
    }
    let accepted = stream.set_nonblocking(false).map_err(|error| error.to_string()).and_then(|()| {
        call.accept_websocket(&fields, head.field("sec-websocket-protocol"))
            .map_err(|error| error.to_string())
    });
    let socket = match accepted {
        Ok(socket) => socket,
        Err(error) => {
            call.within(&mut |_| tracing::warn!("cannot accept a WebSocket: {error}"));
            call.finish(Err(Failed));
            return None;
        }
    };
    let link = Arc::new(Link::default());
    let shared = Arc::clone(&link);
    let work = move || {
        let result = carry(call.as_mut(), &socket, &stream, early, &shared);
        if let Err(error) = &result {
            call.within(&mut |_| tracing::warn!("a WebSocket ends: {error}"));
        }
        let number = call.number();
        // A call ends on the hub's thread.
        *shared.ended.lock() = Some((call, result.map_err(|_| Failed)));
        queue.tell(number);
    };
    match thread::Builder::new().name("websocket".to_owned()).stack_size(STACK_BYTES).spawn(work) {
        Ok(_) => Some(link),
        Err(error) => {
            // The call went with the thread, and has failed.
            tracing::warn!("cannot start a thread for a WebSocket: {error}");
            None
        }
    }
}

/// Carries messages both ways until either side ends.
fn carry(
    call: &mut (dyn Call + 'static),
    socket: &Arc<dyn Socket>,
    stream: &UnixStream,
    early: Vec<u8>,
    link: &Link,
) -> io::Result<()> {
    let writer = Mutex::new(stream.try_clone()?);
    thread::scope(|scope| {
        let upstream = thread::Builder::new()
            .name("websocket".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || {
                // The application reads no more; its end shows where it is read.
                let _ = to_application(socket.as_ref(), &writer);
                let _ = stream.shutdown(Shutdown::Both);
            });
        if let Err(error) = upstream {
            socket.close(code::INTERNAL_ERROR, "");
            return Err(error);
        }
        let (number, reason) = to_client(call, socket.as_ref(), stream, &writer, early, link);
        socket.close(number, &reason);
        // So that the other thread has nothing to wait for.
        let _ = stream.shutdown(Shutdown::Both);
        Ok(())
    })
}

/// Carries what the client sends, until it ends.
fn to_application(socket: &dyn Socket, writer: &Mutex<UnixStream>) -> io::Result<()> {
    loop {
        socket.wait(None);
        match socket.try_receive() {
            Received::Message(message) => {
                let head = encode_head(Opcode::Data(message.kind), false, message.data.len()).of_client();
                let mut writer = writer.lock();
                writer.write_all(head.as_ref())?;
                writer.write_all(&message.data)?;
            }
            Received::Nothing => {}
            Received::Closed(close) => {
                let number = close.code.unwrap_or(code::NONE);
                if number != code::ABNORMAL {
                    let mut bytes = Vec::new();
                    encode_client_close(&mut bytes, number, &close.reason);
                    writer.lock().write_all(&bytes)?;
                }
                return Ok(());
            }
        }
    }
}

/// Carries what the application sends, until it ends; returns what the client is to be told.
fn to_client(
    call: &mut (dyn Call + 'static),
    socket: &dyn Socket,
    mut stream: &UnixStream,
    writer: &Mutex<UnixStream>,
    early: Vec<u8>,
    link: &Link,
) -> (u16, String) {
    let lost = || (code::INTERNAL_ERROR, String::new());
    let (mut decoder, mut input, mut piece) = (Decoder::of_server(LIMITS), early, vec![0; PIECE_BYTES]);
    loop {
        while !input.is_empty() {
            let step = match decoder.decode(&input) {
                Ok(step) => step,
                Err(error) => return (error.code(), String::new()),
            };
            input.drain(..step.consumed);
            match step.event {
                None | Some(Event::Pong(_)) => {}
                Some(Event::Message(message)) => {
                    wait_for_room(call, link);
                    if socket.send(message.kind, &message.data).is_err() {
                        return lost();
                    }
                }
                Some(Event::Ping(payload)) => {
                    let mut pong = Vec::new();
                    encode_pong(&mut pong, &payload);
                    let head = encode_head(Opcode::Pong, false, payload.len()).of_client();
                    let mut writer = writer.lock();
                    let sent = writer.write_all(head.as_ref()).and_then(|()| writer.write_all(&payload));
                    if sent.is_err() {
                        return lost();
                    }
                }
                Some(Event::Close(close)) => return (close.code.unwrap_or(code::NONE), close.reason),
            }
        }
        match stream.read(&mut piece) {
            Ok(0) => return lost(),
            Ok(count) => input.extend_from_slice(piece.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return lost(),
        }
    }
}

/// Waits while the client is too slow to take what was sent before.
fn wait_for_room(call: &mut (dyn Call + 'static), link: &Link) {
    while !call.has_room() {
        call.want_news();
        if call.has_room() {
            return;
        }
        link.wait();
    }
}
