//! The rules that every store keeps. One line in `support::rules!` adds a store to all of them.

mod access;
mod agents;
mod claims;
mod crashes;
mod dead;
mod deletions;
mod ends;
mod entities;
mod fairness;
mod family;
mod journal;
mod keys;
mod leases;
mod operators;
mod schedules;
mod settings;
mod subscriptions;
mod support;
mod together;
mod units;
mod upgrades;
