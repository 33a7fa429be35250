//! Greenroom: a durable actor runtime for agents.
#![warn(missing_docs)]

pub mod cache;
pub mod config;
pub mod log;
pub mod model;
pub mod store;
