//! The rules of the house, as tests. Each says what to do when it fails.

mod calls;
mod imports;
mod papers;
mod source;
