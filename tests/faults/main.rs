//! What survives when the database, the network or the node fails under load: real servers, the real
//! binary, nothing mocked.
//!
//! `GREENROOM_RECOVERY=full` makes the numbers those of a long night.

#![allow(
    clippy::duplicate_mod,
    reason = "Postgres and Redis are each found by their own copy of the same search"
)]

#[path = "../recovery/clients.rs"]
mod clients;
#[path = "../recovery/poison.rs"]
mod poison;
#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/redis.rs"]
mod redis;
#[path = "../support/mod.rs"]
mod support;
#[path = "../recovery/talk.rs"]
mod talk;
#[path = "../recovery/tasks.rs"]
mod tasks;
#[path = "../support/weather.rs"]
mod weather;

mod cache;
mod database;
mod network;
mod nodes;
mod telling;
mod troubles;
