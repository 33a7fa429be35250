//! The directories that tools may read, and how a path is resolved within them.

use std::{
    io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use cap_std::{ambient_authority, fs::Dir};

use super::{MAX_FILE_BYTES, Refusal};

/// The directories that are open to tools. Cheap to clone.
///
/// A path is given either absolute, and then lies within a root, or relative to the first root. A
/// root that does not exist yet may come later.
#[derive(Debug, Clone)]
pub struct Roots {
    dirs: Arc<[PathBuf]>,
    closed: Arc<[PathBuf]>,
    max_file_bytes: u64,
}

/// Why a file operation did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// For good.
    Refused(Refusal),
    /// This time.
    Io(io::Error),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Failure {
    /// What an error of the operating system at `path` means to the caller.
    pub(super) fn at(path: &str, error: io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::InvalidFilename
            | io::ErrorKind::InvalidInput => Refusal::Missing { path }.into(),
            io::ErrorKind::IsADirectory => Refusal::NotRegular { path }.into(),
            // An escape from the root is told the same way as a file of somebody else's.
            io::ErrorKind::PermissionDenied => Refusal::Denied { path }.into(),
            _ if error.raw_os_error() == Some(libc::ELOOP) => Refusal::Missing { path }.into(),
            _ => Self::Io(error),
        }
    }
}

/// A path within a root.
#[derive(Debug)]
pub(super) struct Place {
    /// The root, open.
    pub root: Dir,
    /// The way from there: plain names alone; empty for the root itself.
    pub below: PathBuf,
    /// What is closed, and where this place is among it.
    pub closed: Closed,
}

/// What is closed, as it is in the file system now.
#[derive(Debug)]
pub(super) struct Closed {
    /// The place that was asked for, without symbolic links; empty where there is none.
    place: PathBuf,
    closed: Vec<PathBuf>,
}

impl Closed {
    /// Whether what lies so far below the place is closed.
    pub(super) fn has(&self, below: &str) -> bool {
        !self.closed.is_empty() && {
            let path = self.place.join(below);
            self.closed.iter().any(|closed| path.starts_with(closed))
        }
    }
}

impl Roots {
    /// These directories, and no file over 1 MiB.
    pub fn new(dirs: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        let dirs =
            dirs.into_iter().map(Into::into).map(|dir| std::path::absolute(&dir).unwrap_or(dir)).collect();
        Self { dirs, closed: Arc::default(), max_file_bytes: MAX_FILE_BYTES }
    }

    /// Leaves these files and directories out, by whatever way they are reached: the node's own, which hold its
    /// tokens and keys, are no tool's to read wherever they lie.
    #[must_use]
    pub fn closed(mut self, paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        self.closed = paths
            .into_iter()
            .map(Into::into)
            .map(|path| std::path::absolute(&path).unwrap_or(path))
            .collect();
        self
    }

    /// Reads no file over this size.
    #[must_use]
    pub fn max_file_bytes(mut self, bytes: u64) -> Self {
        self.max_file_bytes = bytes;
        self
    }

    pub(super) fn cap(&self) -> u64 {
        self.max_file_bytes
    }

    pub(super) fn resolve(&self, path: &str) -> Result<Place, Failure> {
        let first = self.dirs.first().ok_or(Refusal::NoRoots)?;
        let outside = || Refusal::Outside { path: path.to_owned() };
        let wanted = Path::new(path);
        let (root, below) = if wanted.is_absolute() {
            self.dirs.iter().find_map(|root| Some((root, below(root, wanted)?))).ok_or_else(outside)?
        } else {
            (first, wanted.to_owned())
        };
        let mut plain = PathBuf::new();
        for part in below.components() {
            match part {
                Component::Normal(name) => plain.push(name),
                Component::CurDir => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                    return Err(outside().into());
                }
            }
        }
        let closed = Closed {
            place: root.join(&plain).canonicalize().unwrap_or_default(),
            closed: self.closed.iter().filter_map(|closed| closed.canonicalize().ok()).collect(),
        };
        if closed.has("") {
            return Err(outside().into());
        }
        let root = Dir::open_ambient_dir(root, ambient_authority()).map_err(|e| Failure::at(path, e))?;
        Ok(Place { root, below: plain, closed })
    }
}

/// The way from `root` to `wanted`, by the root's name or by what that name stands for.
fn below(root: &Path, wanted: &Path) -> Option<PathBuf> {
    let named = wanted.strip_prefix(root).ok().map(Path::to_owned);
    named.or_else(|| wanted.strip_prefix(root.canonicalize().ok()?).ok().map(Path::to_owned))
}
