//! Orders to the supervisor: one line each, in a pipe from the assistant.

use std::io::{self, Write};

use anygate_config::Order;

/// Asks something of the supervisor.
#[derive(Debug)]
pub struct Orders(pub(crate) io::PipeWriter);

impl Orders {
    /// Asks.
    ///
    /// Errors: the supervisor is gone.
    pub fn give(&self, order: Order) -> io::Result<()> {
        let line = match order {
            Order::Reload => "reload\n".to_owned(),
            Order::Scale(count) => format!("scale {count}\n"),
            Order::End => "end\n".to_owned(),
            Order::Look => "look\n".to_owned(),
            Order::Recycle(pid) => format!("recycle {pid}\n"),
            Order::Stacks(pid) => format!("stacks {pid}\n"),
        };
        // Short enough to arrive in one piece beside others (pipe(7), PIPE_BUF).
        (&self.0).write_all(line.as_bytes())
    }
}

/// Reads the order of a line, which has no end.
pub(crate) fn read(line: &str) -> Option<Order> {
    match line.split_once(' ') {
        None if line == "reload" => Some(Order::Reload),
        None if line == "end" => Some(Order::End),
        None if line == "look" => Some(Order::Look),
        Some(("scale", count)) => count.parse().ok().map(Order::Scale),
        Some(("recycle", pid)) => pid.parse().ok().map(Order::Recycle),
        Some(("stacks", pid)) => pid.parse().ok().map(Order::Stacks),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_arrive_as_they_were_given() {
        for order in [
            Order::Reload,
            Order::Scale(7),
            Order::End,
            Order::Look,
            Order::Recycle(7),
            Order::Stacks(70_000),
        ] {
            let (mut reader, write) = io::pipe().unwrap();
            Orders(write).give(order).unwrap();
            let mut line = String::new();
            io::Read::read_to_string(&mut reader, &mut line).unwrap();
            assert_eq!(line.strip_suffix('\n').and_then(read), Some(order));
        }
        for wrong in ["", "scale", "scale -1", "scale x", "stacks", "reload 1"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
