//! A server inside a running program: one worker on a thread of this process.

use std::env;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anygate_config::{Concurrency, Plan};
use anygate_lock::Mutex;
use anygate_server::{Ended, Events, Handle, Runner, Service, Tickets, Worker};
use anygate_supervisor::sockets::{self, Socket};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::PyDict;

use crate::loading::{certificates, warn_of_debug, wsgi};
use crate::logs::Logs;
use crate::refusal::Refusal;
use crate::{policies, ready_check, settings};

/// The native half of `anygate.Server`, which documents it.
#[pyclass(frozen, subclass, module = "anygate._anygate")]
pub(crate) struct Server {
    application: Py<PyAny>,
    plan: Plan,
    running: Mutex<Option<Running>>,
    urls: Mutex<Vec<String>>,
}

struct Running {
    /// The process that it runs in. One that this forks has nothing of it.
    process: u32,
    handle: Handle,
    thread: JoinHandle<std::io::Result<Ended>>,
    sockets: Vec<Socket>,
}

#[pymethods]
impl Server {
    #[new]
    #[pyo3(signature = (app, **options))]
    fn new(app: Py<PyAny>, options: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let settings = settings::from_keywords(options)?;
        let plan = Plan::check(&settings, &env::current_dir()?)
            .map_err(|wrong| PyValueError::new_err(wrong.to_string()))?;
        if plan.workers_max() > 1 {
            let message = "workers: a Server is one worker inside this process; anygate.serve() starts more";
            return Err(PyValueError::new_err(message));
        }
        if plan.server.concurrency == Concurrency::Gevent {
            let message =
                "concurrency: a Server runs requests in threads; anygate.serve() supports greenlets";
            return Err(PyValueError::new_err(message));
        }
        if plan.admin.is_wanted() {
            let message = "admin, uwsgi_stats, statsd: a Server has none of these; anygate.serve() has";
            return Err(PyValueError::new_err(message));
        }
        let process = &plan.process;
        if process.max_requests > 0 || process.worker_max_age.is_some() || process.worker_memory_max.is_some()
        {
            let message = "max_requests, worker_max_age, worker_memory_max: a Server is one worker inside this process, which \
                           cannot be replaced; anygate.serve() replaces workers";
            return Err(PyValueError::new_err(message));
        }
        Ok(Server { application: app, plan, running: Mutex::default(), urls: Mutex::default() })
    }

    /// An application may know its server. Whatever is between them can be cleared.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.application)
    }

    fn start(&self, py: Python<'_>) -> PyResult<()> {
        let mut running = self.running.lock();
        if running.is_some() {
            return Err(PyRuntimeError::new_err("the server is running already"));
        }
        let logs =
            Logs::open(&self.plan.log, None).map_err(|refusal| PyOSError::new_err(refusal.to_string()))?;
        warn_of_debug(&self.plan);
        let sockets = sockets::open(&self.plan.binds, &self.plan.socket, false)
            .map_err(|error| PyOSError::new_err(error.to_string()))?;
        let tickets = Tickets::new()
            .map_err(|error| PyOSError::new_err(format!("cannot generate random numbers: {error}")))?;
        let tls = certificates(&self.plan, &tickets)
            .map_err(|refusal| PyValueError::new_err(refusal.to_string()))?;
        let site =
            policies::prepare(&self.plan).map_err(|Refusal(_, message)| PyValueError::new_err(message))?;
        let site = site.map(|site| site.site(0)).transpose();
        let site = site.map_err(|error| PyOSError::new_err(error.to_string()))?;
        if let Some(site) = &site {
            ready_check::start(py, &self.plan.site.health, site.vitals().well())?;
        }
        let application = wsgi(py, self.application.clone_ref(py), &self.plan, false, false)?;
        let shared = |socket: &Socket| Ok((socket.protocol, socket.listener.try_clone()?));
        let shared = sockets.iter().map(shared).collect::<std::io::Result<Vec<_>>>()?;
        let runner = Runner::Threads(std::sync::Arc::new(application), self.plan.server.threads);
        let access_log = logs.access_log();
        let service = Service {
            runner,
            access_log,
            reopen_logs: None,
            write_stacks: None,
            files: None,
            site,
            tls,
            counts: None,
            peers: None,
            requests_max: None,
        };
        let (worker, handle) = Worker::new(&self.plan.server, shared, service, None)?;
        let tender = logs.tender();
        let work = move || {
            let ended = worker.run(Box::new(Keeping(logs)));
            tender.finish();
            ended
        };
        let thread = thread::Builder::new().name("anygate".to_owned()).spawn(work)?;
        *self.urls.lock() = sockets.iter().map(Socket::url).collect();
        *running = Some(Running { process: std::process::id(), handle, thread, sockets });
        Ok(())
    }

    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let ended = py.detach(|| {
            // The lock is held for this line only: no thread waits for it while a worker drains.
            let running = self.running.lock().take();
            let here = running.filter(|running| running.process == std::process::id());
            let Some(Running { handle, thread, sockets, .. }) = here else { return Ok(None) };
            sockets::close(&sockets);
            drop(sockets);
            handle.drain();
            thread.join().map(Some).map_err(|_| ())
        });
        match ended {
            Ok(None | Some(Ok(_))) => Ok(()),
            Ok(Some(Err(error))) => Err(error.into()),
            Err(()) => Err(PyRuntimeError::new_err("the server's thread failed; the error log says why")),
        }
    }

    #[getter]
    fn urls(&self) -> Vec<String> {
        self.urls.lock().clone()
    }
}

/// An embedded worker has no supervisor, and looks after its logs itself.
struct Keeping(Logs);

impl Events for Keeping {
    fn beat(&mut self, _traffic: bool, _held: Option<Duration>) {
        self.0.rotate();
        self.0.tender().tend();
    }
    fn draining(&mut self) {}
    fn retiring(&mut self) {}
}
