//! How a schedule is written in a file: one flat table, so that every format can say it and every error finds its key.

use std::time::Duration;

use serde::ser::Error;
use serde::{Deserialize, Serialize, Serializer};

use super::{Backoff, Jitter};
use crate::config::{choice, duration};
use crate::curve::Schedule;

#[derive(Deserialize, Serialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table of `kind`, `base` and what else a backoff has"
)]
pub(super) struct Form {
    kind: Kind,
    #[serde(with = "duration")]
    base: Duration,
    #[serde(skip_serializing_if = "Option::is_none")]
    factor: Option<f64>,
    #[serde(default, with = "duration::optional", skip_serializing_if = "Option::is_none")]
    max_delay: Option<Duration>,
    #[serde(
        default,
        deserialize_with = "choice::deserialize",
        skip_serializing_if = "Option::is_none"
    )]
    jitter: Option<Jitter>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Constant,
    Linear,
    Exponential,
    Fibonacci,
    Decorrelated,
    Smooth,
}

impl From<Form> for Backoff {
    fn from(form: Form) -> Self {
        let schedule = match form.kind {
            Kind::Constant => Schedule::Constant,
            Kind::Linear => Schedule::Linear,
            Kind::Exponential => Schedule::Exponential,
            Kind::Fibonacci => Schedule::Fibonacci,
            Kind::Decorrelated => Schedule::Decorrelated,
            Kind::Smooth => Schedule::Smooth,
        };
        Self {
            schedule: schedule(form.base),
            factor: form.factor,
            max_delay: form.max_delay,
            jitter: form.jitter,
        }
    }
}

/// # Errors
///
/// For a function or a sequence: it is code.
impl Serialize for Backoff {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (kind, base) = match self.schedule {
            Schedule::Constant(base) => (Kind::Constant, base),
            Schedule::Linear(base) => (Kind::Linear, base),
            Schedule::Exponential(base) => (Kind::Exponential, base),
            Schedule::Fibonacci(base) => (Kind::Fibonacci, base),
            Schedule::Decorrelated(base) => (Kind::Decorrelated, base),
            Schedule::Smooth(base) => (Kind::Smooth, base),
            Schedule::Function(_) | Schedule::Sequence(_) => {
                return Err(S::Error::custom(
                    "a backoff by a function or a sequence is code, and cannot be written to a file",
                ));
            }
        };
        Form {
            kind,
            base,
            factor: self.factor,
            max_delay: self.max_delay,
            jitter: self.jitter,
        }
        .serialize(serializer)
    }
}
