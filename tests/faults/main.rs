//! What survives when the database, the network or the node fails under load: real servers, the real
//! binary, nothing mocked.
//!
//! `GREENROOM_RECOVERY=full` makes the numbers those of a long night.

#[path = "../recovery/clients.rs"]
mod clients;
#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/weather.rs"]
mod weather;

mod database;
mod network;
mod troubles;
