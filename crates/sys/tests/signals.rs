//! Signals change the whole process, so they are tested in a process of their own, one after another.

use std::os::fd::AsFd;
use std::time::Duration;

use anygate_sys::process::{self, Ended, Fork};
use anygate_sys::signals::{Signal, Signals};
use anygate_sys::{poll, shared::Board};
use std::sync::atomic::Ordering;

#[test]
fn a_child_sees_its_own_signals_and_its_parent_its_own() {
    let signals = Signals::install(&[Signal::Usr1, Signal::Chld]).unwrap();
    let board = Board::new(1, 1).unwrap();
    let ready = board.cell(0, 0).unwrap();
    // This test binary has one more thread (the harness), which is not in the child; the child only uses what is here.
    match process::fork().unwrap() {
        Fork::Child => {
            let own = Signals::install(&[Signal::Term]).unwrap();
            ready.store(1, Ordering::Release);
            let came = poll::wait_readable(own.as_fd(), Some(Duration::from_secs(60))).unwrap();
            process::exit_now(if came && own.take() == [Signal::Term] { 42 } else { 1 });
        }
        Fork::Parent(pid) => {
            while ready.load(Ordering::Acquire) == 0 {
                std::thread::yield_now();
            }
            process::kill(pid, Signal::Term).unwrap();
            assert!(poll::wait_readable(signals.as_fd(), Some(Duration::from_secs(60))).unwrap());
            assert_eq!(signals.take(), [Signal::Chld], "the child's TERM must not show up here");
            assert_eq!(process::reap().unwrap(), Some((pid, Ended::Exited(42))));
            assert_eq!(process::reap().unwrap(), None);
            process::kill(pid, Signal::Term).unwrap();
            assert!(!process::exists(pid));
        }
    }
}
