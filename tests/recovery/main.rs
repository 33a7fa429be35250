//! What survives when the process does not: the real binary, killed under load.
//!
//! `GREENROOM_RECOVERY=full` makes the numbers those of a long night.

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod crashes;
mod kills;
mod poison;
mod talk;
mod tasks;
