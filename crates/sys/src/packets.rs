//! Messages between two processes of this machine, each with at most one descriptor (unix(7), SCM_RIGHTS): they arrive whole,
//! or not at all.

pub use crate::os::packets::Packets;

/// Longest message.
pub const MESSAGE_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::io::{self, Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn messages_arrive_whole_with_their_descriptors() {
        let (one, other) = Packets::pair().unwrap();
        let (mut read, write) = io::pipe().unwrap();
        one.send("first", Some(write.as_fd())).unwrap();
        one.send("second", None).unwrap();
        drop(write);
        let (text, fd) = other.receive().unwrap().unwrap();
        assert_eq!(text, "first");
        let mut passed = std::fs::File::from(fd.unwrap());
        passed.write_all(b"x").unwrap();
        drop(passed);
        let mut read_bytes = Vec::new();
        read.read_to_end(&mut read_bytes).unwrap();
        assert_eq!(read_bytes, b"x");
        let (text, fd) = other.receive().unwrap().unwrap();
        assert_eq!((text.as_str(), fd.is_none()), ("second", true));
        drop(one);
        assert!(other.receive().unwrap().is_none());
    }
}
