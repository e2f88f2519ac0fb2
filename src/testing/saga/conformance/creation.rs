//! How a saga comes to be, once.

use super::bench::{
    Bench, Check, HOUR, append, ensure, entry, fresh_definition, fresh_key, fresh_owner, new_saga, same, same_head,
};
use crate::saga::SagaId;
use crate::saga::journal::{Append, Created, DefinitionId, Head, Hold, NewSaga, SagaStatus};

pub(super) async fn a_new_saga_is_written_with_its_events(bench: &Bench) -> Check {
    let plain = new_saga();
    let driven = NewSaga {
        lease: Some((fresh_owner(), HOUR)),
        deadline: Some(2 * HOUR),
        can_turn: false,
        entries: vec![entry(b"{\"a\":1}", Some(b"{}")), entry(b"{\"b\":2}", None)],
        ..new_saga()
    };
    for new in [plain, driven] {
        bench.create(&new).await?;
        let loaded = bench.load(new.id).await?;
        let created = loaded.head.created;
        same_head("the head", &loaded.head, &Head::of(&new, created))?;
        same("its events", &loaded.entries.len(), &new.entries.len())?;
        for (n, (stored, written)) in loaded.entries.iter().zip(&new.entries).enumerate() {
            same("the number of an event", &usize::try_from(stored.seq).ok(), &Some(n))?;
            same("its epoch", &stored.epoch, &loaded.head.epoch)?;
            same("its time", &stored.at, &created)?;
            same("an event", &stored.entry, written)?;
        }
        ensure(created <= loaded.now, || {
            format!("expected a time up to {:?}, got {created:?}", loaded.now)
        })?;
    }
    Ok(())
}

pub(super) async fn a_creation_that_is_sent_twice_is_one_saga(bench: &Bench) -> Check {
    let (new, _) = bench.driven(HOUR).await?;
    let before = bench.load(new.id).await?;
    let again = bench.handle(1).create(&new).await?;
    same("the answer to the same creation", &again, &Created::New)?;
    let after = bench.load(new.id).await?;
    same("the saga then", &after.head, &before.head)?;
    same("its events then", &after.entries, &before.entries)
}

/// Its first reply was lost, and somebody else has driven it meanwhile.
pub(super) async fn a_creation_that_is_sent_late_changes_nothing(bench: &Bench) -> Check {
    let new = new_saga();
    bench.create(&new).await?;
    bench.take(new.id, fresh_owner(), HOUR).await?;
    let rest = Append {
        status: SagaStatus::Compensated,
        hold: Hold::Rest,
        ..append(new.id, 1, 1)
    };
    bench.write(&rest).await?;
    let before = bench.load(new.id).await?;
    same("the late one", &bench.journal.create(&new).await?, &Created::New)?;
    let after = bench.load(new.id).await?;
    same("the saga then", &after.head, &before.head)?;
    same("its events then", &after.entries, &before.entries)
}

pub(super) async fn a_key_has_one_saga(bench: &Bench) -> Check {
    for status in SagaStatus::ALL {
        let first = bench.at(status).await?;
        let head = bench.head(first.id).await?;
        let again = NewSaga {
            id: SagaId::new(),
            ..first.clone()
        };
        let newer = NewSaga {
            definition: DefinitionId {
                version: 2,
                fingerprint: [9; 32],
                ..first.definition.clone()
            },
            ..again.clone()
        };
        for same_input in [&again, &newer] {
            let answer = bench.handle(1).create(same_input).await?;
            same("the same input", &answer, &Created::Existing(Box::new(head.clone())))?;
        }
        let other_input = NewSaga {
            input: [2; 32],
            ..again.clone()
        };
        let other_name = NewSaga {
            definition: fresh_definition(),
            ..again.clone()
        };
        for other in [&other_input, &other_name] {
            same("another saga", &bench.journal.create(other).await?, &Created::Conflict)?;
        }
        let none = bench.journal.load(again.id).await?;
        same("a saga of the refused id", &none, &None)?;
        same("the saga then", &bench.head(first.id).await?, &head)?;
    }
    Ok(())
}

pub(super) async fn an_id_is_not_given_twice(bench: &Bench) -> Check {
    let (first, _) = bench.driven(HOUR).await?;
    let before = bench.load(first.id).await?;
    let other = NewSaga {
        key: fresh_key(),
        ..first.clone()
    };
    match bench.journal.create(&other).await {
        Err(error) => ensure(!error.is_retryable(), || {
            format!("an id under another key: expected an error that is final, got {error:?}")
        })?,
        Ok(answer) => return Err(format!("an id under another key: expected an error, got {answer:?}").into()),
    }
    same("what the other key finds", &bench.journal.find(other.key).await?, &None)?;
    let after = bench.load(first.id).await?;
    same("the saga then", &after.head, &before.head)?;
    same("its events then", &after.entries, &before.entries)
}
