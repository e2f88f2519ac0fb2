//! The scripts: each one transition of one record, as in `Record`.

use std::sync::LazyLock;

use redis::{Cmd, Script};

/// A script, and the hash under which a server that has seen it knows it.
pub(super) struct Transition {
    source: &'static str,
    hash: LazyLock<String>,
}

macro_rules! transition {
    ($($file:literal),+) => {{
        const SOURCE: &str = concat!(include_str!("lua/clock.lua"), $(include_str!($file)),+);
        Transition {
            source: SOURCE,
            hash: LazyLock::new(|| Script::new(SOURCE).get_hash().to_owned()),
        }
    }};
}

/// Its head alone runs where the key is free, so that comes before what reads a record.
pub(super) static CLAIM: Transition = transition!(
    "lua/fresh.lua",
    "lua/record.lua",
    "lua/taken.lua",
    "lua/write.lua",
    "lua/claim.lua"
);
pub(super) static COMPLETE: Transition = transition!("lua/record.lua", "lua/complete.lua");
pub(super) static RENEW: Transition = transition!("lua/record.lua", "lua/write.lua", "lua/renew.lua");
pub(super) static INTERRUPT: Transition = transition!("lua/record.lua", "lua/write.lua", "lua/interrupt.lua");
pub(super) static CANCEL: Transition = transition!("lua/record.lua", "lua/write.lua", "lua/cancel.lua");
pub(super) static RESOLVE: Transition = transition!("lua/record.lua", "lua/write.lua", "lua/resolve.lua");
pub(super) static FORGET: Transition = transition!("lua/record.lua", "lua/write.lua", "lua/forget.lua");
pub(super) static INSPECT: Transition = transition!("lua/record.lua", "lua/inspect.lua");

impl Transition {
    /// Runs it where the server has seen it before.
    pub(super) fn by_hash(&self, key: &str, args: &[&[u8]]) -> Cmd {
        call("EVALSHA", &self.hash, key, args)
    }

    /// Shows it to the server, and runs it. Unlike `SCRIPT LOAD` this goes to the node of the key alone.
    pub(super) fn in_full(&self, key: &str, args: &[&[u8]]) -> Cmd {
        call("EVAL", self.source, key, args)
    }
}

fn call(command: &str, script: &str, key: &str, args: &[&[u8]]) -> Cmd {
    let bytes = args.iter().map(|arg| arg.len()).sum::<usize>();
    let mut cmd = Cmd::with_capacity(4 + args.len(), command.len() + script.len() + 1 + key.len() + bytes);
    cmd.arg(command).arg(script).arg(b"1").arg(key);
    for arg in args {
        cmd.arg(*arg);
    }
    cmd
}
