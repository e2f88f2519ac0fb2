//! The table, in Markdown.

use crate::measure::Measured;
use crate::rows::{Contender, Row};

pub fn print(rows: &[(&Row, Vec<(&Contender, Measured)>)]) {
    println!("| one call | who | ns | instructions | allocations |");
    println!("|---|---|---:|---:|---:|");
    for (row, contenders) in rows {
        for (index, (contender, measured)) in contenders.iter().enumerate() {
            let name = if index == 0 { row.name } else { "" };
            let who = if contender.ours {
                format!("**{}**", contender.name)
            } else {
                contender.name.to_owned()
            };
            let instructions = measured
                .instructions
                .map_or_else(|| "-".to_owned(), |count| count.to_string());
            println!(
                "| {name} | {who} | {:.1} | {instructions} | {} |",
                measured.nanoseconds, measured.allocations
            );
        }
    }
}
