//! A consistent copy of the file, while writes continue.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::Path,
};

use diesel::{connection::SimpleConnection, prelude::*, sql_types::Text};

use super::{
    connect::{Role, connect},
    error,
};
use crate::store::StoreError;

/// Writes the copy, whole or not at all; how many bytes it has. It is on the device when this returns.
pub(in crate::store) fn backup(path: &Path, to: &Path) -> Result<u64, StoreError> {
    let refused = |why: String| Err(StoreError::Refused(why));
    if !path.is_file() {
        return refused(format!("there is no store at {}", path.display()));
    }
    if to.exists() {
        return refused(format!("{} is there already: it is not written over", to.display()));
    }
    let mut draft = OsString::from(to);
    draft.push(format!(".{}.part", std::process::id()));
    let draft = Path::new(&draft);
    let written = copy(path, draft).and_then(|()| keep(draft, to).map_err(|e| failed(to, &e)));
    if written.is_err() {
        // Half a copy is of no use to anybody.
        let _ = fs::remove_file(draft);
    }
    written
}

fn copy(path: &Path, draft: &Path) -> Result<(), StoreError> {
    let Some(name) = draft.to_str() else {
        return Err(StoreError::Refused(format!("{} is not UTF-8", draft.display())));
    };
    let mut conn = connect(path, Role::Reader)?;
    // It writes, if not here.
    conn.batch_execute("PRAGMA query_only = OFF").map_err(|e| error::of_statement(&e))?;
    let vacuum = diesel::sql_query("VACUUM INTO ?").bind::<Text, _>(name);
    vacuum.execute(&mut conn).map(drop).map_err(|e| error::of_statement(&e))
}

fn keep(draft: &Path, to: &Path) -> io::Result<u64> {
    let file = File::open(draft)?;
    file.sync_all()?;
    // Never over a file that has come meanwhile.
    fs::hard_link(draft, to)?;
    fs::remove_file(draft)?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    Ok(file.metadata()?.len())
}

fn failed(to: &Path, error: &io::Error) -> StoreError {
    StoreError::NotDone(format!("{} cannot be written: {error}", to.display()))
}
