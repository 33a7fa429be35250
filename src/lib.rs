//! Greenroom: a durable actor runtime for agents.
#![warn(missing_docs)]

pub mod model;
pub mod store;
