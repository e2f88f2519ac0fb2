//! Prints what steadfast and its peers cost for one call each, side by side; `--check` holds our targets against it.
//!
//! See `../README.md` for the commands and the meaning of the columns.

mod allocations;
mod check;
mod instructions;
mod measure;
mod rows;
mod table;

use std::env;
use std::process::ExitCode;

use measure::Measured;
use rows::{Contender, Row};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let rows = rows::all();
    match arguments[..] {
        [] => {
            table::print(&measure_all(&rows));
            ExitCode::SUCCESS
        }
        ["--check"] => {
            if !instructions::available() {
                eprintln!("--check gates on instruction counts: valgrind is needed");
                return ExitCode::FAILURE;
            }
            let measured = measure_all(&rows);
            table::print(&measured);
            check::report(&measured)
        }
        ["--row", row, "--contender", contender, "--iterations", iterations] => {
            run_one(&rows, row, contender, iterations)
        }
        _ => {
            eprintln!("usage: steadfast-peers [--check | --row ROW --contender NAME --iterations N]");
            ExitCode::FAILURE
        }
    }
}

/// Every contender of every row, row by row.
fn measure_all(rows: &[Row]) -> Vec<(&Row, Vec<(&Contender, Measured)>)> {
    rows.iter()
        .map(|row| {
            eprintln!("measuring: {}", row.name);
            (row, measure::row(row))
        })
        .collect()
}

/// What the binary runs of itself under callgrind.
fn run_one(rows: &[Row], row: &str, contender: &str, iterations: &str) -> ExitCode {
    let found = rows
        .iter()
        .find(|candidate| candidate.name == row)
        .and_then(|row| row.contenders.iter().find(|candidate| candidate.name == contender));
    match (found, iterations.parse()) {
        (Some(contender), Ok(iterations)) => {
            (contender.run)(iterations);
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("no such row, contender or number: {row}, {contender}, {iterations}");
            ExitCode::FAILURE
        }
    }
}
