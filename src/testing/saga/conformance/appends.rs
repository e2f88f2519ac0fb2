//! What is written to a saga: by who owns it, in order, once.

use std::time::Duration;

use bytes::Bytes;

use super::bench::{Bench, Broken, Check, HOUR, append, ensure, entry, fresh_owner, new_saga, same, same_head};
use crate::saga::SagaId;
use crate::saga::journal::{Append, Appended, CancelRequest, Entry, Hold, Loaded, NewSaga, SagaStatus};

const WRITTEN: Appended = Appended::Written { cancel: false };

/// The append is fenced, and changes nothing.
async fn refused(bench: &Bench, what: &str, append: &Append, before: &Loaded) -> Check {
    let answer = bench.handle(1).append(append).await?;
    same(what, &answer, &Appended::Fenced)?;
    unchanged(bench, what, before).await
}

async fn unchanged(bench: &Bench, what: &str, before: &Loaded) -> Check {
    let after = bench.load(before.head.id).await?;
    same(&format!("the saga after {what}"), &after.head, &before.head)?;
    same(&format!("its events after {what}"), &after.entries, &before.entries)
}

pub(super) async fn an_append_writes_events_and_the_head_after_them(bench: &Bench) -> Check {
    let holds = [
        Hold::Keep(HOUR),
        Hold::Keep(Duration::ZERO),
        Hold::Park(HOUR),
        Hold::Park(4 * HOUR),
        Hold::Rest,
    ];
    for deadline in [None, Some(Duration::ZERO), Some(2 * HOUR)] {
        for hold in holds {
            for status in SagaStatus::ALL {
                let can_turn = status == SagaStatus::Running;
                let new = NewSaga {
                    deadline,
                    lease: Some((fresh_owner(), 3 * HOUR)),
                    ..new_saga()
                };
                bench.create(&new).await?;
                let before = bench.load(new.id).await?;
                let append = Append {
                    status,
                    can_turn,
                    hold,
                    entries: vec![entry(b"{\"c\":3}", None), entry(b"{\"d\":4}", Some(b"{}"))],
                    ..append(new.id, 1, 1)
                };
                bench.write(&append).await?;
                let after = bench.load(new.id).await?;
                let expected = before.head.append(&append, after.head.changed);
                let expected = expected.ok_or_else(|| Broken::from("the append was fenced".to_owned()))?;
                same_head("the head after an append", &after.head, &expected)?;
                let written: Vec<_> = after.entries.iter().map(|stored| stored.entry.clone()).collect();
                let all = [&new.entries[..], &append.entries[..]].concat();
                same("the events after an append", &written, &all)?;
                let last = after.entries.last().map(|stored| (stored.seq, stored.epoch, stored.at));
                same("the last event", &last, &Some((2, 1, after.head.changed)))?;
            }
        }
    }
    Ok(())
}

pub(super) async fn an_append_out_of_order_is_fenced(bench: &Bench) -> Check {
    let (new, _) = bench.driven(HOUR).await?;
    bench.write(&append(new.id, 1, 1)).await?;
    let before = bench.load(new.id).await?;
    let other = vec![entry(b"{\"other\":true}", None)];
    for (what, epoch, seq) in [
        ("an append ahead", 1, 3),
        ("an append behind", 1, 1),
        ("an append at the beginning", 1, 0),
        ("an append far ahead", 1, u64::from(u32::MAX)),
        ("an append of an earlier epoch", 0, 2),
        ("an append of a later epoch", 2, 2),
    ] {
        let append = Append {
            entries: other.clone(),
            ..append(new.id, epoch, seq)
        };
        refused(bench, what, &append, &before).await?;
    }
    let nobody = append(SagaId::new(), 1, 0);
    same(
        "an append to no saga",
        &bench.journal.append(&nobody).await?,
        &Appended::Fenced,
    )
}

pub(super) async fn nobody_appends_to_a_saga_without_an_owner(bench: &Bench) -> Check {
    let new = new_saga();
    bench.create(&new).await?;
    let before = bench.load(new.id).await?;
    for epoch in [0, 1] {
        refused(
            bench,
            "an append to one never driven",
            &append(new.id, epoch, 1),
            &before,
        )
        .await?;
    }
    for hold in [Hold::Park(HOUR), Hold::Rest] {
        let (new, _) = bench.driven(HOUR).await?;
        bench
            .write(&Append {
                hold,
                ..append(new.id, 1, 1)
            })
            .await?;
        let before = bench.load(new.id).await?;
        refused(bench, "an append to one let go", &append(new.id, 1, 2), &before).await?;
    }
    Ok(())
}

pub(super) async fn who_was_overtaken_appends_nothing(bench: &Bench) -> Check {
    let (new, _) = bench.driven(Duration::ZERO).await?;
    bench.write(&append(new.id, 1, 1)).await?;
    let keep_nothing = Append {
        hold: Hold::Keep(Duration::ZERO),
        ..append(new.id, 1, 2)
    };
    bench.write(&keep_nothing).await?;
    let claimed = bench.take(new.id, fresh_owner(), HOUR).await?;
    same("the new epoch", &claimed.head.epoch, &2)?;
    let before = bench.load(new.id).await?;
    let late = append(new.id, 1, 3);
    refused(bench, "a late append", &late, &before).await?;
    bench.write(&append(new.id, 2, 3)).await?;
    let before = bench.load(new.id).await?;
    refused(bench, "a late append in the place of another's", &late, &before).await
}

pub(super) async fn a_late_append_that_nobody_overtook_is_written(bench: &Bench) -> Check {
    let (new, _) = bench.driven(Duration::ZERO).await?;
    let late = append(new.id, 1, 1);
    bench.write(&late).await?;
    let head = bench.head(new.id).await?;
    ensure(head.due >= Some(head.changed.saturating_add(HOUR)), || {
        format!("expected the lease to be extended, got {head:?}")
    })
}

pub(super) async fn an_append_that_is_sent_twice_is_one_append(bench: &Bench) -> Check {
    for (hold, status) in [
        (Hold::Keep(HOUR), SagaStatus::Running),
        (Hold::Keep(Duration::ZERO), SagaStatus::Running),
        (Hold::Park(HOUR), SagaStatus::Compensating),
        (Hold::Rest, SagaStatus::Stuck),
    ] {
        let (new, _) = bench.driven(HOUR).await?;
        let append = Append {
            hold,
            status,
            progress: false,
            error: Some("it failed".to_owned()),
            entries: vec![entry(b"{\"e\":5}", Some(b"")), entry(b"{\"f\":6}", None)],
            ..append(new.id, 1, 1)
        };
        bench.write(&append).await?;
        let before = bench.load(new.id).await?;
        for handle in 0..2 {
            same(
                "the same append",
                &bench.handle(handle).append(&append).await?,
                &WRITTEN,
            )?;
        }
        unchanged(bench, "the same append", &before).await?;
        if before.head.owner.is_none() {
            bench.take(new.id, fresh_owner(), HOUR).await?;
            bench.write(&super::bench::append(new.id, 2, 3)).await?;
            let before = bench.load(new.id).await?;
            let again = bench.journal.append(&append).await?;
            same("the same append, after another's", &again, &WRITTEN)?;
            unchanged(bench, "the same append, after another's", &before).await?;
        }
    }
    Ok(())
}

pub(super) async fn an_append_of_something_else_is_not_the_same(bench: &Bench) -> Check {
    let (new, _) = bench.driven(HOUR).await?;
    let written = Append {
        entries: vec![entry(b"{\"g\":7}", Some(b"{}")), entry(b"{\"h\":8}", None)],
        ..append(new.id, 1, 1)
    };
    bench.write(&written).await?;
    let before = bench.load(new.id).await?;
    let with = |change: fn(&mut Vec<Entry>)| {
        let mut entries = written.entries.clone();
        change(&mut entries);
        Append {
            entries,
            ..written.clone()
        }
    };
    let others = [
        ("another first event", with(|e| e[0].event = Bytes::from_static(b"{}"))),
        ("another last event", with(|e| e[1].event = Bytes::from_static(b"{}"))),
        (
            "another context",
            with(|e| e[0].context = Some(Bytes::from_static(b"[]"))),
        ),
        ("a context less", with(|e| e[0].context = None)),
        ("an empty context more", with(|e| e[1].context = Some(Bytes::new()))),
        ("an event more", with(|e| e.push(entry(b"{\"i\":9}", None)))),
        ("another order", with(|e| e.swap(0, 1))),
    ];
    for (what, other) in others {
        refused(bench, what, &other, &before).await?;
    }
    let claimed = Append {
        hold: Hold::Keep(Duration::ZERO),
        ..append(new.id, 1, 3)
    };
    bench.write(&claimed).await?;
    bench.take(new.id, fresh_owner(), HOUR).await?;
    let before = bench.load(new.id).await?;
    let of_the_new_owner = Append { epoch: 2, ..written };
    refused(bench, "the same events in another epoch", &of_the_new_owner, &before).await
}

pub(super) async fn an_append_of_no_events_writes_nothing(bench: &Bench) -> Check {
    let (new, _) = bench.driven(HOUR).await?;
    let before = bench.load(new.id).await?;
    let nothing = Append {
        entries: Vec::new(),
        status: SagaStatus::Stuck,
        hold: Hold::Rest,
        ..append(new.id, 1, 1)
    };
    // Whatever it answers.
    drop(bench.journal.append(&nothing).await);
    unchanged(bench, "an append of no events", &before).await
}

pub(super) async fn an_append_tells_of_a_request_to_turn_back(bench: &Bench) -> Check {
    let (new, _) = bench.driven(HOUR).await?;
    let first = append(new.id, 1, 1);
    bench.write(&first).await?;
    let requested = bench.handle(1).request_cancel(new.id).await?;
    same("the request", &requested, &CancelRequest::Requested)?;
    let told = Appended::Written { cancel: true };
    same("the same append", &bench.journal.append(&first).await?, &told)?;
    let park = Append {
        hold: Hold::Park(HOUR),
        ..append(new.id, 1, 2)
    };
    same("the next append", &bench.journal.append(&park).await?, &told)?;
    let head = bench.head(new.id).await?;
    same("when it is due, as it can turn back", &head.due, &Some(head.changed))
}

pub(super) async fn the_last_error_is_kept(bench: &Bench) -> Check {
    let (new, _) = bench.driven(HOUR).await?;
    let mut seq = 1;
    // Some databases know no zero in a text; that may be replaced, and the append must not fail.
    for error in ["it failed", "ünd wieder – 'quoted'; \u{1f4a5}", "", "with a \0 in it"] {
        let failed = Append {
            error: Some(error.to_owned()),
            ..append(new.id, 1, seq)
        };
        bench.write(&failed).await?;
        let stored = bench.head(new.id).await?.error;
        let replaced = error.contains('\0') && stored.is_some();
        ensure(replaced || stored.as_deref() == Some(error), || {
            format!("expected the error {error:?}, got {stored:?}")
        })?;
        bench.write(&append(new.id, 1, seq + 1)).await?;
        same(
            "the error after the next append",
            &bench.head(new.id).await?.error,
            &stored,
        )?;
        seq += 2;
    }
    Ok(())
}
