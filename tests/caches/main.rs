//! The rules that every cache keeps. One line in `support::rules!` adds a cache to all of them.

mod access;
mod documents;
mod faults;
mod node;
#[path = "../support/mod.rs"]
mod node_support;
mod nodes;
#[path = "../support/proxy.rs"]
mod proxy;
mod reading;
mod recent;
#[path = "../support/redis.rs"]
mod redis;
mod states;
mod support;
