//! The participants: one file, that outlives the process that changes it.

use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use steadfast::storage::rusqlite::{Connection, OptionalExtension};

use super::bookings::Bookings;

/// Participants that are idempotent by key, and remember which keys are closed; and one in the journal's own database.
pub(crate) struct World {
    connection: Mutex<Connection>,
    pub(crate) bookings: Bookings,
}

/// One run of an action or of an undo, noted before it does anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) saga: String,
    pub(crate) step: String,
    /// `do` or `undo`.
    pub(crate) verb: String,
    pub(crate) key: String,
    /// The key of the action that an undo takes back.
    pub(crate) action_key: String,
    pub(crate) epoch: u32,
    /// What an undo is told: `completed` or `unknown`.
    pub(crate) outcome: String,
    /// The context that it sees, in JSON.
    pub(crate) context: String,
}

impl World {
    /// The world of this folder.
    pub(crate) fn open(place: &Path) -> Self {
        let connection = Connection::open(place.join("world.db")).unwrap();
        connection.busy_timeout(Duration::from_secs(30)).unwrap();
        // It has to survive its process, and no more.
        let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
            CREATE TABLE IF NOT EXISTS call (
                n INTEGER PRIMARY KEY AUTOINCREMENT, saga TEXT, step TEXT, verb TEXT, key TEXT, action_key TEXT,
                epoch INTEGER, outcome TEXT, context TEXT);
            CREATE TABLE IF NOT EXISTS effect (
                key TEXT PRIMARY KEY, saga TEXT, step TEXT, live INTEGER, closed INTEGER)";
        connection.execute_batch(settings).unwrap();
        Self {
            connection: Mutex::new(connection),
            bookings: Bookings::of(place),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap()
    }

    /// Notes a call; how many there are of its saga, step and verb with it.
    pub(crate) fn note(&self, call: &Call) -> u32 {
        let connection = self.lock();
        let Call { saga, step, verb, .. } = call;
        let values = (
            saga,
            step,
            verb,
            &call.key,
            &call.action_key,
            call.epoch,
            &call.outcome,
            &call.context,
        );
        connection
            .execute(
                "INSERT INTO call (saga, step, verb, key, action_key, epoch, outcome, context)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                values,
            )
            .unwrap();
        let count = "SELECT count(*) FROM call WHERE saga = ?1 AND step = ?2 AND verb = ?3";
        connection
            .query_row(count, (saga, step, verb), |row| row.get(0))
            .unwrap()
    }

    /// Has the effect, once per key; `false` where its key is closed.
    pub(crate) fn act(&self, call: &Call) -> bool {
        let connection = self.lock();
        let found = "SELECT closed FROM effect WHERE key = ?1";
        let closed: Option<bool> = connection
            .query_row(found, [&call.key], |row| row.get(0))
            .optional()
            .unwrap();
        if closed.is_none() {
            let insert = "INSERT INTO effect (key, saga, step, live, closed) VALUES (?1, ?2, ?3, 1, 0)";
            connection.execute(insert, (&call.key, &call.saga, &call.step)).unwrap();
        }
        closed != Some(true)
    }

    /// Takes the effect back, and closes its key: what arrives later is refused.
    pub(crate) fn undo(&self, call: &Call) {
        let close = "INSERT INTO effect (key, saga, step, live, closed) VALUES (?1, ?2, ?3, 0, 1)
            ON CONFLICT (key) DO UPDATE SET live = 0, closed = 1";
        let values = (&call.action_key, &call.saga, &call.step);
        self.lock().execute(close, values).unwrap();
    }

    /// Everything that was asked of it for a saga, in order.
    pub(crate) fn calls(&self, saga: &str) -> Vec<Call> {
        let connection = self.lock();
        let mut statement = connection
            .prepare(
                "SELECT saga, step, verb, key, action_key, epoch, outcome, context FROM call
                WHERE saga = ?1 ORDER BY n",
            )
            .unwrap();
        let calls = statement.query_map([saga], |row| {
            Ok(Call {
                saga: row.get(0)?,
                step: row.get(1)?,
                verb: row.get(2)?,
                key: row.get(3)?,
                action_key: row.get(4)?,
                epoch: row.get(5)?,
                outcome: row.get(6)?,
                context: row.get(7)?,
            })
        });
        calls.unwrap().map(Result::unwrap).collect()
    }

    /// The steps of a saga whose effect is there.
    pub(crate) fn live(&self, saga: &str) -> Vec<String> {
        let connection = self.lock();
        let mut statement = connection
            .prepare("SELECT step FROM effect WHERE saga = ?1 AND live = 1 ORDER BY step")
            .unwrap();
        let steps = statement.query_map([saga], |row| row.get(0)).unwrap();
        steps.map(Result::unwrap).collect()
    }
}
