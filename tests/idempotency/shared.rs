//! What the tests of all patterns share.

#[path = "../support/mod.rs"]
pub(crate) mod support;
#[path = "../support/telemetry.rs"]
#[allow(dead_code, reason = "each test crate uses its own part of it")]
pub(crate) mod telemetry;
