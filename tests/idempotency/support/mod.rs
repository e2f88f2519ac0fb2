//! What several of these tests need.

#![allow(dead_code, reason = "no one topic uses all of it")]

#[path = "../../support/folder.rs"]
pub(crate) mod folder;
#[path = "../../support/kill.rs"]
pub(crate) mod kill;
pub(crate) mod many;
pub(crate) mod postgres;
pub(crate) mod stopping;

use std::env;

/// Where PostgreSQL is. `None` where there is none and the test is to be skipped, which this says.
pub(crate) fn postgres_url() -> Option<String> {
    server("STEADFAST_POSTGRES")
}

/// Where a PostgreSQL is that a test may crash: it comes back by itself.
pub(crate) fn postgres_to_crash_url() -> Option<String> {
    server("STEADFAST_POSTGRES_TO_CRASH")
}

/// Where PgBouncer is, in transaction mode in front of the same PostgreSQL.
pub(crate) fn pgbouncer_url() -> Option<String> {
    server("STEADFAST_PGBOUNCER")
}

/// Where a Redis is.
pub(crate) fn redis_url() -> Option<String> {
    server("STEADFAST_REDIS")
}

/// The nodes of a Redis cluster.
pub(crate) fn redis_cluster_urls() -> Option<Vec<String>> {
    let urls = server("STEADFAST_REDIS_CLUSTER")?;
    Some(urls.split(',').map(str::to_owned).collect())
}

/// `scripts/servers` starts them all, and forbids to go without.
fn server(variable: &str) -> Option<String> {
    let url = env::var(variable).ok().filter(|url| !url.is_empty());
    if url.is_none() {
        let required = env::var("STEADFAST_SERVERS").is_ok_and(|servers| servers == "required");
        assert!(!required, "{variable} is not set, and STEADFAST_SERVERS=required");
        println!("skipped: {variable} is not set; `scripts/servers cargo test` starts the servers");
    }
    url
}
