//! What is cleared away, and what is kept.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::bench::{Bench, Broken, Check, HOUR, append, ensure, fresh_owner, query, same};
use crate::saga::SagaId;
use crate::saga::journal::{Append, Appended, ClaimQuery, Created, Head, Hold, NewSaga, Prune, SagaStatus};

const SETTLED: [SagaStatus; 3] = [SagaStatus::Completed, SagaStatus::Compensated, SagaStatus::Abandoned];

fn prune(events_after: Duration, keys_after: Duration) -> Prune {
    Prune {
        events_after,
        keys_after,
        limit: usize::MAX,
    }
}

const NOW: Duration = Duration::ZERO;

/// Clears away what earlier cases left.
async fn clear(bench: &Bench) -> Check {
    while bench.journal.prune(prune(NOW, NOW)).await? > 0 {}
    Ok(())
}

async fn every_status(bench: &Bench) -> Result<Vec<NewSaga>, Broken> {
    let mut sagas = Vec::new();
    for status in SagaStatus::ALL {
        sagas.push(bench.at(status).await?);
    }
    Ok(sagas)
}

pub(super) async fn events_are_cleared_before_keys(bench: &Bench) -> Check {
    clear(bench).await?;
    let sagas = every_status(bench).await?;
    let mut before = Vec::new();
    for new in &sagas {
        before.push(bench.load(new.id).await?);
    }
    let too_early = bench.journal.prune(prune(HOUR, HOUR)).await?;
    same("what is cleared too early", &too_early, &0)?;
    let keys_first = bench.journal.prune(prune(HOUR, NOW)).await?;
    same("the keys of what keeps its events", &keys_first, &0)?;
    let cleared = bench.handle(1).prune(prune(NOW, HOUR)).await?;
    same("those whose events are cleared away", &cleared, &3)?;
    same(
        "those that are cleared away again",
        &bench.journal.prune(prune(NOW, HOUR)).await?,
        &0,
    )?;
    for (new, before) in sagas.iter().zip(&before) {
        let loaded = bench.load(new.id).await?;
        if SETTLED.contains(&before.head.status) {
            let head = Head {
                pruned: true,
                ..before.head.clone()
            };
            same("the head without events", &loaded.head, &head)?;
            same("its events", &loaded.entries, &vec![])?;
            let again = NewSaga {
                id: SagaId::new(),
                ..new.clone()
            };
            let existing = bench.journal.create(&again).await?;
            same(
                "the same key and input",
                &existing,
                &Created::Existing(Box::new(head.clone())),
            )?;
            same("what the key finds", &bench.journal.find(new.key).await?, &Some(head))?;
            let other = NewSaga {
                input: [2; 32],
                ..again
            };
            same(
                "another input",
                &bench.journal.create(&other).await?,
                &Created::Conflict,
            )?;
        } else {
            same("what is not settled", &loaded.head, &before.head)?;
            same("its events", &loaded.entries, &before.entries)?;
        }
    }
    keys_are_cleared(bench, &sagas, before.iter().map(|loaded| &loaded.head)).await
}

async fn keys_are_cleared<'a>(bench: &Bench, sagas: &[NewSaga], heads: impl Iterator<Item = &'a Head>) -> Check {
    let cleared = bench.journal.prune(prune(NOW, NOW)).await?;
    same("those that are cleared away", &cleared, &3)?;
    for (new, head) in sagas.iter().zip(heads) {
        if !SETTLED.contains(&head.status) {
            same("what is not settled", &bench.head(new.id).await?, head)?;
            continue;
        }
        same("the saga", &bench.journal.load(new.id).await?, &None)?;
        same("its key", &bench.journal.find(new.key).await?, &None)?;
        let again = NewSaga {
            id: SagaId::new(),
            input: [2; 32],
            ..new.clone()
        };
        bench.create(&again).await?;
        same(
            "its events",
            &bench.load(again.id).await?.entries.len(),
            &again.entries.len(),
        )?;
    }
    Ok(())
}

/// An operator has it.
pub(super) async fn what_somebody_holds_is_kept(bench: &Bench) -> Check {
    clear(bench).await?;
    let new = bench.at(SagaStatus::Compensated).await?;
    let owner = fresh_owner();
    bench.take(new.id, owner, Duration::ZERO).await?;
    let before = bench.load(new.id).await?;
    same("what is cleared away", &bench.journal.prune(prune(NOW, NOW)).await?, &0)?;
    same("its events", &bench.load(new.id).await?.entries, &before.entries)?;
    bench.journal.release(owner, &[(new.id, 2)]).await?;
    same(
        "what is cleared away then",
        &bench.journal.prune(prune(NOW, NOW)).await?,
        &1,
    )?;
    same("the saga", &bench.journal.load(new.id).await?, &None)
}

pub(super) async fn clearing_keeps_its_limit(bench: &Bench) -> Check {
    clear(bench).await?;
    for n in 0..25 {
        bench.at(SETTLED[n % SETTLED.len()]).await?;
    }
    for keys_after in [HOUR, NOW] {
        for (limit, expected) in [(0, 0), (10, 10), (10, 10), (10, 5), (10, 0)] {
            let prune = Prune {
                limit,
                ..prune(NOW, keys_after)
            };
            same("those cleared away", &bench.journal.prune(prune).await?, &expected)?;
        }
    }
    Ok(())
}

/// Counted from the last event.
pub(super) async fn what_is_settled_is_kept_for_its_time(bench: &Bench) -> Check {
    const KEPT: Duration = Duration::from_millis(60);
    clear(bench).await?;
    let new = bench.at(SagaStatus::Completed).await?;
    let changed = bench.head(new.id).await?.changed;
    let (clock, _) = bench.driven(HOUR).await?;
    for prune in [prune(KEPT, HOUR), prune(KEPT, KEPT)] {
        loop {
            let before = bench.load(clock.id).await?.now;
            let cleared = bench.journal.prune(prune).await?;
            let after = bench.load(clock.id).await?.now;
            if cleared == 1 {
                ensure(after >= changed + KEPT, || {
                    format!(
                        "expected it to be kept until {:?}, cleared away by {after:?}",
                        changed + KEPT
                    )
                })?;
                break;
            }
            ensure(before < changed + KEPT, || {
                format!(
                    "expected it to be cleared away from {:?}, kept at {before:?}",
                    changed + KEPT
                )
            })?;
            sleep(Duration::from_millis(5)).await;
        }
    }
    same("the saga then", &bench.journal.load(new.id).await?, &None)
}

/// While sagas are created, driven and settled, two clear away what is over.
pub(super) async fn two_clear_away_while_others_work(bench: &Bench) -> Check {
    let mut tasks = JoinSet::new();
    for n in 0..2 {
        let journal = bench.handle(n).clone();
        tasks.spawn(async move {
            for _ in 0..20 {
                let prune = Prune {
                    limit: 7,
                    ..prune(NOW, NOW)
                };
                journal.prune(prune).await?;
                tokio::task::yield_now().await;
            }
            Ok::<(), Broken>(())
        });
    }
    for n in 2..6 {
        let bench = Bench {
            journal: bench.handle(n).clone(),
            handles: Vec::new(),
        };
        tasks.spawn(async move {
            for _ in 0..15 {
                let (new, _) = bench.driven(Duration::ZERO).await?;
                let query = ClaimQuery {
                    limit: 1,
                    ..query(&new.definition)
                };
                same("a claim", &bench.claim(&query).await?, &vec![new.id])?;
                bench.write(&append(new.id, 2, 1)).await?;
                same("its events", &bench.load(new.id).await?.entries.len(), &2)?;
                let end = Append {
                    status: SagaStatus::Completed,
                    hold: Hold::Rest,
                    ..append(new.id, 2, 2)
                };
                let ended = bench.journal.append(&end).await?;
                same("the end", &ended, &Appended::Written { cancel: false })?;
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}
