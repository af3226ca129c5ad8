//! What a request is called in the error log: its identifier and its trace, in front of each message that a thread logs while
//! it works on that request. A span of `tracing` would say the same, but each costs more than all other policies together.

use std::cell::RefCell;
use std::ptr;
use std::sync::Arc;

thread_local! {
    /// Names of the requests that this thread works on; the last is the one at hand.
    static ENTERED: RefCell<Vec<Arc<str>>> = const { RefCell::new(Vec::new()) };
}

/// The name of one request; the default is that of a request without one.
#[derive(Clone, Debug, Default)]
pub struct RequestName(Option<Arc<str>>);

impl RequestName {
    /// The name that the policies have given a request.
    pub(crate) fn new(name: Option<&Arc<str>>) -> RequestName {
        RequestName(name.cloned())
    }

    /// The name of the request that this thread works on.
    pub fn current() -> RequestName {
        // A thread that is about to end has none.
        RequestName(ENTERED.try_with(|entered| entered.borrow().last().cloned()).ok().flatten())
    }

    /// The name as it is shown; `None` for a request without one.
    pub fn as_str(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// What this thread logs until the result is dropped belongs to the request.
    pub(crate) fn enter(&self) -> NameGuard {
        if let Some(name) = &self.0 {
            ENTERED.with_borrow_mut(|entered| entered.push(Arc::clone(name)));
        }
        NameGuard(self.0.as_ref().map(Arc::as_ptr))
    }

    /// What `work` logs belongs to the request.
    pub(crate) fn within<R>(&self, work: impl FnOnce() -> R) -> R {
        let _entered = self.enter();
        work()
    }
}

/// A thread works on a request as long as this lives, which has the place of its name.
pub(crate) struct NameGuard(Option<*const str>);

impl Drop for NameGuard {
    fn drop(&mut self) {
        let Some(name) = self.0 else { return };
        // A thread that is about to end logs no more.
        let _ = ENTERED.try_with(|entered| {
            let mut entered = entered.borrow_mut();
            if entered.last().is_some_and(|last| ptr::addr_eq(Arc::as_ptr(last), name)) {
                entered.pop();
            } else if let Some(place) =
                entered.iter().rposition(|other| ptr::addr_eq(Arc::as_ptr(other), name))
            {
                entered.remove(place);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_at_hand_is_that_of_the_request_entered_last() {
        let name = |text: &str| RequestName(Some(text.into()));
        let current = || RequestName::current().as_str().map(str::to_owned);
        let (first, second) = (name("first"), name("second"));
        assert_eq!(current(), None);
        let entered_first = first.enter();
        let entered_second = second.enter();
        assert_eq!(current().as_deref(), Some("second"));
        RequestName::default().within(|| assert_eq!(current().as_deref(), Some("second")));
        drop(entered_first);
        assert_eq!(current().as_deref(), Some("second"));
        drop(entered_second);
        assert_eq!(current(), None);
    }
}
