//! What a thread is at: log lines are written, and contexts sent along, as it says.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ledger::EntityId;

use crate::ids::TraceContext;
use crate::traces::Request;

/// What work belongs to.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// The trace, and the span in it.
    pub trace: Option<TraceContext>,
    /// The request, which has a trace once somebody needs to know.
    pub request: Option<Arc<Request>>,
    /// The order that is checked out, or asked about, unless the request knows it.
    pub order: Option<EntityId>,
}

thread_local! {
    static CURRENT: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

/// Puts back what was there before, a panic notwithstanding.
struct Restore(Option<Scope>);

impl Drop for Restore {
    fn drop(&mut self) {
        let before = self.0.take();
        // A thread that ends has nothing to put back.
        _ = CURRENT.try_with(|current| current.replace(before));
    }
}

impl Scope {
    /// The place in a trace, if this is in one.
    pub fn context(&self) -> Option<TraceContext> {
        self.trace.clone().or_else(|| Some(self.request.as_ref()?.context()))
    }

    /// The order, if it is about one.
    pub fn order(&self) -> Option<EntityId> {
        self.order.or_else(|| self.request.as_ref()?.order)
    }

    /// Does something in this scope.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let _restore = Restore(CURRENT.replace(Some(self.clone())));
        work()
    }

    /// Whatever a future does, it does in this scope.
    pub fn of<F: Future>(self, future: F) -> Scoped<F> {
        Scoped { scope: self, future: Box::pin(future) }
    }

    /// What this thread is at.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
    }

    /// The request that this thread is at.
    pub(crate) fn current_request() -> Option<Arc<Request>> {
        CURRENT.try_with(|current| current.borrow().as_ref()?.request.clone()).ok().flatten()
    }
}

/// A future in a scope.
#[derive(Debug)]
pub struct Scoped<F> {
    scope: Scope,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let scope = self.scope.clone();
        scope.within(|| self.future.as_mut().poll(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use super::*;

    fn order() -> Option<EntityId> {
        Scope::current().and_then(|scope| scope.order)
    }

    #[test]
    fn scopes_nest_and_end_even_by_a_panic() {
        let scope = |order| Scope { order: Some(EntityId::number(order)), ..Scope::default() };
        assert_eq!(order(), None);
        scope(1).within(|| {
            assert_eq!(order(), Some(EntityId::number(1)));
            let inner = scope(2);
            let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| inner.within(|| panic!("on purpose"))));
            assert!(panicked.is_err());
            assert_eq!(order(), Some(EntityId::number(1)));
        });
        assert_eq!(order(), None);
    }
}
