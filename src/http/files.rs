//! The limit on open files, and so on connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many there may be, where that is bounded.
pub(super) fn open_files() -> Option<usize> {
    usize::try_from(getrlimit(Resource::Nofile).current?).ok()
}

/// Takes all that the system lets the process have: the usual soft limit of 1,024 is for programs that count their
/// files in a word.
pub(super) fn take_all() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where it may not be raised, less has to do.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
