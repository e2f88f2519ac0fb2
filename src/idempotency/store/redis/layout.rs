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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idempotency::store::Mode;

    const HEADER: usize = 95;
    const ORIGIN: &[u8] = b"call:tests";

    /// As a server would write it of the second attempt, with fence 7 and a lease until 5.
    fn header(state: u8) -> Vec<u8> {
        let mut bytes = FORMAT.to_vec();
        for number in [9.0_f64, 7.0, 5.0] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.push(state);
        bytes.extend(30.0_f64.to_le_bytes());
        bytes.extend([1; 16]);
        bytes.extend([2; Fingerprint::LEN]);
        bytes.extend(2_u32.to_le_bytes());
        bytes.push(1);
        bytes.extend(10_u32.to_le_bytes());
        bytes
    }

    fn behind() -> Bytes {
        [ORIGIN, b"note"].concat().into()
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let millis = Duration::from_millis;
        let owner = Owner {
            claim_id: ClaimId::from_bytes([1; 16]),
            fence: 7,
            attempt: 2,
            fingerprint: Fingerprint::from_bytes([2; Fingerprint::LEN]),
        };
        assert_eq!(header(b'p').len(), HEADER);
        let running = Record::InProgress {
            owner,
            lease_until: millis(5),
            expires_at: Some(millis(35)),
            checkpoint: Some(Bytes::from_static(b"note")),
            origin: Origin::from_text("call:tests"),
        };
        assert!(record(&header(b'p'), behind()) == Some(running));
        let mut for_ever = header(b'p');
        for_ever[29..37].copy_from_slice(&FOREVER.to_le_bytes());
        assert_eq!(record(&for_ever, behind()).unwrap().expires_at(), None);
        assert_eq!(record(&header(b'c'), behind()).unwrap().expires_at(), Some(millis(5)));
        let cancelled = Record::Cancelled {
            fence: 7,
            interrupted: Some(Interrupted {
                attempt: 2,
                checkpoint: Some(Bytes::from_static(b"note")),
            }),
        };
        assert!(record(&header(b'x'), behind()) == Some(cancelled));
    }

    #[test]
    fn what_a_claim_sends_is_the_end_of_a_header_and_the_origin() {
        let claim = Claim {
            claim_id: ClaimId::from_bytes([1; 16]),
            fingerprint: Fingerprint::from_bytes([2; Fingerprint::LEN]),
            mode: Mode::AtMostOnce,
            lease: Duration::ZERO,
            origin: Origin::from_text("call:tests"),
        };
        let mut expected = header(b'p');
        expected[86] = 1;
        expected[90] = 0;
        expected.extend(ORIGIN);
        assert_eq!(claimed(&claim, Some(30)).unwrap(), expected[28..]);
        expected[29..37].copy_from_slice(&FOREVER.to_le_bytes());
        assert_eq!(claimed(&claim, None).unwrap(), expected[28..]);
        assert_eq!(CLAIMED, HEADER - 28);
    }

    #[test]
    fn what_is_no_record_is_none() {
        for length in 0..HEADER {
            assert!(record(&header(b'p')[..length], behind()).is_none(), "{length} bytes");
        }
        let with = |at: usize, bytes: &[u8]| {
            let mut header = header(b'p');
            header[at..at + bytes.len()].copy_from_slice(bytes);
            record(&header, behind())
        };
        assert!(with(0, b"sfi2").is_none(), "another format");
        assert!(with(28, b"r").is_none(), "no record counts there");
        assert!(with(28, b"z").is_none(), "no such state");
        assert!(with(91, &15_u32.to_le_bytes()).is_none(), "an origin beyond the end");
        for wrong in [f64::NAN, -1.0, 0.5, f64::INFINITY] {
            assert!(with(12, &wrong.to_le_bytes()).is_none(), "a fence of {wrong}");
            assert!(with(20, &wrong.to_le_bytes()).is_none(), "a lease until {wrong}");
        }
        assert!(
            with(29, &(-2.0_f64).to_le_bytes()).is_none(),
            "neither a time nor for ever"
        );
    }
}
