//! The parts of the benchmark.

pub mod bare;
pub mod doc;
pub mod durable;
pub mod ground;
pub mod herd;
pub mod http;
pub mod measure;
pub mod million;
pub mod packed;
pub mod plain;
pub mod postgres;
pub mod talk;
pub mod volatile;
