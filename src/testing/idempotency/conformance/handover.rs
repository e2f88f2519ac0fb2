//! Who owns a key, what is sent twice, and what comes late.

use std::time::Duration;

use bytes::Bytes;

use super::bench::{Bench, Check, HOUR, KEPT, claim, ensure, fresh_id, request, same};
use crate::idempotency::store::{
    Cancellation, Claim, Claimed, Completed, Ended, Forgotten, Interrupted, Mode, Outcome, Renewed, Resolution,
    Resolved, Status, Store,
};

pub(super) async fn a_claim_that_is_sent_twice_is_one_claim(bench: &Bench) -> Check {
    let (id, claim) = (fresh_id(), claim());
    let first = bench.store.claim(id, &claim).await?;
    let again = bench.handle(1).claim(id, &claim).await?;
    ensure(matches!(first, Claimed::Owned { .. }), || {
        format!("expected Owned, got {first:?}")
    })?;
    same("the answer to the same claim", &again, &first)
}

pub(super) async fn a_completion_that_is_sent_twice_is_one_completion(bench: &Bench) -> Check {
    let id = fresh_id();
    let owner = bench.own(id, &claim()).await?;
    same(
        "the first",
        &bench.complete(id, &owner, b"one").await?,
        &Completed::Applied,
    )?;
    let again = bench.complete(id, &owner, b"one").await?;
    same("the second", &again, &Completed::AlreadyApplied)?;
    let claimed = bench.store.claim(id, &claim()).await?;
    same("a claim", &claimed, &completed(1, b"one"))
}

pub(super) fn completed(attempt: u32, outcome: &'static [u8]) -> Claimed {
    Claimed::Completed {
        attempt,
        outcome: Outcome(Bytes::from_static(outcome)),
    }
}

pub(super) async fn what_is_sent_twice_changes_nothing_more(bench: &Bench) -> Check {
    let store = &bench.store;
    let id = fresh_id();
    let owner = bench.own(id, &claim()).await?;
    for time in ["the first renewal", "the second renewal"] {
        same(time, &store.renew(id, &owner, HOUR, None).await?, &Renewed::Renewed)?;
    }
    for time in ["the first interruption", "the second interruption"] {
        same(time, &store.interrupt(id, &owner).await?, &Ended::Interrupted)?;
    }
    same("the record", &bench.record(id).await?.status(), &Status::Interrupted)?;
    for time in ["the first release", "the second release"] {
        same(time, &store.release(id, &owner).await?, &Ended::Released)?;
    }
    same("the record after a release", &store.inspect(id).await?, &None)?;
    for time in ["the first cancellation", "the second cancellation"] {
        same(time, &store.cancel(id).await?, &Cancellation::Cancelled)?;
    }
    let (id, _) = bench.interrupted(KEPT).await?;
    let unknown = Cancellation::CancelledUnknown(Interrupted {
        attempt: 1,
        checkpoint: None,
    });
    for time in ["the first cancellation after an interruption", "the second"] {
        same(time, &store.cancel(id).await?, &unknown)?;
    }
    same("forgetting", &store.forget(id).await?, &Forgotten::Forgotten)?;
    same("forgetting again", &store.forget(id).await?, &Forgotten::Absent)
}

pub(super) async fn a_late_completion_that_nobody_overtook_is_stored(bench: &Bench) -> Check {
    for mode in [KEPT, Mode::AtMostOnce] {
        let (id, owner) = bench.interrupted(mode).await?;
        same(
            "a late one",
            &bench.complete(id, &owner, b"late").await?,
            &Completed::Applied,
        )?;
        let claimed = bench.handle(1).claim(id, &Claim { mode, ..claim() }).await?;
        same("a claim", &claimed, &completed(1, b"late"))?;
    }
    Ok(())
}

pub(super) async fn a_completion_of_a_record_that_is_gone_is_stored(bench: &Bench) -> Check {
    let gone = Mode::AtLeastOnce {
        retention: Duration::ZERO,
    };
    let (id, owner) = bench.interrupted(gone).await?;
    same("the expired record", &bench.store.inspect(id).await?, &None)?;
    same(
        "a late one",
        &bench.complete(id, &owner, b"late").await?,
        &Completed::Applied,
    )?;
    let claimed = bench.store.claim(id, &claim()).await?;
    same("a claim", &claimed, &completed(1, b"late"))
}

pub(super) async fn who_was_overtaken_can_write_nothing(bench: &Bench) -> Check {
    let store = bench.handle(1);
    let (id, late) = bench.interrupted(KEPT).await?;
    let winner = bench.own(id, &claim()).await?;
    ensure(winner.attempt == 2 && winner.fence > late.fence, || {
        format!("expected attempt 2 and a fence beyond {}, got {winner:?}", late.fence)
    })?;
    for (while_, ended) in [("while the winner runs", false), ("when the winner is done", true)] {
        if ended {
            same(
                "the winner",
                &bench.complete(id, &winner, b"winner").await?,
                &Completed::Applied,
            )?;
        }
        let note = Bytes::from_static(b"late");
        same(
            while_,
            &store.renew(id, &late, HOUR, Some(&note)).await?,
            &Renewed::Lost,
        )?;
        same(while_, &bench.complete(id, &late, b"late").await?, &Completed::Lost)?;
        same(while_, &store.release(id, &late).await?, &Ended::Lost)?;
        same(while_, &store.interrupt(id, &late).await?, &Ended::Lost)?;
    }
    let claimed = store.claim(id, &claim()).await?;
    same("a claim", &claimed, &completed(2, b"winner"))
}

pub(super) async fn a_late_renewal_revives_a_lease_that_nobody_took(bench: &Bench) -> Check {
    for mode in [KEPT, Mode::AtMostOnce] {
        let (id, owner) = bench.interrupted(mode).await?;
        let renewed = bench.store.renew(id, &owner, HOUR, None).await?;
        same("a late renewal", &renewed, &Renewed::Renewed)?;
        let claimed = bench.handle(1).claim(id, &Claim { mode, ..claim() }).await?;
        ensure(matches!(claimed, Claimed::InProgress { .. }), || {
            format!("a claim: expected InProgress, got {claimed:?}")
        })?;
    }
    Ok(())
}

pub(super) async fn another_request_is_a_mismatch_before_anything_else(bench: &Bench) -> Check {
    let store = &bench.store;
    let other = || Claim {
        fingerprint: request(2),
        ..claim()
    };
    let id = fresh_id();
    let owner = bench.own(id, &claim()).await?;
    same("in progress", &store.claim(id, &other()).await?, &Claimed::Mismatch)?;
    store.interrupt(id, &owner).await?;
    same("interrupted", &store.claim(id, &other()).await?, &Claimed::Mismatch)?;
    bench.complete(id, &owner, b"done").await?;
    same("completed", &store.claim(id, &other()).await?, &Claimed::Mismatch)?;
    let (once, _) = bench.interrupted(Mode::AtMostOnce).await?;
    same(
        "never to run again",
        &store.claim(once, &other()).await?,
        &Claimed::Mismatch,
    )?;
    store.forget(once).await?;
    bench.own(once, &other()).await?;
    Ok(())
}

pub(super) async fn at_most_once_is_never_taken_over(bench: &Bench) -> Check {
    let store = &bench.store;
    let unknown = Claimed::Unknown(Interrupted {
        attempt: 1,
        checkpoint: None,
    });
    // Both ways to mix the modes: who ran it or who asks may want it at most once.
    let modes = [
        (Mode::AtMostOnce, Mode::AtMostOnce),
        (Mode::AtMostOnce, KEPT),
        (KEPT, Mode::AtMostOnce),
    ];
    for (ran, asks) in modes {
        let (id, _) = bench.interrupted(ran).await?;
        let claim = Claim { mode: asks, ..claim() };
        same("a claim", &store.claim(id, &claim).await?, &unknown)?;
        store.purge(usize::MAX).await?;
        same("a claim after a purge", &store.claim(id, &claim).await?, &unknown)?;
        same(
            "resolving",
            &store.resolve(id, &Resolution::NotExecuted).await?,
            &Resolved::Resolved,
        )?;
        same("the first attempt anew", &bench.own(id, &claim).await?.attempt, &1)?;
        let busy = store.resolve(id, &Resolution::NotExecuted).await?;
        same("resolving what is in progress", &busy, &Resolved::NotInterrupted)?;
    }
    Ok(())
}

pub(super) async fn a_checkpoint_is_handed_on(bench: &Bench) -> Check {
    let store = &bench.store;
    let id = fresh_id();
    let owner = bench.own(id, &claim()).await?;
    let notes = [Bytes::from_static(b"first"), Bytes::from_static(b"second")];
    for note in &notes {
        store.renew(id, &owner, HOUR, Some(note)).await?;
    }
    // One that says nothing keeps what was said.
    store.renew(id, &owner, HOUR, None).await?;
    store.interrupt(id, &owner).await?;
    let last = Some(Bytes::from_static(b"second"));
    match store.claim(id, &claim()).await? {
        Claimed::Owned { owner, checkpoint } => {
            same("the checkpoint", &checkpoint, &last)?;
            store.interrupt(id, &owner).await?;
        }
        other => return Err(format!("a takeover: expected Owned, got {other:?}").into()),
    }
    let unknown = Interrupted {
        attempt: 2,
        checkpoint: last,
    };
    let once = Claim {
        mode: Mode::AtMostOnce,
        ..claim()
    };
    same(
        "who may not run it",
        &store.claim(id, &once).await?,
        &Claimed::Unknown(unknown.clone()),
    )?;
    same(
        "cancelling",
        &store.cancel(id).await?,
        &Cancellation::CancelledUnknown(unknown),
    )
}
