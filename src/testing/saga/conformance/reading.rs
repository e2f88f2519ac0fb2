//! What is found, listed and counted.

use std::time::Duration;

use tokio::time::sleep;

use super::bench::{
    Bench, Check, HOUR, append, ensure, entry, fresh_definition, fresh_key, fresh_owner, new_saga, query, same,
};
use crate::saga::SagaId;
use crate::saga::journal::{Append, Counts, DefinitionId, Head, Hold, ListQuery, NewSaga, SagaStatus};

pub(super) async fn every_handle_is_on_the_same_journal(bench: &Bench) -> Check {
    let (new, _) = bench.driven(HOUR).await?;
    let loaded = bench.load(new.id).await?;
    for handle in &bench.handles {
        let found = handle.load(new.id).await?.map(|loaded| (loaded.head, loaded.entries));
        let expected = (loaded.head.clone(), loaded.entries.clone());
        same("what one sees of another's saga", &found, &Some(expected))?;
    }
    Ok(())
}

pub(super) async fn a_saga_is_found_by_its_key(bench: &Bench) -> Check {
    for status in SagaStatus::ALL {
        let new = bench.at(status).await?;
        let head = bench.head(new.id).await?;
        same("the head", &bench.handle(1).find(new.key).await?, &Some(head))?;
    }
    same("a key of none", &bench.journal.find(fresh_key()).await?, &None)?;
    let none = bench.journal.load(SagaId::new()).await?;
    same("an id of none", &none, &None)
}

/// More than a page of any client.
const EVENTS: u64 = 1_200;

pub(super) async fn a_long_saga_is_loaded_whole(bench: &Bench) -> Check {
    let (new, _) = bench.driven(HOUR).await?;
    let mut seq = 1;
    for many in [1, 2, 600, 96, 501] {
        let append = Append {
            entries: vec![entry(b"{\"j\":10}", Some(b"{}")); many],
            ..append(new.id, 1, seq)
        };
        bench.write(&append).await?;
        seq += u64::try_from(many).unwrap_or_default();
    }
    let loaded = bench.handle(1).load(new.id).await?;
    let loaded = loaded.map(|loaded| (loaded.head.seq, loaded.entries));
    let (seq, entries) = loaded.unwrap_or_default();
    same("its number of events", &seq, &(EVENTS + 1))?;
    ensure(entries.iter().map(|stored| stored.seq).eq(0..=EVENTS), || {
        format!(
            "expected the events 0 to {EVENTS} in order, got {} others",
            entries.len()
        )
    })?;
    ensure(entries.windows(2).all(|pair| pair[0].at <= pair[1].at), || {
        "expected times that do not go back".to_owned()
    })
}

async fn list(bench: &Bench, query: &ListQuery) -> Result<Vec<SagaId>, super::bench::Broken> {
    let listed = bench.journal.list(query).await?;
    Ok(listed.iter().map(|head| head.id).collect())
}

pub(super) async fn sagas_are_listed_by_id_in_pages(bench: &Bench) -> Check {
    let definition = fresh_definition();
    let mut sagas: Vec<(SagaId, SagaStatus)> = Vec::new();
    // The first bytes decide, as numbers without a sign.
    for first in [0x80, 0x00, 0xff, 0x7f, 0x01, 0xfe] {
        for status in SagaStatus::ALL {
            let mut id = *SagaId::new().as_bytes();
            id[0] = first;
            id[1] = u8::try_from(sagas.len()).unwrap_or_default();
            let new = NewSaga {
                id: SagaId::from_bytes(id),
                definition: definition.clone(),
                lease: Some((fresh_owner(), HOUR)),
                ..new_saga()
            };
            bench.create(&new).await?;
            let append = Append {
                status,
                ..append(new.id, 1, 1)
            };
            bench.write(&append).await?;
            sagas.push((new.id, status));
        }
    }
    sagas.sort_unstable();
    let name = Some(definition.name.clone());
    for status in [None].into_iter().chain(SagaStatus::ALL.map(Some)) {
        let fits = sagas.iter().filter(|(_, at)| status.is_none_or(|status| *at == status));
        let expected: Vec<_> = fits.map(|(id, _)| *id).collect();
        for limit in [1, 4, 1_000, usize::MAX] {
            let mut query = ListQuery {
                status,
                name: name.clone(),
                after: None,
                limit,
            };
            let mut got = Vec::new();
            loop {
                let page = list(bench, &query).await?;
                ensure(page.len() <= limit, || {
                    format!("expected {limit} at most, got {}", page.len())
                })?;
                let Some(last) = page.last() else { break };
                query.after = Some(*last);
                got.extend(page);
                ensure(got.len() <= expected.len(), || {
                    format!("expected {} in all, got {}", expected.len(), got.len())
                })?;
            }
            same("the pages", &got, &expected)?;
        }
    }
    let none = ListQuery {
        name: name.clone(),
        ..ListQuery::default()
    };
    same("a page of none", &list(bench, &none).await?, &vec![])?;
    let other = ListQuery {
        name: Some(format!("{}-", definition.name)),
        limit: 10,
        ..none.clone()
    };
    same("another name", &list(bench, &other).await?, &vec![])?;
    let after = ListQuery {
        after: sagas.first().map(|(id, _)| *id),
        limit: usize::MAX,
        ..ListQuery::default()
    };
    let all = list(bench, &after).await?;
    ensure(sagas[1..].iter().all(|(id, _)| all.contains(id)), || {
        "expected all of them in a list of any name, got fewer".to_owned()
    })?;
    let page = ListQuery { limit: 1, ..after };
    let page = ListQuery { name, ..page };
    let listed: Vec<Head> = bench.journal.list(&page).await?;
    same("a listed head", &listed, &vec![bench.head(sagas[1].0).await?])
}

/// `now` has so many more than `before`.
fn more(before: Counts, now: Counts, active: u64, stuck: u64, incompatible: u64) -> Check {
    let expected = (
        before.active + active,
        before.stuck + stuck,
        before.incompatible + incompatible,
    );
    let got = (now.active, now.stuck, now.incompatible);
    same("the active, the stuck and the incompatible", &got, &expected)
}

pub(super) async fn sagas_are_counted(bench: &Bench) -> Check {
    let ours = fresh_definition();
    let definitions = [fresh_definition(), ours.clone()];
    let newer = DefinitionId {
        version: 2,
        ..ours.clone()
    };
    let before = bench.journal.count(&definitions).await?;
    same(
        "an empty list of definitions",
        &before,
        &bench.journal.count(&[]).await?,
    )?;
    let create = |definition: &DefinitionId| NewSaga {
        definition: definition.clone(),
        lease: Some((fresh_owner(), HOUR)),
        ..new_saga()
    };
    let mut waiting = Vec::new();
    for definition in [&ours, &newer] {
        for status in SagaStatus::ALL {
            let new = create(definition);
            bench.create(&new).await?;
            let hold = if status.is_active() {
                Hold::Park(HOUR)
            } else {
                Hold::Rest
            };
            let append = Append {
                status,
                hold,
                ..append(new.id, 1, 1)
            };
            bench.write(&append).await?;
            waiting.push(new.id);
        }
    }
    let now = bench.handle(1).count(&definitions).await?;
    more(before, now, 4, 2, 2)?;
    more(
        before,
        bench.journal.count(&[]).await?,
        4,
        2,
        before.active - before.incompatible + 4,
    )?;
    if before.overdue.is_none() {
        same("how long one has waited that is not due", &now.overdue, &None)?;
    }
    overdue(bench, &ours, before.overdue).await
}

/// Those that are due and nobody claims, of any definition.
async fn overdue(bench: &Bench, ours: &DefinitionId, earlier: Option<Duration>) -> Check {
    const WAIT: Duration = Duration::from_millis(30);
    for lease in [None, Some((fresh_owner(), Duration::ZERO))] {
        let new = NewSaga {
            definition: ours.clone(),
            lease,
            ..new_saga()
        };
        bench.create(&new).await?;
        let due = bench.head(new.id).await?.due.unwrap_or_default();
        sleep(WAIT).await;
        let first = bench.load(new.id).await?.now;
        let overdue = bench.journal.count(&[]).await?.overdue;
        let last = bench.load(new.id).await?.now;
        ensure(overdue >= Some(first.saturating_sub(due)), || {
            format!("expected a wait of {WAIT:?} or more, got {overdue:?}")
        })?;
        if earlier.is_none() {
            ensure(overdue <= Some(last.saturating_sub(due)), || {
                format!("expected a wait of about {WAIT:?}, got {overdue:?}")
            })?;
        }
        let claimed = bench.claim(&query(ours)).await?;
        same("a claim", &claimed, &vec![new.id])?;
        if earlier.is_none() {
            let overdue = bench.journal.count(&[]).await?.overdue;
            same("how long one has waited that is claimed", &overdue, &None)?;
        }
    }
    Ok(())
}
