//! Who gets which saga.

use std::time::Duration;

use tokio::time::sleep;

use super::bench::{
    Bench, Broken, Check, HOUR, ROUNDING, append, ensure, fresh_definition, fresh_owner, new_saga, query, same,
    same_head, sorted,
};
use crate::saga::SagaId;
use crate::saga::journal::{
    Append, ClaimQuery, Claimed, ClaimedOne, DefinitionId, Hold, Loaded, NewSaga, OwnerId, SUSPECT_AFTER, SagaStatus,
};

/// Longer than the steps of any clock.
const TICK: Duration = Duration::from_millis(5);

/// What a claim for an hour has made of `before`.
async fn is_claim(bench: &Bench, before: &Loaded, claimed: &Claimed, owner: OwnerId) -> Check {
    let after = bench.load(before.head.id).await?;
    same("what is stored", &after.head, &claimed.head)?;
    same("its events", &after.entries, &before.entries)?;
    let due = claimed.head.due.unwrap_or_default();
    let (earliest, latest) = (before.now + HOUR, after.now + HOUR + ROUNDING);
    ensure(earliest <= due && due <= latest, || {
        format!("expected a lease of an hour, to between {earliest:?} and {latest:?}, got {due:?}")
    })?;
    let expected = before.head.claim(owner, HOUR, due.saturating_sub(HOUR));
    same_head("the claimed head", &claimed.head, &expected.head)?;
    same("whether it was parked", &claimed.parked, &expected.parked)?;
    let (left, expected) = (claimed.deadline_in, expected.deadline_in);
    let close = match (left, expected) {
        (Some(left), Some(expected)) => left.abs_diff(expected) <= 2 * ROUNDING,
        _ => left == expected,
    };
    ensure(close, || format!("expected {expected:?} to its deadline, got {left:?}"))
}

pub(super) async fn the_longest_due_are_claimed_first(bench: &Bench) -> Check {
    let definition = fresh_definition();
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(bench.parked(&definition).await?);
        sleep(TICK).await;
    }
    // The first is due again after all others.
    bench.take(ids[0], fresh_owner(), HOUR).await?;
    let back = Append {
        hold: Hold::Park(Duration::ZERO),
        ..append(ids[0], 1, 1)
    };
    bench.write(&back).await?;
    ids.rotate_left(1);
    let query = |limit| ClaimQuery {
        limit,
        ..query(&definition)
    };
    same("a claim of none", &bench.claim(&query(0)).await?, &vec![])?;
    for (limit, expected) in [(2, &ids[..2]), (2, &ids[2..4]), (2, &ids[4..]), (2, &[])] {
        let claimed = bench.claim(&query(limit)).await?;
        same("the next in order", &claimed, &sorted(expected.iter().copied()))?;
    }
    Ok(())
}

pub(super) async fn only_what_is_due_is_claimed(bench: &Bench) -> Check {
    let definition = fresh_definition();
    let of = |lease| NewSaga {
        definition: definition.clone(),
        lease,
        ..new_saga()
    };
    let held = of(Some((fresh_owner(), HOUR)));
    let lost = of(Some((fresh_owner(), Duration::ZERO)));
    let fresh = of(None);
    for new in [&held, &lost, &fresh] {
        bench.create(new).await?;
    }
    let mut expected = vec![lost.id, fresh.id];
    for status in SagaStatus::ALL {
        for hold in [Hold::Park(HOUR), Hold::Park(Duration::ZERO), Hold::Rest] {
            let new = of(Some((fresh_owner(), HOUR)));
            bench.create(&new).await?;
            let append = Append {
                status,
                hold,
                ..append(new.id, 1, 1)
            };
            bench.write(&append).await?;
            if status.is_active() && hold == Hold::Park(Duration::ZERO) {
                expected.push(new.id);
            }
        }
    }
    let claimed = bench.claim(&query(&definition)).await?;
    same("what is due", &claimed, &sorted(expected))?;
    same("a second claim", &bench.claim(&query(&definition)).await?, &vec![])
}

pub(super) async fn only_what_fits_is_claimed(bench: &Bench) -> Check {
    let definition = fresh_definition();
    let newest = DefinitionId {
        version: u32::MAX,
        ..definition.clone()
    };
    // Due before what fits, and in nobody's place.
    let others = [
        DefinitionId {
            version: 2,
            ..definition.clone()
        },
        DefinitionId {
            fingerprint: [0xff; 32],
            ..definition.clone()
        },
        DefinitionId {
            name: format!("{}-", definition.name),
            ..definition.clone()
        },
        DefinitionId {
            name: definition.name.to_uppercase(),
            ..definition.clone()
        },
    ];
    let mut left = Vec::new();
    for other in &others {
        left.push(bench.parked(other).await?);
        sleep(TICK).await;
    }
    let fits = [bench.parked(&definition).await?, bench.parked(&newest).await?];
    let none = ClaimQuery {
        definitions: Vec::new(),
        ..query(&definition)
    };
    same("a claim of no definitions", &bench.claim(&none).await?, &vec![])?;
    let mut definitions: Vec<_> = (0..100).map(|_| fresh_definition()).collect();
    definitions.extend([definition, newest]);
    let all = ClaimQuery {
        definitions,
        limit: 2,
        ..query(&fresh_definition())
    };
    let claimed = bench.claim(&all).await?;
    same("what fits", &claimed, &sorted(fits))?;
    for id in left {
        same("the epoch of what does not fit", &bench.head(id).await?.epoch, &0)?;
    }
    Ok(())
}

/// A saga that was claimed so often in a row without a result.
async fn suspect(bench: &Bench, definition: &DefinitionId) -> Result<SagaId, Broken> {
    let id = bench.parked(definition).await?;
    for _ in 0..=SUSPECT_AFTER {
        bench.take(id, fresh_owner(), Duration::ZERO).await?;
    }
    let recoveries = bench.head(id).await?.recoveries;
    same("its recoveries", &recoveries, &SUSPECT_AFTER)?;
    Ok(id)
}

pub(super) async fn no_more_suspects_are_claimed_than_asked_for(bench: &Bench) -> Check {
    let definition = fresh_definition();
    let mut suspects = Vec::new();
    for _ in 0..3 {
        suspects.push(suspect(bench, &definition).await?);
        sleep(TICK).await;
    }
    // Almost one.
    let watched = bench.parked(&definition).await?;
    for _ in 0..SUSPECT_AFTER {
        bench.take(watched, fresh_owner(), Duration::ZERO).await?;
    }
    sleep(TICK).await;
    let healthy = [bench.parked(&definition).await?, bench.parked(&definition).await?];
    let query = |limit, suspects| ClaimQuery {
        limit,
        suspects,
        ..query(&definition)
    };
    let claimed = bench.claim(&query(1, 0)).await?;
    same("one without suspects", &claimed, &vec![watched])?;
    let claimed = bench.claim(&query(2, 1)).await?;
    same("two with a suspect at most", &claimed.len(), &2)?;
    ensure(claimed.contains(&suspects[0]), || {
        format!("expected the longest due suspect {:?}, got {claimed:?}", suspects[0])
    })?;
    ensure(healthy.iter().any(|id| claimed.contains(id)), || {
        format!("expected one of {healthy:?}, got {claimed:?}")
    })?;
    same("one healthy", &bench.claim(&query(10, 0)).await?.len(), &1)?;
    let claimed = bench.claim(&query(10, 2)).await?;
    same("the other suspects", &claimed, &sorted(suspects[1..].iter().copied()))
}

pub(super) async fn a_claim_answers_the_head_that_is_stored(bench: &Bench) -> Check {
    let definition = fresh_definition();
    for lease in [None, Some((fresh_owner(), Duration::ZERO))] {
        for deadline in [None, Some(Duration::ZERO), Some(2 * HOUR)] {
            let new = NewSaga {
                definition: definition.clone(),
                lease,
                deadline,
                ..new_saga()
            };
            bench.create(&new).await?;
            let before = bench.load(new.id).await?;
            let query = query(&definition);
            let claimed = bench.journal.claim(&query).await?;
            let [claimed] = &claimed[..] else {
                return Err(format!("expected one saga, got {claimed:?}").into());
            };
            is_claim(bench, &before, claimed, query.owner).await?;
        }
    }
    Ok(())
}

pub(super) async fn one_saga_is_claimed_whatever_it_stands_at(bench: &Bench) -> Check {
    for status in SagaStatus::ALL {
        let new = bench.at(status).await?;
        let before = bench.load(new.id).await?;
        let owner = fresh_owner();
        let claimed = bench.take(new.id, owner, HOUR).await?;
        is_claim(bench, &before, &claimed, owner).await?;
        for again in [owner, fresh_owner()] {
            let busy = bench.handle(1).claim_one(new.id, again, HOUR).await?;
            same("a claim while it is held", &busy, &ClaimedOne::Busy)?;
        }
        same("the saga then", &bench.head(new.id).await?, &claimed.head)?;
        let next = Append {
            status,
            ..append(new.id, claimed.head.epoch, claimed.head.seq)
        };
        bench.write(&next).await?;
    }
    let none = bench.journal.claim_one(SagaId::new(), fresh_owner(), HOUR).await?;
    same("a claim of no saga", &none, &ClaimedOne::Missing)
}

pub(super) async fn epochs_grow_and_lost_leases_are_counted(bench: &Bench) -> Check {
    let definition = fresh_definition();
    let id = bench.parked(&definition).await?;
    let mut expected = 0;
    for round in 1..=8 {
        let short = ClaimQuery {
            lease: Duration::ZERO,
            ..query(&definition)
        };
        let (head, parked) = if round % 2 == 0 {
            let claimed = bench.take(id, short.owner, Duration::ZERO).await?;
            (claimed.head, claimed.parked)
        } else {
            let claimed = bench.handle(round).claim(&short).await?;
            let first = claimed.into_iter().next();
            let first = first.ok_or_else(|| Broken::from("expected a saga that is due, got none".to_owned()))?;
            (first.head, first.parked)
        };
        same("whether it was parked", &parked, &(round == 1 || round == 6))?;
        expected += u32::from(!parked);
        same("the recoveries", &head.recoveries, &expected)?;
        same("the epoch", &usize::try_from(head.epoch).ok(), &Some(round))?;
        // A result; an event that is none; parked, which is no lost lease.
        let (progress, hold) = match round {
            3 => (true, Hold::Keep(Duration::ZERO)),
            4 => (false, Hold::Keep(Duration::ZERO)),
            5 => (false, Hold::Park(Duration::ZERO)),
            _ => continue,
        };
        expected = if progress { 0 } else { expected };
        let append = Append {
            progress,
            hold,
            ..append(id, head.epoch, head.seq)
        };
        bench.write(&append).await?;
        same("the recoveries after it", &bench.head(id).await?.recoveries, &expected)?;
    }
    Ok(())
}
