//! The statements.
//!
//! Each is one transition of one record, and they share one shape:
//!
//! - `found` reads the record as of the start of the statement. Where that is the answer, nothing is written and nothing
//!   waits, so the answer was true while the statement ran.
//! - Otherwise the record is written, on the condition that it still is what may be written: whoever waited for the lock
//!   of its row sees the new one there, which `found` does not. Refused then, the statement has no answer at all, and is
//!   run again: what `found` holds is from before the wait.
//!
//! What happens most, a key that is new and a completion by who has the record, is tried first by a function of the schema:
//! these statements are planned each time, and the planning of the larger ones costs more than their work.
//!
//! Time is `statement_timestamp()`: one reading for the whole statement, and one that an index can be searched by, which
//! `clock_timestamp()` is not. Intervals come in microseconds.

use std::sync::LazyLock;

use crate::storage::postgres::{MICROSECOND, SETTINGS};

pub(in crate::idempotency) type Sql = LazyLock<String>;

/// In a transaction of the user's. The bound lasts for this statement, which puts it back in the end; where the user has
/// set one, that is it. How durable the commit is, is for the user to say: the effect and the record last or are lost
/// together.
const SETTINGS_IN_TX: &str = "before AS MATERIALIZED (
    SELECT current_setting('lock_timeout') AS lock_timeout
), settings AS MATERIALIZED (
    SELECT set_config('lock_timeout', CASE lock_timeout WHEN '0' THEN $7 ELSE lock_timeout END, true) FROM before
)";

const LIVE: &str = "(r.expires_at IS NULL OR r.expires_at > statement_timestamp())";
const LEASE_OVER: &str = "r.lease_until <= statement_timestamp()";
const LEASE_LEFT: &str = "(extract(epoch FROM r.lease_until - statement_timestamp()) * 1000000)::bigint";
/// The claim `$2` has the record.
const HELD: &str = "(r.state = 1 AND r.claim_id = $2)";

/// A live record that may be claimed: the claim has it already, or an interrupted one may be taken over.
static FREE: Sql = LazyLock::new(|| {
    format!(
        "(r.state = 1 AND r.fingerprint = $3 AND (r.claim_id = $2
            OR ({LEASE_OVER} AND r.expires_at IS NOT NULL AND $5 IS NOT NULL)))"
    )
});

/// `$1` id, `$2` claim id, `$3` fingerprint, `$4` lease, `$5` retention, NULL for at most once, `$6` origin: as for all
/// that claim. Answers: the fence; NULL where the key has a record, be it one that counts as none.
pub(super) const CLAIM_NEW: &str = "SELECT steadfast.idempotency_claim($1, $2, $3, $4, $5, $6)";
/// The same for many: arrays of the same parameters, and of the answers.
pub(super) const CLAIM_MANY: &str = "SELECT steadfast.idempotency_claims($1, $2, $3, $4, $5, $6)";

/// Answers: fence (NULL where the key is not the caller's), state, whether the fingerprint is the same, attempt, lease
/// left, checkpoint, outcome. No row where the key may be claimed.
pub(super) static FOUND: Sql = LazyLock::new(|| {
    let free = &*FREE;
    format!(
        "SELECT NULL::bigint AS fence, r.state, r.fingerprint = $3 AS same, r.attempt, {LEASE_LEFT} AS lease_left,
            r.checkpoint, r.outcome
        FROM steadfast.idempotency r WHERE r.id = $1 AND {LIVE} AND NOT {free}"
    )
});

/// What claims a key, whatever its record is. Answers as [`FOUND`] does.
///
/// The sequence is read under the lock of the row too, so that the fence is larger than what the row has had; `greatest`
/// is for a sequence that was restored from before the rows were.
fn claim(settings: &str) -> String {
    let (found, free) = (&*FOUND, &*FREE);
    format!(
        "WITH {settings}, found AS MATERIALIZED (
            {found}
        ), owned AS (
            INSERT INTO steadfast.idempotency AS r
                (id, state, claim_id, fence, attempt, fingerprint, lease_until, expires_at, origin)
            SELECT $1, 1, $2, nextval('steadfast.idempotency_fence'), 1, $3,
                statement_timestamp() + $4 * {MICROSECOND}, statement_timestamp() + ($4 + $5) * {MICROSECOND}, $6
            FROM settings WHERE NOT EXISTS (SELECT FROM found)
            ON CONFLICT (id) DO UPDATE SET
                state = 1, claim_id = EXCLUDED.claim_id, fingerprint = EXCLUDED.fingerprint, outcome = NULL,
                lease_until = EXCLUDED.lease_until, expires_at = EXCLUDED.expires_at, origin = EXCLUDED.origin,
                checkpoint = CASE WHEN {LIVE} THEN r.checkpoint END,
                attempt = CASE WHEN NOT {LIVE} THEN 1 WHEN r.claim_id = $2 THEN r.attempt ELSE r.attempt + 1 END,
                fence = CASE WHEN {LIVE} AND r.claim_id = $2 THEN r.fence
                    ELSE greatest(nextval('steadfast.idempotency_fence'), r.fence + 1) END
            WHERE NOT {LIVE} OR {free}
            RETURNING r.fence, r.attempt, r.checkpoint
        ), answer AS (
            SELECT fence, NULL::smallint AS state, NULL::boolean AS same, attempt, NULL::bigint AS lease_left,
                checkpoint, NULL::bytea AS outcome FROM owned
            UNION ALL SELECT * FROM found
        )
        SELECT fence, state, same, attempt, lease_left, checkpoint, outcome"
    )
}

/// No row where others got in between.
pub(super) static CLAIM: Sql = LazyLock::new(|| claim(SETTINGS) + " FROM answer");

/// `$7` for how long to wait. Answers as [`CLAIM`] does, always with a row: of NULLs for no answer; and with the transaction,
/// if there is something to commit in it.
pub(in crate::idempotency) static CLAIM_IN_TX: Sql = LazyLock::new(|| {
    claim(SETTINGS_IN_TX)
        + ", txid_current_if_assigned(), set_config('lock_timeout', lock_timeout, true)
        FROM before LEFT JOIN answer ON true"
});

/// `$1` id, `$2` claim id, `$3` fence, `$4` attempt, `$5` fingerprint, `$6` outcome, `$7` retention. Answers: whether it is
/// applied.
pub(super) const COMPLETE: &str = "SELECT steadfast.idempotency_complete($1, $2, $3, $4, $5, $6, $7)";
/// The same for many: arrays of the same parameters, and of the answers.
pub(super) const COMPLETE_MANY: &str = "SELECT steadfast.idempotency_completions($1, $2, $3, $4, $5, $6, $7)";

/// `$1` id, `$2` claim id. Answers: whether the claim has completed it; no row where it may be completed.
pub(super) static COMPLETED: Sql = LazyLock::new(|| {
    format!(
        "SELECT r.state = 2 AND r.claim_id = $2
        FROM steadfast.idempotency r WHERE r.id = $1 AND {LIVE} AND NOT {HELD}"
    )
});

/// The claim `$2` has the record, and was made in this transaction.
const HELD_IN_TX: &str = "(r.state = 1 AND r.claim_id = $2 AND txid_current_if_assigned() = $3)";

/// `$1` id, `$2` claim id, `$3` transaction, `$4` outcome, `$5` retention. Answers: a row where it is completed.
pub(in crate::idempotency) static COMPLETE_IN_TX: Sql = LazyLock::new(|| {
    format!(
        "UPDATE steadfast.idempotency r SET
            state = 2, lease_until = NULL, checkpoint = NULL, origin = NULL,
            expires_at = statement_timestamp() + $5 * {MICROSECOND}, outcome = $4
        WHERE r.id = $1 AND {HELD_IN_TX}
        RETURNING 1::smallint"
    )
});

/// `$1` id, `$2` claim id, `$3` transaction.
pub(in crate::idempotency) static RELEASE_IN_TX: Sql =
    LazyLock::new(|| format!("DELETE FROM steadfast.idempotency r WHERE r.id = $1 AND {HELD_IN_TX} AND r.attempt = 1"));

/// `$1` id, `$2` claim id, `$3` lease, `$4` checkpoint. Answers: a row where it is renewed.
pub(super) static RENEW: Sql = LazyLock::new(|| {
    format!(
        "WITH {SETTINGS}
        UPDATE steadfast.idempotency r SET
            lease_until = statement_timestamp() + $3 * {MICROSECOND},
            expires_at = statement_timestamp() + $3 * {MICROSECOND} + (r.expires_at - r.lease_until),
            checkpoint = coalesce($4, r.checkpoint)
        FROM settings WHERE r.id = $1 AND {LIVE} AND {HELD}
        RETURNING 1::smallint"
    )
});

/// Ends the lease of a claim, unless it is over.
fn interrupted(condition: &str) -> String {
    format!(
        "interrupted AS (
            UPDATE steadfast.idempotency r SET
                lease_until = statement_timestamp(),
                expires_at = statement_timestamp() + (r.expires_at - r.lease_until)
            FROM settings WHERE r.id = $1 AND {LIVE} AND {HELD} AND {condition} AND NOT {LEASE_OVER}
            RETURNING 1
        )"
    )
}

/// `$1` id, `$2` claim id. Answers: 1 released, 2 interrupted, 3 lost; NULL: to be run again.
pub(super) static RELEASE: Sql = LazyLock::new(|| {
    let interrupted = interrupted("r.attempt > 1");
    format!(
        "WITH {SETTINGS}, found AS MATERIALIZED (
            SELECT {HELD} AS held, r.attempt > 1 AND {LEASE_OVER} AS ended
            FROM steadfast.idempotency r WHERE r.id = $1 AND {LIVE}
        ), released AS (
            DELETE FROM steadfast.idempotency r USING settings
            WHERE r.id = $1 AND {LIVE} AND {HELD} AND r.attempt = 1
            RETURNING 1
        ), {interrupted}
        SELECT CASE
            WHEN EXISTS (SELECT FROM released) THEN 1
            WHEN EXISTS (SELECT FROM interrupted) THEN 2
            WHEN NOT EXISTS (SELECT FROM found) THEN 1
            WHEN EXISTS (SELECT FROM found WHERE NOT held) THEN 3
            WHEN EXISTS (SELECT FROM found WHERE ended) THEN 2
        END::smallint"
    )
});

/// The same.
pub(super) static INTERRUPT: Sql = LazyLock::new(|| {
    let interrupted = interrupted("true");
    format!(
        "WITH {SETTINGS}, found AS MATERIALIZED (
            SELECT {HELD} AS held, {LEASE_OVER} AS ended
            FROM steadfast.idempotency r WHERE r.id = $1 AND {LIVE}
        ), {interrupted}
        SELECT CASE
            WHEN EXISTS (SELECT FROM interrupted) THEN 2
            WHEN NOT EXISTS (SELECT FROM found WHERE held) THEN 3
            WHEN EXISTS (SELECT FROM found WHERE ended) THEN 2
        END::smallint"
    )
});

/// `$1` id. Answers: state, attempt, lease left, checkpoint, outcome.
pub(super) static CANCEL: Sql = LazyLock::new(|| {
    format!(
        "WITH {SETTINGS}, found AS MATERIALIZED (
            SELECT r.state, r.attempt, {LEASE_LEFT} AS lease_left, r.checkpoint, r.outcome
            FROM steadfast.idempotency r WHERE r.id = $1 AND {LIVE} AND NOT (r.state = 1 AND {LEASE_OVER})
        ), closed AS (
            INSERT INTO steadfast.idempotency AS r (id, state, fence)
            SELECT $1, 3, 0 FROM settings WHERE NOT EXISTS (SELECT FROM found)
            ON CONFLICT (id) DO UPDATE SET
                state = 3, claim_id = NULL, fingerprint = NULL, lease_until = NULL, expires_at = NULL, outcome = NULL,
                origin = NULL,
                attempt = CASE WHEN {LIVE} THEN r.attempt END,
                checkpoint = CASE WHEN {LIVE} THEN r.checkpoint END
            WHERE NOT {LIVE} OR (r.state = 1 AND {LEASE_OVER})
            RETURNING r.attempt, r.checkpoint
        )
        SELECT 3::smallint, attempt, NULL::bigint, checkpoint, NULL::bytea FROM closed
        UNION ALL SELECT state, attempt, lease_left, checkpoint, outcome FROM found"
    )
});

/// `$1` id, `$2` the claim id that is nobody's, `$3` outcome, `$4` retention. Answers: a row where it is resolved.
pub(super) static RESOLVE_COMPLETED: Sql = LazyLock::new(|| resolve(&format!("r.state = 1 AND {LEASE_OVER}")));

/// The same parameters. Answers: a row where it is corrected.
pub(super) static CORRECT: Sql = LazyLock::new(|| resolve("r.state = 2 AND r.claim_id = $2"));

fn resolve(condition: &str) -> String {
    format!(
        "WITH {SETTINGS}
        UPDATE steadfast.idempotency r SET
            state = 2, claim_id = $2, lease_until = NULL, checkpoint = NULL, origin = NULL,
            expires_at = statement_timestamp() + $4 * {MICROSECOND}, outcome = $3
        FROM settings WHERE r.id = $1 AND {LIVE} AND {condition}
        RETURNING 1::smallint"
    )
}

/// `$1` id. Answers: a row where it is resolved.
pub(super) static RESOLVE_NOT_EXECUTED: Sql = LazyLock::new(|| {
    format!(
        "WITH {SETTINGS}
        DELETE FROM steadfast.idempotency r USING settings
        WHERE r.id = $1 AND {LIVE} AND r.state = 1 AND {LEASE_OVER}
        RETURNING 1::smallint"
    )
});

/// `$1` id. Answers: 1 forgotten, 2 absent, 3 in progress; NULL: to be run again.
pub(super) static FORGET: Sql = LazyLock::new(|| {
    format!(
        "WITH {SETTINGS}, found AS MATERIALIZED (
            SELECT r.state = 1 AND NOT {LEASE_OVER} AS in_progress
            FROM steadfast.idempotency r WHERE r.id = $1 AND {LIVE}
        ), forgotten AS (
            DELETE FROM steadfast.idempotency r USING settings
            WHERE r.id = $1 AND {LIVE} AND (r.state <> 1 OR {LEASE_OVER})
            RETURNING 1
        )
        SELECT CASE
            WHEN EXISTS (SELECT FROM forgotten) THEN 1
            WHEN NOT EXISTS (SELECT FROM found) THEN 2
            WHEN EXISTS (SELECT FROM found WHERE in_progress) THEN 3
        END::smallint"
    )
});

/// Whole records, and the time.
const RECORDS: &str = "SELECT r.id, r.state, r.claim_id, r.fence, r.attempt, r.fingerprint,
    (extract(epoch FROM r.lease_until) * 1000000)::bigint,
    (extract(epoch FROM r.expires_at) * 1000000)::bigint,
    r.checkpoint, r.outcome,
    (extract(epoch FROM statement_timestamp()) * 1000000)::bigint, r.origin
FROM steadfast.idempotency r";

/// `$1` id.
pub(super) static INSPECT: Sql = LazyLock::new(|| format!("{RECORDS} WHERE r.id = $1 AND {LIVE}"));

/// `$1` the id after which they come, `$2` how many.
pub(super) static LIST_INTERRUPTED: Sql = LazyLock::new(|| {
    format!("{RECORDS} WHERE r.state = 1 AND {LEASE_OVER} AND {LIVE} AND r.id > $1 ORDER BY r.id LIMIT $2")
});

pub(super) static COUNT_INTERRUPTED: Sql = LazyLock::new(|| {
    format!("SELECT count(*) FROM steadfast.idempotency r WHERE r.state = 1 AND {LEASE_OVER} AND {LIVE}")
});

/// `$1` how many. Rows that somebody is at are left for the next time, so two of these never wait for each other.
pub(super) static PURGE: Sql = LazyLock::new(|| {
    let expired = |state: i16, order: &str, limit: &str| {
        format!(
            "SELECT id FROM steadfast.idempotency WHERE state = {state} AND expires_at <= statement_timestamp()
            ORDER BY {order} LIMIT {limit} FOR UPDATE SKIP LOCKED"
        )
    };
    let completed = expired(2, "expires_at", "$1");
    let interrupted = expired(1, "id", "$1 - (SELECT count(*) FROM completed)");
    format!(
        "WITH completed AS MATERIALIZED ({completed}), interrupted AS MATERIALIZED ({interrupted}), purged AS (
            DELETE FROM steadfast.idempotency r
            USING (SELECT id FROM completed UNION ALL SELECT id FROM interrupted) expired
            WHERE r.id = expired.id RETURNING 1
        )
        SELECT count(*) FROM purged"
    )
});
