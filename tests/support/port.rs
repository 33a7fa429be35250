//! Ports for servers that a test stops and starts again.
//!
//! They lie below those that the system gives away by itself: while its server is stopped, such a port would
//! be given to somebody else's listener, or to the very client that tries to reach it, which then talks to
//! itself.

use std::net::TcpListener;

/// A port that nobody uses now.
pub fn free() -> u16 {
    let taken = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_err();
    (0..1_000).map(|_| fastrand::u16(12_000..32_000)).find(|port| !taken(port)).expect("no port is free")
}
