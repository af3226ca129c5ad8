//! Load on servers of a few lines: what is counted, and as what.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anygate_load::{ErrorKind, Load, Outcome, Request, run};

const RIGHT: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// Calls `serve` with each connection and its number. Returns where it listens; its threads end with the test program.
fn server(serve: impl Fn(TcpStream, usize) + Send + Sync + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for (number, connection) in listener.incoming().enumerate() {
            let serve = serve.clone();
            thread::spawn(move || serve(connection.expect("a connection"), number));
        }
    });
    address
}

/// Reads a request to the end of its head; `false` when there is none.
fn request(connection: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match connection.read(&mut byte) {
            Ok(1) => head.extend_from_slice(&byte),
            _ => return false,
        }
    }
    true
}

fn load(address: SocketAddr) -> Load {
    Load {
        address,
        requests: vec![Request {
            bytes: b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            status: 200,
            body: Some(b"hello".to_vec()),
        }],
        order: vec![0],
        connections: 2,
        threads: 1,
        duration: Duration::from_millis(500),
        rate: None,
        slow_clients: 0,
        timeout: Duration::from_secs(60),
    }
}

/// Puts load on a server for as long as it takes until there is an outcome of this kind.
fn outcome(mut load: Load, is_enough: impl Fn(&Outcome) -> bool) -> Outcome {
    load.duration = Duration::from_millis(50);
    loop {
        let outcome = run(&load, &AtomicBool::new(false)).expect("a load");
        if is_enough(&outcome) {
            return outcome;
        }
        assert!(load.duration < Duration::from_secs(60), "{outcome:?}");
        load.duration *= 2;
    }
}

fn has_errors(outcome: &Outcome) -> bool {
    !outcome.errors.is_empty()
}

fn kinds(outcome: &Outcome) -> Vec<ErrorKind> {
    outcome.errors.keys().copied().collect()
}

/// Responds to every request with these bytes.
fn always(response: &'static [u8]) -> SocketAddr {
    server(
        move |mut connection, _| {
            while request(&mut connection) && connection.write_all(response).is_ok() {}
        },
    )
}

#[test]
fn right_responses_are_counted_over_all_threads() {
    let address = always(RIGHT);
    let seen = outcome(Load { threads: 2, connections: 3, ..load(address) }, |seen| seen.responses[0] > 10);
    assert_eq!(seen.latencies[0].count(), seen.responses[0]);
    assert_eq!((seen.errors, seen.unfinished), (BTreeMap::new(), 0));
    assert!(seen.received >= seen.responses[0] * RIGHT.len() as u64);
}

#[test]
fn wrong_responses_are_errors_of_their_kind() {
    for (response, kind) in [
        (&b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nhello"[..], ErrorKind::Status),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhallo", ErrorKind::Body),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhell", ErrorKind::Body),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello!\r\n0\r\n\r\n", ErrorKind::Body),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, world", ErrorKind::Malformed),
        (b"220 mail.example ESMTP\r\n", ErrorKind::Malformed),
    ] {
        let seen = outcome(load(always(response)), has_errors);
        assert_eq!(kinds(&seen), [kind], "{response:?}");
        assert_eq!(seen.responses, [0]);
        assert_eq!(seen.statuses.keys().any(|status| *status == 503), kind == ErrorKind::Status);
    }
}

#[test]
fn a_body_that_may_differ_is_not_compared() {
    let mut load = load(always(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nothers"));
    load.requests[0].body = None;
    let seen = outcome(load, |seen| seen.responses[0] > 0);
    assert_eq!(seen.errors, BTreeMap::new());
}

#[test]
fn a_server_that_closes_between_two_responses_makes_no_errors() {
    // One says so, one does not, and one sends bodies that end with the connection.
    for (response, count) in [
        (&b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"[..], 1),
        (RIGHT, 3),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", 1),
    ] {
        let address = server(move |mut connection, _| {
            for _ in 0..count {
                if !request(&mut connection) || connection.write_all(response).is_err() {
                    return;
                }
            }
        });
        let seen = outcome(load(address), |seen| seen.responses[0] > 2 * count);
        assert_eq!(seen.errors, BTreeMap::new());
    }
}

#[test]
fn a_response_that_is_cut_is_an_error() {
    let address = server(|mut connection, _| {
        request(&mut connection);
        connection.write_all(&RIGHT[..RIGHT.len() - 1]).unwrap();
    });
    let seen = outcome(load(address), has_errors);
    assert_eq!(kinds(&seen), [ErrorKind::Closed]);
}

#[test]
fn nobody_who_listens_is_an_error_of_each_connection() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let seen = outcome(load(address), has_errors);
    assert_eq!(kinds(&seen), [ErrorKind::Connect]);
}

#[test]
fn a_request_without_a_response_fails_after_its_timeout() {
    let address = server(|mut connection, _| while request(&mut connection) {});
    let seen = outcome(Load { timeout: Duration::from_millis(50), ..load(address) }, has_errors);
    assert_eq!(kinds(&seen), [ErrorKind::Timeout]);
}

#[test]
fn requests_are_sent_in_the_given_order() {
    let address = always(RIGHT);
    let mut load = Load { order: vec![1, 1, 1, 0, 7], connections: 1, ..load(address) };
    load.requests.push(load.requests[0].clone());
    let seen = outcome(load.clone(), |seen| seen.responses[0] > 1);
    let (first, second) = (seen.responses[0], seen.responses[1]);
    assert!(second >= 3 * first && second <= 3 * first + 3, "{first} {second}");
    assert!(run(&Load { order: vec![7], ..load }, &AtomicBool::new(false)).is_err());
}

#[test]
fn whoever_would_have_come_while_the_server_stood_still_has_waited() {
    // The first response takes 300 ms; the only connection is busy with it. 100 requests become due in each 100 ms of these.
    let address = server(|mut connection, number| {
        let mut waits = number == 0;
        while request(&mut connection) {
            if std::mem::take(&mut waits) {
                thread::sleep(Duration::from_millis(300));
            }
            if connection.write_all(RIGHT).is_err() {
                return;
            }
        }
    });
    let load = Load { connections: 1, rate: Some(1000.0), duration: Duration::from_secs(1), ..load(address) };
    let seen = run(&load, &AtomicBool::new(false)).unwrap();
    let long: u64 =
        seen.latencies[0].counts().filter(|(micros, _)| *micros > 100_000).map(|(_, count)| count).sum();
    assert!(long >= 190, "{long} of {}", seen.latencies[0].count());
    // Everything that was due counts once, whether it has a response or not.
    assert_eq!(seen.responses[0] + seen.unfinished, seen.latencies[0].count());
    assert_eq!(seen.latencies[0].count(), 1000);
}

#[test]
fn slow_clients_send_beside_the_others() {
    let stop = Arc::new(AtomicBool::new(false));
    let slow = Arc::new(AtomicUsize::new(0));
    let (others, count) = (Arc::clone(&stop), Arc::clone(&slow));
    let address = server(move |mut connection, _| {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while connection.read_exact(&mut byte).is_ok() {
            head.extend_from_slice(&byte);
            if head.ends_with(b"\r\n\r\n") {
                head.clear();
                connection.write_all(RIGHT).unwrap_or_default();
            }
            // All three, each with some bytes of a field that goes on.
            if head.ends_with(b"X-Slow: xxx") && count.fetch_add(1, Ordering::SeqCst) == 2 {
                others.store(true, Ordering::SeqCst);
            }
        }
    });
    let load = Load { slow_clients: 3, duration: Duration::from_secs(3600), ..load(address) };
    let seen = run(&load, &stop).unwrap();
    assert_eq!(slow.load(Ordering::SeqCst), 3);
    assert_eq!(seen.errors, BTreeMap::new());
}

#[test]
fn it_ends_when_it_is_stopped() {
    let address = always(RIGHT);
    let stop = AtomicBool::new(true);
    let seen = run(&Load { duration: Duration::from_secs(3600), ..load(address) }, &stop).unwrap();
    assert_eq!(seen.responses, [0]);
}
