//! The calls of a journal.

use std::any::Any;
use std::collections::HashMap;
use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::super::{
    Append, Appended, CancelRequest, ClaimQuery, Claimed, ClaimedOne, Counts, Created, DefinitionId, Head, Journal,
    JournalFuture, ListQuery, Loaded, NewSaga, OwnerId, Prune, Renewal,
};
use super::append::Values;
use super::{Definitions, PostgresJournal, columns, count, row, signed, sql};
use crate::KeyId;
use crate::saga::id::SagaId;
use crate::storage::postgres::{Param, microseconds};
use crate::storage::{Durability, StorageError, StorageErrorKind};

/// How often what others got in between of is tried again: each time one of them got through, so few are ever needed.
const MAX_ROUNDS: usize = 16;
/// A claim chooses among so many times the sagas that it wants: so many claims at once find enough.
const CLAIMS_AT_ONCE: usize = 8;
/// How many sagas one statement clears away: so long are their rows locked.
const PRUNED_AT_ONCE: u64 = 500;

impl Journal for PostgresJournal {
    fn create<'a>(&'a self, new: &'a NewSaga) -> JournalFuture<'a, Created> {
        Box::pin(async move {
            let (events, contexts) = columns(&new.entries);
            let definition = &new.definition;
            let params: [Param<'_>; 13] = [
                (&bytes(new.id.as_bytes()), Type::BYTEA),
                (&bytes(new.key.as_bytes()), Type::BYTEA),
                (&bytes(&new.input), Type::BYTEA),
                (&definition.name.as_bytes(), Type::BYTEA),
                (&i64::from(definition.version), Type::INT8),
                (&bytes(&definition.fingerprint), Type::BYTEA),
                (&count(new.entries.len()), Type::INT8),
                (&new.lease.as_ref().map(|(owner, _)| bytes(&owner.0)), Type::BYTEA),
                (&new.lease.map(|(_, lease)| microseconds(lease)), Type::INT8),
                (&new.can_turn, Type::BOOL),
                (&new.deadline.map(microseconds), Type::INT8),
                (&events, Type::BYTEA_ARRAY),
                (&contexts, Type::BYTEA_ARRAY),
            ];
            for _ in 0..MAX_ROUNDS {
                if self.ask(&sql::CREATE, &params, row::number).await?.is_some() {
                    return Ok(Created::New);
                }
                if let Some(existing) = self.head_of_key(new.key).await? {
                    return Ok(existing.meets(new));
                }
                if self.head_of(new.id).await?.is_some_and(|other| other.key != new.key) {
                    let taken = "there is a saga of this id, with another key";
                    return Err(StorageError::new(StorageErrorKind::Refused, taken));
                }
                // What was there is gone: it can be created.
            }
            Err(overtaken())
        })
    }

    fn append<'a>(&'a self, append: &'a Append) -> JournalFuture<'a, Appended> {
        Box::pin(async move {
            if append.entries.is_empty() {
                return Ok(Appended::Fenced);
            }
            let values = Values::of(append);
            match self.ask(&sql::APPEND, &values.params(append), row::flag).await? {
                Some(cancel) => Ok(Appended::Written { cancel }),
                None => self.written(append).await,
            }
        })
    }

    fn claim<'a>(&'a self, query: &'a ClaimQuery) -> JournalFuture<'a, Vec<Claimed>> {
        Box::pin(async move {
            let suspects = query.suspects.min(query.limit);
            let definitions = Definitions::of(&query.definitions);
            let [names, versions, fingerprints] = definitions.params();
            let params: [Param<'_>; 9] = [
                (&bytes(&query.owner.0), Type::BYTEA),
                (&microseconds(query.lease), Type::INT8),
                (&count(query.limit), Type::INT8),
                (&count(suspects), Type::INT8),
                (&count(query.limit.saturating_mul(CLAIMS_AT_ONCE)), Type::INT8),
                (&count(suspects.saturating_mul(CLAIMS_AT_ONCE)), Type::INT8),
                names,
                versions,
                fingerprints,
            ];
            let rows = self.storage.query(&sql::CLAIM, &params).await?;
            rows.iter().map(row::claimed).collect()
        })
    }

    fn claim_one(&self, id: SagaId, owner: OwnerId, lease: Duration) -> JournalFuture<'_, ClaimedOne> {
        Box::pin(async move {
            let params: [Param<'_>; 3] = [
                (&bytes(&owner.0), Type::BYTEA),
                (&microseconds(lease), Type::INT8),
                (&bytes(id.as_bytes()), Type::BYTEA),
            ];
            for _ in 0..MAX_ROUNDS {
                if let Some(claimed) = self.ask(&sql::CLAIM_ONE, &params, row::claimed).await? {
                    return Ok(ClaimedOne::Claimed(Box::new(claimed)));
                }
                let id: [Param<'_>; 1] = [(&bytes(id.as_bytes()), Type::BYTEA)];
                let read = |row: &Row| Ok((row::head(row)?, row::now(row)?));
                match self.ask(&sql::HEAD_OF, &id, read).await? {
                    None => return Ok(ClaimedOne::Missing),
                    Some((head, now)) if head.is_held(now) => return Ok(ClaimedOne::Busy),
                    // A lease that was granted while the statement waited seemed to lie ahead of it, and is over.
                    Some(_) => {}
                }
            }
            Err(overtaken())
        })
    }

    fn renew<'a>(
        &'a self,
        owner: OwnerId,
        lease: Duration,
        sagas: &'a [(SagaId, u64)],
    ) -> JournalFuture<'a, Vec<Renewal>> {
        Box::pin(async move {
            let (ids, epochs) = leases(sagas);
            let params: [Param<'_>; 4] = [
                (&bytes(&owner.0), Type::BYTEA),
                (&ids, Type::BYTEA_ARRAY),
                (&epochs, Type::INT8_ARRAY),
                (&microseconds(lease), Type::INT8),
            ];
            let rows = self.storage.query_in_reserve(&sql::RENEW, &params).await?;
            let renewals: HashMap<_, _> = rows
                .iter()
                .map(|row| row::renewal(row).map(|(epoch, renewal)| ((renewal.id, epoch), renewal)))
                .collect::<Result<_, _>>()?;
            let answer = |&(id, epoch): &(SagaId, u64)| {
                let unknown = Renewal {
                    id,
                    held: false,
                    cancel: false,
                };
                renewals.get(&(id, epoch)).copied().unwrap_or(unknown)
            };
            Ok(sagas.iter().map(answer).collect())
        })
    }

    fn release<'a>(&'a self, owner: OwnerId, sagas: &'a [(SagaId, u64)]) -> JournalFuture<'a, ()> {
        Box::pin(async move {
            let (ids, epochs) = leases(sagas);
            let params: [Param<'_>; 3] = [
                (&bytes(&owner.0), Type::BYTEA),
                (&ids, Type::BYTEA_ARRAY),
                (&epochs, Type::INT8_ARRAY),
            ];
            self.storage.query(&sql::RELEASE, &params).await.map(drop)
        })
    }

    fn request_cancel(&self, id: SagaId) -> JournalFuture<'_, CancelRequest> {
        Box::pin(async move {
            let params: [Param<'_>; 1] = [(&bytes(id.as_bytes()), Type::BYTEA)];
            for _ in 0..MAX_ROUNDS {
                if self.ask(&sql::REQUEST_CANCEL, &params, row::flag).await?.is_some() {
                    return Ok(CancelRequest::Requested);
                }
                let Some(head) = self.head_of(id).await? else {
                    return Ok(CancelRequest::Missing);
                };
                // What would be to write now was not when it was tried.
                if let (None, answer) = head.request_cancel(Duration::ZERO) {
                    return Ok(answer);
                }
            }
            Err(overtaken())
        })
    }

    fn load(&self, id: SagaId) -> JournalFuture<'_, Option<Loaded>> {
        Box::pin(async move {
            let params: [Param<'_>; 1] = [(&bytes(id.as_bytes()), Type::BYTEA)];
            let rows = self.storage.query(&sql::LOAD, &params).await?;
            let Some(first) = rows.first() else { return Ok(None) };
            let entries = rows.iter().filter_map(|row| row::stored(row).transpose());
            Ok(Some(Loaded {
                head: row::head(first)?,
                entries: entries.collect::<Result<_, _>>()?,
                now: row::now(first)?,
            }))
        })
    }

    fn find(&self, key: KeyId) -> JournalFuture<'_, Option<Head>> {
        Box::pin(self.head_of_key(key))
    }

    fn list<'a>(&'a self, query: &'a ListQuery) -> JournalFuture<'a, Vec<Head>> {
        Box::pin(async move {
            let sql = sql::list(query.status.map(row::status_number), query.name.is_some());
            // The empty string comes before every id.
            let after = query.after.as_ref().map_or(&[][..], |after| after.as_bytes());
            let params: [Param<'_>; 3] = [
                (&after, Type::BYTEA),
                (&count(query.limit), Type::INT8),
                (&query.name.as_deref().map(str::as_bytes), Type::BYTEA),
            ];
            let rows = self.storage.query(&sql, &params).await?;
            rows.iter().map(row::head).collect()
        })
    }

    fn count<'a>(&'a self, definitions: &'a [DefinitionId]) -> JournalFuture<'a, Counts> {
        Box::pin(async move {
            let definitions = Definitions::of(definitions);
            let counts = self.ask(&sql::COUNT, &definitions.params(), row::counts).await?;
            Ok(counts.unwrap_or_default())
        })
    }

    fn prune(&self, prune: Prune) -> JournalFuture<'_, u64> {
        Box::pin(async move {
            let limit = u64::try_from(prune.limit).unwrap_or(u64::MAX);
            let mut pruned = 0;
            while pruned < limit {
                let at_once = PRUNED_AT_ONCE.min(limit - pruned);
                let params: [Param<'_>; 3] = [
                    (&microseconds(prune.events_after), Type::INT8),
                    (&microseconds(prune.keys_after.max(prune.events_after)), Type::INT8),
                    (&signed(at_once), Type::INT8),
                ];
                let found = self.ask(&sql::PRUNE, &params, row::number).await?.unwrap_or(0);
                pruned += found;
                if found < at_once {
                    break;
                }
            }
            Ok(pruned)
        })
    }

    fn durability(&self) -> Durability {
        Durability::Durable
    }

    fn local(&self) -> Option<&(dyn Any + Send + Sync)> {
        Some(self)
    }
}

fn leases(sagas: &[(SagaId, u64)]) -> (Vec<&[u8]>, Vec<i64>) {
    let leases = sagas.iter().map(|(id, epoch)| (bytes(id.as_bytes()), signed(*epoch)));
    leases.unzip()
}

/// Bytes whose length is part of their type.
fn bytes<const N: usize>(bytes: &[u8; N]) -> &[u8] {
    bytes
}

fn overtaken() -> StorageError {
    let what = "others changed the saga again and again before this could";
    StorageError::new(StorageErrorKind::Unavailable, what)
}
