//! The file tools: `fs.list` and `fs.read`, confined to the directories in `tools.fs.roots`.
//!
//! What both call a *text file* is a regular file within the size cap that is valid UTF-8 and holds
//! no NUL. The listing offers candidates by kind and size alone; the reading decides. So a file
//! that changes between the two is refused by the reading, never an error of the listing.
//!
//! Neither `..`, nor an absolute path, nor a symbolic link leads out of a root: every file is
//! opened below the root's own descriptor, component by component.

pub mod list;
pub mod read;
pub mod roots;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use list::{FsList, List, Listed, Listing};
pub use read::{FsRead, Read, Text};
pub use roots::Roots;

/// Why a path is not listed or read. Final: asking again gives the same answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Refusal {
    /// No directory is open to tools.
    #[error("no directory is open to tools: set `tools.fs.roots`")]
    NoRoots,
    /// The path leads out of the roots.
    #[error("`{path}` is not within `tools.fs.roots`")]
    Outside {
        /// As it was asked for.
        path: String,
    },
    /// There is nothing there.
    #[error("`{path}` does not exist")]
    Missing {
        /// As it was asked for.
        path: String,
    },
    /// The operating system does not let this process read it.
    #[error("`{path}` may not be read by this process")]
    Denied {
        /// As it was asked for.
        path: String,
    },
    /// It is a directory, a pipe, a device…
    #[error("`{path}` is not a regular file")]
    NotRegular {
        /// As it was asked for.
        path: String,
    },
    /// It is not UTF-8, or holds a NUL.
    #[error("`{path}` is not text")]
    NotText {
        /// As it was asked for.
        path: String,
    },
    /// It is over the size cap.
    #[error("`{path}` is larger than {max_bytes} bytes")]
    TooLarge {
        /// As it was asked for.
        path: String,
        /// The cap.
        max_bytes: u64,
    },
}

/// The largest file that the tools read, where nothing else is said.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// How many calls of one file tool run at once.
const CONCURRENCY: usize = 8;

/// Runs a file operation where it may block, and keeps a refusal apart from an error.
async fn blocking<M, T>(
    work: impl FnOnce() -> Result<T, roots::Failure> + Send + 'static,
) -> anyhow::Result<T>
where
    M: crate::Message<Error = Refusal>,
    T: Send + 'static,
{
    tokio::task::spawn_blocking(work).await?.map_err(|failure| match failure {
        roots::Failure::Refused(refusal) => M::refuse(refusal),
        roots::Failure::Io(error) => error.into(),
    })
}

#[cfg(test)]
mod tests;
