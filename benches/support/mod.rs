//! The parts of the benchmark.

pub mod bare;
pub mod doc;
pub mod durable;
pub mod ground;
pub mod herd;
pub mod measure;
pub mod plain;
pub mod postgres;
pub mod volatile;
