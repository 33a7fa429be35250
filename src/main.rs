//! The stock binary: the runtime with the library crew and the demo.

use std::process::ExitCode;

use greenroom::Runtime;

fn main() -> ExitCode {
    Runtime::builder().library().main()
}
