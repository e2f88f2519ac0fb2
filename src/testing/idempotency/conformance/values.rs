//! What is kept: any bytes, and many of them.

use bytes::Bytes;

use super::bench::{Bench, Check, HOUR, claim, ensure, fresh_id, same};
use crate::KeyId;
use crate::idempotency::Fingerprint;
use crate::idempotency::store::{Claim, ClaimId, Claimed, Completed, Face, Origin, Outcome, Store};

const MEBIBYTE: usize = 1024 * 1024;

/// A checkpoint and an outcome come back as they were.
async fn keeps(bench: &Bench, value: &Bytes) -> Check {
    let store = &bench.store;
    let id = fresh_id();
    let owner = bench.own(id, &claim()).await?;
    store.renew(id, &owner, HOUR, Some(value)).await?;
    store.interrupt(id, &owner).await?;
    let length = value.len();
    let second = match bench.handle(1).claim(id, &claim()).await? {
        Claimed::Owned { owner, checkpoint } => {
            ensure(checkpoint.as_ref() == Some(value), || {
                let got = checkpoint.map(|got| got.len());
                format!("expected a checkpoint of {length} bytes, got {got:?} or others")
            })?;
            owner
        }
        other => return Err(format!("a takeover: expected Owned, got {other:?}").into()),
    };
    let completed = store.complete(id, &second, value, HOUR).await?;
    same("the completion", &completed, &Completed::Applied)?;
    match bench.handle(2).claim(id, &claim()).await? {
        Claimed::Completed {
            outcome: Outcome(got), ..
        } => ensure(got == *value, || {
            format!("expected an outcome of {length} bytes, got {} or others", got.len())
        }),
        other => Err(format!("a claim: expected Completed, got {other:?}").into()),
    }
}

pub(super) async fn a_mebibyte_is_kept(bench: &Bench) -> Check {
    let bytes = (0..=250_u8).cycle().take(MEBIBYTE).collect();
    keeps(bench, &bytes).await
}

pub(super) async fn any_bytes_are_kept_and_none_is_not_empty(bench: &Bench) -> Check {
    keeps(bench, &(0..=255).collect()).await?;
    keeps(bench, &Bytes::from_static(b"\0")).await?;
    keeps(bench, &Bytes::from_static(b"\r\n$-1\r\n")).await?;
    keeps(bench, &Bytes::from_static(b"'; DROP TABLE records; --")).await?;
    keeps(bench, &Bytes::new()).await?;
    let id = fresh_id();
    match bench.store.claim(id, &claim()).await? {
        Claimed::Owned { checkpoint: None, .. } => Ok(()),
        other => Err(format!("a first claim: expected no checkpoint, got {other:?}").into()),
    }
}

pub(super) async fn whose_a_record_is_can_be_read_while_it_is_in_progress(bench: &Bench) -> Check {
    let store = &bench.store;
    let id = fresh_id();
    let claim_of = |face, namespace| Claim {
        origin: Origin::new(face, namespace),
        ..claim()
    };
    let first = claim_of(Face::Http, "Zahlungen für '\"\\: ");
    let owner = bench.own(id, &first).await?;
    store
        .renew(id, &owner, HOUR, Some(&Bytes::from_static(b"note")))
        .await?;
    same("who claimed", &bench.record(id).await?.origin(), &Some(&first.origin))?;
    store.interrupt(id, &owner).await?;
    same(
        "who was interrupted",
        &bench.record(id).await?.origin(),
        &Some(&first.origin),
    )?;
    let second = claim_of(Face::Call, "");
    let owner = bench.own(id, &second).await?;
    same(
        "who took over",
        &bench.record(id).await?.origin(),
        &Some(&second.origin),
    )?;
    bench.complete(id, &owner, b"kept").await?;
    same("who completed", &bench.record(id).await?.origin(), &None)
}

pub(super) async fn ids_are_any_bytes(bench: &Bench) -> Check {
    for byte in [0, 1, 0x7f, 0x80, 0xff] {
        let id = KeyId::from_bytes([byte; 32]);
        let claim = Claim {
            claim_id: ClaimId::from_bytes([byte ^ 0xfe; 16]),
            fingerprint: Fingerprint::from_bytes([byte; Fingerprint::LEN]),
            ..claim()
        };
        // Left over from a run that failed.
        if let Some(left) = bench.store.inspect(id).await? {
            if let crate::idempotency::store::Record::InProgress { owner, .. } = left.record {
                bench.store.interrupt(id, &owner).await?;
            }
            bench.store.forget(id).await?;
        }
        let owner = bench.own(id, &claim).await?;
        same("the claim's id", &owner.claim_id, &claim.claim_id)?;
        same("the fingerprint", &owner.fingerprint, &claim.fingerprint)?;
        same(
            "the completion",
            &bench.complete(id, &owner, b"kept").await?,
            &Completed::Applied,
        )?;
        let another = Claim {
            fingerprint: Fingerprint::from_bytes([byte ^ 1; Fingerprint::LEN]),
            ..super::bench::claim()
        };
        same(
            "another request",
            &bench.store.claim(id, &another).await?,
            &Claimed::Mismatch,
        )?;
        bench.store.forget(id).await?;
    }
    Ok(())
}
