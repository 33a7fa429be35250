//! The data directory: made where there is none, and held by one process.

use std::{
    fs::{DirBuilder, File, TryLockError},
    io::Write,
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use super::boot::StartError;

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
    let path = dir.join("lock");
    let mut file = File::options().create(true).truncate(false).write(true).open(path).map_err(unusable)?;
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
