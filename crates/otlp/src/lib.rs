//! Spans and metrics for an OpenTelemetry collector: OTLP over HTTP, as protobuf
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>). It runs in the supervisor's assistant, beside all requests.
//!
//! * [`exporter`]: threads that take, keep and send. * `queue`: what waits to be sent.
//! * `client`: one transmission, and whether to try it again. * `back_off`: the pause before that.
//! * `spans`, `metrics`: what is sent, from what there is. * `messages`: protobuf.
#![forbid(unsafe_code)]

mod back_off;
mod client;
pub mod exporter;
mod messages;
mod metrics;
mod queue;
mod spans;

pub use exporter::{Exporter, Sources};
