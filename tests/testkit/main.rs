//! What the test kit promises: time that is the test's, crashes at every place, and failures that tell why.

mod agents;
mod crashes;
mod kit;
mod timers;
