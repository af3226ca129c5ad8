//! What the processes of a tree see of each other, in memory that all of them map: no locks, so a process that dies holds none.
//!
//! * [`process_row`]: the numbers of one process, which every other can read.
//! * [`counters`]: requests and connections of each client, over all processes.
//! * [`recent_errors`]: the last warnings and errors of a process. `text`: text in cells of 64 bits.
//! * [`route_table`]: requests of each route, over all processes.
//! * [`span_ring`]: spans on their way to the process that sends them.

pub mod counters;
pub mod process_row;
pub mod recent_errors;
pub mod route_table;
pub mod span_ring;
pub(crate) mod text;
