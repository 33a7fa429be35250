//! What the runtime promises to a program, proved through the public API: a node in this process,
//! a real store on disk, agents defined here.

mod ahead;
mod entities;
#[path = "../support/faulty.rs"]
mod faulty;
mod keys;
mod lifecycle;
mod model;
mod outage;
mod ownership;
mod persistence;
#[path = "../support/postgres.rs"]
mod postgres;
mod shutdown;
mod supervision;
mod support;
mod tasks;
mod timers;
mod topics;
mod turns;
mod urgency;
