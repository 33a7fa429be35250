//! The HTTP API: one file a resource, problem documents for whatever goes wrong.
//!
//! Every handler reads the request, calls one method of the operators' door
//! ([`Operator`](crate::runtime::operator::Operator)) and writes its answer; nothing is decided here.
//! Only this room names actix-web.
//!
//! A request passes: metrics → `Host` check (on loopback, against DNS rebinding) → UTF-8 check of the
//! path → routing → token (for `/api/v1` and `/metrics`) → the handler.
//!
//! To add a route: a function in its resource's file, and its line in `router.rs`.

mod agents;
mod announce;
mod bind;
mod body;
mod config;
mod conversations;
mod crashes;
mod events;
mod guard;
mod health;
mod logs;
mod messages;
mod node;
mod page;
mod params;
mod path;
mod problem;
mod router;
mod schedules;
mod server;
mod sessions;
mod tasks;
mod token;
mod tools;

pub use self::{
    announce::{Announcement, url_of},
    bind::{BindError, bind},
    problem::{PROBLEM_JSON, Problem, status_of},
    server::{Ctx, spawn},
    token::{Token, TokenError},
};
