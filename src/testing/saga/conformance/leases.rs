//! Leases that are renewed and let go of.

use std::time::Duration;

use super::bench::{
    Bench, Broken, Check, HOUR, ROUNDING, append, ensure, fresh_definition, fresh_owner, new_saga, query, same,
    same_head,
};
use crate::saga::SagaId;
use crate::saga::journal::{Append, CancelRequest, Hold, NewSaga, OwnerId, Renewal, SagaStatus};

/// More than a statement takes parameters.
const MANY: usize = 40_000;

async fn driven_by(bench: &Bench, owner: OwnerId, lease: Duration) -> Result<SagaId, Broken> {
    let new = NewSaga {
        lease: Some((owner, lease)),
        ..new_saga()
    };
    bench.create(&new).await?;
    Ok(new.id)
}

pub(super) async fn leases_are_renewed_together_and_answered_one_by_one(bench: &Bench) -> Check {
    let owner = fresh_owner();
    let own = driven_by(bench, owner, 2 * HOUR).await?;
    let late = driven_by(bench, owner, Duration::ZERO).await?;
    let cancelled = driven_by(bench, owner, HOUR).await?;
    let requested = bench.journal.request_cancel(cancelled).await?;
    same("the request to turn back", &requested, &CancelRequest::Requested)?;
    let of_another = driven_by(bench, fresh_owner(), HOUR).await?;
    let overtaken = driven_by(bench, owner, Duration::ZERO).await?;
    bench.take(overtaken, fresh_owner(), HOUR).await?;
    let claimed_again = driven_by(bench, owner, Duration::ZERO).await?;
    bench.take(claimed_again, owner, HOUR).await?;
    let at_rest = driven_by(bench, owner, HOUR).await?;
    let rest = Append {
        status: SagaStatus::Completed,
        hold: Hold::Rest,
        ..append(at_rest, 1, 1)
    };
    bench.write(&rest).await?;
    let missing = SagaId::new();
    let expected = [
        (own, 1, true, false),
        (late, 1, true, false),
        (cancelled, 1, true, true),
        (of_another, 1, false, false),
        (overtaken, 1, false, false),
        // Its own, and of an epoch that is over.
        (claimed_again, 1, false, false),
        (at_rest, 1, false, false),
        (missing, 1, false, false),
    ];
    let mut before = Vec::new();
    for (id, ..) in &expected[..7] {
        before.push(bench.head(*id).await?);
    }
    let leases: Vec<_> = expected.iter().map(|(id, epoch, ..)| (*id, *epoch)).collect();
    let mut answers = bench.handle(1).renew(owner, HOUR, &leases).await?;
    answers.sort_by_key(|renewal| renewal.id);
    let mut renewals: Vec<_> = expected
        .iter()
        .map(|&(id, _, held, cancel)| Renewal { id, held, cancel })
        .collect();
    renewals.sort_by_key(|renewal| renewal.id);
    same("the renewals", &answers, &renewals)?;
    for (before, (id, epoch, held, _)) in before.iter().zip(&expected) {
        let loaded = bench.load(*id).await?;
        if !held {
            same("a saga of another", &loaded.head, before)?;
            continue;
        }
        let renewed = before.renew(owner, *epoch, HOUR, loaded.now);
        let renewed = renewed.ok_or_else(|| Broken::from("the renewal was refused".to_owned()))?;
        let (due, latest) = (loaded.head.due, renewed.due.map(|due| due + ROUNDING));
        ensure(due <= latest && due > Some(loaded.now), || {
            format!("expected a lease of an hour from the renewal, got {:?}", loaded.head)
        })?;
        let same_due = crate::saga::journal::Head { due, ..renewed };
        same_head("a renewed saga", &loaded.head, &same_due)?;
    }
    let none = bench.journal.renew(owner, HOUR, &[]).await?;
    same("the renewal of nothing", &none, &vec![])
}

pub(super) async fn many_leases_are_renewed_and_released_at_once(bench: &Bench) -> Check {
    let (new, owner) = bench.driven(Duration::ZERO).await?;
    let mut leases: Vec<_> = (0..MANY).map(|_| (SagaId::new(), 1)).collect();
    leases.push((new.id, 1));
    let renewals = bench.journal.renew(owner, HOUR, &leases).await?;
    same("the answers", &renewals.len(), &leases.len())?;
    let held: Vec<_> = renewals.iter().filter(|renewal| renewal.held).collect();
    let expected = Renewal {
        id: new.id,
        held: true,
        cancel: false,
    };
    same("those that are held", &held, &vec![&expected])?;
    bench.journal.release(owner, &leases).await?;
    same("the owner then", &bench.head(new.id).await?.owner, &None)
}

pub(super) async fn a_shorter_lease_ends_earlier(bench: &Bench) -> Check {
    let (new, owner) = bench.driven(HOUR).await?;
    let renewals = bench.journal.renew(owner, Duration::ZERO, &[(new.id, 1)]).await?;
    ensure(renewals.iter().all(|renewal| renewal.held), || {
        format!("expected it to be held, got {renewals:?}")
    })?;
    let claimed = bench.claim(&query(&new.definition)).await?;
    same("who is due", &claimed, &vec![new.id])
}

pub(super) async fn who_lets_go_leaves_it_to_the_next(bench: &Bench) -> Check {
    let definition = fresh_definition();
    let owner = fresh_owner();
    let mut leases = Vec::new();
    for status in [SagaStatus::Running, SagaStatus::Compensating] {
        let new = NewSaga {
            definition: definition.clone(),
            lease: Some((owner, HOUR)),
            ..new_saga()
        };
        bench.create(&new).await?;
        let append = Append {
            status,
            ..append(new.id, 1, 1)
        };
        bench.write(&append).await?;
        leases.push((new.id, 1));
    }
    let resting = bench.at(SagaStatus::Stuck).await?.id;
    bench.take(resting, owner, HOUR).await?;
    let of_another = driven_by(bench, fresh_owner(), HOUR).await?;
    let overtaken = driven_by(bench, owner, Duration::ZERO).await?;
    bench.take(overtaken, owner, HOUR).await?;
    let kept = [bench.head(of_another).await?, bench.head(overtaken).await?];
    let mut all = leases.clone();
    all.extend([(resting, 2), (of_another, 1), (overtaken, 1), (SagaId::new(), 1)]);
    // Twice, as the first reply may be lost.
    for _ in 0..2 {
        bench.handle(1).release(owner, &all).await?;
    }
    for head in kept {
        same("a saga of another", &bench.head(head.id).await?, &head)?;
    }
    let head = bench.head(resting).await?;
    same("one at rest", &(head.owner, head.due, head.epoch), &(None, None, 2))?;
    let claimed = bench.journal.claim(&query(&definition)).await?;
    same("those that are due", &claimed.len(), &2)?;
    for claimed in claimed {
        same("that they were parked", &claimed.parked, &true)?;
        let (epoch, recoveries) = (claimed.head.epoch, claimed.head.recoveries);
        same("their epochs and recoveries", &(epoch, recoveries), &(2, 0))?;
    }
    bench.journal.release(owner, &[]).await?;
    Ok(())
}
