//! A process that runs many operations and may be killed at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use steadfast::idempotency::{Attempt, Executed, Fingerprint, Idempotency};
use steadfast::{Key, Rejected, RejectedKind};

use super::kill::{Child, Effects};

/// Under the keys 0, 1, 2 and on.
pub(crate) const MANY: u32 = 400;

/// All over the run, and another one in each.
pub(crate) fn moment(n: usize) -> Duration {
    Duration::from_micros(u64::try_from(n * 7_919 % 60_000).unwrap())
}

/// Runs `operation` under `key`, whose holder may have died: as often as it takes for the lease to end. Where the disk is
/// so slow that the claim's own lease is over when its answer comes, nothing was done: that is tried again as well.
pub(crate) async fn insist<F>(idempotency: &Idempotency, key: &Key, operation: F) -> String
where
    F: AsyncFn(Attempt) -> Result<String, Rejected>,
{
    let request = Fingerprint::of("100 EUR").unwrap();
    for _ in 0..1_000 {
        let kind = match idempotency.execute(key, request, |attempt| operation(attempt)).await {
            Ok(Executed { value, source, .. }) => return format!("{source:?} {value}"),
            Err(rejected) => rejected.kind(),
        };
        if !matches!(kind, RejectedKind::InProgress | RejectedKind::StoreUnavailable) {
            return format!("{kind:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never ends")
}

/// Each has its effect once, and says what came of it.
pub(crate) async fn operations(child: &Child, idempotency: &Idempotency, effects: &Effects, at_once: u32) {
    child.begun();
    let lanes = (0..at_once).map(|lane| async move {
        for n in (lane..MANY).step_by(usize::try_from(at_once).unwrap()) {
            let operation = async |_: Attempt| {
                effects.append(&n.to_string());
                Ok(n.to_string())
            };
            let outcome = insist(idempotency, &Key::new("tenant-7", n.to_string()), operation).await;
            child.say(&format!("{n} {outcome}"));
        }
    });
    join_all(lanes).await;
}

/// What the process had said before it was killed is what the one after it finds; and no effect is there twice, nor an
/// outcome without one.
pub(crate) fn agree(killed: &[String], restarted: &[String], effects: Vec<String>, moment: Duration) {
    let outcomes = |said: &[String]| -> BTreeMap<String, String> {
        let split = |line: &String| line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        said.iter().map(split).collect()
    };
    let (before, after) = (outcomes(killed), outcomes(restarted));
    assert_eq!(after.len(), usize::try_from(MANY).unwrap());
    for (key, outcome) in before {
        assert_eq!(outcome, format!("Executed {key}"));
        assert_eq!(after[&key], format!("Replayed {key}"), "killed after {moment:?}");
    }
    let mut once = BTreeSet::new();
    for effect in effects {
        assert!(
            once.insert(effect.clone()),
            "{effect} happened twice, killed after {moment:?}"
        );
    }
    for (key, outcome) in &after {
        let unknown = outcome == "OutcomeUnknown";
        assert!(
            unknown || once.contains(key),
            "{key} has an outcome and no effect: {outcome}"
        );
    }
}
