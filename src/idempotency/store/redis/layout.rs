//! The string that is a record, as `lua/record.lua` describes it.

use std::time::Duration;

use bytes::Bytes;

use super::super::super::fingerprint::Fingerprint;
use super::super::super::record::{Claim, ClaimId, Interrupted, Origin, Owner, Record};
use super::reply::unreadable;
use crate::storage::StorageError;

const FORMAT: [u8; 4] = *b"sfi1";
/// In place of how long a record counts after it ends.
const FOREVER: f64 = -1.0;
/// From the state to the origin.
const CLAIMED: usize = 67;

/// The record of a first attempt from its state on; the server puts fence and lease before it.
pub(super) fn claimed(claim: &Claim, retention: Option<u64>) -> Result<Vec<u8>, StorageError> {
    let origin = claim.origin.as_str().as_bytes();
    let length = u32::try_from(origin.len()).map_err(|_| unreadable())?;
    let mut bytes = Vec::with_capacity(CLAIMED + origin.len());
    bytes.push(b'p');
    bytes.extend(retention.map_or(FOREVER, to_double).to_le_bytes());
    bytes.extend(claim.claim_id.as_bytes());
    bytes.extend(claim.fingerprint.as_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes.push(0);
    bytes.extend(length.to_le_bytes());
    bytes.extend(origin);
    Ok(bytes)
}

/// A record that counts: its header, and what stands behind it.
pub(super) fn record(mut header: &[u8], mut behind: Bytes) -> Option<Record> {
    let bytes = &mut header;
    if take(bytes)? != FORMAT {
        return None;
    }
    let _high = number(bytes)?;
    let (fence, ends) = (number(bytes)?, Duration::from_millis(number(bytes)?));
    let [state] = take(bytes)?;
    let keep = f64::from_le_bytes(take(bytes)?);
    let owner = Owner {
        claim_id: ClaimId::from_bytes(take(bytes)?),
        fingerprint: Fingerprint::from_bytes(take(bytes)?),
        fence,
        attempt: u32::from_le_bytes(take(bytes)?),
    };
    let [noted] = take(bytes)?;
    let origin = usize::try_from(u32::from_le_bytes(take(bytes)?)).ok()?;
    if origin > behind.len() {
        return None;
    }
    let origin = behind.split_to(origin);
    let noted = |behind: Bytes| (noted == 1).then_some(behind);
    Some(match state {
        b'p' => Record::InProgress {
            owner,
            lease_until: ends,
            expires_at: if keep == FOREVER {
                None
            } else {
                Some(ends.saturating_add(Duration::from_millis(from_double(keep)?)))
            },
            checkpoint: noted(behind),
            origin: Origin::from_text(&String::from_utf8_lossy(&origin)),
        },
        b'c' => Record::Completed {
            owner,
            expires_at: ends,
            outcome: behind,
        },
        b'x' => Record::Cancelled {
            fence,
            interrupted: (owner.attempt > 0).then(|| Interrupted {
                attempt: owner.attempt,
                checkpoint: noted(behind),
            }),
        },
        _ => return None,
    })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    from_double(f64::from_le_bytes(take(bytes)?))
}

#[allow(clippy::cast_precision_loss, clippy::as_conversions, reason = "below 2^53")]
fn to_double(number: u64) -> f64 {
    number as f64
}

/// The numbers of the server's scripts are doubles.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::as_conversions,
    reason = "a whole number, and what is too large saturates"
)]
fn from_double(number: f64) -> Option<u64> {
    (number >= 0.0 && number.fract() == 0.0).then_some(number as u64)
}
