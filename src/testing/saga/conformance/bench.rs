//! What the cases share: the handles, sagas that nobody else has, and the events that they write.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::KeyId;
use crate::random::unique;
use crate::saga::SagaId;
use crate::saga::journal::{
    Append, Appended, ClaimQuery, Claimed, ClaimedOne, Created, DefinitionId, Entry, Head, Hold, Journal, Loaded,
    NewSaga, OwnerId, SagaStatus,
};
use crate::storage::write_hex;
pub(super) use crate::testing::check::{Broken, Check, ensure, same};

const HANDLES: usize = 8;
/// Longer than any run of the suite.
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// Several handles on one journal.
pub(super) struct Bench {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) handles: Vec<Arc<dyn Journal>>,
}

impl Bench {
    pub(super) async fn open<J, F, Fut>(open: F) -> Self
    where
        J: Journal,
        F: Fn() -> Fut,
        Fut: Future<Output = J>,
    {
        let journal: Arc<dyn Journal> = Arc::new(open().await);
        let mut handles = vec![Arc::clone(&journal)];
        while handles.len() < HANDLES {
            handles.push(Arc::new(open().await));
        }
        Self { journal, handles }
    }

    /// The handle of the `n`-th client.
    pub(super) fn handle(&self, n: usize) -> &Arc<dyn Journal> {
        &self.handles[n % HANDLES]
    }

    /// Writes a new saga, and expects that it is.
    pub(super) async fn create(&self, new: &NewSaga) -> Check {
        same("creating a saga", &self.journal.create(new).await?, &Created::New)
    }

    /// A new saga that is driven, by a lease of this length.
    pub(super) async fn driven(&self, lease: Duration) -> Result<(NewSaga, OwnerId), Broken> {
        let owner = fresh_owner();
        let new = NewSaga {
            lease: Some((owner, lease)),
            ..new_saga()
        };
        self.create(&new).await?;
        Ok((new, owner))
    }

    /// A new saga of this definition that nobody drives.
    pub(super) async fn parked(&self, definition: &DefinitionId) -> Result<SagaId, Broken> {
        let new = NewSaga {
            definition: definition.clone(),
            ..new_saga()
        };
        self.create(&new).await?;
        Ok(new.id)
    }

    /// A new saga that was driven, and stands here now.
    pub(super) async fn at(&self, status: SagaStatus) -> Result<NewSaga, Broken> {
        let (new, _) = self.driven(HOUR).await?;
        let hold = if status.is_active() {
            Hold::Park(HOUR)
        } else {
            Hold::Rest
        };
        self.write(&Append {
            status,
            hold,
            ..append(new.id, 1, 1)
        })
        .await?;
        Ok(new)
    }

    /// Appends, and expects that it is written.
    pub(super) async fn write(&self, append: &Append) -> Check {
        same(
            "an append by the owner",
            &self.journal.append(append).await?,
            &Appended::Written { cancel: false },
        )
    }

    /// The saga, which has to be there.
    pub(super) async fn load(&self, id: SagaId) -> Result<Loaded, Broken> {
        let loaded = self.journal.load(id).await?;
        loaded.ok_or_else(|| Broken::from("loading a saga: expected one, got none".to_owned()))
    }

    pub(super) async fn head(&self, id: SagaId) -> Result<Head, Broken> {
        Ok(self.load(id).await?.head)
    }

    /// Claims this saga, and expects to get it.
    pub(super) async fn take(&self, id: SagaId, owner: OwnerId, lease: Duration) -> Result<Claimed, Broken> {
        match self.journal.claim_one(id, owner, lease).await? {
            ClaimedOne::Claimed(claimed) => Ok(*claimed),
            other => Err(format!("a claim of a saga that nobody drives: expected it, got {other:?}").into()),
        }
    }

    /// The ids of what a query claims, in order.
    pub(super) async fn claim(&self, query: &ClaimQuery) -> Result<Vec<SagaId>, Broken> {
        let claimed = self.journal.claim(query).await?;
        Ok(sorted(claimed.iter().map(|claimed| claimed.head.id)))
    }
}

pub(super) fn sorted(ids: impl IntoIterator<Item = SagaId>) -> Vec<SagaId> {
    let mut ids: Vec<_> = ids.into_iter().collect();
    ids.sort_unstable();
    ids
}

pub(super) fn fresh_owner() -> OwnerId {
    OwnerId(unique())
}

pub(super) fn fresh_key() -> KeyId {
    KeyId::from_bytes(fresh_hash())
}

fn fresh_hash() -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&unique());
    bytes[16..].copy_from_slice(&unique());
    bytes
}

/// A definition that no other saga is of.
pub(super) fn fresh_definition() -> DefinitionId {
    let mut name = "conformance-".to_owned();
    // Writing to a string cannot fail.
    let _ = write_hex(&unique(), &mut name);
    DefinitionId {
        name,
        version: 1,
        fingerprint: fresh_hash(),
    }
}

/// A saga that nobody drives, of a key and a definition of its own.
pub(super) fn new_saga() -> NewSaga {
    NewSaga {
        id: SagaId::new(),
        key: fresh_key(),
        input: [1; 32],
        definition: fresh_definition(),
        deadline: None,
        lease: None,
        entries: vec![entry(b"{\"event\":\"created\"}", Some(b"{}"))],
        can_turn: true,
    }
}

pub(super) fn entry(event: &'static [u8], context: Option<&'static [u8]>) -> Entry {
    Entry {
        event: Bytes::from_static(event),
        context: context.map(Bytes::from_static),
    }
}

/// One event more, by who keeps the lease for an hour.
pub(super) fn append(id: SagaId, epoch: u64, seq: u64) -> Append {
    Append {
        id,
        epoch,
        seq,
        entries: vec![entry(b"{\"event\":\"started\"}", None)],
        status: SagaStatus::Running,
        can_turn: true,
        progress: true,
        hold: Hold::Keep(HOUR),
        error: None,
    }
}

/// Everything of this definition, and suspects too.
pub(super) fn query(definition: &DefinitionId) -> ClaimQuery {
    ClaimQuery {
        owner: fresh_owner(),
        lease: HOUR,
        definitions: vec![definition.clone()],
        limit: usize::MAX,
        suspects: usize::MAX,
    }
}

/// A head is as the transition says; times that were calculated may be rounded up.
pub(super) fn same_head(what: &str, got: &Head, expected: &Head) -> Check {
    let rounded = Head {
        due: rounded_up(got.due, expected.due),
        deadline: rounded_up(got.deadline, expected.deadline),
        ..got.clone()
    };
    ensure(rounded == *expected, || {
        format!("{what}: expected {expected:?}, got {got:?}")
    })
}

/// The expected time, where the other is that, rounded up.
fn rounded_up(got: Option<Duration>, expected: Option<Duration>) -> Option<Duration> {
    match (got, expected) {
        (Some(got), Some(expected)) if got >= expected && got <= expected + ROUNDING => Some(expected),
        _ => got,
    }
}

/// Journals count in milliseconds or finer.
pub(super) const ROUNDING: Duration = Duration::from_millis(1);
