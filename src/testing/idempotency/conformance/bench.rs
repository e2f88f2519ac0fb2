//! What the cases share: the handles, fresh names, and how they say what is wrong.

use std::time::Duration;

use bytes::Bytes;

use crate::KeyId;
use crate::idempotency::Fingerprint;
use crate::idempotency::store::{
    Claim, ClaimId, Claimed, Completed, Face, Inspected, Mode, Origin, Owner, SharedStore, Store,
};
use crate::random::unique;
pub(super) use crate::testing::check::{Broken, Check, ensure, same};

const HANDLES: usize = 8;
/// Longer than any run of the suite.
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const KEPT: Mode = Mode::AtLeastOnce { retention: HOUR };

/// Several handles on one store.
pub(super) struct Bench {
    pub(super) store: SharedStore,
    pub(super) handles: Vec<SharedStore>,
}

impl Bench {
    pub(super) async fn open<S, F, Fut>(open: F) -> Self
    where
        S: Store,
        F: Fn() -> Fut,
        Fut: Future<Output = S>,
    {
        let store = open().await.shared();
        let mut handles = vec![store.clone()];
        while handles.len() < HANDLES {
            handles.push(open().await.shared());
        }
        Self { store, handles }
    }

    /// The handle of the `n`-th client.
    pub(super) fn handle(&self, n: usize) -> &SharedStore {
        &self.handles[n % HANDLES]
    }

    /// Claims, and expects to get the key.
    pub(super) async fn own(&self, id: KeyId, claim: &Claim) -> Result<Owner, Broken> {
        match self.store.claim(id, claim).await? {
            Claimed::Owned { owner, .. } => Ok(owner),
            other => Err(format!("a claim that is free: expected Owned, got {other:?}").into()),
        }
    }

    /// A key that was claimed and interrupted, and by whom.
    pub(super) async fn interrupted(&self, mode: Mode) -> Result<(KeyId, Owner), Broken> {
        let id = fresh_id();
        let lapsed = Claim {
            mode,
            lease: Duration::ZERO,
            ..claim()
        };
        Ok((id, self.own(id, &lapsed).await?))
    }

    pub(super) async fn complete(&self, id: KeyId, owner: &Owner, outcome: &'static [u8]) -> Result<Completed, Broken> {
        let outcome = Bytes::from_static(outcome);
        Ok(self.store.complete(id, owner, &outcome, HOUR).await?)
    }

    /// The record, which has to be there.
    pub(super) async fn record(&self, id: KeyId) -> Result<Inspected, Broken> {
        let inspected = self.store.inspect(id).await?;
        inspected.ok_or_else(|| Broken::from("inspecting a live record: expected one, got none".to_owned()))
    }
}

pub(super) fn fresh_id() -> KeyId {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&unique());
    bytes[16..].copy_from_slice(&unique());
    KeyId::from_bytes(bytes)
}

/// A claim by somebody new.
pub(super) fn claim() -> Claim {
    Claim {
        claim_id: ClaimId::from_bytes(unique()),
        fingerprint: request(1),
        mode: KEPT,
        lease: HOUR,
        origin: Origin::new(Face::Call, "conformance"),
    }
}

pub(super) fn request(n: u8) -> Fingerprint {
    Fingerprint::of_parts(&[&[n]])
}
