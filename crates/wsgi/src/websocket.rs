//! WebSockets for applications: the object behind `environ['wsgi.websocket']`, with the interface of gevent-websocket, and
//! connections that a library takes over to speak WebSocket itself. `anygate.websocket` is the Python half.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once, OnceLock};
use std::time::{Duration, Instant};

use anygate_lock::Mutex;
use anygate_proto::application::{Received, SendError, Socket};
use anygate_proto::head::ResponseHead;
use anygate_proto::websocket::{Kind, code};
use pyo3::exceptions::{PyConnectionError, PyOSError, PyStopIteration, PyTimeoutError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyBytes, PyDict, PyString};

use crate::call::Call;
use crate::start_response::{StartResponse, add_fields};

pyo3::create_exception!(
    anygate.websocket,
    WebSocketError,
    PyOSError,
    "The WebSocket is closed, or was used in a way that it cannot be."
);

/// One request's WebSocket. It is accepted by its first use, or without it when the application holds it for a while
/// (`anygate.websocket`).
#[pyclass(frozen, weakref, module = "anygate.websocket")]
pub struct WebSocket {
    start_response: Py<StartResponse>,
    /// Gone when the call is over, since the dictionary has us.
    environ: Mutex<Option<Py<PyDict>>>,
    socket: OnceLock<Arc<dyn Socket>>,
    /// Held while it is accepted, which any thread may do.
    accepting: Mutex<()>,
    /// It was accepted without a word of the application.
    unasked: AtomicBool,
    /// The application knows that it is closed.
    told: AtomicBool,
    /// Readable when there is news, if the application asked for that.
    signal: Mutex<Option<(UnixStream, Arc<UnixStream>)>>,
}

impl WebSocket {
    /// Makes the WebSocket for the application that gets `environ`.
    pub(crate) fn new<'py>(
        start_response: &Bound<'py, StartResponse>,
        environ: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, WebSocket>> {
        let socket = WebSocket {
            start_response: start_response.clone().unbind(),
            environ: Mutex::new(Some(environ.clone().unbind())),
            socket: OnceLock::new(),
            accepting: Mutex::default(),
            unasked: AtomicBool::new(false),
            told: AtomicBool::new(false),
            signal: Mutex::default(),
        };
        Bound::new(environ.py(), socket)
    }

    /// Has something done whenever a message came, or the client closed.
    pub(crate) fn on_news(&self, py: Python<'_>, news: Box<dyn Fn() + Send + Sync>) -> PyResult<()> {
        self.accepted(py)?.on_news(news);
        Ok(())
    }

    /// The call is over. Returns what it failed with, unless that [is its end](Self::is_end).
    pub(crate) fn end(slf: &Bound<'_, WebSocket>, result: PyResult<()>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let environ = this.environ.lock().take();
        drop(environ);
        py.import("anygate.websocket")?.call_method0(intern!(py, "withdraw"))?;
        // It may be accepted at this moment, by a thread that needs the interpreter no more.
        py.detach(|| this.close_refused());
        match result {
            Err(error) if this.is_end(py, &error) => Ok(()),
            result => result,
        }
    }

    /// Whether an exception only says that the client is gone, or that a library took the connection over and wants no
    /// response.
    pub(crate) fn is_end(&self, py: Python<'_>, error: &PyErr) -> bool {
        match self.socket.get() {
            Some(socket) => socket.is_closed() && error.is_instance_of::<WebSocketError>(py),
            None => {
                self.call().is_upgraded()
                    && (error.is_instance_of::<PyConnectionError>(py)
                        || error.is_instance_of::<PyStopIteration>(py))
            }
        }
    }

    fn call(&self) -> &Call {
        &self.start_response.get().call
    }

    /// The socket, accepted if it was not.
    fn accepted(&self, py: Python<'_>) -> PyResult<&Arc<dyn Socket>> {
        match self.socket.get() {
            Some(socket) => Ok(socket),
            None => self.accept_with(py, None, &ResponseHead::new(), false).map(|(socket, _)| socket),
        }
    }

    /// Returns the socket, and whether it was accepted just now and in this way. `unasked`: without a word of the
    /// application.
    fn accept_with(
        &self,
        py: Python<'_>,
        protocol: Option<&[u8]>,
        head: &ResponseHead,
        unasked: bool,
    ) -> PyResult<(&Arc<dyn Socket>, bool)> {
        py.detach(|| {
            let _one_at_a_time = self.accepting.lock();
            if let Some(socket) = self.socket.get() {
                return Ok((socket, false));
            }
            // What the application then writes is dropped, and it may end at once.
            self.unasked.store(unasked, Ordering::Relaxed);
            let accepted = self.call().upgrade(|response| response.accept_websocket(head, protocol))?;
            let accepted = accepted.map_err(send_error)?;
            Ok((self.socket.get_or_init(|| accepted), true))
        })
    }

    /// The application responds as if it had not been accepted: its client is told why it is closed.
    fn close_refused(&self) {
        let _one_at_a_time = self.accepting.lock();
        let (Some(socket), true) = (self.socket.get(), self.unasked.load(Ordering::Relaxed)) else { return };
        let head = self.call().head();
        let Some(head) = head.as_ref().filter(|head| head.status() >= 400) else { return };
        let reason = format!("{} {}", head.status(), String::from_utf8_lossy(head.reason()));
        socket
            .close(if head.status() < 500 { code::POLICY } else { code::INTERNAL_ERROR }, reason.trim_end());
        static TOLD: Once = Once::new();
        TOLD.call_once(|| {
            tracing::warn!(
                "the application refused a WebSocket ({reason}) that had been accepted while it held it; the client \
                 sees a close instead of the status (websocket_accept_after)"
            );
        });
    }

    fn of_environ(&self, py: Python<'_>, key: &str) -> PyResult<Option<Py<PyAny>>> {
        let environ = self.environ.lock();
        match environ.as_ref() {
            Some(environ) => Ok(environ.bind(py).get_item(key)?.map(Bound::unbind)),
            None => Ok(None),
        }
    }

    /// What there is to receive.
    fn take(&self, socket: &dyn Socket) -> Received {
        let received = socket.try_receive();
        if received == Received::Nothing
            && let Some((read, write)) = &*self.signal.lock()
        {
            let mut bytes = [0; 64];
            while matches!((&*read).read(&mut bytes), Ok(count) if count > 0) {}
            // What came between the two was told of in vain.
            let received = socket.try_receive();
            if received != Received::Nothing {
                ring(write);
            }
            return received;
        }
        received
    }

    fn dead(&self) -> PyErr {
        WebSocketError::new_err("the WebSocket is closed")
    }
}

/// What a failure to send is here.
fn send_error(error: SendError) -> PyErr {
    match error {
        SendError::Subprotocol => PyValueError::new_err(error.to_string()),
        SendError::Disconnected => WebSocketError::new_err("the WebSocket is closed"),
        _ => WebSocketError::new_err(error.to_string()),
    }
}

#[pymethods]
impl WebSocket {
    /// The environ has this object, and an application may keep either.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // The holder of the lock uses the environ, so that it is not garbage.
        self.environ.try_lock().map_or(Ok(()), |environ| visit.call(&*environ))
    }

    fn __clear__(&self) {
        let environ = self.environ.lock().take();
        drop(environ);
    }

    /// Accepts the WebSocket; `subprotocol` is one of those that the client named, `headers` are added to the response.
    #[pyo3(signature = (subprotocol = None, headers = None))]
    fn accept(
        &self,
        py: Python<'_>,
        subprotocol: Option<&str>,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let mut head = ResponseHead::new();
        if let Some(headers) = headers {
            add_fields(&mut head, headers)?;
        }
        let (_, is_new) = self.accept_with(py, subprotocol.map(str::as_bytes), &head, false)?;
        let asks_for_nothing = subprotocol.is_none() && headers.is_none();
        if is_new || (asks_for_nothing && self.unasked.swap(false, Ordering::Relaxed)) {
            return Ok(());
        }
        let why = match self.unasked.load(Ordering::Relaxed) {
            true => ", since the application held it without using it (websocket_accept_after)",
            false => "",
        };
        Err(WebSocketError::new_err(format!("the WebSocket was accepted already{why}")))
    }

    /// Whether the application has neither used it nor begun another response.
    fn is_undecided(&self, py: Python<'_>) -> bool {
        let call = self.call();
        self.socket.get().is_none()
            && !call.is_upgraded()
            && !call.has_head()
            && matches!(py.detach(|| call.is_started()), Ok(false))
    }

    /// Accepts it without a word of the application.
    fn accept_unasked(&self, py: Python<'_>) -> PyResult<()> {
        self.accept_with(py, None, &ResponseHead::new(), true).map(|_| ())
    }

    /// The next message: `str` for text, `bytes` for others, `None` when the WebSocket is closed. Raises TimeoutError when
    /// none came in `timeout` seconds.
    #[pyo3(signature = (timeout = None))]
    fn receive(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Py<PyAny>>> {
        let socket = self.accepted(py)?;
        let longest = match timeout.map(Duration::try_from_secs_f64) {
            None => None,
            Some(Ok(longest)) => Some(longest),
            Some(Err(error)) => return Err(PyValueError::new_err(error.to_string())),
        };
        let until = longest.and_then(|longest| Instant::now().checked_add(longest));
        loop {
            match self.take(socket.as_ref()) {
                Received::Message(message) => return python(py, message.kind, &message.data).map(Some),
                Received::Closed(_) if self.told.swap(true, Ordering::Relaxed) => return Err(self.dead()),
                Received::Closed(_) => return Ok(None),
                Received::Nothing => {
                    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
                    if !py.detach(|| socket.wait(left)) {
                        return Err(PyTimeoutError::new_err("no message came in time"));
                    }
                }
            }
        }
    }

    /// As `receive`, but raises WebSocketError when the WebSocket is closed.
    fn read_message(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.receive(py, None)?.ok_or_else(|| self.dead())
    }

    /// The next message, if one is there: `None` if not. Raises WebSocketError when the WebSocket is closed.
    fn receive_nowait(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        match self.take(self.accepted(py)?.as_ref()) {
            Received::Message(message) => python(py, message.kind, &message.data).map(Some),
            Received::Nothing => Ok(None),
            Received::Closed(_) => {
                self.told.store(true, Ordering::Relaxed);
                Err(self.dead())
            }
        }
    }

    /// Sends a message: as text if it is a `str`, unless `binary` says otherwise.
    #[pyo3(signature = (message, binary = None))]
    fn send(&self, py: Python<'_>, message: &Bound<'_, PyAny>, binary: Option<bool>) -> PyResult<()> {
        let is_text = message.is_instance_of::<PyString>();
        let kind = if binary.unwrap_or(!is_text) { Kind::Binary } else { Kind::Text };
        let socket = self.accepted(py)?;
        let with = |data: &[u8]| {
            if kind == Kind::Text && !is_text && std::str::from_utf8(data).is_err() {
                return Err(PyValueError::new_err("a text message must be UTF-8"));
            }
            py.detach(|| socket.send(kind, data)).map_err(send_error)
        };
        if let Ok(text) = message.cast::<PyString>() {
            return with(text.to_str()?.as_bytes());
        }
        // Anything that has bytes.
        let bytes = match message.cast::<PyBytes>() {
            Ok(bytes) => bytes.clone(),
            Err(_) => message
                .py()
                .import("builtins")?
                .call_method1(intern!(message.py(), "memoryview"), (message,))?
                .call_method0(intern!(message.py(), "tobytes"))?
                .cast_into::<PyBytes>()?,
        };
        with(bytes.as_bytes())
    }

    /// Sends a frame of gevent-websocket's opcodes: text 1, binary 2, close 8, ping 9.
    fn send_frame(&self, py: Python<'_>, message: &Bound<'_, PyAny>, opcode: u8) -> PyResult<()> {
        match opcode {
            1 => self.send(py, message, Some(false)),
            2 => self.send(py, message, Some(true)),
            8 => self.close(py, code::NORMAL, None),
            9 => {
                let payload = match message.cast::<PyString>() {
                    Ok(text) => text.to_str()?.as_bytes().to_vec(),
                    Err(_) => message.extract()?,
                };
                let socket = self.accepted(py)?;
                py.detach(|| socket.ping(&payload)).map_err(send_error)
            }
            _ => Err(WebSocketError::new_err("frames are sent with the opcodes 1, 2, 8 and 9")),
        }
    }

    /// Closes with a code and a reason (`str` or `bytes`). Nothing happens when it is closed already.
    #[pyo3(signature = (code = 1000, message = None))]
    fn close(&self, py: Python<'_>, code: u16, message: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let reason = match message {
            None => String::new(),
            Some(message) => match message.cast::<PyString>() {
                Ok(text) => text.to_str()?.to_owned(),
                Err(_) => String::from_utf8_lossy(message.cast::<PyBytes>()?.as_bytes()).into_owned(),
            },
        };
        let socket = self.accepted(py)?;
        py.detach(|| socket.close(code, &reason));
        Ok(())
    }

    /// A descriptor that is readable while there may be something to receive.
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        let socket = self.accepted(py)?;
        let mut signal = self.signal.lock();
        if signal.is_none() {
            let (read, write) = UnixStream::pair()?;
            read.set_nonblocking(true)?;
            write.set_nonblocking(true)?;
            let write = Arc::new(write);
            let bell = Arc::clone(&write);
            socket.on_news(Box::new(move || ring(&bell)));
            *signal = Some((read, write));
        }
        Ok(signal.as_ref().map_or(-1, |(read, _)| read.as_raw_fd()))
    }

    /// Takes the connection over: gives the number of an open socket with its bytes. Nothing else can be used then.
    fn detach(&self, py: Python<'_>) -> PyResult<i32> {
        let end: OwnedFd =
            py.detach(|| self.call().upgrade(|response| response.take_over()))?.map_err(send_error)?;
        debug_assert!(end.as_raw_fd() >= 0, "it is open");
        Ok(end.into_raw_fd())
    }

    /// Whether nothing more can be sent.
    #[getter]
    fn closed(&self) -> bool {
        self.socket.get().is_some_and(|socket| socket.is_closed())
    }

    /// The request's environ; `None` when its call is over.
    #[getter]
    fn environ(&self, py: Python<'_>) -> Option<Py<PyDict>> {
        let environ = self.environ.lock();
        environ.as_ref().map(|environ| environ.clone_ref(py))
    }

    /// PATH_INFO.
    #[getter]
    fn path(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.of_environ(py, "PATH_INFO")
    }

    /// The page that opened the WebSocket, if a browser did.
    #[getter]
    fn origin(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.of_environ(py, "HTTP_ORIGIN")
    }

    /// The version of the protocol.
    #[getter]
    fn version(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.of_environ(py, "HTTP_SEC_WEBSOCKET_VERSION")
    }

    /// The subprotocol that was agreed on.
    #[getter]
    fn protocol(&self) -> Option<String> {
        let protocol = self.socket.get()?.protocol()?;
        Some(String::from_utf8_lossy(protocol).into_owned())
    }
}

/// Makes the other end readable. Where it cannot be done it is so already.
fn ring(bell: &UnixStream) {
    let mut bell = bell;
    drop(bell.write(b"!"));
}

/// A message as Python has it.
fn python(py: Python<'_>, kind: Kind, data: &[u8]) -> PyResult<Py<PyAny>> {
    match kind {
        Kind::Binary => Ok(PyBytes::new(py, data).into_any().unbind()),
        Kind::Text => {
            let text = std::str::from_utf8(data).map_err(|error| PyValueError::new_err(error.to_string()))?;
            Ok(PyString::new(py, text).into_any().unbind())
        }
    }
}
