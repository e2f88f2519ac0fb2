//! When leases end and waits are over.

use std::time::Duration;

use tokio::time::sleep;

use super::bench::{Bench, Check, HOUR, ROUNDING, append, ensure, fresh_owner, new_saga, query, same};
use crate::saga::SagaId;
use crate::saga::journal::{Append, ClaimedOne, Hold, Loaded, NewSaga};

const SHORT: Duration = Duration::from_millis(80);
const STEP: Duration = Duration::from_millis(3);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Between two readings of the journal's clock somebody claims: that has to fail if the second reading is before the
/// saga is due, and to succeed if the first is not.
async fn due_exactly(bench: &Bench, id: SagaId, by_id: bool) -> Check {
    let (clock, _) = bench.driven(HOUR).await?;
    let Loaded { head, now, .. } = bench.load(id).await?;
    let due = head.due.unwrap_or_default();
    ensure(due <= now + SHORT + ROUNDING, || {
        format!("expected it to be due in {SHORT:?} at most from {now:?}, got {due:?}")
    })?;
    loop {
        let before = bench.load(clock.id).await?.now;
        let claimed = if by_id {
            let claimed = bench.handle(1).claim_one(id, fresh_owner(), HOUR).await?;
            claimed != ClaimedOne::Busy
        } else {
            let claimed = bench.handle(1).claim(&query(&head.definition)).await?;
            !claimed.is_empty()
        };
        let after = bench.load(clock.id).await?.now;
        if claimed {
            return ensure(after >= due, || {
                format!("expected nobody to get it at {after:?}, as it is due at {due:?}")
            });
        }
        ensure(before < due, || {
            format!("expected it to be claimed at {before:?}, as it is due at {due:?}")
        })?;
        sleep(STEP).await;
    }
}

pub(super) async fn a_lease_ends_exactly_when_the_journal_says(bench: &Bench) -> Check {
    for by_id in [true, false] {
        let (new, _) = bench.driven(SHORT).await?;
        due_exactly(bench, new.id, by_id).await?;
        let (new, owner) = bench.driven(HOUR).await?;
        bench.journal.renew(owner, SHORT, &[(new.id, 1)]).await?;
        due_exactly(bench, new.id, by_id).await?;
    }
    Ok(())
}

pub(super) async fn a_wait_ends_exactly_when_the_journal_says(bench: &Bench) -> Check {
    for deadline in [None, Some(SHORT)] {
        let new = NewSaga {
            deadline,
            lease: Some((fresh_owner(), HOUR)),
            ..new_saga()
        };
        bench.create(&new).await?;
        let append = Append {
            hold: Hold::Park(if deadline.is_some() { HOUR } else { SHORT }),
            ..append(new.id, 1, 1)
        };
        bench.write(&append).await?;
        due_exactly(bench, new.id, false).await?;
    }
    Ok(())
}

/// Rounded up, if at all.
pub(super) async fn no_time_is_rounded_down(bench: &Bench) -> Check {
    for nanos in [1, 999_999, 1_000_001, 1_999_999] {
        let short = Duration::from_nanos(nanos);
        let (new, owner) = bench.driven(short).await?;
        let head = bench.head(new.id).await?;
        let ends = |after: Duration| Some(after.saturating_add(short));
        ensure(head.due >= ends(head.created), || {
            format!("a lease of {short:?} ended early: {head:?}")
        })?;
        for hold in [Hold::Keep(short), Hold::Park(short)] {
            let append = Append {
                hold,
                ..append(new.id, 1, head.seq + u64::from(hold != Hold::Keep(short)))
            };
            bench.write(&append).await?;
            let head = bench.head(new.id).await?;
            ensure(head.due >= ends(head.changed), || {
                format!("{hold:?} ended early: {head:?}")
            })?;
        }
        let before = bench.load(new.id).await?.now;
        bench.take(new.id, owner, HOUR).await?;
        bench.journal.renew(owner, short, &[(new.id, 2)]).await?;
        let head = bench.head(new.id).await?;
        ensure(head.due >= ends(before), || {
            format!("a renewal for {short:?} ended early: {head:?}")
        })?;
    }
    Ok(())
}

pub(super) async fn a_lease_of_nothing_is_over_at_once(bench: &Bench) -> Check {
    for by_id in [true, false] {
        let (new, _) = bench.driven(Duration::ZERO).await?;
        if by_id {
            bench.take(new.id, fresh_owner(), Duration::ZERO).await?;
        }
        let claimed = bench.claim(&query(&new.definition)).await?;
        same("a claim", &claimed, &vec![new.id])?;
    }
    Ok(())
}

pub(super) async fn a_century_is_kept_and_longer_is_no_error(bench: &Bench) -> Check {
    for long in [100 * YEAR, Duration::MAX] {
        let far = |what: &str, at: Option<Duration>, now: Duration| {
            ensure(at >= Some(now + 99 * YEAR), || {
                format!("{what} of {long:?}: expected about a century from {now:?}, got {at:?}")
            })
        };
        let new = NewSaga {
            deadline: Some(long),
            lease: Some((fresh_owner(), long)),
            ..new_saga()
        };
        bench.create(&new).await?;
        let loaded = bench.load(new.id).await?;
        far("a lease", loaded.head.due, loaded.now)?;
        far("a deadline", loaded.head.deadline, loaded.now)?;
        for (seq, hold) in [(1, Hold::Keep(long)), (2, Hold::Park(long))] {
            let append = Append {
                hold,
                ..append(new.id, 1, seq)
            };
            bench.write(&append).await?;
            let loaded = bench.load(new.id).await?;
            far("a hold", loaded.head.due, loaded.now)?;
        }
        let owner = fresh_owner();
        let claimed = bench.take(new.id, owner, long).await?;
        far("a claim", claimed.head.due, loaded.now)?;
        far("the time to the deadline", claimed.deadline_in, Duration::ZERO)?;
        bench.journal.renew(owner, Duration::ZERO, &[(new.id, 2)]).await?;
        let query = crate::saga::journal::ClaimQuery {
            lease: long,
            ..query(&new.definition)
        };
        same("a claim", &bench.claim(&query).await?, &vec![new.id])?;
        let renewals = bench.journal.renew(query.owner, long, &[(new.id, 3)]).await?;
        same(
            "the renewal",
            &renewals.first().map(|renewal| renewal.held),
            &Some(true),
        )?;
        let loaded = bench.load(new.id).await?;
        far("a renewal", loaded.head.due, loaded.now)?;
        let prune = crate::saga::journal::Prune {
            events_after: long,
            keys_after: long,
            limit: 10,
        };
        same(
            "what is cleared away after that",
            &bench.journal.prune(prune).await?,
            &0,
        )?;
    }
    Ok(())
}
