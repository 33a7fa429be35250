//! `fs.read`: the text of one file.

use std::io::Read as _;

use cap_std::fs::{OpenOptions, OpenOptionsExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    CONCURRENCY, Refusal, Roots, blocking,
    roots::{Failure, Place},
};
use crate::{Call, Effect, Limits, Tool, message};

/// Reads one text file.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Read {
    /// Absolute within a root, or relative to the first root.
    pub path: String,
}

/// The text of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Text {
    /// As it was asked for.
    pub path: String,
    /// The whole of it.
    pub text: String,
    /// Its size.
    pub bytes: u64,
}

message!(Read -> Text | Refusal as "fs.read");

/// The tool `fs.read`: reads text files within the roots.
#[derive(Debug, Clone)]
pub struct FsRead {
    roots: Roots,
}

impl FsRead {
    /// Reads within these roots.
    pub fn new(roots: Roots) -> Self {
        Self { roots }
    }
}

impl Tool for FsRead {
    const NAME: &'static str = "fs.read";
    const EFFECT: Effect = Effect::Pure;
    type Input = Read;

    fn limits(&self) -> Limits {
        Limits { concurrency: Some(CONCURRENCY), ..Limits::default() }
    }

    async fn run(&self, Read { path }: Read, _: &Call) -> anyhow::Result<Text> {
        let roots = self.roots.clone();
        blocking::<Read, _>(move || read(&roots, path)).await
    }
}

pub(super) fn read(roots: &Roots, path: String) -> Result<Text, Failure> {
    let Place { root, below, .. } = roots.resolve(&path)?;
    let wrong = |e| Failure::at(&path, e);
    if !root
        .metadata(if below.as_os_str().is_empty() { ".".as_ref() } else { &*below })
        .map_err(wrong)?
        .is_file()
    {
        return Err(Refusal::NotRegular { path }.into());
    }
    // A pipe put there since must not hold this thread until somebody writes to it.
    let file = root
        .open_with(&below, OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK))
        .map_err(wrong)?;
    if !file.metadata().map_err(wrong)?.is_file() {
        return Err(Refusal::NotRegular { path }.into());
    }
    let mut bytes = Vec::new();
    file.take(roots.cap() + 1).read_to_end(&mut bytes).map_err(wrong)?;
    let size = bytes.len() as u64;
    if size > roots.cap() {
        return Err(Refusal::TooLarge { path, max_bytes: roots.cap() }.into());
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(Text { path, text, bytes: size }),
        _ => Err(Refusal::NotText { path }.into()),
    }
}
