//! The tables.

use crate::storage::Migration;

/// The steps of the schema. One that has been released never changes.
pub(super) static MIGRATIONS: &[Migration] = &[Migration::new("saga", 1, FIRST)];

/// `status` is 0 running, 1 compensating, 2 completed, 3 compensated, 4 stuck, 5 abandoned. Times are milliseconds since
/// 1970. Ids begin with the time at which they were made: so both tables grow at their ends.
///
/// What is due is found by definition, so that sagas that nobody here can drive are not even looked at; and suspects
/// apart from the others, so that many of them hide nobody.
const FIRST: &str = "\
CREATE TABLE steadfast_saga_definition (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    UNIQUE (name, version, fingerprint)
) STRICT;
CREATE TABLE steadfast_saga (
    id BLOB PRIMARY KEY NOT NULL CHECK (length(id) = 16),
    key BLOB NOT NULL UNIQUE CHECK (length(key) = 32),
    input BLOB NOT NULL CHECK (length(input) = 32),
    definition INTEGER NOT NULL,
    status INTEGER NOT NULL CHECK (status BETWEEN 0 AND 5),
    seq INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    owner BLOB,
    due INTEGER,
    recoveries INTEGER NOT NULL,
    can_turn INTEGER NOT NULL,
    cancel INTEGER NOT NULL,
    deadline INTEGER,
    error TEXT,
    created INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    pruned INTEGER NOT NULL,
    suspect INTEGER NOT NULL GENERATED ALWAYS AS (recoveries >= 3) VIRTUAL
) STRICT, WITHOUT ROWID;
CREATE INDEX steadfast_saga_due
    ON steadfast_saga (definition, suspect, due) WHERE status IN (0, 1) AND due IS NOT NULL;
CREATE INDEX steadfast_saga_status
    ON steadfast_saga (definition, status);
CREATE INDEX steadfast_saga_settled
    ON steadfast_saga (pruned, changed) WHERE status IN (2, 3, 5) AND owner IS NULL;
CREATE TABLE steadfast_saga_event (
    saga BLOB NOT NULL,
    seq INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    at INTEGER NOT NULL,
    event BLOB NOT NULL,
    context BLOB,
    PRIMARY KEY (saga, seq)
) STRICT, WITHOUT ROWID;
CREATE VIEW steadfast_sagas AS
SELECT
    lower(hex(s.id)) AS id, lower(hex(s.key)) AS key, d.name, d.version,
    CASE s.status
        WHEN 0 THEN 'running' WHEN 1 THEN 'compensating' WHEN 2 THEN 'completed'
        WHEN 3 THEN 'compensated' WHEN 4 THEN 'stuck' ELSE 'abandoned'
    END AS status,
    s.seq, s.epoch, nullif(lower(hex(s.owner)), '') AS owner,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.due / 1000.0, 'unixepoch') AS due,
    s.recoveries, s.can_turn, s.cancel,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.deadline / 1000.0, 'unixepoch') AS deadline,
    s.error,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.created / 1000.0, 'unixepoch') AS created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.changed / 1000.0, 'unixepoch') AS changed_at,
    s.pruned
FROM steadfast_saga AS s JOIN steadfast_saga_definition AS d ON d.id = s.definition;
CREATE VIEW steadfast_saga_events AS
SELECT
    lower(hex(e.saga)) AS saga, e.seq, e.epoch,
    strftime('%Y-%m-%dT%H:%M:%fZ', e.at / 1000.0, 'unixepoch') AS at,
    CAST(e.event AS TEXT) AS event,
    CASE
        WHEN e.context IS NULL THEN NULL
        WHEN json_valid(CAST(e.context AS TEXT)) THEN CAST(e.context AS TEXT)
        ELSE hex(e.context)
    END AS context
FROM steadfast_saga_event AS e;
";
