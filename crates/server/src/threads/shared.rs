//! What all threads of a worker share.

use std::sync::Arc;

use crate::attention::Attention;
use crate::inbox::Inbox;
use crate::rules::Rules;
use crate::sampling::Sampling;
use crate::threads::call::Surroundings;
use crate::threads::call_limits::CallLimits;
use crate::threads::handoff::Handoff;
use crate::threads::main_thread::Visits;

/// Objects that all threads of a worker share.
pub(crate) struct Shared {
    pub(crate) handoff: Handoff,
    pub(crate) attention: Arc<Attention>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) sampling: Arc<Sampling>,
    /// Where calls have a time limit.
    pub(crate) call_limits: Option<Arc<CallLimits>>,
    pub(crate) rules: Arc<Rules>,
    /// Where app threads run requests.
    pub(crate) visits: Visits,
}

impl Shared {
    /// What calls have around them.
    pub(crate) fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            rules: &self.rules,
            attention: &self.attention,
            sampling: &self.sampling,
            limits: self.call_limits.as_deref(),
        }
    }
}
