//! What is purged, listed and counted.

use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::bench::{Bench, Broken, Check, HOUR, KEPT, claim, ensure, fresh_id, same};
use crate::KeyId;
use crate::idempotency::store::{Claim, Claimed, Completed, Mode, SharedStore, Status, Store};

const AT_ONCE: Mode = Mode::AtLeastOnce {
    retention: Duration::ZERO,
};

/// Keys whose records have expired.
async fn expired(bench: &Bench, many: usize) -> Result<Vec<KeyId>, Broken> {
    let mut ids = Vec::new();
    for n in 0..many {
        if n % 2 == 0 {
            let (id, _) = bench.interrupted(AT_ONCE).await?;
            ids.push(id);
        } else {
            let id = fresh_id();
            let owner = bench.own(id, &claim()).await?;
            bench.store.complete(id, &owner, &Bytes::new(), Duration::ZERO).await?;
            ids.push(id);
        }
    }
    Ok(ids)
}

/// A key in every state that does not expire now.
async fn live(bench: &Bench) -> Result<Vec<(KeyId, Status)>, Broken> {
    let busy = fresh_id();
    bench.own(busy, &claim()).await?;
    let once = fresh_id();
    let at_most_once = Claim {
        mode: Mode::AtMostOnce,
        ..claim()
    };
    bench.own(once, &at_most_once).await?;
    let done = fresh_id();
    let owner = bench.own(done, &claim()).await?;
    bench.complete(done, &owner, b"done").await?;
    let cancelled = fresh_id();
    bench.store.cancel(cancelled).await?;
    let (unknown, _) = bench.interrupted(KEPT).await?;
    bench.store.cancel(unknown).await?;
    let (interrupted, _) = bench.interrupted(KEPT).await?;
    let (interrupted_once, _) = bench.interrupted(Mode::AtMostOnce).await?;
    Ok(vec![
        (busy, Status::InProgress),
        (once, Status::InProgress),
        (done, Status::Completed),
        (cancelled, Status::Cancelled),
        (unknown, Status::CancelledUnknown),
        (interrupted, Status::Interrupted),
        (interrupted_once, Status::Interrupted),
    ])
}

pub(super) async fn purging_keeps_its_limit_and_what_is_live(bench: &Bench) -> Check {
    let store = &bench.store;
    // What earlier cases left.
    while store.purge(1_000).await? > 0 {}
    let live = live(bench).await?;
    let expired = expired(bench, 25).await?;
    same("a purge of nothing", &store.purge(0).await?, &0)?;
    let mut purged = 0;
    loop {
        let now = store.purge(10).await?;
        ensure(now <= 10, || format!("expected 10 at most, got {now}"))?;
        if now == 0 {
            break;
        }
        purged += now;
    }
    // Fewer where the store clears expired records away by itself.
    ensure(purged <= 25, || format!("expected 25 at most in all, got {purged}"))?;
    for id in expired {
        same("an expired record", &store.inspect(id).await?, &None)?;
    }
    for (id, status) in live {
        same("a live record", &bench.record(id).await?.status(), &status)?;
    }
    same("a purge of whatever there is", &store.purge(usize::MAX).await?, &0)
}

pub(super) async fn purging_changes_no_answer(bench: &Bench) -> Check {
    for purge in [false, true] {
        let id = fresh_id();
        let short = Claim {
            mode: AT_ONCE,
            lease: Duration::ZERO,
            ..claim()
        };
        let owner = bench.own(id, &short).await?;
        if purge {
            bench.store.purge(usize::MAX).await?;
        }
        let renewed = bench.store.renew(id, &owner, HOUR, None).await?;
        same("a renewal", &renewed, &crate::idempotency::store::Renewed::Lost)?;
        let next = bench.own(id, &short).await?;
        same("the attempt", &next.attempt, &1)?;
        ensure(next.fence > owner.fence, || {
            format!("expected a fence beyond {}, got {}", owner.fence, next.fence)
        })?;
        if purge {
            bench.store.purge(usize::MAX).await?;
        }
        let completed = bench.complete(id, &next, b"late").await?;
        same("a late completion", &completed, &Completed::Applied)?;
    }
    Ok(())
}

pub(super) async fn two_purge_while_others_claim(bench: &Bench) -> Check {
    async fn purge(store: SharedStore) -> Check {
        for _ in 0..20 {
            store.purge(7).await?;
        }
        Ok(())
    }
    async fn claim_and_expire(store: SharedStore) -> Check {
        for _ in 0..20 {
            let id = fresh_id();
            let short = Claim {
                mode: AT_ONCE,
                lease: Duration::ZERO,
                ..claim()
            };
            for claim in [short, claim()] {
                let claimed = store.claim(id, &claim).await?;
                ensure(matches!(claimed, Claimed::Owned { .. }), || {
                    format!("a claim of a key that is free: expected Owned, got {claimed:?}")
                })?;
            }
            let duplicate = store.claim(id, &claim()).await?;
            ensure(matches!(duplicate, Claimed::InProgress { .. }), || {
                format!("a duplicate: expected InProgress, got {duplicate:?}")
            })?;
        }
        Ok(())
    }
    let mut tasks = JoinSet::new();
    for n in 0..2 {
        tasks.spawn(purge(bench.handle(n).clone()));
    }
    for n in 2..6 {
        tasks.spawn(claim_and_expire(bench.handle(n).clone()));
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

pub(super) async fn the_interrupted_are_listed_by_id_in_pages(bench: &Bench) -> Check {
    let store = &bench.store;
    let others = live(bench).await?;
    let mut ids = Vec::new();
    for n in 0..25 {
        let mode = if n % 2 == 0 { KEPT } else { Mode::AtMostOnce };
        ids.push(bench.interrupted(mode).await?.0);
    }
    ids.extend(
        others
            .iter()
            .filter(|(_, status)| *status == Status::Interrupted)
            .map(|(id, _)| *id),
    );
    ids.sort_unstable();
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = store.list_interrupted(after, 10).await?;
        ensure(page.len() <= 10, || format!("expected 10 at most, got {}", page.len()))?;
        for (id, inspected) in &page {
            same("what is listed", &inspected.status(), &Status::Interrupted)?;
            ensure(after.is_none_or(|after| *id > after), || {
                "expected ids in order, got others".to_owned()
            })?;
            after = Some(*id);
            listed.push(*id);
        }
        if page.len() < 10 {
            break;
        }
    }
    // Other cases have left some as well.
    let own: Vec<KeyId> = listed.iter().copied().filter(|id| ids.contains(id)).collect();
    ensure(own == ids, || {
        format!("expected all {} of this case, got {}", ids.len(), own.len())
    })?;
    for (id, _) in others.iter().filter(|(_, status)| *status != Status::Interrupted) {
        ensure(!listed.contains(id), || {
            "expected the interrupted only, got another".to_owned()
        })?;
    }
    let all = store.list_interrupted(None, usize::MAX).await?;
    same("all in one page", &all.len(), &listed.len())?;
    same("a page of none", &store.list_interrupted(None, 0).await?.len(), &0)
}

pub(super) async fn the_interrupted_are_counted(bench: &Bench) -> Check {
    let store = &bench.store;
    let before = store.count_interrupted().await?;
    let (one, _) = bench.interrupted(KEPT).await?;
    let (other, _) = bench.interrupted(Mode::AtMostOnce).await?;
    bench.own(fresh_id(), &claim()).await?;
    same("two more", &store.count_interrupted().await?, &(before + 2))?;
    store.forget(one).await?;
    store.cancel(other).await?;
    same("two fewer", &store.count_interrupted().await?, &before)
}

pub(super) async fn every_handle_is_on_the_same_store(bench: &Bench) -> Check {
    let id = fresh_id();
    bench.own(id, &claim()).await?;
    for handle in &bench.handles {
        let inspected = handle.inspect(id).await?.map(|inspected| inspected.status());
        same(
            "what one sees of another's claim",
            &inspected,
            &Some(Status::InProgress),
        )?;
        same("durability", &handle.durability(), &bench.store.durability())?;
    }
    Ok(())
}
