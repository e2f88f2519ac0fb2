//! Which operations the code that asks runs inside of: one that waited for itself would wait for ever.

use std::sync::Arc;

use super::policy::Policy;
use crate::KeyId;

tokio::task_local! {
    /// The operations that this code runs inside of.
    static INSIDE: Arc<Inside>;
}

pub(super) struct Inside {
    policy: Arc<Policy>,
    id: KeyId,
    outer: Option<Arc<Inside>>,
}

impl Inside {
    pub(super) fn new(policy: &Arc<Policy>, id: KeyId) -> Arc<Self> {
        Arc::new(Self {
            policy: Arc::clone(policy),
            id,
            outer: INSIDE.try_with(Arc::clone).ok(),
        })
    }

    /// Whether this is called from within the operation `id`, which cannot end before the call does.
    pub(super) fn contains(policy: &Arc<Policy>, id: KeyId) -> bool {
        let within = |innermost: &Arc<Self>| {
            let mut next = Some(innermost);
            while let Some(inside) = next {
                if inside.id == id && Arc::ptr_eq(&inside.policy, policy) {
                    return true;
                }
                next = inside.outer.as_ref();
            }
            false
        };
        INSIDE.try_with(within).unwrap_or(false)
    }

    /// `operation` runs inside of it.
    pub(super) fn scope<F: Future>(self: Arc<Self>, operation: F) -> impl Future<Output = F::Output> {
        INSIDE.scope(self, operation)
    }
}

/// `future` counts as called from here, wherever it is polled.
#[cfg(feature = "http")]
pub(crate) fn called_from_here<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let inside = INSIDE.try_with(Arc::clone).ok();
    async move {
        match inside {
            Some(inside) => INSIDE.scope(inside, future).await,
            None => future.await,
        }
    }
}
