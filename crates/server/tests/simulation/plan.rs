//! What happens in one simulation, as its seed says: the worker, its clients, their requests and how they end.

use std::time::Duration;

use anygate_config::{CallLimitsPlan, Plan as ServerPlans, ServerPlan, Settings, Timeouts};

use crate::random::{Random, checksum};

/// Place of a request: its client, and its position on that client's connection.
pub(crate) type Id = (usize, usize);

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) workers: Workers,
    pub(crate) unix: bool,
    /// Response bytes that may wait in memory, and in the spool.
    pub(crate) outbox: (usize, u64),
    pub(crate) body_memory: usize,
    /// The step after which the worker is told to drain; after the last response if there is none.
    pub(crate) drain_at: Option<usize>,
    pub(crate) clients: Vec<ClientPlan>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Workers {
    /// So many app threads.
    Threads(usize),
    /// A hub with so many calls at a time.
    Hub(usize),
}

#[derive(Clone, Debug)]
pub(crate) struct ClientPlan {
    /// Sends requests without waiting for responses.
    pub(crate) pipelines: bool,
    /// Bytes that it sends and receives in one step, at most.
    pub(crate) piece: usize,
    pub(crate) end: End,
    pub(crate) requests: Vec<RequestPlan>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client closes the connection after the last response.
    Close,
    /// The client waits for the worker to close the connection.
    Stay,
    /// The client sends nothing more after its last request, and says so.
    HalfClose,
    /// The same after so many bytes, which may be amid a request.
    CutAfter(usize),
    /// The client resets the connection after so many bytes.
    ResetAfter(usize),
}

#[derive(Clone, Debug)]
pub(crate) struct RequestPlan {
    pub(crate) framing: Framing,
    pub(crate) body_bytes: usize,
    pub(crate) streamed: bool,
    /// The call waits at its gate before it responds.
    pub(crate) gated: bool,
    /// The application flushes the first block before it waits at the gate.
    pub(crate) early: bool,
    pub(crate) response_bytes: usize,
    pub(crate) response_block: usize,
    pub(crate) length_known: bool,
    pub(crate) flushes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length,
    Chunked(usize),
}

impl Plan {
    pub(crate) fn new(seed: u64, hub: bool) -> Plan {
        let random = &mut Random::new(seed);
        let workers = match hub {
            true => Workers::Hub(random.between(1, 6)),
            false => Workers::Threads(random.between(1, 4)),
        };
        let unix = random.chance(30);
        let outbox = if random.chance(40) { (2_000, 5_000) } else { (20_000, 1 << 20) };
        let body_memory = if random.chance(50) { 1_000 } else { 50_000 };
        let drain_at = random.chance(40).then(|| random.below(400));
        let count = random.between(1, 8);
        let mut plan = Plan { seed, workers, unix, outbox, body_memory, drain_at, clients: Vec::new() };
        for client in 0..count {
            let requests = (0..random.between(1, 6)).map(|_| RequestPlan::new(random)).collect();
            plan.clients.push(ClientPlan {
                pipelines: random.chance(60),
                piece: [1, 20, 1_000, 100_000][random.below(4)],
                end: End::Stay,
                requests,
            });
            let length = plan.bytes_of(client).0.len();
            let after = random.below(length + 1);
            plan.clients[client].end = match random.below(8) {
                0 => End::ResetAfter(after),
                1 => End::CutAfter(after),
                2 | 3 => End::HalfClose,
                4 | 5 => End::Close,
                _ => End::Stay,
            };
            if plan.clients[client].piece == 1 && length > 3_000 {
                plan.clients[client].piece = 700;
            }
        }
        plan
    }

    /// The options of the worker. No time limit ends before the simulation is given up.
    pub(crate) fn server(&self) -> ServerPlan {
        let long = Duration::from_secs(600);
        let mut plan = ServerPlans::check(&Settings::default(), &std::env::temp_dir()).unwrap().server;
        (plan.outbox.memory_max_bytes, plan.outbox.spool_max_bytes) = self.outbox;
        plan.outbox.write_timeout = long;
        plan.reading.bodies_memory_max_bytes = self.body_memory;
        plan.reading.body_rate.timeout = long;
        plan.reading.stream_paths = vec!["/stream".to_owned()];
        plan.timeouts = Timeouts { header: long, keepalive: long, write: long, graceful: long, queue: long };
        plan.queue_auto = false;
        plan.call_limits = CallLimitsPlan::default();
        plan
    }

    pub(crate) fn request(&self, id: Id) -> Option<&RequestPlan> {
        self.clients.get(id.0)?.requests.get(id.1)
    }

    /// Returns all bytes that a client sends, and where each request ends in them.
    pub(crate) fn bytes_of(&self, client: usize) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for (index, request) in self.clients[client].requests.iter().enumerate() {
            request.write((client, index), &self.body(client, index), &mut bytes);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn body(&self, client: usize, index: usize) -> Vec<u8> {
        let length = self.clients[client].requests[index].body_bytes;
        Random::bytes(self.seed ^ (client * 1_000 + index) as u64, length)
    }

    /// Checksum of the body of a request.
    pub(crate) fn sum(&self, (client, index): Id) -> u64 {
        checksum(0, &self.body(client, index))
    }

    pub(crate) fn response(&self, (client, index): Id) -> Vec<u8> {
        let length = self.clients[client].requests[index].response_bytes;
        Random::bytes(!self.seed ^ (client * 1_000 + index) as u64, length)
    }
}

impl RequestPlan {
    fn new(random: &mut Random) -> Self {
        let body_bytes = random.size(60_000);
        let framing = match random.below(3) {
            0 => Framing::Chunked(random.between(100, 9_000)),
            _ if body_bytes == 0 => Framing::None,
            _ => Framing::Length,
        };
        RequestPlan {
            framing,
            body_bytes,
            streamed: random.chance(30),
            gated: random.chance(40),
            early: random.chance(30),
            response_bytes: random.size(100_000),
            response_block: random.between(500, 40_000),
            length_known: random.chance(50),
            flushes: random.chance(50),
        }
    }

    fn write(&self, (client, index): Id, body: &[u8], bytes: &mut Vec<u8>) {
        let method = if self.framing == Framing::None { "GET" } else { "POST" };
        let folder = if self.streamed { "stream" } else { "whole" };
        bytes.extend(format!("{method} /{folder}/{client}/{index} HTTP/1.1\r\nHost: a\r\n").bytes());
        match self.framing {
            Framing::None => bytes.extend(b"\r\n"),
            Framing::Length => {
                bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
                bytes.extend(body);
            }
            Framing::Chunked(size) => {
                bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in body.chunks(size) {
                    bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
                    bytes.extend(chunk);
                    bytes.extend(b"\r\n");
                }
                bytes.extend(b"0\r\n\r\n");
            }
        }
    }
}
