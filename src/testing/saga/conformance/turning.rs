//! Requests that a saga turn back, and deadlines.

use std::time::Duration;

use super::bench::{Bench, Check, HOUR, append, ensure, fresh_owner, new_saga, query, same};
use crate::saga::SagaId;
use crate::saga::journal::{Append, Appended, CancelRequest, Head, Hold, NewSaga, SagaStatus};

pub(super) async fn a_request_to_turn_back_is_noted_where_it_can(bench: &Bench) -> Check {
    for status in SagaStatus::ALL {
        for can_turn in [true, false] {
            for hold in [
                Hold::Keep(HOUR),
                Hold::Park(HOUR),
                Hold::Park(Duration::ZERO),
                Hold::Rest,
            ] {
                if status.is_active() == (hold == Hold::Rest) {
                    continue;
                }
                let (new, _) = bench.driven(HOUR).await?;
                let append = Append {
                    status,
                    can_turn,
                    hold,
                    ..append(new.id, 1, 1)
                };
                bench.write(&append).await?;
                requested(bench, new.id).await?;
            }
        }
    }
    let missing = bench.journal.request_cancel(SagaId::new()).await?;
    same("a request to no saga", &missing, &CancelRequest::Missing)
}

async fn requested(bench: &Bench, id: SagaId) -> Check {
    let before = bench.load(id).await?;
    let (_, answer) = before.head.request_cancel(before.now);
    let what = format!("a request to one that is {}", before.head.status);
    for handle in 0..2 {
        same(&what, &bench.handle(handle).request_cancel(id).await?, &answer)?;
    }
    let after = bench.load(id).await?;
    same("its events then", &after.entries, &before.entries)?;
    let due = after.head.due;
    // The request comes between the two loads.
    let earliest = before.head.request_cancel(before.now).0;
    let latest = before.head.request_cancel(after.now).0;
    let (earliest, latest) = (
        earliest.unwrap_or_else(|| before.head.clone()),
        latest.unwrap_or_else(|| before.head.clone()),
    );
    ensure(earliest.due <= due && due <= latest.due, || {
        format!(
            "{what}: expected it to be due between {:?} and {:?}, got {due:?}",
            earliest.due, latest.due
        )
    })?;
    same(&what, &after.head, &Head { due, ..latest })
}

pub(super) async fn who_is_to_turn_back_is_due_at_once(bench: &Bench) -> Check {
    let (new, _) = bench.driven(HOUR).await?;
    let park = Append {
        hold: Hold::Park(HOUR),
        ..append(new.id, 1, 1)
    };
    bench.write(&park).await?;
    same("a claim before", &bench.claim(&query(&new.definition)).await?, &vec![])?;
    bench.journal.request_cancel(new.id).await?;
    let claimed = bench.journal.claim(&query(&new.definition)).await?;
    let claimed: Vec<_> = claimed
        .iter()
        .map(|claimed| (claimed.parked, claimed.head.cancel))
        .collect();
    same("a claim then", &claimed, &vec![(true, true)])?;
    // It can turn back no longer: it waits its time, although it was asked to.
    for (can_turn, at_once) in [(false, false), (true, true)] {
        let (new, _) = bench.driven(HOUR).await?;
        bench.journal.request_cancel(new.id).await?;
        let park = Append {
            can_turn,
            hold: Hold::Park(HOUR),
            ..append(new.id, 1, 1)
        };
        let told = bench.journal.append(&park).await?;
        same("the append", &told, &Appended::Written { cancel: true })?;
        let claimed = bench.claim(&query(&new.definition)).await?;
        same("whether it is due", &!claimed.is_empty(), &at_once)?;
    }
    Ok(())
}

pub(super) async fn a_deadline_ends_the_wait_of_who_can_turn_back(bench: &Bench) -> Check {
    for (deadline, park, can_turn, at_once) in [
        (Duration::ZERO, HOUR, true, true),
        (Duration::ZERO, HOUR, false, false),
        (HOUR, Duration::ZERO, true, true),
        (HOUR, 2 * HOUR, true, false),
        (3 * HOUR, 2 * HOUR, true, false),
    ] {
        let new = NewSaga {
            deadline: Some(deadline),
            lease: Some((fresh_owner(), HOUR)),
            ..new_saga()
        };
        bench.create(&new).await?;
        let created = bench.head(new.id).await?;
        ensure(
            created.deadline >= Some(created.created.saturating_add(deadline)),
            || format!("expected a deadline in {deadline:?}, got {created:?}"),
        )?;
        let append = Append {
            can_turn,
            hold: Hold::Park(park),
            status: SagaStatus::Running,
            ..append(new.id, 1, 1)
        };
        bench.write(&append).await?;
        let head = bench.head(new.id).await?;
        same("the deadline", &head.deadline, &created.deadline)?;
        if can_turn && park > deadline {
            let due = created.deadline.max(Some(head.changed));
            same("when it is due", &head.due, &due)?;
        } else {
            ensure(head.due >= Some(head.changed.saturating_add(park)), || {
                format!("expected it to wait {park:?}, got {head:?}")
            })?;
        }
        let claimed = bench.journal.claim(&query(&new.definition)).await?;
        same("whether it is due", &!claimed.is_empty(), &at_once)?;
        for claimed in claimed {
            let left = claimed.deadline_in;
            ensure(left.is_some_and(|left| left <= deadline), || {
                format!("expected {deadline:?} at most to the deadline, got {left:?}")
            })?;
        }
    }
    Ok(())
}
