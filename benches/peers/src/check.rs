//! Our targets, held against what was measured.

use std::process::ExitCode;

use crate::measure::Measured;
use crate::rows::{Contender, Limit, Row};

/// Prints what is missed; fails if anything is.
pub fn report(rows: &[(&Row, Vec<(&Contender, Measured)>)]) -> ExitCode {
    let missed: Vec<String> = rows
        .iter()
        .flat_map(|(row, contenders)| missed(row, contenders))
        .collect();
    println!();
    for (row, contenders) in rows {
        if let Limit::Missed { prototype, .. } = row.limit {
            let ours = contenders.iter().find(|(contender, _)| contender.ours);
            let instructions = ours.and_then(|(_, measured)| measured.instructions).unwrap_or(0);
            let target = 2 * prototype + 20;
            println!(
                "missed, as known: {}: {instructions} instructions, the target is {target}",
                row.name
            );
        }
    }
    for line in &missed {
        println!("missed: {line}");
    }
    if missed.is_empty() {
        println!("no other target is missed");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn missed(row: &Row, contenders: &[(&Contender, Measured)]) -> Vec<String> {
    let mut missed = Vec::new();
    let peers = || contenders.iter().filter(|(contender, _)| !contender.ours);
    for (ours, measured) in contenders.iter().filter(|(contender, _)| contender.ours) {
        let instructions = measured.instructions.unwrap_or(u64::MAX);
        let mut miss = |what: String| missed.push(format!("{}, {}: {what}", row.name, ours.name));
        if measured.allocations > 0 && row.limit != Limit::None {
            miss(format!("{} allocations instead of 0", measured.allocations));
        }
        let ceiling = match row.limit {
            Limit::Prototype(prototype) => 2 * prototype + 20,
            Limit::Missed { reached, .. } => reached,
            Limit::Peer { name, percent } => {
                let peer = peers().find(|(contender, _)| contender.name == name);
                peer.and_then(|(_, measured)| measured.instructions).unwrap_or(0) * percent / 100
            }
            Limit::Flat { percent } => {
                let first = contenders.iter().find(|(contender, _)| contender.ours);
                let first = first.and_then(|(_, measured)| measured.instructions).unwrap_or(0);
                if instructions < first * (100 - percent) / 100 {
                    miss(format!("{instructions} instructions, and {first} elsewhere"));
                }
                first * (100 + percent) / 100
            }
            Limit::None => u64::MAX,
        };
        if instructions > ceiling {
            miss(format!("{instructions} instructions, at most {ceiling} allowed"));
        }
        if let Limit::Peer { .. } | Limit::Flat { .. } | Limit::None = row.limit {
            continue;
        }
        for (peer, theirs) in peers().filter(|(peer, _)| !peer.may_be_below) {
            if theirs.instructions.is_some_and(|theirs| instructions >= theirs) {
                miss(format!("{instructions} instructions, not below {}", peer.name));
            }
        }
    }
    missed
}
