//! Pure data and decisions: no I/O, no async, no clock (`now` is always an argument).
//!
//! Everything else in the crate may use these types; they use nothing of the crate.

pub mod access;
pub mod act;
pub mod bond;
pub mod conversation;
pub mod crash_group;
pub mod event;
pub mod group;
pub mod id;
pub mod interest;
pub mod journal;
pub mod json;
pub mod lease;
pub mod period;
pub mod redact;
pub mod schedule;
pub mod session;
pub mod snapshot;
pub mod supervision;
pub mod targets;
pub mod task;
pub mod tool_life;
pub mod topic;
pub mod units;
pub mod wire;
