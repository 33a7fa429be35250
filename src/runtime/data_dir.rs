//! The data directory: created if missing, and locked by one process.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use super::boot::StartError;

/// The bit of a directory's mode that lets everybody write to it.
const OTHERS_WRITE: u32 = 0o002;

/// The data directory, held by this process alone.
pub(crate) struct DataDir(File);

impl Drop for DataDir {
    fn drop(&mut self) {
        // A child that this process is just about to start has the file open as well, until it runs its own
        // program: to close ours would not be enough.
        let _ = self.0.unlock();
    }
}

/// Makes the data directory where there is none, and locks it for this process.
pub(crate) fn lock(dir: &Path) -> Result<DataDir, StartError> {
    let unusable = |error| StartError::DataDir { path: dir.to_owned(), error };
    // What agents remember is nobody else's to read.
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(unusable)?;
    if fs::metadata(dir).map_err(unusable)?.permissions().mode() & OTHERS_WRITE != 0 {
        let why = "everybody may write to it, and so put a token of theirs there: chmod o-w, or take another";
        return Err(unusable(io::Error::new(io::ErrorKind::PermissionDenied, why)));
    }
    let path = dir.join("lock");
    let mut options = File::options();
    options.create(true).truncate(false).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let mut file = options.open(path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {
            let _ = file.set_len(0);
            let _ = writeln!(file, "{}", std::process::id());
            Ok(DataDir(file))
        }
        Err(TryLockError::WouldBlock) => Err(StartError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn what_others_may_write_to_is_not_used_and_no_link_is_followed() {
        let dir = TempDir::new().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let Err(StartError::DataDir { error, .. }) = lock(dir.path()) else { panic!("it is used") };
        assert!(error.to_string().contains("chmod o-w"), "{error}");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "mine").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("lock")).unwrap();
        assert!(matches!(lock(dir.path()), Err(StartError::DataDir { .. })));
        assert_eq!(fs::read_to_string(victim).unwrap(), "mine");
        fs::remove_file(dir.path().join("lock")).unwrap();
        assert!(lock(dir.path()).is_ok());
    }
}
