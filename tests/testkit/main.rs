//! What the test kit promises: time that is the test's, crashes at every place, and failures that tell why.

mod agents;
mod crashes;
#[allow(dead_code)] // its `main`, and what that alone uses
#[path = "../../examples/crawler.rs"]
mod crawler;
mod groups;
mod keys;
mod kit;
mod probes;
mod schedules;
mod timers;
mod tools;
