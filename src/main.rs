//! The stock binary: the runtime with the library crew and the demo.

use std::process::ExitCode;

use greenroom::Runtime;

#[cfg(all(feature = "jemalloc", not(target_env = "msvc")))]
#[global_allocator]
static ALLOCATOR: greenroom::Jemalloc = greenroom::Jemalloc;

fn main() -> ExitCode {
    Runtime::builder().library().main()
}
