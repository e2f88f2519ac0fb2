//! The two tasks of an engine: one that claims what is due, one that renews leases.

use std::sync::Arc;

use tokio::time::{Instant, sleep, timeout};

use super::super::code::race;
use super::super::journal::ClaimQuery;
use super::core::Core;
use super::flight::Flight;

/// How many sagas are claimed at a time.
const BATCH: usize = 32;

/// Claims what is due, as far as there are permits, until the engine takes nothing new any more.
pub(crate) async fn recover(core: Arc<Core>) {
    while !core.is_closing() {
        if claim(&core).await {
            continue;
        }
        let pause = race(core.wake.notified(), sleep(core.settings.poll_interval));
        let _ = race(pause, core.closing()).await;
    }
}

/// Whether there may be more at once.
async fn claim(core: &Arc<Core>) -> bool {
    let mut permits: Vec<_> = (0..BATCH).map_while(|_| core.permit()).collect();
    if permits.is_empty() {
        core.hungry();
        return false;
    }
    let query = ClaimQuery {
        owner: core.owner,
        lease: core.settings.lease,
        definitions: core.definitions(),
        limit: permits.len(),
        suspects: usize::from(core.suspects() == 0),
    };
    let sent = Instant::now();
    let claimed = match timeout(core.settings.lease / 3, core.journal.claim(&query)).await {
        Ok(Ok(claimed)) => claimed,
        Ok(Err(error)) => {
            tracing::warn!(target: "steadfast::saga", %error, "nothing was claimed");
            return false;
        }
        Err(_) => {
            tracing::warn!(target: "steadfast::saga", "the journal does not answer: nothing was claimed");
            return false;
        }
    };
    let full = claimed.len() == permits.len();
    if full {
        core.hungry();
    } else {
        core.sated();
    }
    for claimed in claimed {
        let (Some(drive), Some(permit)) = (core.registered(&claimed.head.definition), permits.pop()) else {
            continue;
        };
        let head = &claimed.head;
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
        let flight = Flight::new(head.id, head.epoch, core.origin, sent, core.settings.lease);
        let seat = core.seat(flight, permit, head.is_suspect());
        tokio::spawn(drive.drive(claimed, seat));
    }
    full
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
        let flights: Vec<_> = core
            .flights()
            .into_iter()
            .filter(|flight| !flight.is_landing())
            .collect();
        if flights.is_empty() {
            pause = every;
            continue;
        }
        let sagas: Vec<_> = flights.iter().map(|flight| (flight.id, flight.epoch)).collect();
        let sent = Instant::now();
        let renewed = timeout(every, core.journal.renew(core.owner, core.settings.lease, &sagas)).await;
        let Ok(Ok(renewals)) = renewed else {
            tracing::warn!(target: "steadfast::saga", "the journal does not answer: no lease was renewed");
            pause = every / 4;
            continue;
        };
        for flight in flights {
            let renewal = renewals.iter().find(|renewal| renewal.id == flight.id);
            match renewal {
                Some(renewal) if renewal.held => {
                    flight.renewed(sent);
                    if renewal.cancel {
                        flight.cancel.request();
                    }
                }
                Some(_) => flight.taken(),
                None => {}
            }
        }
        pause = every;
    }
}
