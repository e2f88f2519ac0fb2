//! The engine under fire: what it does when replies are lost, processes die, clocks jump and journals fail.

mod world;

mod handles;
mod journals;
mod recovery;
mod resources;
mod shutdown;
mod simulation;
mod stress;
mod telemetry;
mod traces;
