//! How a record ends: resolved, released, cancelled, forgotten.

use std::time::Duration;

use bytes::Bytes;

use super::bench::{Bench, Check, HOUR, KEPT, claim, ensure, fresh_id, same};
use super::handover::completed;
use crate::idempotency::store::{
    Cancellation, Claim, Claimed, Completed, Ended, Forgotten, Mode, Outcome, Renewed, Resolution, Resolved, Status,
    Store,
};

pub(super) async fn what_an_operator_resolved_is_not_overwritten(bench: &Bench) -> Check {
    let (id, late) = bench.interrupted(Mode::AtMostOnce).await?;
    let resolution = Resolution::Completed {
        outcome: Bytes::from_static(b"found"),
        retention: HOUR,
    };
    same(
        "resolving",
        &bench.store.resolve(id, &resolution).await?,
        &Resolved::Resolved,
    )?;
    let again = bench.store.resolve(id, &resolution).await?;
    same("resolving again", &again, &Resolved::NotInterrupted)?;
    same(
        "a late completion",
        &bench.complete(id, &late, b"late").await?,
        &Completed::Lost,
    )?;
    let claimed = bench.store.claim(id, &claim()).await?;
    same("a claim", &claimed, &completed(1, b"found"))?;
    let cancelled = bench.store.cancel(id).await?;
    let done = Cancellation::AlreadyDone(Outcome(Bytes::from_static(b"found")));
    same("cancelling what is done", &cancelled, &done)
}

pub(super) async fn what_an_operator_resolved_can_be_corrected_and_nothing_else(bench: &Bench) -> Check {
    let store = &bench.store;
    let corrected = Resolution::Corrected {
        outcome: Bytes::from_static(b"corrected"),
        retention: HOUR,
    };
    let refuses = async |id, what: &str| {
        let answer = store.resolve(id, &corrected).await?;
        same(what, &answer, &Resolved::NotInterrupted)
    };
    let id = fresh_id();
    refuses(id, "correcting what is not there").await?;
    let owner = bench.own(id, &claim()).await?;
    refuses(id, "correcting what is in progress").await?;
    bench.complete(id, &owner, b"its own").await?;
    refuses(id, "correcting what was completed").await?;
    same(
        "the outcome of who ran it",
        &bench.handle(1).claim(id, &claim()).await?,
        &completed(1, b"its own"),
    )?;

    let (id, late) = bench.interrupted(Mode::AtMostOnce).await?;
    refuses(id, "correcting what is interrupted").await?;
    let resolution = Resolution::Completed {
        outcome: Bytes::from_static(b"mistaken"),
        retention: HOUR,
    };
    store.resolve(id, &resolution).await?;
    for _ in 0..2 {
        let answer = bench.handle(1).resolve(id, &corrected).await?;
        same("correcting", &answer, &Resolved::Resolved)?;
        let claimed = store.claim(id, &claim()).await?;
        same("a claim", &claimed, &completed(1, b"corrected"))?;
    }
    let completion = bench.complete(id, &late, b"late").await?;
    same("a late completion", &completion, &Completed::Lost)?;
    let not_executed = store.resolve(id, &Resolution::NotExecuted).await?;
    same("taking it back", &not_executed, &Resolved::NotInterrupted)?;
    store.forget(id).await?;
    refuses(id, "correcting what was forgotten").await
}

pub(super) async fn a_release_forgets_no_earlier_attempt(bench: &Bench) -> Check {
    let (id, _) = bench.interrupted(KEPT).await?;
    let second = bench.own(id, &claim()).await?;
    same(
        "the release",
        &bench.store.release(id, &second).await?,
        &Ended::Interrupted,
    )?;
    same("the next attempt", &bench.own(id, &claim()).await?.attempt, &3)?;
    let id = fresh_id();
    let first = bench.own(id, &claim()).await?;
    same(
        "a release of the first",
        &bench.store.release(id, &first).await?,
        &Ended::Released,
    )?;
    same("the first attempt anew", &bench.own(id, &claim()).await?.attempt, &1)
}

pub(super) async fn a_cancelled_key_is_closed_for_ever(bench: &Bench) -> Check {
    let store = &bench.store;
    let id = fresh_id();
    let owner = bench.own(id, &claim()).await?;
    let busy = store.cancel(id).await?;
    ensure(matches!(busy, Cancellation::InProgress { .. }), || {
        format!("cancelling what is in progress: expected InProgress, got {busy:?}")
    })?;
    store.release(id, &owner).await?;
    same("cancelling", &store.cancel(id).await?, &Cancellation::Cancelled)?;
    store.purge(usize::MAX).await?;
    same(
        "a claim",
        &bench.handle(1).claim(id, &claim()).await?,
        &Claimed::Cancelled,
    )?;
    same(
        "a completion",
        &bench.complete(id, &owner, b"late").await?,
        &Completed::Lost,
    )?;
    same("a renewal", &store.renew(id, &owner, HOUR, None).await?, &Renewed::Lost)?;
    same("a release", &store.release(id, &owner).await?, &Ended::Lost)?;
    let resolved = store.resolve(id, &Resolution::NotExecuted).await?;
    same("a resolution", &resolved, &Resolved::NotInterrupted)?;
    same(
        "what stands there",
        &bench.record(id).await?.status(),
        &Status::Cancelled,
    )?;
    let (id, _) = bench.interrupted(KEPT).await?;
    store.cancel(id).await?;
    same("a claim", &store.claim(id, &claim()).await?, &Claimed::Cancelled)?;
    let inspected = bench.record(id).await?;
    same("what stands there", &inspected.status(), &Status::CancelledUnknown)?;
    same("its attempt", &inspected.attempt(), &1)
}

pub(super) async fn fences_grow_over_every_end_of_a_record(bench: &Bench) -> Check {
    let id = fresh_id();
    let at_once = Mode::AtLeastOnce {
        retention: Duration::ZERO,
    };
    let mut last = 0;
    for round in 0..10 {
        let store = bench.handle(round);
        let lease = if round % 5 == 1 { Duration::ZERO } else { HOUR };
        let claim = Claim {
            mode: at_once,
            lease,
            ..claim()
        };
        let owner = match store.claim(id, &claim).await? {
            Claimed::Owned { owner, .. } => owner,
            other => return Err(format!("round {round}: expected Owned, got {other:?}").into()),
        };
        let fence = owner.fence;
        ensure(fence > last, || {
            format!("round {round}: expected a fence beyond {last}, got {fence}")
        })?;
        last = fence;
        match round % 5 {
            0 => drop(store.release(id, &owner).await?),
            // Its lease was over at once, and it with it.
            1 => {}
            2 => drop(store.complete(id, &owner, &Bytes::new(), Duration::ZERO).await?),
            3 => {
                store.interrupt(id, &owner).await?;
                store.purge(usize::MAX).await?;
            }
            _ => {
                store.complete(id, &owner, &Bytes::new(), HOUR).await?;
                same("forgetting", &store.forget(id).await?, &Forgotten::Forgotten)?;
            }
        }
    }
    Ok(())
}
