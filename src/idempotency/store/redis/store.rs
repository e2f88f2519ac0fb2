//! Each call of the trait as one script, and what it answers.

use std::time::Duration;

use bytes::Bytes;
use redis::Value;

use super::super::super::record::{
    Cancellation, Claim, ClaimId, Claimed, Completed, Ended, Forgotten, Mode, Outcome, Owner, Renewed, Resolution,
    Resolved,
};
use super::super::{Durability, Inspected, Store};
use super::reply::{Reply, unreadable};
use super::{AT_ONCE, RedisStore, layout, script};
use crate::KeyId;
use crate::storage::StorageError;

/// A century: a longer time saturates, and below 2^53 milliseconds every sum of a few of them is exact.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// How long after it has expired the server removes a record: `day` of the scripts.
const DAY: u64 = 24 * 3600 * 1_000;

/// In whole milliseconds, not shorter.
fn millis(time: Duration) -> u64 {
    let millis = time.min(LONGEST).as_nanos().div_ceil(1_000_000);
    u64::try_from(millis).unwrap_or(u64::MAX)
}

fn text(millis: u64) -> Vec<u8> {
    millis.to_string().into_bytes()
}

impl Store for RedisStore {
    async fn claim(&self, id: KeyId, claim: &Claim) -> Result<Claimed, StorageError> {
        let (retention, kept) = match claim.mode {
            Mode::AtLeastOnce { retention } => {
                let retention = millis(retention);
                (Some(retention), Some(text(millis(claim.lease) + retention + DAY)))
            }
            Mode::AtMostOnce => (None, None),
        };
        let (claimed, lease) = (layout::claimed(claim, retention)?, text(millis(claim.lease)));
        let mut args: Vec<&[u8]> = vec![&claimed, &lease];
        args.extend(kept.as_deref());
        let owner = |fence, attempt| Owner {
            claim_id: claim.claim_id,
            fence,
            attempt,
            fingerprint: claim.fingerprint,
        };
        let answer = match self.ask(&script::CLAIM, id, &args).await? {
            // Nothing was there: the first attempt.
            Value::Int(fence) => {
                return Ok(Claimed::Owned {
                    owner: owner(u64::try_from(fence).map_err(|_| unreadable())?, 1),
                    checkpoint: None,
                });
            }
            answer => answer,
        };
        let (answer, mut reply) = Reply::read(answer)?;
        Ok(match &*answer {
            b"owned" => Claimed::Owned {
                owner: owner(reply.number()?, reply.attempt()?),
                checkpoint: reply.optional()?,
            },
            b"completed" => Claimed::Completed {
                attempt: reply.attempt()?,
                outcome: Outcome(reply.bytes()?),
            },
            b"in progress" => Claimed::InProgress {
                lease_left: reply.time()?,
            },
            b"mismatch" => Claimed::Mismatch,
            b"unknown" => Claimed::Unknown(reply.interrupted()?),
            b"cancelled" => Claimed::Cancelled,
            _ => return Err(unreadable()),
        })
    }

    async fn complete(
        &self,
        id: KeyId,
        owner: &Owner,
        outcome: &Bytes,
        retention: Duration,
    ) -> Result<Completed, StorageError> {
        let (fence, attempt) = (owner.fence.to_string(), owner.attempt.to_string());
        let retention = millis(retention);
        let (retention, kept) = (text(retention), text(retention + DAY));
        let args: [&[u8]; 7] = [
            owner.claim_id.as_bytes(),
            fence.as_bytes(),
            attempt.as_bytes(),
            owner.fingerprint.as_bytes(),
            &retention,
            &kept,
            outcome,
        ];
        let (answer, _) = self.run(&script::COMPLETE, id, &args).await?;
        match &*answer {
            b"applied" => Ok(Completed::Applied),
            b"already applied" => Ok(Completed::AlreadyApplied),
            b"lost" => Ok(Completed::Lost),
            _ => Err(unreadable()),
        }
    }

    async fn renew(
        &self,
        id: KeyId,
        owner: &Owner,
        lease: Duration,
        checkpoint: Option<&Bytes>,
    ) -> Result<Renewed, StorageError> {
        let lease = text(millis(lease));
        let mut args: Vec<&[u8]> = vec![owner.claim_id.as_bytes(), &lease];
        args.extend(checkpoint.map(|checkpoint| &**checkpoint));
        let (answer, _) = self.run(&script::RENEW, id, &args).await?;
        match &*answer {
            b"renewed" => Ok(Renewed::Renewed),
            b"lost" => Ok(Renewed::Lost),
            _ => Err(unreadable()),
        }
    }

    async fn release(&self, id: KeyId, owner: &Owner) -> Result<Ended, StorageError> {
        self.end(id, owner, b"release").await
    }

    async fn interrupt(&self, id: KeyId, owner: &Owner) -> Result<Ended, StorageError> {
        self.end(id, owner, b"interrupt").await
    }

    async fn cancel(&self, id: KeyId) -> Result<Cancellation, StorageError> {
        let (answer, mut reply) = self.run(&script::CANCEL, id, &[]).await?;
        Ok(match &*answer {
            b"cancelled" => Cancellation::Cancelled,
            b"cancelled unknown" => Cancellation::CancelledUnknown(reply.interrupted()?),
            b"done" => Cancellation::AlreadyDone(Outcome(reply.bytes()?)),
            b"in progress" => Cancellation::InProgress {
                lease_left: reply.time()?,
            },
            _ => return Err(unreadable()),
        })
    }

    async fn resolve(&self, id: KeyId, resolution: &Resolution) -> Result<Resolved, StorageError> {
        let (how, outcome, retention): (&[u8], _, _) = match resolution {
            Resolution::NotExecuted => (b"not executed", &Bytes::new(), Vec::new()),
            Resolution::Completed { outcome, retention } => (b"completed", outcome, text(millis(*retention))),
            Resolution::Corrected { outcome, retention } => (b"corrected", outcome, text(millis(*retention))),
        };
        let args: [&[u8]; 4] = [how, ClaimId::NOBODY.as_bytes(), outcome, &retention];
        let (answer, _) = self.run(&script::RESOLVE, id, &args).await?;
        match &*answer {
            b"resolved" => Ok(Resolved::Resolved),
            b"not interrupted" => Ok(Resolved::NotInterrupted),
            _ => Err(unreadable()),
        }
    }

    async fn forget(&self, id: KeyId) -> Result<Forgotten, StorageError> {
        let (answer, _) = self.run(&script::FORGET, id, &[]).await?;
        match &*answer {
            b"forgotten" => Ok(Forgotten::Forgotten),
            b"absent" => Ok(Forgotten::Absent),
            b"in progress" => Ok(Forgotten::InProgress),
            _ => Err(unreadable()),
        }
    }

    async fn inspect(&self, id: KeyId) -> Result<Option<Inspected>, StorageError> {
        let (state, reply) = self.run(&script::INSPECT, id, &[]).await?;
        reply.found(&state)
    }

    /// Slow: it scans every key of the server, and looks at those of this store. Records that come or go meanwhile are
    /// listed or not.
    async fn list_interrupted(
        &self,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Vec<(KeyId, Inspected)>, StorageError> {
        let mut found = Vec::new();
        for ids in self.ids(after).await?.chunks(AT_ONCE) {
            if found.len() >= limit {
                break;
            }
            found.extend(self.interrupted(ids).await?);
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Slow, as [`list_interrupted`](Store::list_interrupted) is here.
    async fn count_interrupted(&self) -> Result<u64, StorageError> {
        let mut count = 0;
        for ids in self.ids(None).await?.chunks(AT_ONCE) {
            count += self.interrupted(ids).await?.len();
        }
        Ok(u64::try_from(count).unwrap_or(u64::MAX))
    }

    /// Nothing, and says 0: Redis removes expired records by itself, a day after they have expired.
    async fn purge(&self, _: usize) -> Result<u64, StorageError> {
        Ok(0)
    }

    fn durability(&self) -> Durability {
        Durability::Relaxed
    }
}

impl RedisStore {
    async fn end(&self, id: KeyId, owner: &Owner, how: &[u8]) -> Result<Ended, StorageError> {
        let (answer, _) = self
            .run(&script::INTERRUPT, id, &[owner.claim_id.as_bytes(), how])
            .await?;
        match &*answer {
            b"released" => Ok(Ended::Released),
            b"interrupted" => Ok(Ended::Interrupted),
            b"lost" => Ok(Ended::Lost),
            _ => Err(unreadable()),
        }
    }
}
