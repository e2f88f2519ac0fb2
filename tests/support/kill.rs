//! Kills a process at its durable writes, and lets what comes after it be looked at.
//!
//! The process is this test program, run again for one test of it, the *child*:
//!
//! ```ignore
//! const CHILD: &str = "kill_mystore::child";          // its path within the program
//!
//! #[test]
//! fn child() {
//!     let Some(child) = kill::child() else { return }; // in an ordinary run there is nothing to do
//!     // a runtime of one thread: where the child stops, all of it stops, heartbeats too
//!     let store = Stopping::new(open(child.place()), &child);
//!     ..                                               // every call of the store is a kill point before and after it
//!     child.reach("before the effect");                // and so is this
//!     child.say("executed 1");                         // what its parent is to know
//! }
//!
//! #[test]
//! fn killed_anywhere_it_charges_once() {
//!     let points = kill::run(CHILD, "at_most_once", place, Stop::Never).points;
//!     for point in 1..=points {
//!         let killed = kill::run(CHILD, "at_most_once", place, Stop::At(point));
//!         let restarted = kill::run(CHILD, "at_most_once", place, Stop::Never);
//!         ..                                           // killed.at is where, .said what it had said
//!     }
//! }
//! ```
//!
//! `Stop::Named(point)` kills at the first point of that name. `Stop::After(time)` kills wherever the child is by then,
//! counted from when it says `begun`. A place is a path or a URL: whatever the child needs to find what it had before.
//! `kills(default)` is how often, `KILLS=200` says otherwise. The signal is SIGKILL: the child has no last word.

#![allow(dead_code, reason = "no one topic uses all of it")]

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const SCENARIO: &str = "STEADFAST_KILL_SCENARIO";
const PLACE: &str = "STEADFAST_KILL_PLACE";
const STOP_AT: &str = "STEADFAST_KILL_STOP_AT";

/// What a line of the child begins with: the test harness prints lines of its own.
const MARK: &str = "kill: ";
const STOPPED: &str = "stopped ";
const POINTS: &str = "points ";
const REACHED: &str = "reached ";
const NOWHERE: &str = "nowhere";
const BEGUN: &str = "begun";

/// The process that is killed, as it sees itself.
#[derive(Debug)]
pub(crate) struct Child {
    scenario: String,
    place: String,
    /// The number, or the name, of the kill point at which it stops; [`NOWHERE`], where it tells of each; or empty.
    stop_at: String,
    reached: AtomicUsize,
}

/// `Some` in a process that [`run`] has started.
pub(crate) fn child() -> Option<Arc<Child>> {
    Some(Arc::new(Child {
        scenario: env::var(SCENARIO).ok()?,
        place: env::var(PLACE).unwrap(),
        stop_at: env::var(STOP_AT).unwrap(),
        reached: AtomicUsize::new(0),
    }))
}

impl Child {
    pub(crate) fn scenario(&self) -> &str {
        &self.scenario
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// A kill point. Where it is the one to stop at, this thread goes no further, and the parent kills.
    pub(crate) fn reach(&self, point: &str) {
        let number = self.reached.fetch_add(1, Ordering::SeqCst) + 1;
        if self.stop_at == NOWHERE {
            return self.say(&format!("{REACHED}{point}"));
        }
        if self.stop_at == point || self.stop_at == number.to_string() {
            self.say(&format!("{STOPPED}{point}"));
            loop {
                thread::park();
            }
        }
    }

    /// A kill point before `call` and one after it.
    pub(crate) async fn around<T>(&self, write: &str, call: impl Future<Output = T>) -> T {
        self.reach(&format!("before {write}"));
        let answer = call.await;
        self.reach(&format!("after {write}"));
        answer
    }

    /// Tells the parent.
    #[allow(clippy::unused_self, reason = "nobody but a child has a parent that listens")]
    pub(crate) fn say(&self, what: &str) {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{MARK}{what}").unwrap();
        out.flush().unwrap();
    }

    /// From here on the parent counts the time after which it kills.
    pub(crate) fn begun(&self) {
        self.say(BEGUN);
    }

    /// To be called at the end: how many kill points there were.
    pub(crate) fn finished(&self) {
        self.say(&format!("{POINTS}{}", self.reached.load(Ordering::SeqCst)));
    }
}

/// When the child is killed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    Never,
    /// At the kill point of this number, from 1 on.
    At(usize),
    /// At the first kill point of this name.
    Named(&'static str),
    /// So long after it has said [`Child::begun`].
    After(Duration),
}

/// What a run of the child came to.
#[derive(Debug)]
pub(crate) struct Run {
    /// The kill point where it was killed. `None` for one that finished, or was killed elsewhere.
    pub(crate) at: Option<String>,
    /// What it said, in order.
    pub(crate) said: Vec<String>,
    /// How many kill points it had, where it finished.
    pub(crate) points: usize,
    /// Their names, where it was to be killed at none.
    pub(crate) reached: Vec<String>,
}

/// Runs the test `test` of this program as a child, and kills it at `stop`.
pub(crate) fn run(test: &str, scenario: &str, place: &str, stop: Stop) -> Run {
    let stop_at = match stop {
        Stop::At(number) => number.to_string(),
        Stop::Named(point) => point.to_owned(),
        Stop::Never => NOWHERE.to_owned(),
        Stop::After(_) => String::new(),
    };
    let mut process = Command::new(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(SCENARIO, scenario)
        .env(PLACE, place)
        .env(STOP_AT, stop_at)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut run = Run {
        at: None,
        said: Vec::new(),
        points: 0,
        reached: Vec::new(),
    };
    let mut killed = false;
    for line in BufReader::new(process.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some((_, said)) = line.split_once(MARK) else {
            continue;
        };
        if let Some(point) = said.strip_prefix(STOPPED) {
            run.at = Some(point.to_owned());
            process.kill().unwrap();
            killed = true;
        } else if let Some(point) = said.strip_prefix(REACHED) {
            run.reached.push(point.to_owned());
        } else if let Some(points) = said.strip_prefix(POINTS) {
            run.points = points.parse().unwrap();
        } else if said == BEGUN {
            if let Stop::After(time) = stop {
                pause(time);
                process.kill().unwrap();
                killed = true;
            }
        } else {
            run.said.push(said.to_owned());
        }
    }
    let status = process.wait().unwrap();
    // One that had finished before it was to be killed is as good.
    assert!(
        status.success() || killed,
        "{test}, {scenario}, {stop:?}: {status}, {run:?}"
    );
    run
}

/// How many times to kill: `KILLS`, or `default`.
pub(crate) fn kills(default: usize) -> usize {
    env::var("KILLS").map_or(default, |kills| kills.parse().unwrap())
}

/// Real time: the process that is waited for has no other.
fn pause(time: Duration) {
    let (_kept, nothing) = mpsc::channel::<()>();
    let _ = nothing.recv_timeout(time);
}

/// A record outside of the store of what a child did: lines of a file, durable when they are written.
pub(crate) struct Effects(PathBuf);

impl Effects {
    pub(crate) fn new(path: impl AsRef<Path>) -> Self {
        Self(path.as_ref().to_owned())
    }

    pub(crate) fn append(&self, line: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.0).unwrap();
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
        file.sync_data().unwrap();
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        match File::open(&self.0) {
            Ok(file) => BufReader::new(file).lines().map(Result::unwrap).collect(),
            Err(_) => Vec::new(),
        }
    }
}
