//! Claims, and completions, that come at once: one statement for many.

use std::time::Duration;

use bytes::Bytes;
use tokio_postgres::types::{FromSqlOwned, Type};

use super::super::super::record::{Claim, Owner};
use super::{bytes, retention, row, signed, sql};
use crate::KeyId;
use crate::storage::PostgresStorage;
use crate::storage::postgres::{Param, Together, microseconds};

/// Larger outcomes go alone: a statement holds all of its group.
pub(super) const MAX_OUTCOME: usize = 16 * 1024;

/// Claims of new keys.
pub(super) struct Claims(pub(super) PostgresStorage);

impl Together for Claims {
    type Job = (KeyId, Claim);
    /// The fence; none where the key has a record.
    type Answer = Option<i64>;

    fn id(job: &Self::Job) -> KeyId {
        job.0
    }

    async fn run(&self, jobs: &[Self::Job]) -> Option<Vec<Self::Answer>> {
        let ids = each(jobs, |(id, _)| bytes(id.as_bytes()));
        let claim_ids = each(jobs, |(_, claim)| bytes(claim.claim_id.as_bytes()));
        let fingerprints = each(jobs, |(_, claim)| bytes(claim.fingerprint.as_bytes()));
        let leases = each(jobs, |(_, claim)| microseconds(claim.lease));
        let retentions = each(jobs, |(_, claim)| retention(claim.mode));
        let origins = each(jobs, |(_, claim)| claim.origin.as_str());
        let params: [Param<'_>; 6] = [
            (&ids, Type::BYTEA_ARRAY),
            (&claim_ids, Type::BYTEA_ARRAY),
            (&fingerprints, Type::BYTEA_ARRAY),
            (&leases, Type::INT8_ARRAY),
            (&retentions, Type::INT8_ARRAY),
            (&origins, Type::TEXT_ARRAY),
        ];
        answers(&self.0, sql::CLAIM_MANY, &params).await
    }
}

pub(super) struct Completion {
    pub(super) id: KeyId,
    pub(super) owner: Owner,
    pub(super) outcome: Bytes,
    pub(super) retention: Duration,
}

/// Completions by who has the record.
pub(super) struct Completions(pub(super) PostgresStorage);

impl Together for Completions {
    type Job = Completion;
    /// Whether it is applied.
    type Answer = bool;

    fn id(job: &Self::Job) -> KeyId {
        job.id
    }

    async fn run(&self, jobs: &[Self::Job]) -> Option<Vec<Self::Answer>> {
        let ids = each(jobs, |job| bytes(job.id.as_bytes()));
        let claim_ids = each(jobs, |job| bytes(job.owner.claim_id.as_bytes()));
        let fences = each(jobs, |job| signed(job.owner.fence));
        let attempts = each(jobs, |job| i64::from(job.owner.attempt));
        let fingerprints = each(jobs, |job| bytes(job.owner.fingerprint.as_bytes()));
        let outcomes = each(jobs, |job| job.outcome.as_ref());
        let retentions = each(jobs, |job| microseconds(job.retention));
        let params: [Param<'_>; 7] = [
            (&ids, Type::BYTEA_ARRAY),
            (&claim_ids, Type::BYTEA_ARRAY),
            (&fences, Type::INT8_ARRAY),
            (&attempts, Type::INT8_ARRAY),
            (&fingerprints, Type::BYTEA_ARRAY),
            (&outcomes, Type::BYTEA_ARRAY),
            (&retentions, Type::INT8_ARRAY),
        ];
        answers(&self.0, sql::COMPLETE_MANY, &params).await
    }
}

/// A column of all jobs.
fn each<'a, J, V>(jobs: &'a [J], value: impl Fn(&'a J) -> V) -> Vec<V> {
    jobs.iter().map(value).collect()
}

async fn answers<A: FromSqlOwned>(storage: &PostgresStorage, sql: &str, params: &[Param<'_>]) -> Option<Vec<A>> {
    // Alone, each has the error again.
    let rows = storage.query_prepared(sql, params).await.ok()?;
    row::get(rows.first()?, 0).ok()
}
