//! Repair: an agent continues from an earlier kept state.

use std::sync::Arc;

use super::{Operator, OperatorError, Result, not_found, wrong_state};
use crate::{
    agent::AskError,
    model::{
        event::{self, Event, Level},
        id::AgentId,
        snapshot::{self, Codec, Header},
    },
    runtime::{kind::AnyKind, persistence::Outcome, views::Action},
    store::{AgentRow, SeenState, StateWrite, StoredStatus, Unit},
};

impl Operator {
    /// Ends a quarantine with the state of a kept version, which is written as the next one: the state that
    /// could not be read is kept as well. The present version is released as it is.
    ///
    /// # Errors
    /// [`AskError::WrongState`] where the agent is not quarantined, or that
    /// state cannot be read either; [`AskError::NotFound`] where it is not kept.
    pub async fn release_at(&self, kind: &str, key: &str, version: i64) -> Result<()> {
        let (_, found, _) = self.key_of(kind, key)?;
        self.here(kind, key)?;
        if self.node.is_troubled(false) {
            return Err(self.node.trouble().widen().into());
        }
        let _turn = self.node.agent_locks.lock(AgentId::of(kind, key)).await;
        let subject = format!("{kind}/{key}");
        let row = self.row(kind, key).await?.filter(|row| row.status == StoredStatus::Quarantined);
        let row = row.ok_or_else(|| wrong_state(format!("{subject} is not quarantined")))?;
        if version != row.version {
            let frame = self.kept_frame(&row, &subject, version).await?;
            let next = again(&**found, &row, &frame, self.node.epoch(row.id));
            let (bytes, schema_version) = next.map_err(|why| {
                wrong_state(format!("version {version} of {subject} cannot be read: {why}"))
            })?;
            // before anything is written: a release that comes to nothing must leave nothing behind
            self.end_is_told(&subject).await?;
            self.put(&row, Arc::new(bytes), schema_version).await?;
            let event = Event::new(Level::Warn, event::STATE_RESTORED, &*subject)
                .field("by", "operator")
                .field("of_version", version)
                .field("in_place_of", row.version)
                .field("version", row.version.saturating_add(1));
            self.node.logger.emit(event);
        }
        self.act_on(kind, key, Action::Release, false).await
    }

    /// The frame of a kept version.
    pub(super) async fn kept_frame(&self, row: &AgentRow, subject: &str, version: i64) -> Result<Vec<u8>> {
        let kept = self.node.store.snapshots(row.id).await?;
        let frame = kept.into_iter().find(|(v, ..)| *v == version).map(|(.., frame)| frame);
        frame.filter(|frame| !snapshot::is_empty(frame)).ok_or_else(|| {
            not_found(format!(
                "version {version} of {subject} is not kept: greenroom agents snapshots {subject} lists \
                 those that are"
            ))
        })
    }

    /// Writes a state as an agent's next one.
    pub(super) async fn put(&self, row: &AgentRow, bytes: Arc<Vec<u8>>, schema_version: u32) -> Result<()> {
        let epoch = self.node.epoch(row.id);
        let state = StateWrite {
            id: row.id,
            kind: row.kind.as_str().into(),
            key: row.key.as_str().into(),
            epoch,
            base_version: row.version,
            schema_version,
            bytes: bytes.clone(),
            keeps_base: true,
        };
        let owner = Some((row.id.partition(), epoch));
        let unit = Unit { owner, state: Some(state), ..Unit::default() };
        match self.node.persistence.commit(row.id.0, unit).await {
            // The same version by another hand counts as this one sent again.
            Outcome::Durable => match self.row(&row.kind, &row.key).await? {
                Some(now) if now.bytes == *bytes => Ok(()),
                _ => Err(OperatorError::Changed(format!(
                    "{}/{} has been moved on meanwhile: look again",
                    row.kind, row.key
                ))),
            },
            Outcome::Refused(why) => Err(wrong_state(format!("nothing was written: {why}"))),
            Outcome::Unknown => Err(AskError::Unknown.into()),
            Outcome::Full(why) => Err(AskError::NoRoom(why).into()),
            Outcome::Failed(why) => Err(AskError::Unavailable(why).into()),
        }
    }
}

/// A kept state as the next one of its agent, with its schema version, if it can be read.
pub(super) fn again(
    kind: &dyn AnyKind,
    row: &AgentRow,
    frame: &[u8],
    epoch: i64,
) -> std::result::Result<(Vec<u8>, u32), String> {
    let (kept, body) = snapshot::open(frame).map_err(|e| e.to_string())?;
    let (version, schema_version) = (kept.version, kept.schema_version);
    let seen = SeenState { epoch: kept.epoch, version, schema_version, bytes: frame, ..row.seen() };
    kind.try_state(seen).map_err(|e| e.to_string())?;
    let next = row.version.saturating_add(1);
    Ok((framed(row, (epoch, next), schema_version, body)?, schema_version))
}

/// A state of an agent's, as that of an epoch and a version.
pub(super) fn framed(
    row: &AgentRow,
    (epoch, version): (i64, i64),
    schema_version: u32,
    body: &[u8],
) -> std::result::Result<Vec<u8>, String> {
    let header = Header { codec: Codec::Json, agent: row.id, version, epoch, schema_version };
    let mut bytes = Vec::with_capacity(snapshot::HEADER_BYTES + body.len());
    snapshot::begin(&header, &mut bytes);
    bytes.extend_from_slice(body);
    snapshot::seal(&mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes)
}
