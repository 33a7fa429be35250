//! The one way back: decode the last image, check it, open its resources.

use crate::{
    agent::{Agent, Stored},
    model::snapshot,
    runtime::crashes::guard,
    store::AgentRow,
};

/// Why a stored state was not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// It was written by a newer program; this node must leave it alone.
    #[error("its state has schema version {found}, and this program knows {known}: upgrade the program")]
    Future { found: u32, known: u32 },
    /// It cannot be read: quarantine.
    #[error("{0}")]
    Unreadable(String),
}

/// Reads the state of a row; `None` where it has none yet.
pub(crate) fn decode<A: Agent>(row: &AgentRow) -> Result<Option<A>, RestoreError> {
    if row.version == 0 {
        return Ok(None);
    }
    let unreadable = |e: &dyn std::fmt::Display| RestoreError::Unreadable(e.to_string());
    let (header, body) = snapshot::open(&row.bytes).map_err(|e| unreadable(&e))?;
    header.matches(row.id, row.epoch, row.version).map_err(|e| unreadable(&e))?;
    if header.schema_version > A::VERSION {
        return Err(RestoreError::Future { found: header.schema_version, known: A::VERSION });
    }
    guard(|| read::<A>(header.schema_version, body))
        .map_err(|(message, site)| {
            RestoreError::Unreadable(format!(
                "reading it panicked: {message} at {}",
                site.unwrap_or_default()
            ))
        })?
        .map(Some)
        .map_err(|e| RestoreError::Unreadable(format!("{e:#}")))
}

fn read<A: Agent>(version: u32, body: &[u8]) -> anyhow::Result<A> {
    let agent = if version < A::VERSION {
        A::migrate(Stored::new(version, body.to_vec()))?
    } else {
        parse::<A>(body)?
    };
    agent.validate()?;
    Ok(agent)
}

/// Reads a state, refusing fields that the struct does not have.
fn parse<A: Agent>(body: &[u8]) -> anyhow::Result<A> {
    let mut unknown = Vec::new();
    let mut de = serde_json::Deserializer::from_slice(body);
    let agent: A = serde_ignored::deserialize(&mut de, |path| {
        if unknown.len() < 8 {
            unknown.push(path.to_string());
        }
    })?;
    de.end()?;
    if !unknown.is_empty() {
        anyhow::bail!(
            "it holds fields that the agent does not know ({}): raise `VERSION` and write a migration",
            unknown.join(", ")
        );
    }
    Ok(agent)
}

/// Reads an image of this very activation back.
pub(super) fn revive<A: Agent>(image: Option<&[u8]>) -> Result<A, String> {
    let Some(frame) = image else {
        return guard(A::default).map_err(|(message, _)| message);
    };
    let body = frame.get(snapshot::HEADER_BYTES..).unwrap_or_default();
    guard(|| serde_json::from_slice::<A>(body)).map_err(|(message, _)| message)?.map_err(|e| e.to_string())
}

/// Whether an image reads back: what NaN, tuple keys and one-way attributes would break.
pub(super) fn reads_back<A: Agent>(body: &[u8]) -> Result<(), String> {
    match guard(|| serde_json::from_slice::<A>(body)) {
        Ok(Ok(agent)) => {
            let _ = guard(move || drop(agent));
            Ok(())
        }
        Ok(Err(e)) => Err(e.to_string()),
        Err((message, _)) => Err(message),
    }
}
