//! The statements.
//!
//! Each is one transaction: no row is locked for longer than its statement takes. Those that change one saga name what it
//! has to be like, and have no row to answer with where it is not, also when they waited for its row: the condition is
//! then checked again on what they find. Those that change several lock them in the order of their ids, or leave those
//! that somebody is at.
//!
//! Time is `statement_timestamp()`: one reading for the whole statement, and one that an index can be searched by, which
//! `clock_timestamp()` is not. Intervals come in microseconds.

use std::sync::LazyLock;

use crate::storage::postgres::{MICROSECOND, SETTINGS};

pub(super) type Sql = LazyLock<String>;

const NOW: &str = "statement_timestamp()";
/// As in the indexes, so that they are found.
const ACTIVE: &str = "s.status IN (1, 2)";
const SETTLED: &str = "s.status IN (3, 4, 6)";

fn micros(time: &str) -> String {
    format!("(extract(epoch FROM {time}) * 1000000)::bigint")
}

/// The columns of a head, as [`head`](super::row::head) reads them, and the time.
static HEAD: Sql = LazyLock::new(|| {
    let [due, deadline, created, changed, now] =
        ["s.due", "s.deadline", "s.created_at", "s.changed_at", NOW].map(micros);
    format!(
        "s.id, s.key, s.input, s.name, s.version, s.fingerprint, s.status, s.seq, s.epoch, s.owner, {due}, s.recoveries,
            s.can_turn, s.cancel, {deadline}, s.error, {created}, {changed}, s.pruned, {now} AS now"
    )
});

/// How many columns those are.
pub(super) const HEAD_COLUMNS: usize = 20;

/// `$1` id, `$2` key, `$3` input, `$4` name, `$5` version, `$6` fingerprint, `$7` how many events, `$8` owner, `$9` lease,
/// `$10` whether it can turn, `$11` deadline, `$12` events, `$13` contexts. A row where it is created.
pub(super) static CREATE: Sql = LazyLock::new(|| {
    format!(
        "WITH {SETTINGS}, created AS (
            INSERT INTO steadfast.saga AS s (id, key, input, name, version, fingerprint, status, seq, epoch, owner, due,
                can_turn, deadline, created_at, changed_at)
            SELECT $1, $2, $3, $4, $5, $6, 1, $7, CASE WHEN $8 IS NULL THEN 0 ELSE 1 END, $8,
                {NOW} + coalesce($9, 0) * {MICROSECOND}, $10, {NOW} + $11 * {MICROSECOND}, {NOW}, {NOW}
            FROM settings
            ON CONFLICT DO NOTHING
            RETURNING s.epoch
        ), written AS (
            INSERT INTO steadfast.saga_event (saga, seq, epoch, at, event, context)
            SELECT $1, e.number - 1, created.epoch, {NOW}, e.event, e.context
            FROM created, unnest($12, $13) WITH ORDINALITY AS e (event, context, number)
        )
        SELECT epoch FROM created"
    )
});

fn append(condition: &str) -> String {
    format!(
        "WITH {SETTINGS}, head AS (
            UPDATE steadfast.saga s SET
                status = $5, seq = s.seq + $4, can_turn = $6, changed_at = {NOW}, error = coalesce($10, s.error),
                recoveries = CASE WHEN $7 THEN 0 ELSE s.recoveries END,
                owner = CASE $8 WHEN 1 THEN s.owner END,
                due = CASE
                    WHEN $8 = 1 THEN {NOW} + $9 * {MICROSECOND}
                    WHEN $8 = 3 THEN NULL
                    WHEN $6 AND s.cancel THEN {NOW}
                    WHEN $6 AND s.deadline IS NOT NULL THEN least({NOW} + $9 * {MICROSECOND}, greatest(s.deadline, {NOW}))
                    ELSE {NOW} + $9 * {MICROSECOND}
                END
            FROM settings WHERE s.id = $1 AND s.epoch = $2 AND s.seq = $3 AND s.owner IS NOT NULL {condition}
            RETURNING s.cancel
        ), written AS (
            INSERT INTO steadfast.saga_event (saga, seq, epoch, at, event, context)
            SELECT $1, $3 + e.number - 1, $2, {NOW}, e.event, e.context
            FROM head, unnest($11, $12) WITH ORDINALITY AS e (event, context, number)
        )"
    )
}

/// `$1` id, `$2` epoch, `$3` how many events there are, `$4` how many are added, `$5` status, `$6` whether it can turn,
/// `$7` whether there is progress, `$8` what becomes of the lease (1 kept, 2 parked, 3 at rest), `$9` for how long, `$10`
/// error, `$11` events, `$12` contexts. Answers: whether it is asked to turn back. No row where nothing is written.
pub(super) static APPEND: Sql = LazyLock::new(|| append("") + "SELECT cancel FROM head");

/// The same in the transaction `$13` of a step. Answers: whether it is in that one, and whether it is asked to turn back;
/// NULL where nothing is written.
///
/// What the step's own statements have set is left as it is until here: then the commit is all that is to come.
pub(super) static APPEND_IN_TX: Sql = LazyLock::new(|| {
    append("AND txid_current_if_assigned() = $13")
        + "SELECT txid_current_if_assigned() IS NOT DISTINCT FROM $13, (SELECT cancel FROM head)"
});

/// `$1` id, `$2` the first event, `$3` how many. Answers: whether it is asked to turn back, and the events.
pub(super) const WRITTEN: &str = "SELECT s.cancel, e.epoch, e.event, e.context
    FROM steadfast.saga s JOIN steadfast.saga_event e ON e.saga = s.id
    WHERE s.id = $1 AND e.seq >= $2 AND e.seq - $2 < $3 ORDER BY e.seq";

/// Of `chosen`, which are locked: `$1` owner, `$2` lease. Answers: the head, whether it was parked.
static CLAIMED: Sql = LazyLock::new(|| {
    let head = &*HEAD;
    format!(
        "claimed AS (
            UPDATE steadfast.saga s SET
                epoch = s.epoch + 1, owner = $1, due = {NOW} + $2 * {MICROSECOND},
                recoveries = s.recoveries + CASE WHEN chosen.parked THEN 0 ELSE 1 END
            FROM chosen WHERE s.id = chosen.id
            RETURNING {head}, chosen.parked, chosen.due AS was_due
        )
        SELECT * FROM claimed ORDER BY was_due, id"
    )
});

/// `$1` owner, `$2` lease, `$3` how many, `$4` how many suspects, `$5` and `$6` among how many to choose them, `$7` names,
/// `$8` versions, `$9` fingerprints.
///
/// Each definition is looked up in the index by itself, so that those that nobody here can drive cost nothing. They are
/// chosen among the longest due of each, and locked one after the other until there are enough: those that another claim
/// has locked are left to it, and none is locked that is not taken.
pub(super) static CLAIM: Sql = LazyLock::new(|| {
    let claimed = &*CLAIMED;
    let choose = |suspect: bool, limit: &str, among: &str| {
        let due = format!("{ACTIVE} AND s.suspect = {suspect} AND s.due <= {NOW}");
        format!(
            "SELECT s.id, s.due, s.owner IS NULL AS parked
            FROM settings, (
                SELECT found.id, found.due FROM definition d CROSS JOIN LATERAL (
                    SELECT s.id, s.due FROM steadfast.saga s
                    WHERE s.fingerprint = d.fingerprint AND s.name = d.name AND s.version = d.version AND {due}
                    ORDER BY s.due, s.id LIMIT {among}
                ) found ORDER BY found.due, found.id LIMIT {among}
            ) found JOIN steadfast.saga s ON s.id = found.id
            WHERE {due} ORDER BY found.due, found.id LIMIT {limit} FOR UPDATE OF s SKIP LOCKED"
        )
    };
    let (healthy, suspects) = (choose(false, "$3", "$5"), choose(true, "$4", "$6"));
    format!(
        "WITH {SETTINGS}, definition AS MATERIALIZED (
            SELECT DISTINCT name, version, fingerprint FROM unnest($7, $8, $9) AS d (name, version, fingerprint)
        ), healthy AS MATERIALIZED (
            {healthy}
        ), suspects AS MATERIALIZED (
            {suspects}
        ), chosen AS MATERIALIZED (
            SELECT id, due, parked FROM (SELECT * FROM healthy UNION ALL SELECT * FROM suspects) locked
            ORDER BY due, id LIMIT $3
        ), {claimed}"
    )
});

/// `$1` owner, `$2` lease, `$3` id.
pub(super) static CLAIM_ONE: Sql = LazyLock::new(|| {
    let claimed = &*CLAIMED;
    format!(
        "WITH {SETTINGS}, chosen AS MATERIALIZED (
            SELECT s.id, s.due, s.owner IS NULL AS parked FROM settings, steadfast.saga s
            WHERE s.id = $3 AND (s.owner IS NULL OR s.due IS NULL OR s.due <= {NOW}) FOR UPDATE OF s
        ), {claimed}"
    )
});

/// The leases `$2`, `$3` that `$1` has, locked.
const HELD: &str = "held AS MATERIALIZED (
    SELECT s.id FROM settings, lease l JOIN steadfast.saga s ON s.id = l.id AND s.epoch = l.epoch
    WHERE s.owner = $1 ORDER BY s.id FOR UPDATE OF s
)";
const LEASES: &str = "lease AS MATERIALIZED (SELECT DISTINCT l.id, l.epoch FROM unnest($2, $3) AS l (id, epoch))";

/// `$1` owner, `$2` ids, `$3` epochs, `$4` lease. Answers: id, epoch, whether it is held, whether it is asked to turn back.
pub(super) static RENEW: Sql = LazyLock::new(|| {
    format!(
        "WITH {SETTINGS}, {LEASES}, {HELD}, renewed AS (
            UPDATE steadfast.saga s SET due = {NOW} + $4 * {MICROSECOND}
            FROM held WHERE s.id = held.id
            RETURNING s.id, s.epoch, s.cancel
        )
        SELECT l.id, l.epoch, r.id IS NOT NULL, coalesce(r.cancel, s.cancel, false)
        FROM lease l LEFT JOIN renewed r ON r.id = l.id AND r.epoch = l.epoch LEFT JOIN steadfast.saga s ON s.id = l.id"
    )
});

/// `$1` owner, `$2` ids, `$3` epochs.
pub(super) static RELEASE: Sql = LazyLock::new(|| {
    format!(
        "WITH {SETTINGS}, {LEASES}, {HELD}
        UPDATE steadfast.saga s SET owner = NULL, due = CASE WHEN {ACTIVE} THEN {NOW} END
        FROM held WHERE s.id = held.id"
    )
});

/// `$1` id. A row where it is noted.
pub(super) static REQUEST_CANCEL: Sql = LazyLock::new(|| {
    format!(
        "WITH {SETTINGS}
        UPDATE steadfast.saga s SET
            cancel = true, due = CASE WHEN s.owner IS NULL AND s.due > {NOW} THEN {NOW} ELSE s.due END
        FROM settings WHERE s.id = $1 AND s.status = 1 AND s.can_turn
        RETURNING true"
    )
});

/// `$1` id.
pub(super) static HEAD_OF: Sql = LazyLock::new(|| {
    let head = &*HEAD;
    format!("SELECT {head} FROM steadfast.saga s WHERE s.id = $1")
});

/// `$1` id. Answers: the head, with each event; one row of NULLs for none.
pub(super) static LOAD: Sql = LazyLock::new(|| {
    let (head, at) = (&*HEAD, micros("e.at"));
    format!(
        "SELECT {head}, e.seq, e.epoch, {at}, e.event, e.context
        FROM steadfast.saga s LEFT JOIN steadfast.saga_event e ON e.saga = s.id
        WHERE s.id = $1 ORDER BY e.seq"
    )
});

/// `$1` key.
pub(super) static FIND: Sql = LazyLock::new(|| {
    let head = &*HEAD;
    format!("SELECT {head} FROM steadfast.saga s WHERE s.key = $1")
});

/// `$1` the id after which they come, `$2` how many, `$3` name. The status is written out, so that an index may be found.
pub(super) fn list(status: Option<i16>, named: bool) -> String {
    let head = &*HEAD;
    let status = status.map_or(String::new(), |status| format!("AND s.status = {status}"));
    let name = if named { "s.name = $3" } else { "$3 IS NULL" };
    format!("SELECT {head} FROM steadfast.saga s WHERE s.id > $1 AND {name} {status} ORDER BY s.id LIMIT $2")
}

/// `$1` names, `$2` versions, `$3` fingerprints. Answers: how many are active, stuck, incompatible, and for how long the
/// one that waits longest has been due.
pub(super) static COUNT: Sql = LazyLock::new(|| {
    let overdue = micros(&format!("({NOW} - min(s.due) FILTER (WHERE s.due <= {NOW}))"));
    format!(
        "SELECT count(*), (SELECT count(*) FROM steadfast.saga s WHERE s.status = 5),
            count(*) FILTER (WHERE (s.name, s.version, s.fingerprint) NOT IN (
                SELECT d.name, d.version, d.fingerprint FROM unnest($1, $2, $3) AS d (name, version, fingerprint)
            )), {overdue}
        FROM steadfast.saga s WHERE {ACTIVE}"
    )
});

/// `$1` for how long the events of those settled are kept, `$2` for how long the rest, `$3` how many at most. Those that
/// somebody is at are left for the next time.
pub(super) static PRUNE: Sql = LazyLock::new(|| {
    let settled = |pruned: bool, age: &str| {
        format!(
            "SELECT s.id, s.changed_at FROM steadfast.saga s
            WHERE {SETTLED} AND s.pruned = {pruned} AND s.owner IS NULL AND s.changed_at <= {NOW} - {age} * {MICROSECOND}
            ORDER BY s.changed_at LIMIT $3 FOR UPDATE SKIP LOCKED"
        )
    };
    let (whole, rest) = (settled(false, "$1"), settled(true, "$2"));
    format!(
        "WITH whole AS MATERIALIZED (
            {whole}
        ), rest AS MATERIALIZED (
            {rest}
        ), over AS MATERIALIZED (
            SELECT id, changed_at <= {NOW} - $2 * {MICROSECOND} AS gone
            FROM (SELECT * FROM whole UNION ALL SELECT * FROM rest) locked LIMIT $3
        ), emptied AS (
            DELETE FROM steadfast.saga_event e USING over WHERE e.saga = over.id
        ), kept AS (
            UPDATE steadfast.saga s SET pruned = true FROM over WHERE s.id = over.id AND NOT over.gone
        ), removed AS (
            DELETE FROM steadfast.saga s USING over WHERE s.id = over.id AND over.gone
        )
        SELECT count(*) FROM over"
    )
});

#[cfg(test)]
mod tests {
    use super::super::super::SUSPECT_AFTER;

    #[test]
    fn the_column_that_marks_suspects_is_as_the_constant_says() {
        let schema = include_str!("schema_1.sql");
        assert!(schema.contains(&format!("(recoveries >= {SUSPECT_AFTER})")));
    }
}
