//! What the runtime promises to a program, proved through the public API: a node in this process,
//! a real store on disk, agents defined here.

mod ahead;
mod asks;
mod backlog;
mod calls;
mod circles;
mod claimed;
mod clearing;
mod configuration;
mod crashes;
mod crowd;
mod cutting;
mod defaults;
mod elsewhere;
mod entities;
mod evolution;
mod fanout;
#[path = "../support/faulty.rs"]
mod faulty;
mod functions;
mod giving_way;
mod groups;
mod held;
mod hooks;
mod intensity;
mod keys;
mod lifecycle;
mod limits;
#[allow(dead_code)] // its `main`, and what that alone uses
#[path = "../../examples/migrate.rs"]
mod migrate;
mod model;
mod notes;
mod options;
#[allow(dead_code)] // its `main`
#[path = "../../examples/order.rs"]
mod order;
mod outage;
mod ownership;
mod panics;
mod persistence;
#[path = "../support/postgres.rs"]
mod postgres;
mod reasons;
mod repair;
mod retries;
mod returns;
mod rewrite;
mod schedules;
mod shutdown;
mod stopped_tools;
mod storm;
mod supervision;
mod support;
mod suspects;
mod tasks;
mod timers;
mod topics;
mod turns;
mod urgency;
mod watch;
mod watchdog;
