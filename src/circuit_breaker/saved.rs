//! What of a breaker is kept over a restart.

use std::time::Duration;

use super::machine::{Automatic, Forced};
use super::outside::Kept;
use super::window::{Calls, Counts, Past, Remembered, Sample};
use crate::ConfigError;
use crate::clock::nanos;
use crate::rejected::Name;

/// What is worth keeping of a circuit breaker over a restart: see [`CircuitBreaker::export`](super::CircuitBreaker::export).
///
/// With feature `serde` it can be written and read. Its form is for people to read and for
/// [`restore`](super::CircuitBreaker::restore) to check: a count window is a text, the oldest call first, of `.` for a
/// success, `F` for a failure, `s` for a slow success and `S` for a slow failure.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(deny_unknown_fields)
)]
pub struct CircuitBreakerExport {
    openings: u32,
    consecutive_failures: u32,
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none", default))]
    forced: Option<ForcedForm>,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::config::choice::deserialize"))]
    state: StateForm,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::config::choice::deserialize"))]
    calls: CallsForm,
}

#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(rename_all = "snake_case")
)]
enum StateForm {
    Closed,
    /// With what is left of its open time.
    Open(#[cfg_attr(feature = "serde", serde(with = "crate::config::duration"))] Duration),
    HalfOpen,
}

#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(rename_all = "snake_case")
)]
enum ForcedForm {
    Open,
    Closed,
    Disabled,
}

#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(rename_all = "snake_case")
)]
enum CallsForm {
    None,
    Count(String),
    Time(Vec<PastForm>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(deny_unknown_fields)
)]
struct PastForm {
    #[cfg_attr(feature = "serde", serde(with = "crate::config::duration"))]
    age: Duration,
    calls: u32,
    failures: u32,
    slow_calls: u32,
}

impl CircuitBreakerExport {
    pub(crate) fn new(kept: Kept) -> Self {
        let form = |past: Past| PastForm {
            age: Duration::from_nanos(past.age),
            calls: past.counts.calls,
            failures: past.counts.failed,
            slow_calls: past.counts.slow,
        };
        Self {
            openings: kept.openings,
            consecutive_failures: kept.remembered.failures_in_a_row,
            forced: kept.forced.map(|forced| match forced {
                Forced::Open => ForcedForm::Open,
                Forced::Closed => ForcedForm::Closed,
                Forced::Disabled => ForcedForm::Disabled,
            }),
            state: match kept.automatic {
                Automatic::Closed => StateForm::Closed,
                Automatic::Open { until } => StateForm::Open(Duration::from_nanos(until)),
                Automatic::HalfOpen => StateForm::HalfOpen,
            },
            calls: match kept.remembered.calls {
                Calls::None => CallsForm::None,
                Calls::Count(samples) => CallsForm::Count(samples.into_iter().map(letter).collect()),
                Calls::Time(past) => CallsForm::Time(past.into_iter().map(form).collect()),
            },
        }
    }

    /// What the calls were counted over.
    pub(crate) fn kind(&self) -> &'static str {
        match self.calls {
            CallsForm::None => "without calls",
            CallsForm::Count(_) => "of a number of calls",
            CallsForm::Time(_) => "of calls over time",
        }
    }

    /// The content, if it makes sense.
    pub(crate) fn check(&self, policy: &Name) -> Result<Kept, ConfigError> {
        let calls = match &self.calls {
            CallsForm::None => Calls::None,
            CallsForm::Count(text) => {
                let sample = |c| {
                    let allowed = "made of `.`, `F`, `s` and `S`";
                    sample(c).ok_or_else(|| ConfigError::new(policy, "restore", text, allowed))
                };
                Calls::Count(text.chars().map(sample).collect::<Result<_, _>>()?)
            }
            CallsForm::Time(past) => Calls::Time(past.iter().map(|past| past.check(policy)).collect::<Result<_, _>>()?),
        };
        Ok(Kept {
            automatic: match self.state {
                StateForm::Closed => Automatic::Closed,
                StateForm::Open(left) => Automatic::Open { until: nanos(left) },
                StateForm::HalfOpen => Automatic::HalfOpen,
            },
            forced: self.forced.map(|forced| match forced {
                ForcedForm::Open => Forced::Open,
                ForcedForm::Closed => Forced::Closed,
                ForcedForm::Disabled => Forced::Disabled,
            }),
            openings: self.openings,
            remembered: Remembered {
                failures_in_a_row: self.consecutive_failures,
                calls,
            },
        })
    }
}

impl PastForm {
    fn check(self, policy: &Name) -> Result<Past, ConfigError> {
        if self.failures > self.calls || self.slow_calls > self.calls {
            let allowed = "no more failures, and no more slow calls, than calls";
            return Err(ConfigError::new(policy, "restore", self, allowed));
        }
        Ok(Past {
            age: nanos(self.age),
            counts: Counts {
                calls: self.calls,
                failed: self.failures,
                slow: self.slow_calls,
            },
        })
    }
}

fn letter(sample: Sample) -> char {
    match (sample.failed, sample.slow) {
        (false, false) => '.',
        (true, false) => 'F',
        (false, true) => 's',
        (true, true) => 'S',
    }
}

fn sample(letter: char) -> Option<Sample> {
    let (failed, slow) = match letter {
        '.' => (false, false),
        'F' => (true, false),
        's' => (false, true),
        'S' => (true, true),
        _ => return None,
    };
    Some(Sample { failed, slow })
}
