//! A timer that is a descriptor, for a loop that waits for others too, and for less than a millisecond.

pub use crate::os::timer::Timer;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;
    use crate::poll::{is_readable, wait_readable};

    #[test]
    fn it_can_be_read_when_its_time_has_come() {
        let timer = Timer::new().unwrap();
        assert!(!is_readable(timer.as_fd()));
        timer.set(Duration::MAX).unwrap();
        assert!(!is_readable(timer.as_fd()));
        timer.set(Duration::ZERO).unwrap();
        assert!(wait_readable(timer.as_fd(), None).unwrap());
    }
}
