//! The setting of a demo: what it reads, where its node keeps its data, and its progress so far.

use std::{
    fs::{self, File, TryLockError},
    io::Write as _,
    path::{Component, Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::{Failure, Options, recount};

/// Below so many text files a directory shows too little.
const ENOUGH_FILES: usize = 1_000;

/// What outlives this process, so that a demo killed whole goes on.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Past {
    /// Whether the demo made the data directory, and so may remove it.
    pub made: bool,
    /// How often the node was killed.
    pub kills: u32,
    /// How often an agent was made to panic.
    pub panics: u32,
}

/// A demo's place.
#[derive(Debug)]
pub(super) struct Ground {
    /// What is read.
    pub dir: PathBuf,
    /// How much of it.
    pub limit: u64,
    /// The node's data directory.
    pub data: PathBuf,
    /// Whether an earlier demo on it did not come to its end.
    pub found_again: bool,
    /// What it did.
    pub past: Past,
    _lock: File,
}

impl Ground {
    pub fn choose(options: &Options) -> Result<Self, Failure> {
        let dir = match &options.dir {
            Some(dir) => dir
                .canonicalize()
                .map_err(|e| Failure::Usage(format!("cannot read {}: {e}", dir.display())))?,
            None => suitable()?,
        };
        if !dir.is_dir() {
            return Err(Failure::Usage(format!("{} is no directory", dir.display())));
        }
        let data = match &options.data_dir {
            Some(data) => std::path::absolute(data).context("the data directory")?,
            None => data_dir_for(&dir),
        };
        let made = !data.exists();
        fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
        let data = data.canonicalize().with_context(|| format!("cannot use {}", data.display()))?;
        if would_be_read(&dir, &data) {
            if made {
                let _ = fs::remove_dir(&data);
            }
            return Err(Failure::Usage(format!(
                "the data directory {} lies in what is read: give another with --data-dir",
                data.display()
            )));
        }
        let lock = lock(&data)?;
        let earlier =
            fs::read(past_file(&data)).ok().and_then(|bytes| serde_json::from_slice::<Past>(&bytes).ok());
        let found_again = earlier.is_some();
        let past = earlier.unwrap_or(Past { made, ..Past::default() });
        let ground = Self { dir, limit: options.limit.max(1), data, found_again, past, _lock: lock };
        ground.remember()?;
        Ok(ground)
    }

    /// Keeps what was done.
    pub fn remember(&self) -> anyhow::Result<()> {
        let file = past_file(&self.data);
        let draft = file.with_extension("new");
        let mut out = File::create(&draft)?;
        out.write_all(&serde_json::to_vec(&self.past)?)?;
        out.sync_all()?;
        Ok(fs::rename(draft, file)?)
    }

    /// The collection that the librarian keeps: another limit is another collection.
    pub fn collection(&self) -> String {
        format!("demo-{}", self.limit)
    }

    /// An orderly end: takes away what the demo made.
    pub fn leave(self) {
        if self.past.made {
            let _ = fs::remove_dir_all(&self.data);
        } else {
            let _ = fs::remove_file(past_file(&self.data));
        }
    }
}

/// `.`, or where that holds little, the sources of the crates just built.
fn suitable() -> Result<PathBuf, Failure> {
    let here = Path::new(".").canonicalize().context("cannot read the working directory")?;
    if recount::holds(&here, ENOUGH_FILES) {
        return Ok(here);
    }
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(home()?.join(".cargo")));
    let sources = cargo.and_then(|cargo| cargo.join("registry/src").canonicalize().ok());
    Ok(sources.filter(|dir| dir.is_dir()).unwrap_or(here))
}

fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| home.is_dir())
}

/// A place that is found again for the same directory.
fn data_dir_for(dir: &Path) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let cache = cache.or_else(|| Some(home()?.join(".cache"))).unwrap_or_else(std::env::temp_dir);
    let hash = xxhash_rust::xxh3::xxh3_64(dir.as_os_str().as_encoded_bytes());
    cache.join("greenroom").join(format!("demo-{hash:016x}"))
}

/// Whether files in `data` would be among those read below `dir`.
fn would_be_read(dir: &Path, data: &Path) -> bool {
    let hidden = |part: Component<'_>| part.as_os_str().as_encoded_bytes().starts_with(b".");
    data.strip_prefix(dir).is_ok_and(|below| !below.components().any(hidden))
}

fn past_file(data: &Path) -> PathBuf {
    data.join("demo.json")
}

fn lock(data: &Path) -> Result<File, Failure> {
    let file = File::options().create(true).append(true).open(data.join("demo.lock")).context("demo.lock")?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::InUse(format!("another demo works in {}", data.display())))
        }
        Err(TryLockError::Error(e)) => Err(anyhow::Error::new(e).context("demo.lock").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(dir: &Path, data: &Path) -> Options {
        Options { dir: Some(dir.to_owned()), data_dir: Some(data.to_owned()), ..Options::default() }
    }

    #[test]
    fn a_demo_is_found_again_until_its_orderly_end() {
        let dir = tempfile::tempdir().unwrap();
        let data = tempfile::tempdir().unwrap().path().join("made/here");
        let options = options(dir.path(), &data);
        let mut ground = Ground::choose(&options).unwrap();
        assert!(!ground.found_again && ground.past.made);
        assert!(matches!(Ground::choose(&options), Err(Failure::InUse(_))));
        ground.past.kills = 1;
        ground.remember().unwrap();
        drop(ground); // killed
        let ground = Ground::choose(&options).unwrap();
        assert!(ground.found_again && ground.past.made && ground.past.kills == 1);
        ground.leave();
        assert!(!data.exists());
    }

    #[test]
    fn a_directory_of_somebody_else_stays() {
        let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Ground::choose(&options(dir.path(), data.path())).unwrap().leave();
        assert!(data.path().exists());
    }

    #[test]
    fn the_demo_does_not_read_its_own_data() {
        let dir = tempfile::tempdir().unwrap();
        let within = dir.path().join("data");
        assert!(matches!(Ground::choose(&options(dir.path(), &within)), Err(Failure::Usage(_))));
        assert!(!within.exists());
        assert!(Ground::choose(&options(dir.path(), &dir.path().join(".cache/data"))).is_ok());
    }
}
