//! What the calls of a journal do, in a transaction of the file's writer.

use std::time::Duration;

use rusqlite::Connection;

use super::super::{
    Append, Appended, CancelRequest, ClaimQuery, Claimed, ClaimedOne, Counts, Created, DefinitionId, Head, ListQuery,
    Loaded, NewSaga, OwnerId, Prune, Renewal, SagaStatus,
};
use super::{entries, row};
use crate::saga::id::SagaId;
use crate::storage::sqlite::value::stored;
use crate::storage::sqlite::{Fault, Turn};
use crate::storage::{StorageError, StorageErrorKind};

pub(super) fn create(turn: &Turn<'_>, new: &NewSaga) -> Result<Created, Fault> {
    if let Some(existing) = row::find(turn.connection, new.key)? {
        return Ok(existing.meets(new));
    }
    if row::load(turn.connection, new.id)?.is_some() {
        let taken = "there is a saga of this id, with another key";
        return Err(StorageError::new(StorageErrorKind::Refused, taken).into());
    }
    let head = Head::of(new, turn.now);
    row::insert(turn.connection, &head)?;
    entries::insert(turn.connection, new.id, head.epoch, 0, &new.entries, turn.now)?;
    Ok(Created::New)
}

pub(super) fn append(turn: &Turn<'_>, append: &Append) -> Result<Appended, Fault> {
    let Some(head) = row::load(turn.connection, append.id)? else {
        return Ok(Appended::Fenced);
    };
    let cancel = head.cancel;
    if let Some(after) = head.append(append, turn.now) {
        let Append { id, epoch, seq, .. } = *append;
        entries::insert(turn.connection, id, epoch, seq, &append.entries, turn.now)?;
        row::update(turn.connection, &head, &after)?;
        return Ok(Appended::Written { cancel });
    }
    if entries::are_written(turn.connection, append)? {
        Ok(Appended::Written { cancel })
    } else {
        Ok(Appended::Fenced)
    }
}

pub(super) fn claim(turn: &Turn<'_>, query: &ClaimQuery) -> Result<Vec<Claimed>, Fault> {
    let mut due = Vec::new();
    for id in &query.definitions {
        let Some(definition) = row::definition(turn.connection, id)? else {
            continue;
        };
        for (suspect, limit) in [(false, query.limit), (true, query.limit.min(query.suspects))] {
            due.extend(row::due(turn.connection, &definition, suspect, turn.now, limit)?);
        }
    }
    due.sort_by_key(|head| (head.due, head.id));
    // Who names a definition twice gets its sagas once.
    due.dedup_by_key(|head| head.id);
    let mut suspects = query.suspects;
    due.retain(|head| {
        let allowed = !head.is_suspect() || suspects > 0;
        suspects = suspects.saturating_sub(usize::from(head.is_suspect()));
        allowed
    });
    let mut claimed = Vec::new();
    for head in due.into_iter().take(query.limit) {
        let claim = head.claim(query.owner, query.lease, turn.now);
        row::update(turn.connection, &head, &claim.head)?;
        claimed.push(claim);
    }
    Ok(claimed)
}

pub(super) fn claim_one(turn: &Turn<'_>, id: SagaId, owner: OwnerId, lease: Duration) -> Result<ClaimedOne, Fault> {
    let Some(head) = row::load(turn.connection, id)? else {
        return Ok(ClaimedOne::Missing);
    };
    if head.is_held(turn.now) {
        return Ok(ClaimedOne::Busy);
    }
    let claimed = head.claim(owner, lease, turn.now);
    row::update(turn.connection, &head, &claimed.head)?;
    Ok(ClaimedOne::Claimed(Box::new(claimed)))
}

pub(super) fn renew(
    turn: &Turn<'_>,
    owner: OwnerId,
    lease: Duration,
    sagas: &[(SagaId, u64)],
) -> Result<Vec<Renewal>, Fault> {
    let renew = |&(id, epoch): &(SagaId, u64)| {
        let Some(head) = row::load(turn.connection, id)? else {
            return Ok(Renewal {
                id,
                held: false,
                cancel: false,
            });
        };
        if let Some(after) = head.renew(owner, epoch, lease, turn.now) {
            row::update(turn.connection, &head, &after)?;
        }
        Ok(head.renewal(owner, epoch))
    };
    sagas.iter().map(renew).collect()
}

pub(super) fn release(turn: &Turn<'_>, owner: OwnerId, sagas: &[(SagaId, u64)]) -> Result<(), Fault> {
    for &(id, epoch) in sagas {
        let Some(head) = row::load(turn.connection, id)? else {
            continue;
        };
        if let Some(after) = head.release(owner, epoch, turn.now) {
            row::update(turn.connection, &head, &after)?;
        }
    }
    Ok(())
}

pub(super) fn request_cancel(turn: &Turn<'_>, id: SagaId) -> Result<CancelRequest, Fault> {
    let Some(head) = row::load(turn.connection, id)? else {
        return Ok(CancelRequest::Missing);
    };
    let (after, answer) = head.request_cancel(turn.now);
    if let Some(after) = after {
        row::update(turn.connection, &head, &after)?;
    }
    Ok(answer)
}

pub(super) fn load(turn: &Turn<'_>, id: SagaId) -> Result<Option<Loaded>, Fault> {
    let Some(head) = row::load(turn.connection, id)? else {
        return Ok(None);
    };
    let entries = entries::load(turn.connection, &head)?;
    let now = turn.now;
    Ok(Some(Loaded { head, entries, now }))
}

pub(super) fn list(connection: &Connection, query: &ListQuery) -> Result<Vec<Head>, Fault> {
    if query.status.is_none() && query.name.is_none() {
        return row::after(connection, query.after, query.limit);
    }
    let mut heads = Vec::new();
    for definition in row::definitions(connection)? {
        if query.name.as_ref().is_some_and(|name| definition.id.name != *name) {
            continue;
        }
        let statuses = SagaStatus::ALL.into_iter();
        for status in statuses.filter(|status| query.status.is_none_or(|wanted| wanted == *status)) {
            heads.extend(row::at(connection, &definition, status, query.after, query.limit)?);
        }
    }
    heads.sort_by_key(|head| head.id);
    heads.truncate(query.limit);
    Ok(heads)
}

pub(super) fn count(turn: &Turn<'_>, definitions: &[DefinitionId]) -> Result<Counts, Fault> {
    let connection = turn.connection;
    let mut counts = Counts::default();
    for definition in row::definitions(connection)? {
        let mut active = 0;
        for status in [SagaStatus::Running, SagaStatus::Compensating] {
            active += row::count(connection, &definition, status)?;
        }
        counts.active += active;
        counts.stuck += row::count(connection, &definition, SagaStatus::Stuck)?;
        if !definitions.contains(&definition.id) {
            counts.incompatible += active;
        }
        let due = row::first_due(connection, &definition, turn.now)?;
        counts.overdue = counts.overdue.max(due.map(|due| turn.now.saturating_sub(due)));
    }
    Ok(counts)
}

/// Clears away at most `limit` sagas.
pub(super) fn prune(turn: &Turn<'_>, prune: &Prune, limit: usize) -> Result<usize, Fault> {
    let connection = turn.connection;
    let since = |age: Duration| match stored(age) {
        // Everything: also what was written by somebody whose clock is ahead.
        Duration::ZERO => Some(Duration::MAX),
        age => turn.now.checked_sub(age),
    };
    let mut over = Vec::new();
    for (pruned, age) in [
        (true, prune.keys_after.max(prune.events_after)),
        (false, prune.events_after),
    ] {
        if let Some(until) = since(age) {
            over.extend(row::settled(connection, pruned, until, limit - over.len())?);
        }
    }
    for head in &over {
        entries::delete(connection, head.id)?;
        if head.is_over(prune, turn.now) {
            row::delete(connection, head.id)?;
        } else {
            let pruned = Head {
                pruned: true,
                ..head.clone()
            };
            row::update(connection, head, &pruned)?;
        }
    }
    Ok(over.len())
}
