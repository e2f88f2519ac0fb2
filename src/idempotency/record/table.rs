//! The decision table: what every transition answers and writes, from every state that a record can be in.
//!
//! It is 100 o'clock; leases last 10, interrupted records are kept for 50 more, outcomes for 70, those of operators for
//! 80. The store's next fence is 9. A cell reads `answer | write`, where nothing is written it is `-`, and a record
//! reads as its owner, attempt, fence (`f`), end of lease (`l`) or outcome, expiry (`e`), and whose it is (`of`).

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;

use super::super::fingerprint::Fingerprint;
use super::{
    Cancellation, Claim, ClaimId, Claimed, Face, Interrupted, Mode, Origin, Outcome, Owner, Record, Resolution, Step,
    Write,
};

const NOW: Duration = at(100);

const fn at(time: u64) -> Duration {
    Duration::from_secs(time)
}

const ME: ClaimId = ClaimId::from_bytes([1; 16]);
const THEM: ClaimId = ClaimId::from_bytes([2; 16]);
const OURS: Fingerprint = Fingerprint::from_bytes([1; 33]);
const OTHER: Fingerprint = Fingerprint::from_bytes([2; 33]);

fn owner(claim_id: ClaimId, attempt: u32, fingerprint: Fingerprint) -> Owner {
    Owner {
        claim_id,
        fence: 5,
        attempt,
        fingerprint,
    }
}

fn in_progress(owner: Owner, lease_until: u64, expires_at: Option<u64>) -> Record {
    Record::InProgress {
        owner,
        lease_until: at(lease_until),
        expires_at: expires_at.map(at),
        checkpoint: (owner.attempt > 1).then(|| Bytes::from_static(b"note")),
        origin: Origin::new(Face::Call, "theirs"),
    }
}

fn completed(owner: Owner, expires_at: u64) -> Record {
    Record::Completed {
        owner,
        expires_at: at(expires_at),
        outcome: Bytes::from_static(b"stored"),
    }
}

/// Every state, by name. One that is over, or has expired, is so since exactly now where that is the edge.
fn states() -> Vec<(&'static str, Option<Record>)> {
    let mine = |attempt| owner(ME, attempt, OURS);
    let theirs = |attempt| owner(THEM, attempt, OURS);
    let recorded = [
        ("expired in progress", in_progress(theirs(2), 90, Some(100))),
        ("expired completed", completed(theirs(2), 100)),
        ("expired, other request", completed(owner(THEM, 1, OTHER), 100)),
        ("mine, running", in_progress(mine(1), 101, Some(151))),
        ("mine, running again", in_progress(mine(2), 101, Some(151))),
        ("mine, once, running", in_progress(mine(1), 101, None)),
        ("mine, interrupted", in_progress(mine(1), 100, Some(150))),
        ("mine, interrupted again", in_progress(mine(2), 95, Some(145))),
        ("mine, once, interrupted", in_progress(mine(1), 100, None)),
        ("mine, completed", completed(mine(1), 101)),
        ("theirs, running", in_progress(theirs(1), 101, Some(151))),
        ("theirs, once, running", in_progress(theirs(1), 101, None)),
        ("theirs, interrupted", in_progress(theirs(1), 100, Some(150))),
        ("theirs, interrupted again", in_progress(theirs(2), 100, Some(150))),
        ("theirs, once, interrupted", in_progress(theirs(1), 100, None)),
        ("theirs, completed", completed(theirs(3), 101)),
        (
            "other request, running",
            in_progress(owner(THEM, 1, OTHER), 101, Some(151)),
        ),
        (
            "other request, interrupted",
            in_progress(owner(THEM, 1, OTHER), 100, Some(150)),
        ),
        ("other request, completed", completed(owner(THEM, 1, OTHER), 101)),
        ("resolved", completed(owner(ClaimId::NOBODY, 2, OURS), 101)),
        ("expired, resolved", completed(owner(ClaimId::NOBODY, 2, OURS), 100)),
        (
            "cancelled",
            Record::Cancelled {
                fence: 5,
                interrupted: None,
            },
        ),
        (
            "cancelled, unknown",
            Record::Cancelled {
                fence: 5,
                interrupted: Some(Interrupted {
                    attempt: 2,
                    checkpoint: Some(Bytes::from_static(b"note")),
                }),
            },
        ),
    ];
    let recorded = recorded.map(|(name, record)| (name, Some(record)));
    [("absent", None)].into_iter().chain(recorded).collect()
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).expect("the tests store text")
}

fn note(checkpoint: Option<&Bytes>) -> String {
    checkpoint.map_or_else(String::new, |checkpoint| format!(" '{}'", text(checkpoint)))
}

fn who(owner: &Owner) -> String {
    let name = match owner.claim_id {
        ME => "me",
        THEM => "them",
        ClaimId::NOBODY => "nobody",
        _ => "a stranger",
    };
    let request = if owner.fingerprint == OURS { "" } else { " other" };
    format!("{name}{request} {} f{}", owner.attempt, owner.fence)
}

fn record(record: &Record) -> String {
    match record {
        Record::InProgress {
            owner,
            lease_until,
            expires_at,
            checkpoint,
            origin,
        } => {
            let expires_at = expires_at.map_or_else(String::new, |at| format!(" e{}", at.as_secs()));
            let note = note(checkpoint.as_ref());
            let origin = origin.namespace();
            format!(
                "{} l{}{expires_at}{note} of {origin}",
                who(owner),
                lease_until.as_secs()
            )
        }
        Record::Completed {
            owner,
            expires_at,
            outcome,
        } => format!("{} {} e{}", who(owner), text(outcome), expires_at.as_secs()),
        Record::Cancelled {
            fence,
            interrupted: None,
        } => format!("closed f{fence}"),
        Record::Cancelled {
            fence,
            interrupted: Some(unknown),
        } => format!(
            "closed f{fence}, {}{}",
            unknown.attempt,
            note(unknown.checkpoint.as_ref())
        ),
    }
}

fn cell<A>(step: &Step<A>, answer: impl Fn(&A) -> String) -> String {
    let write = match &step.write {
        Write::Keep => "-".to_owned(),
        Write::Delete => "delete".to_owned(),
        Write::Put(put) => record(put),
    };
    format!("{} | {write}", answer(&step.answer))
}

fn plain<A: Debug>(answer: &A) -> String {
    format!("{answer:?}")
}

fn claimed(answer: &Claimed) -> String {
    match answer {
        Claimed::Owned { owner, checkpoint } => format!("Owned {}{}", who(owner), note(checkpoint.as_ref())),
        Claimed::Completed {
            attempt,
            outcome: Outcome(outcome),
        } => format!("Completed {attempt} {}", text(outcome)),
        Claimed::InProgress { lease_left } => format!("InProgress {}", lease_left.as_secs()),
        Claimed::Unknown(unknown) => format!("Unknown {}{}", unknown.attempt, note(unknown.checkpoint.as_ref())),
        Claimed::Mismatch | Claimed::Cancelled => plain(answer),
    }
}

fn cancelled(answer: &Cancellation) -> String {
    match answer {
        Cancellation::Cancelled => plain(answer),
        Cancellation::CancelledUnknown(unknown) => {
            format!(
                "CancelledUnknown {}{}",
                unknown.attempt,
                note(unknown.checkpoint.as_ref())
            )
        }
        Cancellation::AlreadyDone(Outcome(outcome)) => format!("AlreadyDone {}", text(outcome)),
        Cancellation::InProgress { lease_left } => format!("InProgress {}", lease_left.as_secs()),
    }
}

fn claim(mode: Mode) -> impl Fn(Option<&Record>) -> String {
    let claim = Claim {
        claim_id: ME,
        fingerprint: OURS,
        mode,
        lease: at(10),
        origin: Origin::new(Face::Call, "mine"),
    };
    move |record| cell(&Record::claim(record, &claim, NOW, 9), claimed)
}

/// Compares what `operation` does in every state with the rows of `expected`.
fn check(operation: impl Fn(Option<&Record>) -> String, expected: &str) {
    let mut actual = String::new();
    for (name, state) in states() {
        use std::fmt::Write;
        writeln!(actual, "{name}: {}", operation(state.as_ref())).expect("a string takes all");
    }
    let expected: Vec<&str> = expected.trim().lines().map(str::trim).collect();
    assert_eq!(actual.trim().lines().collect::<Vec<_>>(), expected, "\n{actual}");
}

#[test]
fn a_claim_at_least_once() {
    check(
        claim(Mode::AtLeastOnce { retention: at(50) }),
        "
        absent: Owned me 1 f9 | me 1 f9 l110 e160 of mine
        expired in progress: Owned me 1 f9 | me 1 f9 l110 e160 of mine
        expired completed: Owned me 1 f9 | me 1 f9 l110 e160 of mine
        expired, other request: Owned me 1 f9 | me 1 f9 l110 e160 of mine
        mine, running: Owned me 1 f5 | me 1 f5 l110 e160 of mine
        mine, running again: Owned me 2 f5 'note' | me 2 f5 l110 e160 'note' of mine
        mine, once, running: Owned me 1 f5 | me 1 f5 l110 e160 of mine
        mine, interrupted: Owned me 1 f5 | me 1 f5 l110 e160 of mine
        mine, interrupted again: Owned me 2 f5 'note' | me 2 f5 l110 e160 'note' of mine
        mine, once, interrupted: Owned me 1 f5 | me 1 f5 l110 e160 of mine
        mine, completed: Completed 1 stored | -
        theirs, running: InProgress 1 | -
        theirs, once, running: InProgress 1 | -
        theirs, interrupted: Owned me 2 f9 | me 2 f9 l110 e160 of mine
        theirs, interrupted again: Owned me 3 f9 'note' | me 3 f9 l110 e160 'note' of mine
        theirs, once, interrupted: Unknown 1 | -
        theirs, completed: Completed 3 stored | -
        other request, running: Mismatch | -
        other request, interrupted: Mismatch | -
        other request, completed: Mismatch | -
        resolved: Completed 2 stored | -
        expired, resolved: Owned me 1 f9 | me 1 f9 l110 e160 of mine
        cancelled: Cancelled | -
        cancelled, unknown: Cancelled | -
        ",
    );
}

#[test]
fn a_claim_at_most_once() {
    check(
        claim(Mode::AtMostOnce),
        "
        absent: Owned me 1 f9 | me 1 f9 l110 of mine
        expired in progress: Owned me 1 f9 | me 1 f9 l110 of mine
        expired completed: Owned me 1 f9 | me 1 f9 l110 of mine
        expired, other request: Owned me 1 f9 | me 1 f9 l110 of mine
        mine, running: Owned me 1 f5 | me 1 f5 l110 of mine
        mine, running again: Owned me 2 f5 'note' | me 2 f5 l110 'note' of mine
        mine, once, running: Owned me 1 f5 | me 1 f5 l110 of mine
        mine, interrupted: Owned me 1 f5 | me 1 f5 l110 of mine
        mine, interrupted again: Owned me 2 f5 'note' | me 2 f5 l110 'note' of mine
        mine, once, interrupted: Owned me 1 f5 | me 1 f5 l110 of mine
        mine, completed: Completed 1 stored | -
        theirs, running: InProgress 1 | -
        theirs, once, running: InProgress 1 | -
        theirs, interrupted: Unknown 1 | -
        theirs, interrupted again: Unknown 2 'note' | -
        theirs, once, interrupted: Unknown 1 | -
        theirs, completed: Completed 3 stored | -
        other request, running: Mismatch | -
        other request, interrupted: Mismatch | -
        other request, completed: Mismatch | -
        resolved: Completed 2 stored | -
        expired, resolved: Owned me 1 f9 | me 1 f9 l110 of mine
        cancelled: Cancelled | -
        cancelled, unknown: Cancelled | -
        ",
    );
}

#[test]
fn a_completion() {
    check(
        |record| {
            cell(
                &Record::complete(record, &owner(ME, 1, OURS), &Bytes::from_static(b"mine"), at(70), NOW),
                plain,
            )
        },
        "
        absent: Applied | me 1 f5 mine e170
        expired in progress: Applied | me 1 f5 mine e170
        expired completed: Applied | me 1 f5 mine e170
        expired, other request: Applied | me 1 f5 mine e170
        mine, running: Applied | me 1 f5 mine e170
        mine, running again: Applied | me 2 f5 mine e170
        mine, once, running: Applied | me 1 f5 mine e170
        mine, interrupted: Applied | me 1 f5 mine e170
        mine, interrupted again: Applied | me 2 f5 mine e170
        mine, once, interrupted: Applied | me 1 f5 mine e170
        mine, completed: AlreadyApplied | -
        theirs, running: Lost | -
        theirs, once, running: Lost | -
        theirs, interrupted: Lost | -
        theirs, interrupted again: Lost | -
        theirs, once, interrupted: Lost | -
        theirs, completed: Lost | -
        other request, running: Lost | -
        other request, interrupted: Lost | -
        other request, completed: Lost | -
        resolved: Lost | -
        expired, resolved: Applied | me 1 f5 mine e170
        cancelled: Lost | -
        cancelled, unknown: Lost | -
        ",
    );
}

#[test]
fn a_renewal() {
    check(
        |record| cell(&Record::renew(record, &owner(ME, 1, OURS), at(10), None, NOW), plain),
        "
        absent: Lost | -
        expired in progress: Lost | -
        expired completed: Lost | -
        expired, other request: Lost | -
        mine, running: Renewed | me 1 f5 l110 e160 of theirs
        mine, running again: Renewed | me 2 f5 l110 e160 'note' of theirs
        mine, once, running: Renewed | me 1 f5 l110 of theirs
        mine, interrupted: Renewed | me 1 f5 l110 e160 of theirs
        mine, interrupted again: Renewed | me 2 f5 l110 e160 'note' of theirs
        mine, once, interrupted: Renewed | me 1 f5 l110 of theirs
        mine, completed: Lost | -
        theirs, running: Lost | -
        theirs, once, running: Lost | -
        theirs, interrupted: Lost | -
        theirs, interrupted again: Lost | -
        theirs, once, interrupted: Lost | -
        theirs, completed: Lost | -
        other request, running: Lost | -
        other request, interrupted: Lost | -
        other request, completed: Lost | -
        resolved: Lost | -
        expired, resolved: Lost | -
        cancelled: Lost | -
        cancelled, unknown: Lost | -
        ",
    );
}

#[test]
fn a_renewal_with_a_checkpoint() {
    check(
        |record| {
            let note = Bytes::from_static(b"new");
            cell(
                &Record::renew(record, &owner(ME, 1, OURS), at(10), Some(&note), NOW),
                plain,
            )
        },
        "
        absent: Lost | -
        expired in progress: Lost | -
        expired completed: Lost | -
        expired, other request: Lost | -
        mine, running: Renewed | me 1 f5 l110 e160 'new' of theirs
        mine, running again: Renewed | me 2 f5 l110 e160 'new' of theirs
        mine, once, running: Renewed | me 1 f5 l110 'new' of theirs
        mine, interrupted: Renewed | me 1 f5 l110 e160 'new' of theirs
        mine, interrupted again: Renewed | me 2 f5 l110 e160 'new' of theirs
        mine, once, interrupted: Renewed | me 1 f5 l110 'new' of theirs
        mine, completed: Lost | -
        theirs, running: Lost | -
        theirs, once, running: Lost | -
        theirs, interrupted: Lost | -
        theirs, interrupted again: Lost | -
        theirs, once, interrupted: Lost | -
        theirs, completed: Lost | -
        other request, running: Lost | -
        other request, interrupted: Lost | -
        other request, completed: Lost | -
        resolved: Lost | -
        expired, resolved: Lost | -
        cancelled: Lost | -
        cancelled, unknown: Lost | -
        ",
    );
}

#[test]
fn a_release() {
    check(
        |record| cell(&Record::release(record, &owner(ME, 1, OURS), NOW), plain),
        "
        absent: Released | -
        expired in progress: Released | -
        expired completed: Released | -
        expired, other request: Released | -
        mine, running: Released | delete
        mine, running again: Interrupted | me 2 f5 l100 e150 'note' of theirs
        mine, once, running: Released | delete
        mine, interrupted: Released | delete
        mine, interrupted again: Interrupted | -
        mine, once, interrupted: Released | delete
        mine, completed: Lost | -
        theirs, running: Lost | -
        theirs, once, running: Lost | -
        theirs, interrupted: Lost | -
        theirs, interrupted again: Lost | -
        theirs, once, interrupted: Lost | -
        theirs, completed: Lost | -
        other request, running: Lost | -
        other request, interrupted: Lost | -
        other request, completed: Lost | -
        resolved: Lost | -
        expired, resolved: Released | -
        cancelled: Lost | -
        cancelled, unknown: Lost | -
        ",
    );
}

#[test]
fn an_interruption() {
    check(
        |record| cell(&Record::interrupt(record, &owner(ME, 1, OURS), NOW), plain),
        "
        absent: Lost | -
        expired in progress: Lost | -
        expired completed: Lost | -
        expired, other request: Lost | -
        mine, running: Interrupted | me 1 f5 l100 e150 of theirs
        mine, running again: Interrupted | me 2 f5 l100 e150 'note' of theirs
        mine, once, running: Interrupted | me 1 f5 l100 of theirs
        mine, interrupted: Interrupted | -
        mine, interrupted again: Interrupted | -
        mine, once, interrupted: Interrupted | -
        mine, completed: Lost | -
        theirs, running: Lost | -
        theirs, once, running: Lost | -
        theirs, interrupted: Lost | -
        theirs, interrupted again: Lost | -
        theirs, once, interrupted: Lost | -
        theirs, completed: Lost | -
        other request, running: Lost | -
        other request, interrupted: Lost | -
        other request, completed: Lost | -
        resolved: Lost | -
        expired, resolved: Lost | -
        cancelled: Lost | -
        cancelled, unknown: Lost | -
        ",
    );
}

#[test]
fn a_cancellation() {
    check(
        |record| cell(&Record::cancel(record, NOW), cancelled),
        "
        absent: Cancelled | closed f0
        expired in progress: Cancelled | closed f5
        expired completed: Cancelled | closed f5
        expired, other request: Cancelled | closed f5
        mine, running: InProgress 1 | -
        mine, running again: InProgress 1 | -
        mine, once, running: InProgress 1 | -
        mine, interrupted: CancelledUnknown 1 | closed f5, 1
        mine, interrupted again: CancelledUnknown 2 'note' | closed f5, 2 'note'
        mine, once, interrupted: CancelledUnknown 1 | closed f5, 1
        mine, completed: AlreadyDone stored | -
        theirs, running: InProgress 1 | -
        theirs, once, running: InProgress 1 | -
        theirs, interrupted: CancelledUnknown 1 | closed f5, 1
        theirs, interrupted again: CancelledUnknown 2 'note' | closed f5, 2 'note'
        theirs, once, interrupted: CancelledUnknown 1 | closed f5, 1
        theirs, completed: AlreadyDone stored | -
        other request, running: InProgress 1 | -
        other request, interrupted: CancelledUnknown 1 | closed f5, 1
        other request, completed: AlreadyDone stored | -
        resolved: AlreadyDone stored | -
        expired, resolved: Cancelled | closed f5
        cancelled: Cancelled | -
        cancelled, unknown: CancelledUnknown 2 'note' | -
        ",
    );
}

#[test]
fn a_resolution_with_an_outcome() {
    check(
        |record| {
            let outcome = Bytes::from_static(b"found");
            let resolution = Resolution::Completed {
                outcome,
                retention: at(80),
            };
            cell(&Record::resolve(record, &resolution, NOW), plain)
        },
        "
        absent: NotInterrupted | -
        expired in progress: NotInterrupted | -
        expired completed: NotInterrupted | -
        expired, other request: NotInterrupted | -
        mine, running: NotInterrupted | -
        mine, running again: NotInterrupted | -
        mine, once, running: NotInterrupted | -
        mine, interrupted: Resolved | nobody 1 f5 found e180
        mine, interrupted again: Resolved | nobody 2 f5 found e180
        mine, once, interrupted: Resolved | nobody 1 f5 found e180
        mine, completed: NotInterrupted | -
        theirs, running: NotInterrupted | -
        theirs, once, running: NotInterrupted | -
        theirs, interrupted: Resolved | nobody 1 f5 found e180
        theirs, interrupted again: Resolved | nobody 2 f5 found e180
        theirs, once, interrupted: Resolved | nobody 1 f5 found e180
        theirs, completed: NotInterrupted | -
        other request, running: NotInterrupted | -
        other request, interrupted: Resolved | nobody other 1 f5 found e180
        other request, completed: NotInterrupted | -
        resolved: NotInterrupted | -
        expired, resolved: NotInterrupted | -
        cancelled: NotInterrupted | -
        cancelled, unknown: NotInterrupted | -
        ",
    );
}

#[test]
fn a_resolution_as_not_executed() {
    check(
        |record| cell(&Record::resolve(record, &Resolution::NotExecuted, NOW), plain),
        "
        absent: NotInterrupted | -
        expired in progress: NotInterrupted | -
        expired completed: NotInterrupted | -
        expired, other request: NotInterrupted | -
        mine, running: NotInterrupted | -
        mine, running again: NotInterrupted | -
        mine, once, running: NotInterrupted | -
        mine, interrupted: Resolved | delete
        mine, interrupted again: Resolved | delete
        mine, once, interrupted: Resolved | delete
        mine, completed: NotInterrupted | -
        theirs, running: NotInterrupted | -
        theirs, once, running: NotInterrupted | -
        theirs, interrupted: Resolved | delete
        theirs, interrupted again: Resolved | delete
        theirs, once, interrupted: Resolved | delete
        theirs, completed: NotInterrupted | -
        other request, running: NotInterrupted | -
        other request, interrupted: Resolved | delete
        other request, completed: NotInterrupted | -
        resolved: NotInterrupted | -
        expired, resolved: NotInterrupted | -
        cancelled: NotInterrupted | -
        cancelled, unknown: NotInterrupted | -
        ",
    );
}

#[test]
fn a_correction() {
    check(
        |record| {
            let outcome = Bytes::from_static(b"found");
            let resolution = Resolution::Corrected {
                outcome,
                retention: at(80),
            };
            cell(&Record::resolve(record, &resolution, NOW), plain)
        },
        "
        absent: NotInterrupted | -
        expired in progress: NotInterrupted | -
        expired completed: NotInterrupted | -
        expired, other request: NotInterrupted | -
        mine, running: NotInterrupted | -
        mine, running again: NotInterrupted | -
        mine, once, running: NotInterrupted | -
        mine, interrupted: NotInterrupted | -
        mine, interrupted again: NotInterrupted | -
        mine, once, interrupted: NotInterrupted | -
        mine, completed: NotInterrupted | -
        theirs, running: NotInterrupted | -
        theirs, once, running: NotInterrupted | -
        theirs, interrupted: NotInterrupted | -
        theirs, interrupted again: NotInterrupted | -
        theirs, once, interrupted: NotInterrupted | -
        theirs, completed: NotInterrupted | -
        other request, running: NotInterrupted | -
        other request, interrupted: NotInterrupted | -
        other request, completed: NotInterrupted | -
        resolved: Resolved | nobody 2 f5 found e180
        expired, resolved: NotInterrupted | -
        cancelled: NotInterrupted | -
        cancelled, unknown: NotInterrupted | -
        ",
    );
}

#[test]
fn what_is_interrupted() {
    let interrupted = states().into_iter().filter(|(_, record)| {
        let record = Record::live(record.as_ref(), NOW);
        record.is_some_and(|record| record.is_interrupted(NOW))
    });
    let names: Vec<&str> = interrupted.map(|(name, _)| name).collect();
    assert_eq!(
        names,
        [
            "mine, interrupted",
            "mine, interrupted again",
            "mine, once, interrupted",
            "theirs, interrupted",
            "theirs, interrupted again",
            "theirs, once, interrupted",
            "other request, interrupted",
        ]
    );
}

#[test]
fn forgetting() {
    check(
        |record| cell(&Record::forget(record, NOW), plain),
        "
        absent: Absent | -
        expired in progress: Absent | -
        expired completed: Absent | -
        expired, other request: Absent | -
        mine, running: InProgress | -
        mine, running again: InProgress | -
        mine, once, running: InProgress | -
        mine, interrupted: Forgotten | delete
        mine, interrupted again: Forgotten | delete
        mine, once, interrupted: Forgotten | delete
        mine, completed: Forgotten | delete
        theirs, running: InProgress | -
        theirs, once, running: InProgress | -
        theirs, interrupted: Forgotten | delete
        theirs, interrupted again: Forgotten | delete
        theirs, once, interrupted: Forgotten | delete
        theirs, completed: Forgotten | delete
        other request, running: InProgress | -
        other request, interrupted: Forgotten | delete
        other request, completed: Forgotten | delete
        resolved: Forgotten | delete
        expired, resolved: Absent | -
        cancelled: Forgotten | delete
        cancelled, unknown: Forgotten | delete
        ",
    );
}
