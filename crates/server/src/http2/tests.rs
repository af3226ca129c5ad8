//! HTTP/2 over a pair of sockets: bodies that are read while they arrive, and a panic inside `h2`.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use anygate_config::{Plan, Protocol, Settings};
use anygate_proto::http2;
use http::Response;

use super::{Http2, Turn, Waits};
use crate::attention::Attention;
use crate::exchange::RequestBody;
use crate::outbox::Pipe;
use crate::rules::{Around, ReadRules, Rules};
use crate::transport::{Http2Stream, StreamHome, Transport};

struct Failing;

impl Wake for Failing {
    fn wake(self: Arc<Self>) {
        panic!("meant to fail");
    }
}

/// Those of a worker whose readers wait in a loop of their own.
fn rules(stream_paths: Vec<String>) -> ReadRules {
    let mut plan = Plan::check(&Settings::default(), &std::env::temp_dir()).unwrap().server;
    plan.websocket.over_http2 = false;
    plan.reading.stream_paths = stream_paths;
    plan.reading.bodies_memory_max_bytes = 1000;
    plan.reading.body_rate.timeout = Duration::from_secs(1);
    let around = Around {
        access_log: None,
        files: None,
        site: None,
        tls: None,
        counts: None,
        tracer: None,
        routes: None,
        peers: None,
    };
    Rules::new(plan, around, None, false).read
}

fn attention() -> Arc<Attention> {
    let poll = mio::Poll::new().unwrap();
    Arc::new(Attention::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap(), None))
}

/// A pipe to a client.
fn pipe() -> (Arc<Pipe>, UnixStream) {
    let (ours, client) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Arc::new(Pipe::new(Transport::Plain(OwnedFd::from(ours).into()))), client)
}

#[test]
fn a_streamed_body_calls_its_stream_when_more_came() {
    let (rules, attention, (pipe, mut client)) = (rules(vec!["/".to_owned()]), attention(), pipe());
    let home = StreamHome { attention: &attention, parent: 0 };
    let mut hello = http2::PREFACE.to_vec();
    hello.extend(b"\0\0\0\x04\0\0\0\0\0");
    hello.extend([0, 0, 6, 1, 4, 0, 0, 0, 1, 0x83, 0x86, 0x84, 0x01, 1, b'a']);
    let now = Instant::now();
    let mut http2 = Http2::new(pipe, (Arc::default(), Protocol::Http), hello, &rules, now);
    let (mut spare, mut arrived) = (Vec::new(), Vec::new());
    http2.advance(&mut Turn { now, rules: &rules, spare: &mut spare, arrived: &mut arrived });
    let (mut exchange, _stream) = http2.stream(arrived.pop().unwrap(), 7, &rules, &home);
    let RequestBody::Received(mut body) = std::mem::take(&mut exchange.body) else { panic!("no body") };
    let mut buffer = [0; 10];
    assert_eq!(body.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert!(http2.take_called().is_empty());
    client.write_all(b"\0\0\x04\0\x01\0\0\0\x01more").unwrap();
    http2.set_readable(false);
    http2.advance(&mut Turn { now, rules: &rules, spare: &mut spare, arrived: &mut arrived });
    assert_eq!(http2.take_called(), [7]);
    assert_eq!(body.read(&mut buffer).unwrap(), 4);
    assert_eq!(body.read(&mut buffer).unwrap(), 0);
}

#[test]
fn a_panic_inside_h2_ends_only_its_connection() {
    let (rules, attention, (pipe, mut client)) = (rules(Vec::new()), attention(), pipe());
    let home = StreamHome { attention: &attention, parent: 0 };
    // Settings that open no window, and two requests.
    let mut hello = http2::PREFACE.to_vec();
    hello.extend(b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0");
    for stream in [1, 3] {
        hello.extend([0, 0, 6, 1, 5, 0, 0, 0, stream, 0x82, 0x86, 0x84, 0x01, 1, b'a']);
    }
    let now = Instant::now();
    let mut http2 = Http2::new(pipe, (Arc::default(), Protocol::Http), hello, &rules, now);
    let (mut spare, mut arrived) = (Vec::new(), Vec::new());
    http2.advance(&mut Turn { now, rules: &rules, spare: &mut spare, arrived: &mut arrived });
    let streams: Vec<Http2Stream> =
        arrived.drain(..).map(|arrival| http2.stream(arrival, 1, &rules, &home).1).collect();
    let [first, second] = &streams[..] else { panic!("two requests came") };
    for stream in [first, second] {
        stream.start(Response::new(()), false).unwrap();
    }
    let waker = Waker::from(Arc::new(Failing));
    first.want_room(&waker);
    // The reset wakes the thread that waits for room, while h2 holds its locks.
    client.write_all(b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08").unwrap();
    http2.set_readable(false);
    http2.advance(&mut Turn { now, rules: &rules, spare: &mut spare, arrived: &mut arrived });
    assert_eq!(http2.waits(), Waits::Over);
    assert!(second.is_reset());
    assert_eq!(second.send(b"x").unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    drop(streams);
    drop(http2);
}

#[test]
fn what_was_given_is_sent_before_a_reset_however_long_the_socket_is_full() {
    let (rules, attention, (pipe, mut client)) = (rules(Vec::new()), attention(), pipe());
    let home = StreamHome { attention: &attention, parent: 0 };
    let mut hello = http2::PREFACE.to_vec();
    hello.extend(b"\0\0\0\x04\0\0\0\0\0");
    hello.extend([0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84, 0x01, 1, b'a']);
    let now = Instant::now();
    let mut http2 = Http2::new(Arc::clone(&pipe), (Arc::default(), Protocol::Http), hello, &rules, now);
    let (mut spare, mut arrived) = (Vec::new(), Vec::new());
    let mut advance = |http2: &mut Http2| {
        http2.advance(&mut Turn { now, rules: &rules, spare: &mut spare, arrived: &mut arrived });
        arrived.pop()
    };
    let arrival = advance(&mut http2).unwrap();
    let (_, stream) = http2.stream(arrival, 1, &rules, &home);

    while pipe.stream().send(&[0; 4096]).is_ok() {}
    stream.start(Response::new(()), false).unwrap();
    assert_eq!(stream.send(b"some of it").unwrap(), 10);
    stream.reset();
    drop(stream);
    advance(&mut http2);
    assert_eq!(http2.waits(), Waits::Client);
    client.set_nonblocking(true).unwrap();
    let mut sent = Vec::new();
    assert_eq!(client.read_to_end(&mut sent).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    advance(&mut http2);
    assert_eq!(client.read_to_end(&mut sent).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let (given, reset) = sent.split_at(sent.len() - 13);
    assert!(given.ends_with(b"some of it"));
    assert_eq!(reset, [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
}

#[test]
fn all_requests_of_one_read_arrive_and_those_that_are_malformed_are_reset() {
    let (rules, (pipe, mut client)) = (rules(Vec::new()), pipe());
    let mut hello = http2::PREFACE.to_vec();
    hello.extend(b"\0\0\0\x04\0\0\0\0\0");
    let malformed = b"\x82\x86\x84\x01\x01a\0\x01x\x02 b";
    let good = b"\x82\x86\x84\x01\x01a";
    for (stream, fields) in [(1, &good[..]), (3, malformed), (5, good), (7, malformed)] {
        let length = u8::try_from(fields.len()).unwrap();
        hello.extend([0, 0, length, 1, 5, 0, 0, 0, stream]);
        hello.extend(fields);
    }
    let now = Instant::now();
    let mut http2 = Http2::new(pipe, (Arc::default(), Protocol::Http), hello, &rules, now);
    let (mut spare, mut arrived) = (Vec::new(), Vec::new());
    http2.advance(&mut Turn { now, rules: &rules, spare: &mut spare, arrived: &mut arrived });
    assert_eq!(arrived.len(), 2);
    client.set_nonblocking(true).unwrap();
    let mut sent = Vec::new();
    assert_eq!(client.read_to_end(&mut sent).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let resets = [3, 7].map(|stream| [0, 0, 4, 3, 0, 0, 0, 0, stream, 0, 0, 0, 1]);
    assert!(sent.ends_with(&resets.concat()), "{sent:?}");
}
