//! The store on Postgres: truth for one node, or for several that share it.

mod connect;
mod error;
mod listen;
mod migrate;
mod pool;
mod tls;
mod url;
mod wire;

/// The servers of the tests.
#[cfg(test)]
#[path = "../../../tests/support/postgres.rs"]
mod server;
