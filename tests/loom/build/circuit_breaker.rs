//! The seeded defects of the circuit breaker.

use super::Defect;

/// The folder of its core.
pub(crate) const FOLDER: &str = "../../src/circuit_breaker";

/// The files of its core.
pub(crate) const FILES: [&str; 12] = [
    "packed",
    "state",
    "control",
    "outside",
    "ring",
    "by_hand",
    "streak",
    "count_window",
    "time_window",
    "window",
    "machine",
    "cell",
];

const fn defect(module: &'static str, edits: &'static [(&'static str, &'static str)]) -> Defect {
    Defect {
        source: FOLDER,
        module,
        edits,
    }
}

pub(crate) const DEFECTS: &[Defect] = &[
    // The cell.
    defect(
        "a_generation_is_published_relaxed",
        &[(
            "self.control.store(Control::of(&machine).0, Ordering::Release)",
            "self.control.store(Control::of(&machine).0, Ordering::Relaxed)",
        )],
    ),
    defect(
        "a_generation_is_read_relaxed",
        &[(
            "Control(self.control.load(Ordering::Acquire))",
            "Control(self.control.load(Ordering::Relaxed))",
        )],
    ),
    defect(
        "a_generation_is_published_before_its_window_begins",
        &[
            (
                "        self.memory.begin(machine.generation());\n        fill(",
                "        fill(",
            ),
            (
                "        self.control.store(Control::of(&machine).0, Ordering::Release);\n",
                "        self.control.store(Control::of(&machine).0, Ordering::Release);
                 self.memory.begin(machine.generation());\n",
            ),
        ],
    ),
    defect(
        "an_opening_is_published_before_its_end",
        &[
            (
                "        if let Automatic::Open { until } = machine.automatic() {
            self.until.store(until, Ordering::Relaxed);
        }\n",
                "",
            ),
            (
                "        self.control.store(Control::of(&machine).0, Ordering::Release);\n",
                "        self.control.store(Control::of(&machine).0, Ordering::Release);
                 if let Automatic::Open { until } = machine.automatic() {
                     self.until.store(until, Ordering::Relaxed);
                 }\n",
            ),
        ],
    ),
    defect(
        "a_generation_is_published_after_the_lock",
        &[
            (
                "        self.control.store(Control::of(&machine).0, Ordering::Release);\n",
                "        let control = Control::of(&machine).0;\n",
            ),
            (
                "        drop(machine);\n        if transition",
                "        drop(machine);
                 self.control.store(control, Ordering::Release);
                 if transition",
            ),
        ],
    ),
    defect(
        "an_opening_checks_its_generation_before_the_lock",
        &[
            (
                "        self.change(outside, retry_after, |machine, now, time| {
            // Somebody",
                "        let current = self.lock().generation();
                 self.change(outside, retry_after, |machine, now, time| {
            // Somebody",
            ),
            (
                "            if machine.generation() != generation {
                return;",
                "            if current != generation {
                return;",
            ),
        ],
    ),
    defect(
        "an_opening_is_not_looked_at_again",
        &[(
            "            if self.memory.is_met(generation, counts) {",
            "            {",
        )],
    ),
    defect(
        "a_round_is_written_back_as_it_was_before_the_lock",
        &[
            (
                "            self.change(outside, None, |machine, now, time| {
                let decided",
                "            let seen = self.lock().probes_in_flight();
                 self.change(outside, None, |machine, now, time| {
                machine.see(seen);
                let decided",
            ),
            (
                "    pub(crate) fn would_probe(",
                "    pub(crate) fn see(&mut self, in_flight: u32) {
                     self.round.in_flight.truncate(usize::try_from(in_flight).unwrap());
                 }

                 pub(crate) fn would_probe(",
            ),
        ],
    ),
    // Failures in a row.
    defect(
        "a_streak_is_counted_by_load_and_store",
        &[(
            "            match self
                .0
                .compare_exchange_weak(word, tagged(generation, next), Ordering::Relaxed, Ordering::Relaxed)
            {",
            "            self.0.store(tagged(generation, next), Ordering::Relaxed);
             match Ok::<u64, u64>(word) {",
        )],
    ),
    defect(
        "a_streak_takes_results_of_every_generation",
        &[(
            "            if age(word, generation) != 0 || (length == 0 && !failed) {",
            "            let generation = if generation > 0 { word >> 32 } else { 0 };
             if length == 0 && !failed {",
        )],
    ),
    // The count window.
    defect(
        "the_touch_is_left_out",
        &[(
            "self.head.fetch_or(0, Ordering::Release)",
            "self.head.load(Ordering::Acquire)",
        )],
    ),
    defect(
        "the_touch_releases_nothing",
        &[(
            "self.head.fetch_or(0, Ordering::Release)",
            "self.head.fetch_or(0, Ordering::Relaxed)",
        )],
    ),
    defect(
        "the_touch_comes_before_the_sums",
        &[
            (
                "        let mut word = self.sums.load(Ordering::Relaxed);
        let settled",
                "        let head = Head::unpack(self.head.fetch_or(0, Ordering::Release));
                 let mut word = self.sums.load(Ordering::Relaxed);
        let settled",
            ),
            (
                "        let head = Head::unpack(self.head.fetch_or(0, Ordering::Release));\n        self",
                "        self",
            ),
        ],
    ),
    defect(
        "a_claim_acquires_nothing",
        &[(
            ".compare_exchange_weak(word, next.pack(), Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => break (head.place, next),",
            ".compare_exchange_weak(word, next.pack(), Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => break (head.place, next),",
        )],
    ),
    defect(
        "a_shortcut_acquires_nothing",
        &[(
            ".compare_exchange_weak(word, next, Ordering::Acquire, Ordering::Relaxed)",
            ".compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed)",
        )],
    ),
    defect(
        "a_shortcut_looks_before_it_claims",
        &[
            (
                "            match self
                .head
                .compare_exchange_weak(word, next, Ordering::Acquire",
                "            sums = self.sums.load(Ordering::Relaxed);
            match self
                .head
                .compare_exchange_weak(word, next, Ordering::Acquire",
            ),
            (
                "        let mut word = self.head.load(Ordering::Relaxed);
        if Head::unpack(word).is_full_in",
                "        let mut sums;
        let mut word = self.head.load(Ordering::Relaxed);
        if Head::unpack(word).is_full_in",
            ),
            (
                "if Sums::are_zero(self.sums.load(Ordering::Relaxed))",
                "if Sums::are_zero(sums)",
            ),
        ],
    ),
    defect(
        "a_place_is_claimed_by_load_and_store",
        &[(
            "            match self
                .head
                .compare_exchange_weak(word, next.pack(), Ordering::Acquire, Ordering::Relaxed)
            {",
            "            self.head.store(next.pack(), Ordering::Release);
             match Ok::<u64, u64>(word) {",
        )],
    ),
    defect(
        "sums_are_added_to_by_load_and_store",
        &[(
            "            match self
                .sums
                .compare_exchange_weak(word, next.pack(), Ordering::AcqRel, Ordering::Relaxed)
            {",
            "            self.sums.store(next.pack(), Ordering::Release);
             match Ok::<u64, u64>(word) {",
        )],
    ),
    defect(
        "sums_release_nothing",
        &[(
            "            match self
                .sums
                .compare_exchange_weak(word, next.pack(), Ordering::AcqRel, Ordering::Relaxed)",
            "            match self
                .sums
                .compare_exchange_weak(word, next.pack(), Ordering::Acquire, Ordering::Relaxed)",
        )],
    ),
    defect(
        "sums_are_read_relaxed",
        &[(
            "        let sums = self.sums.load(Ordering::Acquire);",
            "        let sums = self.sums.load(Ordering::Relaxed);",
        )],
    ),
    defect(
        "head_is_read_before_the_sums",
        &[(
            "        let sums = self.sums.load(Ordering::Acquire);
        let head = Head::unpack(self.head.load(Ordering::Relaxed));",
            "        let head = Head::unpack(self.head.load(Ordering::Relaxed));
             let sums = self.sums.load(Ordering::Acquire);",
        )],
    ),
    defect(
        "sums_take_results_of_every_generation",
        &[(
            "            if sums.generation != Sums::new(generation).generation {
                return None;
            }\n",
            "",
        )],
    ),
    defect(
        "a_bit_is_put_by_load_and_store",
        &[(
            "            match cell.compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed) {",
            "            cell.store(next, Ordering::Relaxed);
             match Ok::<u64, u64>(word) {",
        )],
    ),
    defect(
        "a_late_bit_is_put",
        &[(
            "            1.. => Some(0),
            _ => None,",
            "            _ => Some(0),",
        )],
    ),
    // The time window.
    defect(
        "the_count_of_calls_is_not_touched",
        &[("        bucket.calls.add(turn, 0)?;\n", "")],
    ),
    defect(
        "a_counter_releases_nothing",
        &[(
            "            match self
                .0
                .compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed)",
            "            match self
                .0
                .compare_exchange_weak(word, next, Ordering::Acquire, Ordering::Relaxed)",
        )],
    ),
    defect(
        "a_counter_acquires_nothing",
        &[(
            "            match self
                .0
                .compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed)",
            "            match self
                .0
                .compare_exchange_weak(word, next, Ordering::Release, Ordering::Relaxed)",
        )],
    ),
    defect(
        "a_shortcut_in_time_acquires_nothing",
        &[(
            "calls.compare_exchange(word, word + 1, Ordering::AcqRel, Ordering::Relaxed)",
            "calls.compare_exchange(word, word + 1, Ordering::Release, Ordering::Relaxed)",
        )],
    ),
    defect(
        "a_counter_is_added_to_by_load_and_store",
        &[(
            "            match self
                .0
                .compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed)
            {",
            "            self.0.store(next, Ordering::Release);
             match Ok::<u64, u64>(word) {",
        )],
    ),
    defect(
        "a_counter_is_read_relaxed",
        &[(
            "        let word = self.0.load(Ordering::Acquire);\n        (age",
            "        let word = self.0.load(Ordering::Relaxed);\n        (age",
        )],
    ),
    defect(
        "calls_are_read_before_failures",
        &[
            (
                "        let (failed, slow) = (self.failed.in_turn(turn), self.slow.in_turn(turn));\n",
                "        let calls = self.calls.in_turn(turn);
                 let (failed, slow) = (self.failed.in_turn(turn), self.slow.in_turn(turn));\n",
            ),
            ("self.calls.in_turn(turn).map(", "calls.map("),
        ],
    ),
    defect(
        "failures_of_a_turn_that_is_over_are_counted",
        &[(
            "self.calls.in_turn(turn).map(",
            "self.calls.in_turn(turn).or(Some(0)).map(",
        )],
    ),
    defect(
        "an_unhealthy_bucket_is_noted_after_the_touch",
        &[(
            "        let latest = self.unhealthy.fetch_max(number, Ordering::AcqRel).max(number);
        bucket.calls.add(turn, 0)?;",
            "        bucket.calls.add(turn, 0)?;
             let latest = self.unhealthy.fetch_max(number, Ordering::AcqRel).max(number);",
        )],
    ),
    defect(
        "unhealthy_buckets_acquire_nothing",
        &[(
            "        let latest = self.unhealthy.fetch_max(number, Ordering::AcqRel)",
            "        let latest = self.unhealthy.fetch_max(number, Ordering::Release)",
        )],
    ),
    defect(
        "unhealthy_buckets_release_nothing",
        &[(
            "        let latest = self.unhealthy.fetch_max(number, Ordering::AcqRel)",
            "        let latest = self.unhealthy.fetch_max(number, Ordering::Acquire)",
        )],
    ),
    defect(
        "a_failure_looks_no_further_than_its_bucket",
        &[(
            "        Some(self.sum(latest))",
            "        Some(self.sum(latest.min(number)))",
        )],
    ),
    defect(
        "a_generation_skips_no_turn",
        &[(
            "generation.wrapping_mul(2 * u64::from(BUCKETS))",
            "generation.wrapping_mul(0)",
        )],
    ),
    defect(
        "a_generation_skips_one_turn",
        &[(
            "generation.wrapping_mul(2 * u64::from(BUCKETS))",
            "generation.wrapping_mul(u64::from(BUCKETS))",
        )],
    ),
];
