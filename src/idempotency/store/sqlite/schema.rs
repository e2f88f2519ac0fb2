//! The tables.

use crate::storage::Migration;

/// The steps of the schema. One that has been released never changes.
pub(crate) static MIGRATIONS: &[Migration] = &[Migration::new("idempotency", 1, FIRST)];

/// `status` is 0 in progress (interrupted once `lease_until` is over), 1 completed, 2 cancelled. Times are milliseconds
/// since 1970. Both indexes are by time, so that new entries come at the end: only the one of the ids is written all over.
/// The one row of `steadfast_idempotency_fence` has the last fence that was given out.
const FIRST: &str = "\
CREATE TABLE steadfast_idempotency (
    id BLOB PRIMARY KEY NOT NULL CHECK (length(id) = 32),
    status INTEGER NOT NULL CHECK (status IN (0, 1, 2)),
    fence INTEGER NOT NULL,
    attempt INTEGER,
    claim_id BLOB,
    fingerprint BLOB,
    lease_until INTEGER,
    expires_at INTEGER,
    checkpoint BLOB,
    outcome BLOB,
    origin TEXT
) STRICT;
CREATE INDEX steadfast_idempotency_expiring
    ON steadfast_idempotency (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX steadfast_idempotency_in_progress
    ON steadfast_idempotency (lease_until) WHERE status = 0;
CREATE TABLE steadfast_idempotency_fence (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    fence INTEGER NOT NULL
) STRICT;
INSERT INTO steadfast_idempotency_fence (one, fence) VALUES (1, 0);
";
