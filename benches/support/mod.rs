//! The parts of the benchmark.

pub mod bare;
pub mod crashes;
pub mod crowd;
pub mod doc;
pub mod durable;
pub mod ground;
pub mod herd;
pub mod http;
pub mod idle;
pub mod measure;
pub mod million;
pub mod neighbour;
pub mod packed;
pub mod peers;
pub mod phase;
pub mod postgres;
pub mod program;
pub mod queues;
pub mod strain;
pub mod talk;
pub mod tasks;
pub mod volatile;
