//! A response that is known as a whole.

use anygate_proto::head::ResponseHead;

/// A response of the policies' own: a refusal, a page, a preflight.
#[derive(Debug)]
pub(super) struct FullResponse {
    pub(super) head: ResponseHead,
    pub(super) body: Vec<u8>,
}
