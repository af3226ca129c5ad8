#![forbid(unsafe_code)]
mod error;
pub mod fields;
pub mod crontab;
mod words;
mod schedule;
