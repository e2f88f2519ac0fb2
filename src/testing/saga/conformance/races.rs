//! Several handles at once.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::task::JoinSet;

use super::bench::{
    Bench, Broken, Check, HOUR, append, ensure, entry, fresh_definition, fresh_owner, new_saga, query, same,
};
use crate::saga::SagaId;
use crate::saga::journal::{
    Append, Appended, CancelRequest, ClaimQuery, ClaimedOne, Created, Hold, Journal, JournalFuture, NewSaga,
};

const SAGAS: usize = 200;
const ROUNDS: usize = 30;

/// Runs a call on every handle at once; the answers in the order of the handles.
async fn on_all<A, F, Fut>(bench: &Bench, call: F) -> Result<Vec<A>, Broken>
where
    A: Send + 'static,
    F: Fn(usize, Arc<dyn Journal>) -> Fut,
    Fut: Future<Output = Result<A, Broken>> + Send + 'static,
{
    let calls: Vec<_> = bench.handles.iter().cloned().enumerate().collect();
    let calls: Vec<_> = calls
        .into_iter()
        .map(|(n, journal)| tokio::spawn(call(n, journal)))
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await??);
    }
    Ok(answers)
}

pub(super) async fn a_key_that_many_create_has_one_saga(bench: &Bench) -> Check {
    for _ in 0..ROUNDS {
        let new = new_saga();
        let answers = on_all(bench, |_, journal| {
            let new = NewSaga {
                id: SagaId::new(),
                lease: Some((fresh_owner(), HOUR)),
                ..new.clone()
            };
            async move { Ok((new.id, journal.create(&new).await?)) }
        });
        let answers = answers.await?;
        let first: Vec<_> = answers.iter().filter(|(_, answer)| *answer == Created::New).collect();
        let [(id, _)] = first[..] else {
            return Err(format!("expected one new saga, got {answers:?}").into());
        };
        for (_, answer) in &answers {
            let agrees = match answer {
                Created::New => true,
                Created::Existing(head) => head.id == *id,
                Created::Conflict => false,
            };
            ensure(agrees, || format!("expected saga {id}, got {answer:?}"))?;
        }
        let found = bench.journal.find(new.key).await?.map(|head| head.id);
        same("what the key finds", &found, &Some(*id))?;
        same("its events", &bench.load(*id).await?.entries.len(), &1)?;
    }
    Ok(())
}

pub(super) async fn claims_at_once_are_disjoint_and_leave_nothing(bench: &Bench) -> Check {
    let definition = fresh_definition();
    let mut created = JoinSet::new();
    for n in 0..SAGAS {
        let journal = bench.handle(n).clone();
        // Half of them were driven by somebody who is lost.
        let lost = (n % 2 == 0).then(|| (fresh_owner(), Duration::ZERO));
        let new = NewSaga {
            definition: definition.clone(),
            lease: lost,
            ..new_saga()
        };
        created.spawn(async move { journal.create(&new).await });
    }
    while let Some(created) = created.join_next().await {
        same("a new saga", &created??, &Created::New)?;
    }
    let claims = on_all(bench, |n, journal| {
        let query = ClaimQuery {
            limit: 5 + n,
            ..query(&definition)
        };
        async move {
            let mut won = Vec::new();
            loop {
                let claimed = journal.claim(&query).await?;
                ensure(claimed.len() <= query.limit, || {
                    format!("expected {} at most, got {}", query.limit, claimed.len())
                })?;
                if claimed.is_empty() {
                    return Ok(won);
                }
                for claimed in claimed {
                    same("the owner", &claimed.head.owner, &Some(query.owner))?;
                    let driven = u64::from(!claimed.parked);
                    same("the epoch", &claimed.head.epoch, &(1 + driven))?;
                    won.push(claimed.head.id);
                }
            }
        }
    });
    let mut winners = HashMap::new();
    for id in claims.await?.into_iter().flatten() {
        *winners.entry(id).or_insert(0) += 1;
    }
    ensure(winners.values().all(|winners| *winners == 1), || {
        "expected one owner for each, got several for some".to_owned()
    })?;
    // A claim may pass over what another is claiming; nobody is left without an owner for that.
    let rest = bench.claim(&query(&definition)).await?;
    same("those with an owner", &(winners.len() + rest.len()), &SAGAS)
}

pub(super) async fn of_many_that_claim_one_saga_one_succeeds(bench: &Bench) -> Check {
    for round in 0..ROUNDS {
        let (new, _) = bench.driven(Duration::ZERO).await?;
        let answers = on_all(bench, |n, journal| {
            let (id, query) = (new.id, query(&new.definition));
            async move {
                if (n + round) % 2 == 0 {
                    let claimed = journal.claim_one(id, query.owner, HOUR).await?;
                    return Ok(usize::from(matches!(claimed, ClaimedOne::Claimed(_))));
                }
                Ok(journal.claim(&query).await?.len())
            }
        });
        let winners: usize = answers.await?.into_iter().sum();
        same("those that got it", &winners, &1)?;
        let head = bench.head(new.id).await?;
        same("the epoch and the recoveries", &(head.epoch, head.recoveries), &(2, 1))?;
    }
    Ok(())
}

pub(super) async fn of_many_that_append_in_one_place_one_succeeds(bench: &Bench) -> Check {
    const EVENTS: [&[u8]; 4] = [b"0", b"1", b"2", b"3"];
    for _ in 0..ROUNDS {
        let (new, _) = bench.driven(HOUR).await?;
        let answers = on_all(bench, |n, journal| {
            let append = Append {
                entries: vec![entry(EVENTS[n % EVENTS.len()], None); 2],
                ..append(new.id, 1, 1)
            };
            async move { Ok((append.entries[0].clone(), journal.append(&append).await?)) }
        });
        let answers = answers.await?;
        let loaded = bench.load(new.id).await?;
        same("its events", &loaded.entries.len(), &3)?;
        for (entry, answer) in answers {
            // Who sent the same has written it.
            let same_entry = loaded.entries[1..].iter().all(|stored| stored.entry == entry);
            let written = answer == Appended::Written { cancel: false };
            same("whether it is written", &written, &same_entry)?;
        }
    }
    Ok(())
}

/// Runs `one` and `other` at once, now this one first, now that one.
async fn both<A, B>(
    round: usize,
    one: impl Future<Output = Result<A, Broken>> + Send + 'static,
    other: impl Future<Output = Result<B, Broken>> + Send + 'static,
) -> Result<(A, B), Broken>
where
    A: Send + 'static,
    B: Send + 'static,
{
    if round % 2 == 0 {
        let (one, other) = (tokio::spawn(one), tokio::spawn(other));
        return Ok((one.await??, other.await??));
    }
    let other = tokio::spawn(other);
    let one = tokio::spawn(one);
    Ok((one.await??, other.await??))
}

pub(super) async fn a_late_append_and_a_claim_exclude_each_other(bench: &Bench) -> Check {
    for round in 0..ROUNDS {
        let (new, _) = bench.driven(Duration::ZERO).await?;
        let id = new.id;
        let (one, other) = (bench.handle(round).clone(), bench.handle(round + 1).clone());
        let appended = async move { Ok(one.append(&append(id, 1, 1)).await?) };
        let claimed = async move { Ok(other.claim_one(id, fresh_owner(), HOUR).await?) };
        let (appended, claimed) = both(round, appended, claimed).await?;
        let agree = match &claimed {
            ClaimedOne::Claimed(claimed) => appended == Appended::Fenced && claimed.head.seq == 1,
            ClaimedOne::Busy => appended != Appended::Fenced,
            ClaimedOne::Missing => false,
        };
        ensure(agree, || {
            format!("expected one to succeed, got {appended:?} and {claimed:?}")
        })?;
    }
    Ok(())
}

pub(super) async fn a_late_renewal_and_a_claim_exclude_each_other(bench: &Bench) -> Check {
    for round in 0..ROUNDS {
        let (new, owner) = bench.driven(Duration::ZERO).await?;
        let (id, query) = (new.id, query(&new.definition));
        let (one, other) = (bench.handle(round).clone(), bench.handle(round + 1).clone());
        let renewed = async move { Ok(one.renew(owner, HOUR, &[(id, 1)]).await?) };
        let claimed = async move { Ok(other.claim(&query).await?) };
        let (renewed, claimed) = both(round, renewed, claimed).await?;
        let held = renewed.iter().all(|renewal| renewal.held);
        ensure(held == claimed.is_empty(), || {
            format!("expected one to succeed, got {renewed:?} and {claimed:?}")
        })?;
    }
    Ok(())
}

/// Whoever hears that a request is noted can rely on that the next append tells of it.
pub(super) async fn a_request_to_turn_back_is_told_or_too_late(bench: &Bench) -> Check {
    for round in 0..ROUNDS {
        let (new, _) = bench.driven(HOUR).await?;
        let id = new.id;
        let (one, other) = (bench.handle(round).clone(), bench.handle(round + 1).clone());
        let pivot = Append {
            can_turn: false,
            ..append(id, 1, 1)
        };
        let appended = async move { Ok(one.append(&pivot).await?) };
        let requested = async move { Ok(other.request_cancel(id).await?) };
        let (appended, requested) = both(round, appended, requested).await?;
        let noted = requested == CancelRequest::Requested;
        same("what the append tells", &appended, &Appended::Written { cancel: noted })?;
        same("what is stored", &bench.head(id).await?.cancel, &noted)?;
    }
    Ok(())
}

pub(super) async fn a_saga_is_loaded_at_one_time(bench: &Bench) -> Check {
    let (new, _) = bench.driven(HOUR).await?;
    let id = new.id;
    let journal = bench.journal.clone();
    let writer = tokio::spawn(async move {
        let mut seq = 1;
        for n in 0..60 {
            let many = 1 + n % 3;
            let append = Append {
                entries: vec![entry(b"{}", None); many],
                ..append(id, 1, seq)
            };
            same(
                "an append",
                &journal.append(&append).await?,
                &Appended::Written { cancel: false },
            )?;
            seq += u64::try_from(many).unwrap_or_default();
            tokio::task::yield_now().await;
        }
        Ok::<_, Broken>(seq)
    });
    let reader = bench.handle(1).clone();
    let mut last = 0;
    while !writer.is_finished() {
        let loaded = reader.load(id).await?;
        let (head, entries) = loaded.map(|loaded| (loaded.head, loaded.entries)).unzip();
        let (seq, changed) = head.map(|head| (head.seq, head.changed)).unwrap_or_default();
        let entries = entries.unwrap_or_default();
        ensure(entries.iter().map(|stored| stored.seq).eq(0..seq), || {
            format!("expected the events 0 to {seq}, got {}", entries.len())
        })?;
        same(
            "the last change",
            &entries.last().map(|stored| stored.at),
            &Some(changed),
        )?;
        ensure(seq >= last, || format!("expected {last} events or more, got {seq}"))?;
        last = seq;
        tokio::task::yield_now().await;
    }
    let written = writer.await??;
    same("its number of events", &bench.head(id).await?.seq, &written)
}

/// Begins a call and gives it up: it may be carried out or not.
async fn begin<T>(call: JournalFuture<'_, T>, polls: usize) {
    let mut call = pin!(call);
    for _ in 0..polls {
        if call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

pub(super) async fn a_call_that_is_dropped_leaves_the_saga_usable(bench: &Bench) -> Check {
    for polls in 0..10 {
        let journal = bench.handle(polls);
        let new = NewSaga {
            lease: Some((fresh_owner(), HOUR)),
            ..new_saga()
        };
        begin(journal.create(&new), polls).await;
        bench.create(&new).await?;
        let park = Append {
            hold: Hold::Park(Duration::ZERO),
            ..append(new.id, 1, 1)
        };
        begin(journal.append(&park), polls).await;
        bench.write(&park).await?;
        same("its events", &bench.load(new.id).await?.entries.len(), &2)?;
        begin(journal.claim_one(new.id, fresh_owner(), Duration::ZERO), polls).await;
        let nothing = ClaimQuery {
            lease: Duration::ZERO,
            ..query(&new.definition)
        };
        begin(journal.claim(&nothing), polls).await;
        let claimed = bench.take(new.id, fresh_owner(), HOUR).await?;
        bench.write(&append(new.id, claimed.head.epoch, 2)).await?;
    }
    Ok(())
}
