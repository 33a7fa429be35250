//! The HTTP API: one file per resource, problem documents for all errors.
//!
//! Every handler reads the request, calls one method of the operators' door
//! ([`Operator`](crate::runtime::operator::Operator)) and writes its answer; nothing is decided here.
//! Only this room names actix-web.
//!
//! A request passes: metrics and headers → `Host` check (on loopback, against DNS rebinding) → whether another
//! site's page sent it → UTF-8 check of the path → who asks (for `/api/v1` and `/metrics`) → routing → whether
//! their scope is enough → the audit log, for what operators do → the handler.
//!
//! To add a route: a function in its resource's file, and its line in `router.rs`, which also says which scope it
//! needs where that is not the usual one, and what an act on it is called in the audit log.

mod access;
mod agents;
mod announce;
mod audit;
mod bind;
mod body;
mod config;
mod conversations;
mod crashes;
mod dashboard;
mod deliver;
mod etag;
mod events;
mod files;
mod guard;
mod health;
mod login;
mod logs;
mod messages;
mod node;
mod openapi;
mod params;
mod path;
mod pipeline;
mod problem;
mod repair;
mod request_id;
mod router;
mod schedules;
mod server;
mod sessions;
mod shape;
mod tasks;
mod tls;
mod token;
mod tokens;
mod tools;

pub use self::{
    access::Access,
    announce::{Announcement, url_of},
    bind::{BindError, bind, exposed},
    problem::{PROBLEM_CODES, PROBLEM_JSON, Problem, status_of},
    server::{Ctx, spawn},
    tls::{Certificate, TlsError},
    token::{FILE as TOKEN_FILE, Token, TokenError},
};
