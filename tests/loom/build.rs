//! Sets the cfg that turns the one door to atomics towards loom, and seeds the defects.
//!
//! A seeded defect is the real source with one edit: an edit that no longer fits the source fails the build.

use std::path::Path;
use std::{env, fs};

#[path = "build/circuit_breaker.rs"]
mod circuit_breaker;

struct Defect {
    source: &'static str,
    module: &'static str,
    edits: &'static [(&'static str, &'static str)],
}

const LEDGER: &str = "../../src/retry/ledger.rs";
const SEMAPHORE: &str = "../../src/bulkhead/semaphore.rs";

const DEFECTS: [Defect; 13] = [
    Defect {
        source: LEDGER,
        module: "deposit_by_load_and_store",
        edits: &[(
            "let _ = self.earnings[place(second)].fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);",
            "let word = &self.earnings[place(second)];
             if let Some(sum) = add(word.load(Ordering::Relaxed)) {
                 word.store(sum, Ordering::Relaxed);
             }",
        )],
    },
    Defect {
        source: LEDGER,
        module: "withdraw_checks_before_it_locks",
        edits: &[(
            "        if self.credit(&spending, second) >= units {",
            "        let enough = self.credit(&spending, second) >= units;
             drop(spending);
             let mut spending = self.lock();
             if enough {",
        )],
    },
    Defect {
        source: LEDGER,
        module: "floor_is_drawn_after_the_lock",
        edits: &[(
            "        spending.drawn_until = drawn_until;\n",
            "        drop(spending);
             self.lock().drawn_until = drawn_until;\n",
        )],
    },
    Defect {
        source: LEDGER,
        module: "refund_writes_back_what_it_read_before_the_lock",
        edits: &[(
            "        let mut spending = self.lock();\n        match drawn {",
            "        let before = self.lock().spent;
             let mut spending = self.lock();
             spending.spent = before;
             match drawn {",
        )],
    },
    Defect {
        source: SEMAPHORE,
        module: "who_joins_looks_before_it_is_seen",
        edits: &[(
            "        let free = self.word.fetch_and(!QUIET, Ordering::Acquire) & !QUIET;",
            "        let free = self.word.load(Ordering::Acquire) & !QUIET;
             self.word.fetch_and(!QUIET, Ordering::Acquire);",
        )],
    },
    Defect {
        source: SEMAPHORE,
        module: "who_gives_back_looks_before_it_adds",
        edits: &[(
            "        self.word.fetch_add(u64::from(weight.get()), Ordering::Release) & QUIET == 0",
            "        let before = self.word.load(Ordering::Acquire);
             self.word.fetch_add(u64::from(weight.get()), Ordering::Release);
             before & QUIET == 0",
        )],
    },
    Defect {
        source: SEMAPHORE,
        module: "a_permit_is_given_back_relaxed",
        edits: &[(
            "self.word.fetch_add(u64::from(weight.get()), Ordering::Release)",
            "self.word.fetch_add(u64::from(weight.get()), Ordering::Relaxed)",
        )],
    },
    Defect {
        source: SEMAPHORE,
        module: "a_newcomer_passes_who_waits",
        edits: &[(
            "while word >= QUIET + NOTHING + weight {",
            "while word & !QUIET >= NOTHING + weight {",
        )],
    },
    Defect {
        source: SEMAPHORE,
        module: "who_leaves_forgets_the_permit_that_came",
        edits: &[(
            "        drop(waiting);\n        (settled, wakers)",
            "        (settled.and(None), wakers)",
        )],
    },
    Defect {
        source: SEMAPHORE,
        module: "who_moves_up_writes_back_what_it_read",
        edits: &[(
            "        self.word.fetch_sub(taken, Ordering::Relaxed);",
            "        self.word.store(free - taken, Ordering::Relaxed);",
        )],
    },
    Defect {
        source: SEMAPHORE,
        module: "a_raised_limit_admits_nobody",
        edits: &[(
            "        self.move_up(&mut waiting, &mut wakers);\n        drop(waiting);\n        wakers\n",
            "        drop(waiting);\n        wakers\n",
        )],
    },
    Defect {
        source: SEMAPHORE,
        module: "a_refusal_hides_who_waits",
        edits: &[(
            "        if waiting.queue.is_empty() {
            self.word.fetch_or(QUIET, Ordering::Relaxed);
        }
        Entered::Full",
            "        self.word.fetch_or(QUIET, Ordering::Relaxed);
             Entered::Full",
        )],
    },
    Defect {
        source: SEMAPHORE,
        module: "a_permit_is_taken_by_load_and_store",
        edits: &[(
            "            match self
                .word
                .compare_exchange_weak(word, taken, Ordering::Acquire, Ordering::Relaxed)
            {",
            "            self.word.store(taken, Ordering::Relaxed);
             match Ok::<u64, u64>(taken) {",
        )],
    },
];

fn main() {
    println!("cargo::rustc-check-cfg=cfg(steadfast_loom)");
    println!("cargo::rustc-cfg=steadfast_loom");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    let out = env::var("OUT_DIR").expect("set by cargo");
    for Defect { source, module, edits } in DEFECTS.iter().chain(circuit_breaker::DEFECTS) {
        let mut code = code_of(source);
        for (from, to) in *edits {
            assert_eq!(
                code.matches(from).count(),
                1,
                "{module}: the source has changed:\n{from}"
            );
            code = code.replace(from, to);
        }
        fs::write(Path::new(&out).join(format!("{module}.rs")), code).expect("a seeded defect");
    }
}

/// The code of a core without its tests: one file, or those of a core of several, each as the module that it is.
fn code_of(source: &str) -> String {
    if source == circuit_breaker::FOLDER {
        let module = |name: &&str| {
            let code = code_of(&format!("{source}/{name}.rs"));
            format!("pub(crate) mod {name} {{\n{code}}}\n")
        };
        return circuit_breaker::FILES.iter().map(module).collect();
    }
    println!("cargo::rerun-if-changed={source}");
    let code = fs::read_to_string(source).expect("the source of a core");
    let code = code.split_once("#[cfg(test)]").map_or(&*code, |(code, _tests)| code);
    // Inner doc comments cannot be included.
    code.lines()
        .filter(|line| !line.starts_with("//!"))
        .map(|line| format!("{line}\n"))
        .collect()
}
