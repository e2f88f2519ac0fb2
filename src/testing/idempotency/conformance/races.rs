//! Several handles at once.

use std::collections::HashMap;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::bench::{Bench, Broken, Check, HOUR, KEPT, claim, ensure, fresh_id, same};
use crate::KeyId;
use crate::idempotency::store::{Cancellation, Claim, Claimed, Completed, SharedStore, Store};

const KEYS: usize = 500;
const DUPLICATES: usize = 20;
const ROUNDS: usize = 40;

/// Every handle claims `id` at once.
async fn claim_by_all(bench: &Bench, id: KeyId) -> Result<Vec<Claimed>, Broken> {
    let mut claims = JoinSet::new();
    for store in &bench.handles {
        let (store, claim) = (store.clone(), claim());
        claims.spawn(async move { store.claim(id, &claim).await });
    }
    let mut answers = Vec::new();
    while let Some(answer) = claims.join_next().await {
        answers.push(answer??);
    }
    Ok(answers)
}

fn owners(answers: &[Claimed]) -> Vec<(u32, u64)> {
    let owners = answers.iter().filter_map(|answer| match answer {
        Claimed::Owned { owner, .. } => Some((owner.attempt, owner.fence)),
        _ => None,
    });
    owners.collect()
}

pub(super) async fn many_duplicates_have_one_winner_for_each_key(bench: &Bench) -> Check {
    let ids: Vec<KeyId> = (0..KEYS).map(|_| fresh_id()).collect();
    let mut clients = JoinSet::new();
    for client in 0..DUPLICATES {
        let store = bench.handle(client).clone();
        let mut ids = ids.clone();
        // Not all in the same order, or one client would be ahead all the time.
        ids.rotate_left(client % 4);
        clients.spawn(async move {
            let mut won = Vec::new();
            for id in ids {
                match store.claim(id, &claim()).await? {
                    Claimed::Owned { owner, .. } => won.push((id, owner.attempt)),
                    Claimed::InProgress { .. } => {}
                    other => return Err(Broken::from(format!("a duplicate: expected InProgress, got {other:?}"))),
                }
            }
            Ok(won)
        });
    }
    let mut wins = HashMap::new();
    while let Some(won) = clients.join_next().await {
        for (id, attempt) in won?? {
            same("the attempt of a winner", &attempt, &1)?;
            *wins.entry(id).or_insert(0) += 1;
        }
    }
    same("keys with a winner", &wins.len(), &KEYS)?;
    same("winners of one key", &wins.values().max(), &Some(&1))
}

pub(super) async fn of_two_takeovers_one_succeeds(bench: &Bench) -> Check {
    for _ in 0..ROUNDS {
        let (id, before) = bench.interrupted(KEPT).await?;
        let answers = claim_by_all(bench, id).await?;
        let owners = owners(&answers);
        ensure(matches!(owners[..], [(2, fence)] if fence > before.fence), || {
            format!(
                "expected one owner, of attempt 2 and a fence beyond {}, got {owners:?}",
                before.fence
            )
        })?;
        let rest = answers
            .iter()
            .filter(|answer| matches!(answer, Claimed::InProgress { .. }));
        same("the others in progress", &rest.count(), &(answers.len() - 1))?;
    }
    Ok(())
}

pub(super) async fn an_expired_outcome_is_taken_over_by_one_and_replayed_to_nobody(bench: &Bench) -> Check {
    for _ in 0..ROUNDS {
        let id = fresh_id();
        let owner = bench.own(id, &claim()).await?;
        let outcome = Bytes::from_static(b"yesterday's");
        bench.store.complete(id, &owner, &outcome, Duration::ZERO).await?;
        let answers = claim_by_all(bench, id).await?;
        let owners = owners(&answers);
        ensure(matches!(owners[..], [(1, fence)] if fence > owner.fence), || {
            format!(
                "expected one owner, of attempt 1 and a fence beyond {}, got {owners:?}",
                owner.fence
            )
        })?;
        let rest = answers
            .iter()
            .filter(|answer| matches!(answer, Claimed::InProgress { .. }));
        same("the others in progress", &rest.count(), &(answers.len() - 1))?;
    }
    Ok(())
}

/// Runs `one` and `other` at once.
async fn both<A, B>(
    one: impl Future<Output = A> + Send + 'static,
    other: impl Future<Output = B> + Send + 'static,
) -> Result<(A, B), Broken>
where
    A: Send + 'static,
    B: Send + 'static,
{
    let one = tokio::spawn(one);
    let other = tokio::spawn(other);
    Ok((one.await?, other.await?))
}

pub(super) async fn a_key_is_either_claimed_or_cancelled(bench: &Bench) -> Check {
    for round in 0..ROUNDS {
        let id = fresh_id();
        let (one, other) = (bench.handle(round).clone(), bench.handle(round + 1).clone());
        let claimed = async move { one.claim(id, &claim()).await };
        let cancelled = async move { other.cancel(id).await };
        let (claimed, cancelled) = if round % 2 == 0 {
            both(claimed, cancelled).await?
        } else {
            let (cancelled, claimed) = both(cancelled, claimed).await?;
            (claimed, cancelled)
        };
        let (claimed, cancelled) = (claimed?, cancelled?);
        let agree = match &claimed {
            Claimed::Owned { .. } => matches!(cancelled, Cancellation::InProgress { .. }),
            Claimed::Cancelled => cancelled == Cancellation::Cancelled,
            _ => false,
        };
        ensure(agree, || {
            format!("expected one to succeed, got {claimed:?} and {cancelled:?}")
        })?;
    }
    Ok(())
}

pub(super) async fn a_late_completion_and_a_takeover_exclude_each_other(bench: &Bench) -> Check {
    for round in 0..ROUNDS {
        let (id, late) = bench.interrupted(KEPT).await?;
        let (one, other) = (bench.handle(round).clone(), bench.handle(round + 1).clone());
        let outcome = Bytes::from_static(b"late");
        let completed = async move { one.complete(id, &late, &outcome, HOUR).await };
        let claimed = async move { other.claim(id, &claim()).await };
        let (claimed, completed) = if round % 2 == 0 {
            both(claimed, completed).await?
        } else {
            let (completed, claimed) = both(completed, claimed).await?;
            (claimed, completed)
        };
        let (claimed, completed) = (claimed?, completed?);
        let agree = match &claimed {
            Claimed::Owned { owner, .. } => completed == Completed::Lost && owner.attempt == 2,
            Claimed::Completed { .. } => completed == Completed::Applied,
            _ => false,
        };
        ensure(agree, || {
            format!("expected one to succeed, got {claimed:?} and {completed:?}")
        })?;
    }
    Ok(())
}

/// Begins the claim and gives it up: it may be carried out or not.
async fn begin(store: &SharedStore, id: KeyId, claim: &Claim, polls: usize) {
    let mut call = pin!(store.claim(id, claim));
    for _ in 0..polls {
        if call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

pub(super) async fn a_call_that_is_dropped_leaves_the_key_usable(bench: &Bench) -> Check {
    for polls in 0..10 {
        let (id, claim) = (fresh_id(), claim());
        begin(bench.handle(polls), id, &claim, polls).await;
        let again = bench.handle(polls).claim(id, &claim).await?;
        let owner = match &again {
            Claimed::Owned { owner, .. } if owner.attempt == 1 => owner,
            other => return Err(format!("the same claim: expected Owned, attempt 1, got {other:?}").into()),
        };
        same(
            "its completion",
            &bench.complete(id, owner, b"done").await?,
            &Completed::Applied,
        )?;
    }
    Ok(())
}
