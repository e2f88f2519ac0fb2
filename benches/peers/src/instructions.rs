//! Instructions per call, counted by callgrind.

use std::env;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

/// Calls of the shorter of the two runs; the longer makes eleven times as many. The difference between the two is free of what
/// starting and stopping costs.
const CALLS: u64 = 200;

static AVAILABLE: LazyLock<bool> = LazyLock::new(|| {
    let version = Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
});

pub fn available() -> bool {
    *AVAILABLE
}

/// `None` where valgrind is not installed. `turn` is how many calls fit into a turn: where they are few, few are counted.
pub fn per_call(row: &str, contender: &str, turn: u64) -> Option<u64> {
    if !available() {
        return None;
    }
    let few = CALLS.min(turn);
    let many = few * 11;
    let difference = total(row, contender, many)?.saturating_sub(total(row, contender, few)?);
    let calls = many - few;
    Some((difference + calls / 2) / calls)
}

fn total(row: &str, contender: &str, calls: u64) -> Option<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe().ok()?)
        .args([
            "--row",
            row,
            "--contender",
            contender,
            "--iterations",
            &calls.to_string(),
        ])
        .output()
        .ok()?;
    // "==1234== Collected : 567890"
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let collected = log.lines().find_map(|line| line.split_once("Collected : "))?;
    collected.1.trim().parse().ok()
}
