//! Sets the cfg that turns the one door to atomics towards loom, and seeds the defects.
//!
//! A seeded defect is the real source with one edit: an edit that no longer fits the source fails the build.

use std::path::Path;
use std::{env, fs};

struct Defect {
    module: &'static str,
    edits: &'static [(&'static str, &'static str)],
}

const LEDGER: &str = "../../src/retry/ledger.rs";

const DEFECTS: [Defect; 4] = [
    Defect {
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
        module: "floor_is_drawn_after_the_lock",
        edits: &[(
            "        spending.drawn_until = drawn_until;\n",
            "        drop(spending);
             self.lock().drawn_until = drawn_until;\n",
        )],
    },
    Defect {
        module: "refund_writes_back_what_it_read_before_the_lock",
        edits: &[(
            "        let mut spending = self.lock();\n        match drawn {",
            "        let before = self.lock().spent;
             let mut spending = self.lock();
             spending.spent = before;
             match drawn {",
        )],
    },
];

fn main() {
    println!("cargo::rustc-check-cfg=cfg(steadfast_loom)");
    println!("cargo::rustc-cfg=steadfast_loom");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={LEDGER}");

    let source = fs::read_to_string(LEDGER).expect("the arithmetic of the retry budget");
    let (code, _tests) = source.split_once("#[cfg(test)]").expect("its tests");
    let out = env::var("OUT_DIR").expect("set by cargo");
    for Defect { module, edits } in DEFECTS {
        // Inner doc comments cannot be included.
        let mut code: String = code
            .lines()
            .filter(|line| !line.starts_with("//!"))
            .map(|line| format!("{line}\n"))
            .collect();
        for (from, to) in edits {
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
