//! Limits how many calls run at once, with a bounded queue.
