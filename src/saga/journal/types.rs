//! What a journal is asked, and what it answers.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::super::id::SagaId;
use crate::KeyId;

/// Where a saga stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SagaStatus {
    /// It goes forward.
    Running,
    /// It goes back.
    Compensating,
    /// Every step succeeded.
    Completed,
    /// Everything that had, or may have had, an effect was undone.
    Compensated,
    /// It rests half way, and needs somebody to look.
    Stuck,
    /// An operator gave it up.
    Abandoned,
}

impl SagaStatus {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Running,
        Self::Compensating,
        Self::Completed,
        Self::Compensated,
        Self::Stuck,
        Self::Abandoned,
    ];

    /// The status as a word: `running`, `compensating`, `completed`, `compensated`, `stuck` or `abandoned`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Compensating => "compensating",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
            Self::Stuck => "stuck",
            Self::Abandoned => "abandoned",
        }
    }

    /// Whether there is something to do, and somebody may claim it.
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, Self::Running | Self::Compensating)
    }

    /// Whether nothing is to be done any more, by anybody.
    #[must_use]
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated | Self::Abandoned)
    }
}

impl fmt::Display for SagaStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The incarnation of a process that drives sagas: another one after each start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub [u8; 16]);

/// Which definition a saga was started from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DefinitionId {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// A hash of its steps and their kinds, in order.
    pub fingerprint: [u8; 32],
}

/// One event, as it is stored: bytes that a journal does not read.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The event, in JSON.
    pub event: Bytes,
    /// The context after it, where it changes.
    pub context: Option<Bytes>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.context.as_ref().map(Bytes::len);
        f.debug_struct("Entry")
            .field("event", &String::from_utf8_lossy(&self.event))
            .field("context", &length)
            .finish()
    }
}

/// An event that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its number in the saga; the first is 0.
    pub seq: u64,
    /// In which ownership it was written.
    pub epoch: u64,
    /// When, since 1970 on the journal's clock.
    pub at: Duration,
    /// The event.
    pub entry: Entry,
}

/// A saga to be.
#[derive(Clone, Debug)]
pub struct NewSaga {
    /// Its id.
    pub id: SagaId,
    /// The hash of its key: there is one saga of each.
    pub key: KeyId,
    /// A hash of its context at the start.
    pub input: [u8; 32],
    /// What it is started from.
    pub definition: DefinitionId,
    /// In how long it is to turn back if it has not reached its pivot.
    pub deadline: Option<Duration>,
    /// Who drives it, and for how long the lease is; nobody yet, with `None`, and it is due at once.
    pub lease: Option<(OwnerId, Duration)>,
    /// Its first events.
    pub entries: Vec<Entry>,
    /// Whether it can turn back after them.
    pub can_turn: bool,
}

/// What became of a [`NewSaga`].
#[derive(Clone, Debug, PartialEq)]
pub enum Created {
    /// It exists; if it is driven, then in epoch 1. Also where this very request had been carried out before.
    New,
    /// There is one of that key, started with the same input.
    Existing(Box<Head>),
    /// There is one of that key, started with another input, or from a definition of another name.
    Conflict,
}

/// What becomes of the lease, after an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It is extended to so long from now.
    Keep(Duration),
    /// Nobody drives the saga until so long from now; until its deadline, where that is earlier and it can still turn
    /// back.
    Park(Duration),
    /// Nobody drives it any more: it rests.
    Rest,
}

/// Events to be written.
#[derive(Clone, Debug)]
pub struct Append {
    /// The saga.
    pub id: SagaId,
    /// In which ownership.
    pub epoch: u64,
    /// How many events there are before them.
    pub seq: u64,
    /// The events, one at least.
    pub entries: Vec<Entry>,
    /// Where the saga stands after them.
    pub status: SagaStatus,
    /// Whether it can turn back after them.
    pub can_turn: bool,
    /// A result is among them: the saga has not crashed its owners in a row.
    pub progress: bool,
    /// What becomes of the lease.
    pub hold: Hold,
    /// The last error, in a few words, for lists; `None` leaves it as it is.
    pub error: Option<String>,
}

/// What became of an [`Append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// They are written; also where this very request had been carried out before.
    Written {
        /// Somebody has asked that the saga turn back.
        cancel: bool,
    },
    /// Nothing is written: somebody else drives the saga, or has.
    Fenced,
}

/// Who claims, and what.
#[derive(Clone, Debug)]
pub struct ClaimQuery {
    /// Who.
    pub owner: OwnerId,
    /// How long the lease is.
    pub lease: Duration,
    /// What it can drive.
    pub definitions: Vec<DefinitionId>,
    /// How many at most.
    pub limit: usize,
    /// How many suspects may be among them: sagas that were claimed [`SUSPECT_AFTER`] times in a row without a result.
    pub suspects: usize,
}

/// After how many claims without a result a saga is suspected of killing its process.
pub const SUSPECT_AFTER: u32 = 3;

/// A saga that is claimed.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// The saga, in its new epoch.
    pub head: Head,
    /// It had nobody, and was due: what it was parked for is over. Otherwise its owner's lease ran out.
    pub parked: bool,
    /// In how long its deadline is.
    pub deadline_in: Option<Duration>,
}

/// What became of a claim of one certain saga.
#[derive(Clone, Debug, PartialEq)]
pub enum ClaimedOne {
    /// It is claimed.
    Claimed(Box<Claimed>),
    /// Somebody drives it.
    Busy,
    /// There is none of that id.
    Missing,
}

/// What became of the renewal of one lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The saga.
    pub id: SagaId,
    /// Whether the lease is held; otherwise somebody else has it, or nobody needs it any more.
    pub held: bool,
    /// Somebody has asked that the saga turn back.
    pub cancel: bool,
}

/// What became of the request that a saga turn back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelRequest {
    /// It is noted, or the saga turns back already.
    Requested,
    /// The saga has passed its pivot, or may have: it goes on.
    TooLate,
    /// It rests.
    Ended(SagaStatus),
    /// There is none of that id.
    Missing,
}

/// The head of a saga: all that is needed to find it and to claim it.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// Its id.
    pub id: SagaId,
    /// The hash of its key.
    pub key: KeyId,
    /// The hash of its context at the start.
    pub input: [u8; 32],
    /// What it was started from.
    pub definition: DefinitionId,
    /// Where it stands.
    pub status: SagaStatus,
    /// How many events it has.
    pub seq: u64,
    /// How often it was claimed.
    pub epoch: u64,
    /// Who drives it.
    pub owner: Option<OwnerId>,
    /// When its owner's lease ends; without an owner, when it is to be claimed. `None` while it rests.
    pub due: Option<Duration>,
    /// How often in a row its owner was lost without a result.
    pub recoveries: u32,
    /// Whether it can turn back.
    pub can_turn: bool,
    /// Whether it was asked to.
    pub cancel: bool,
    /// When it turns back unless it has reached its pivot.
    pub deadline: Option<Duration>,
    /// Its last error, in a few words.
    pub error: Option<String>,
    /// When it was created.
    pub created: Duration,
    /// When its last event was written.
    pub changed: Duration,
    /// Its events have been cleared away.
    pub pruned: bool,
}

/// A saga with all its events.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// Its head.
    pub head: Head,
    /// Its events, in order.
    pub entries: Vec<StoredEntry>,
    /// The journal's clock.
    pub now: Duration,
}

/// Which sagas to list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Those that stand here; all, with `None`.
    pub status: Option<SagaStatus>,
    /// Those of definitions of this name; all, with `None`.
    pub name: Option<String>,
    /// Those whose ids come after this one.
    pub after: Option<SagaId>,
    /// How many at most.
    pub limit: usize,
}

/// How many sagas there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that go forward or back.
    pub active: u64,
    /// Those that are stuck.
    pub stuck: u64,
    /// The active ones that none of the definitions fits.
    pub incompatible: u64,
    /// For how long the one that waits longest has been due, and nobody has claimed it.
    pub overdue: Option<Duration>,
}

/// What to clear away. What is active or stuck is kept.
#[derive(Clone, Copy, Debug)]
pub struct Prune {
    /// Events of sagas that have been settled for so long.
    pub events_after: Duration,
    /// What is left of such sagas then, their keys, after so long; at least as long as the events.
    pub keys_after: Duration,
    /// How many sagas at most.
    pub limit: usize,
}
