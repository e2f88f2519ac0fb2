//! How durable what is stored is.

/// What a store or a journal can lose of what it has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Nothing, as long as its disk lasts.
    Durable,
    /// What was written last, in a crash or a failover.
    Relaxed,
    /// Everything, with the process.
    Volatile,
}
