//! The two tasks of an engine: one that claims what is due, one that renews leases.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::super::code::{caught, race};
use super::super::journal::{ClaimQuery, Claimed};
use super::core::{Core, Entering};
use super::flight::Flight;
use crate::storage::StorageError;

/// How many sagas are claimed at a time.
const BATCH: usize = 32;

/// Claims what is due, as far as there are permits, until the engine takes nothing new any more.
pub(crate) async fn recover(core: Arc<Core>) {
    while !core.is_closing() {
        // Whatever panics on the way, be it a journal or who counts: the next claim may not.
        if let Ok(true) = caught(claim(&core)).await {
            continue;
        }
        let pause = race(core.wake.notified(), sleep(core.settings.poll_interval));
        let _ = race(pause, core.closing()).await;
    }
}

/// Whether there may be more at once.
async fn claim(core: &Arc<Core>) -> bool {
    let mut permits = core.permits(BATCH);
    if permits.is_empty() {
        core.hungry();
        // One may have been given back before that was said.
        permits = core.permits(BATCH);
    }
    let (false, Some(entering)) = (permits.is_empty(), core.enter()) else {
        return false;
    };
    let asked = Instant::now();
    let answer = ask(core, permits.len(), entering);
    let (claimed, entering) = match timeout(core.settings.lease / 3, answer).await {
        Ok(Ok((Ok(claimed), entering))) => (claimed, entering),
        Ok(Ok((Err(error), _))) => {
            tracing::warn!(target: "steadfast::saga", %error, "nothing was claimed");
            return false;
        }
        Ok(Err(_)) | Err(_) => {
            tracing::warn!(target: "steadfast::saga", "the journal does not answer: nothing was claimed");
            return false;
        }
    };
    if core.is_closing() {
        give_back(core, &claimed).await;
        drop(entering);
        return false;
    }
    let full = claimed.len() == permits.len();
    if full {
        core.hungry();
    } else {
        core.sated();
    }
    for claimed in claimed {
        if let Some(permit) = permits.pop() {
            begin(core, claimed, permit, asked);
        }
    }
    full
}

type Claims = (Result<Vec<Claimed>, StorageError>, Entering);

/// Claims on a task of its own: what is answered when nobody waits for it any more is given back at once, so that it is
/// neither kept from others nor counted as a crash.
fn ask(core: &Arc<Core>, limit: usize, entering: Entering) -> oneshot::Receiver<Claims> {
    let query = ClaimQuery {
        owner: core.owner,
        lease: core.settings.lease,
        definitions: core.definitions(),
        limit,
        suspects: usize::from(!core.has_suspect()),
    };
    let (reply, answer) = oneshot::channel();
    let asks = Arc::clone(core);
    core.runtime.spawn(async move {
        // After the lease they are not its own any more.
        let claimed = timeout(asks.settings.lease, asks.journal.claim(&query)).await;
        let Ok(claimed) = claimed else {
            return;
        };
        if let Err((Ok(claimed), _entering)) = reply.send((claimed, entering)) {
            give_back(&asks, &claimed).await;
        }
    });
    answer
}

async fn give_back(core: &Core, claimed: &[Claimed]) {
    let leases: Vec<_> = claimed
        .iter()
        .map(|claimed| (claimed.head.id, claimed.head.epoch))
        .collect();
    core.release(&leases).await;
}

/// Drives a saga whose claim was sent at `asked`.
fn begin(core: &Arc<Core>, claimed: Claimed, permit: OwnedSemaphorePermit, asked: Instant) {
    let head = &claimed.head;
    let Some(drive) = core.registered(&head.definition) else {
        return;
    };
    if head.seq == 1 {
        core.unqueue();
    }
    if !claimed.parked {
        tracing::info!(
            target: "steadfast::saga",
            saga = head.definition.name,
            id = %head.id,
            recoveries = head.recoveries,
            "taken over from an owner whose lease ran out"
        );
        #[cfg(feature = "metrics")]
        metrics::counter!("steadfast.saga.recoveries", "saga" => head.definition.name.clone()).increment(1);
    }
    let lease = core.settings.lease;
    let flight = Flight::new(head.id, head.epoch, core.origin, asked, lease, head.is_suspect());
    let seat = core.seat(flight, permit);
    core.runtime.spawn(drive.drive(claimed, seat));
}

/// Renews the leases of all sagas that are driven here, until there are none and will be none.
pub(crate) async fn renew(core: Arc<Core>) {
    let every = core.settings.lease / 3;
    let mut pause = every;
    loop {
        let closed = race(sleep(pause), async {
            core.closing().await;
            core.idle().await;
        });
        if closed.await.is_err() {
            return;
        }
        let renewed = caught(renew_all(&core, every)).await;
        pause = if let Ok(true) = renewed { every } else { every / 4 };
    }
}

/// Whether the journal has answered.
async fn renew_all(core: &Core, limit: Duration) -> bool {
    let flights = core.flights().into_iter().filter(|flight| !flight.is_landing());
    let mut flights: HashMap<_, _> = flights.map(|flight| (flight.id, flight)).collect();
    if flights.is_empty() {
        return true;
    }
    let sagas: Vec<_> = flights.values().map(|flight| (flight.id, flight.epoch)).collect();
    let asked = Instant::now();
    let renewed = timeout(limit, core.journal.renew(core.owner, core.settings.lease, &sagas)).await;
    let Ok(Ok(renewals)) = renewed else {
        tracing::warn!(target: "steadfast::saga", "the journal does not answer: no lease was renewed");
        return false;
    };
    for renewal in renewals {
        let Some(flight) = flights.remove(&renewal.id) else {
            continue;
        };
        if renewal.held {
            flight.renewed(asked);
            if renewal.cancel {
                flight.cancel.request();
            }
        } else {
            flight.taken();
        }
    }
    true
}
