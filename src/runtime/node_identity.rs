//! The identity of this node for other nodes: its instance, which outlives a boot, and its URL.

use std::{
    fs::File,
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use uuid::Uuid;

use crate::{config::Settings, store::Member};

/// The file's name in the data directory.
const FILE: &str = "instance";

/// What the node tells the store of itself.
pub(crate) fn member(settings: &Settings, boot: Uuid, instance: Uuid) -> Member {
    Member {
        boot,
        instance,
        name: settings.node.name.clone(),
        url: settings.node.url.clone(),
        lease: settings.node.lease.max(Duration::from_secs(1)),
        max_lost: settings.tasks.max_lost,
    }
}

/// The id that the data directory keeps: made once. The directory is locked by now, so nobody else
/// makes one at the same time.
///
/// A node that is started again with it takes back at once what its last boot owned. A file that
/// cannot be understood is replaced: the only loss is that the old lease has to run out.
pub(super) fn instance(dir: &Path) -> std::io::Result<Uuid> {
    let path = dir.join(FILE);
    let mut text = String::new();
    match File::open(&path).and_then(|mut file| file.read_to_string(&mut text)) {
        Ok(_) => {
            if let Ok(id) = text.trim().parse() {
                return Ok(id);
            }
        }
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => {}
        Err(e) => return Err(e),
    }
    let (id, draft) = (Uuid::new_v4(), dir.join(format!("{FILE}.new")));
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    std::fs::rename(draft, path)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_instance_is_made_once_and_is_nobody_elses_to_read() {
        let dir = tempfile::tempdir().unwrap();
        let first = instance(dir.path()).unwrap();
        assert_eq!(instance(dir.path()).unwrap(), first);
        let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_ne!(instance(tempfile::tempdir().unwrap().path()).unwrap(), first);
    }

    #[test]
    fn an_instance_that_cannot_be_read_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "torn").unwrap();
        let id = instance(dir.path()).unwrap();
        assert_eq!(instance(dir.path()).unwrap(), id);
    }
}
