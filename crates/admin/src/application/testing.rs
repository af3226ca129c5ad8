//! A tree of two workers, requests, and a response that keeps what it is given.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anygate_config::{LogLevel, Order, WorkerStage};
use anygate_policy::cache::Cache;
use anygate_policy::metrics::{self, Request as Counted};
use anygate_policy::shared_memory::process_row::{self, ProcessRow};
use anygate_policy::shared_memory::route_table::RouteTable;
use anygate_proto::application::{Application, Endpoints, Request, Response, SendError};
use anygate_proto::head::{RequestHead, ResponseHead};

use super::Admin;
use crate::about::About;
use crate::guard::Guard;
use crate::history::History;
use crate::processes::{Processes, Worker};

#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) cache: Option<Arc<Cache>>,
    rows: Arc<Vec<Vec<AtomicU64>>>,
    routes: Option<RouteTable>,
    orders: Arc<Mutex<Option<Vec<Order>>>>,
    pub(crate) token: Option<String>,
}

impl Fake {
    /// Workers 41 and 42, which have responded and are responding; the supervisor; what a worker left that is gone.
    pub(crate) fn serving() -> Fake {
        let row = || (0..process_row::CELLS).map(|_| AtomicU64::new(0)).collect();
        let fake = Fake {
            cache: None,
            rows: Arc::new((0..4).map(|_| row()).collect()),
            routes: None,
            orders: Arc::new(Mutex::new(Some(Vec::new()))),
            token: None,
        };
        for (place, count) in [(0, 3), (1, 1), (3, 5)] {
            fake.count_in(place, count, if place == 3 { 500 } else { 200 });
        }
        fake.row(0).counts().set(metrics::MEMORY, 50 << 20);
        fake.row(0).in_flight().begin(SystemTime::now() - Duration::from_secs(2), b"GET", b"/<slow>");
        fake.row(2).counts().set(metrics::WORKERS, 2);
        fake.row(2).recent().add(UNIX_EPOCH + Duration::from_secs(70), "ERROR worker 40 ended");
        fake.row(0).recent().add(UNIX_EPOCH + Duration::from_secs(80), "WARN odd");
        fake
    }

    /// The same that counts by route.
    pub(crate) fn with_routes(mut self) -> Fake {
        let cells: Vec<_> = (0..RouteTable::CELLS).map(|_| AtomicU64::new(0)).collect();
        self.routes = Some(RouteTable::new(Arc::new(cells)));
        self
    }

    /// Has worker 41 respond so often.
    pub(crate) fn count(&self, count: usize, status: u16) {
        self.count_in(0, count, status);
    }

    fn count_in(&self, place: usize, count: usize, status: u16) {
        for _ in 0..count {
            self.row(place).counts().request(&Counted {
                method: b"GET",
                status,
                duration: Duration::from_millis(20),
                queued: Duration::ZERO,
                lock: Duration::ZERO,
                received: 0,
                sent: 100,
            });
        }
    }

    fn row(&self, place: usize) -> ProcessRow<'_> {
        ProcessRow(&self.rows[place])
    }

    pub(crate) fn orders(&self) -> Vec<Order> {
        self.orders.lock().unwrap().clone().unwrap_or_default()
    }

    pub(crate) fn lose_the_supervisor(&self) {
        *self.orders.lock().unwrap() = None;
    }
}

impl Processes for Fake {
    fn workers(&self) -> Vec<Worker<'_>> {
        [(41, 0, WorkerStage::Serving), (42, 1, WorkerStage::Starting)]
            .map(|(pid, place, stage)| Worker {
                number: place + 1,
                pid,
                since: 60,
                stage,
                row: self.row(place),
            })
            .to_vec()
    }

    fn others(&self) -> [ProcessRow<'_>; 2] {
        [self.row(2), self.row(3)]
    }

    fn routes(&self) -> Option<&RouteTable> {
        self.routes.as_ref()
    }

    fn order(&self, order: Order) -> io::Result<()> {
        match self.orders.lock().unwrap().as_mut() {
            Some(orders) => orders.push(order),
            None => return Err(io::ErrorKind::BrokenPipe.into()),
        }
        Ok(())
    }

    fn stacks(&self, pid: u64) -> io::Result<String> {
        Ok(format!("Thread of {pid}"))
    }
}

pub(crate) fn about() -> About {
    let (version, log_level) = ("9.9", LogLevel::Info);
    About { version, since: UNIX_EPOCH + Duration::from_secs(50), pid: 40, log_level }
}

pub(crate) fn head(method: &str, target: &str, host: &str, fields: &[(&str, &str)]) -> RequestHead {
    let mut head = RequestHead::default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let [method, target, path, query, host] =
        [method, target, path, query, host].map(|text| head.push_text(text.as_bytes()).unwrap());
    head.set_method(method);
    head.set_target(target);
    head.set_path(path);
    head.set_query(query);
    head.set_authority(host);
    for (name, value) in fields {
        let (name, value) =
            (head.push_text(name.as_bytes()).unwrap(), head.push_text(value.as_bytes()).unwrap());
        head.push_field(name, value);
    }
    head
}

/// A response.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) status: u16,
    fields: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Taken {
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
    }
}

pub(crate) fn ask(fake: &Fake, head: &RequestHead) -> Taken {
    let guard = Guard { token: fake.token.clone(), hosts: Vec::new() };
    let history = Arc::new(History::new(fake, SystemTime::now()));
    let admin = Admin::new(about(), guard, Arc::new(fake.clone()), fake.cache.clone(), history);
    let endpoints = Endpoints { server_name: "127.0.0.1".into(), ..Endpoints::default() };
    let mut taken = Taken::default();
    let request = Request {
        head,
        body: None,
        endpoints: &endpoints,
        hidden_client: false,
        websocket: false,
        number: 0,
    };
    assert_eq!(admin.call(request, &mut taken), Ok(()));
    taken
}

impl Response for Taken {
    fn entered(&mut self) {}

    fn start(&mut self, head: &ResponseHead, body_length: Option<u64>) -> Result<(), SendError> {
        assert!(body_length.is_some());
        self.status = head.status();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        self.fields = head.fields().map(|(name, value)| (text(name), text(value))).collect();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.body.push_str(std::str::from_utf8(bytes).unwrap());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SendError> {
        Ok(())
    }

    fn hold_back(&mut self) -> bool {
        true
    }

    fn send_file(&mut self, _file: OwnedFd, _offset: u64, _length: u64) -> Result<(), SendError> {
        Err(SendError::Order)
    }

    fn interim(&mut self, _head: &ResponseHead) -> Result<(), SendError> {
        Ok(())
    }

    fn started(&self) -> bool {
        self.status != 0
    }

    fn body_bytes(&self) -> u64 {
        self.body.len() as u64
    }
}
