//! When leases and outcomes end.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::bench::{Bench, Check, HOUR, claim, ensure, fresh_id, same};
use crate::idempotency::store::{Claim, Claimed, Inspected, Mode, Record, Store};

const SHORT: Duration = Duration::from_millis(150);
const STEP: Duration = Duration::from_millis(3);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn lease_until(inspected: &Inspected) -> Option<Duration> {
    match &inspected.record {
        Record::InProgress { lease_until, .. } => Some(*lease_until),
        _ => None,
    }
}

/// Between two readings of the store's clock somebody else claims: that has to fail if the second reading is before
/// the end of the lease, and to succeed if the first is not.
pub(super) async fn a_lease_ends_exactly_when_the_store_says(bench: &Bench) -> Check {
    let id = fresh_id();
    let clock = fresh_id();
    bench.own(clock, &claim()).await?;
    let short = Claim {
        lease: SHORT,
        ..claim()
    };
    bench.own(id, &short).await?;
    let until = lease_until(&bench.record(id).await?);
    let until = until.ok_or_else(|| "a claimed record: expected one in progress, got another".to_owned())?;
    loop {
        let before = bench.record(clock).await?.now;
        let claimed = bench.handle(1).claim(id, &claim()).await?;
        let after = bench.record(clock).await?.now;
        match claimed {
            Claimed::InProgress { lease_left } => {
                ensure(before < until, || {
                    format!("expected a takeover at {before:?} of a lease until {until:?}, got InProgress")
                })?;
                ensure(
                    lease_left <= until.saturating_sub(before) && !lease_left.is_zero(),
                    || {
                        format!(
                            "expected a rest of {:?} at most, got {lease_left:?}",
                            until.saturating_sub(before)
                        )
                    },
                )?;
                sleep(STEP.min(lease_left)).await;
            }
            Claimed::Owned { owner, .. } => {
                ensure(after >= until, || {
                    format!("expected InProgress at {after:?} under a lease until {until:?}, got a takeover")
                })?;
                return same("the attempt", &owner.attempt, &2);
            }
            other => return Err(format!("expected InProgress or Owned, got {other:?}").into()),
        }
    }
}

pub(super) async fn an_outcome_expires_exactly_when_the_store_says(bench: &Bench) -> Check {
    let id = fresh_id();
    let clock = fresh_id();
    bench.own(clock, &claim()).await?;
    let owner = bench.own(id, &claim()).await?;
    bench
        .store
        .complete(id, &owner, &Bytes::from_static(b"brief"), SHORT)
        .await?;
    let until = bench.record(id).await?.record.expires_at().unwrap_or(Duration::MAX);
    loop {
        let before = bench.record(clock).await?.now;
        let claimed = bench.handle(1).claim(id, &claim()).await?;
        let after = bench.record(clock).await?.now;
        match claimed {
            Claimed::Completed { .. } => {
                ensure(before < until, || {
                    format!("expected no outcome at {before:?} of one until {until:?}, got it")
                })?;
                sleep(STEP).await;
            }
            Claimed::Owned { owner, .. } => {
                ensure(after >= until, || {
                    format!("expected the outcome at {after:?} that is kept until {until:?}, got Owned")
                })?;
                return same("the attempt", &owner.attempt, &1);
            }
            other => return Err(format!("expected Completed or Owned, got {other:?}").into()),
        }
    }
}

pub(super) async fn a_renewal_begins_the_lease_anew(bench: &Bench) -> Check {
    let id = fresh_id();
    let owner = bench.own(id, &claim()).await?;
    let claimed = bench.record(id).await?;
    sleep(2 * STEP).await;
    bench.store.renew(id, &owner, HOUR, None).await?;
    let renewed = bench.record(id).await?;
    ensure(lease_until(&renewed) > lease_until(&claimed), || {
        format!("expected a later end, got {claimed:?} and then {renewed:?}")
    })?;
    let (before, after) = (claimed.record.expires_at(), renewed.record.expires_at());
    ensure(after > before, || {
        format!("expected a later expiry than {before:?}, got {after:?}")
    })?;
    bench.store.renew(id, &owner, STEP, None).await?;
    sleep(2 * STEP).await;
    let inspected = bench.record(id).await?;
    ensure(inspected.record.is_interrupted(inspected.now), || {
        format!("expected a shorter lease to be over, got {inspected:?}")
    })
}

pub(super) async fn the_rest_of_a_lease_is_not_longer_than_the_lease(bench: &Bench) -> Check {
    let id = fresh_id();
    bench.own(id, &claim()).await?;
    match bench.handle(1).claim(id, &claim()).await? {
        Claimed::InProgress { lease_left } => ensure(lease_left <= HOUR && lease_left > HOUR / 2, || {
            format!("expected about an hour, got {lease_left:?}")
        }),
        other => Err(format!("expected InProgress, got {other:?}").into()),
    }
}

pub(super) async fn a_century_is_kept_and_longer_is_no_error(bench: &Bench) -> Check {
    for long in [100 * YEAR, Duration::MAX] {
        let id = fresh_id();
        let claim = Claim {
            mode: Mode::AtLeastOnce { retention: long },
            lease: long,
            ..claim()
        };
        let owner = bench.own(id, &claim).await?;
        bench.store.renew(id, &owner, long, None).await?;
        let left = bench.store.claim(id, &super::bench::claim()).await?;
        ensure(
            matches!(left, Claimed::InProgress { lease_left } if lease_left > 99 * YEAR),
            || format!("expected a lease of about {long:?}, got {left:?}"),
        )?;
        bench
            .store
            .complete(id, &owner, &Bytes::from_static(b"long"), long)
            .await?;
        let expires_in = bench.record(id).await?.expires_in();
        ensure(expires_in.is_none_or(|left| left > 99 * YEAR), || {
            format!("expected an outcome for about {long:?}, got {expires_in:?}")
        })?;
        bench.store.forget(id).await?;
    }
    Ok(())
}
