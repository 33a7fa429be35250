//! Replacing an agent's state: edited, or rolled back to a kept version.
//!
//! ```text
//! hold: messages wait, the cell leaves ─► read, compare ─► commit, fenced like a turn ─► let go on
//! ```
//!
//! A running turn ends first, so none is undone by it; waiting messages are then handled with the new state. A
//! process that dies between the steps leaves the old or the new state: the hold is in memory only, and the parked
//! tasks are unparked by the node that serves the agent next ([`parked`](crate::runtime::parked)).

use std::{sync::Arc, time::Duration};

use super::{
    Operator, OperatorError, Result, not_found,
    repair::{again, framed},
    wrong_state,
};
use crate::{
    agent::{AskError, Persistence, lane::Entrance},
    model::{
        event::{self, Event, Level},
        id::AgentId,
        snapshot::{self, HEADER_BYTES},
    },
    runtime::{drain::MOMENT, inbox::Control, kind::AnyKind, orchestrator::Command},
    store::{AgentRow, StoredStatus},
};

/// How long a turn that runs may take to end.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often that is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// The next state.
enum Next {
    /// This one, as the agent writes it.
    Edited(Vec<u8>),
    /// That of a kept version.
    Kept(i64),
}

/// Whether an agent is at the version that somebody has seen, where they say which.
pub(super) fn check_version(row: &AgentRow, expected: Option<i64>) -> Result<()> {
    match expected {
        Some(expected) if expected != row.version => {
            let AgentRow { kind, key, version, .. } = row;
            let why = format!("{kind}/{key} is at version {version}, not at {expected}: look again");
            Err(OperatorError::Changed(why))
        }
        _ => Ok(()),
    }
}

impl Operator {
    /// Writes a state that a person has edited as the agent's next one; the one before it is kept. Answers
    /// with its version.
    ///
    /// # Errors
    /// [`OperatorError::Changed`] where the agent's version is not `version`; [`AskError::Invalid`] where it
    /// is not a valid state of the agent; [`AskError::TooLarge`]; [`AskError::NotFound`] where the agent has no state
    /// yet; [`AskError::Overloaded`] where a running turn does not end.
    pub async fn edit_state(&self, kind: &str, key: &str, version: i64, state: &[u8]) -> Result<i64> {
        let (_, found, _) = self.key_of(kind, key)?;
        let state = found.propose(state).map_err(AskError::Invalid)?;
        let limit = self.node.settings.load().limits.state_bytes;
        if state.len() as u64 > limit {
            let bytes = state.len();
            let why = format!("the state would have {bytes} bytes, more than limits.state_bytes ({limit})");
            return Err(AskError::TooLarge(why).into());
        }
        self.rewrite(kind, key, Some(version), Next::Edited(state)).await
    }

    /// Writes the state of a kept version as the agent's next one; the one before it is kept. Answers with
    /// its version.
    ///
    /// # Errors
    /// As [`Operator::edit_state`]; [`AskError::NotFound`] where that version is not kept,
    /// [`AskError::WrongState`] where it cannot be read.
    pub async fn roll_back(&self, kind: &str, key: &str, to: i64, version: Option<i64>) -> Result<i64> {
        self.rewrite(kind, key, version, Next::Kept(to)).await
    }

    async fn rewrite(&self, kind: &str, key: &str, expected: Option<i64>, next: Next) -> Result<i64> {
        let (me, kind, key) = (self.clone(), kind.to_owned(), key.to_owned());
        self.to_the_end(async move { me.rewrite_now(&kind, &key, expected, next).await }).await
    }

    /// Does it in a Tokio task of its own: whoever asked may go away half way.
    pub(super) async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.node.runtime.spawn(work).await.unwrap_or_else(|_| Err(AskError::Unknown.into()))
    }

    async fn rewrite_now(&self, kind: &str, key: &str, expected: Option<i64>, next: Next) -> Result<i64> {
        let (found, subject) = self.writable(kind, key)?;
        // Another act would open the agent while it is held here, or write the same version.
        let _turn = self.node.agent_locks.lock(AgentId::of(kind, key)).await;
        // Who has the wrong version holds nobody up.
        let row = self.expected_row(kind, key, expected).await?;
        if row.status != StoredStatus::Normal {
            return self.write_next(&**found, &row, &subject, next).await;
        }
        let written = match self.hold(kind, key).await {
            Ok(()) => match self.expected_row(kind, key, expected).await {
                Ok(row) => self.write_next(&**found, &row, &subject, next).await,
                Err(why) => Err(why),
            },
            Err(why) => Err(why),
        };
        let on = self.let_go_on(kind, key).await;
        let version = written?;
        // That it is written is not undone by a store that has just gone.
        if let Err(error) = on {
            let event = Event::new(Level::Warn, event::AGENT_STARTED, subject);
            self.node.logger.emit(event.field("error", error.to_string()));
        }
        Ok(version)
    }

    /// The kind and the name of an agent whose state may be written here and now.
    pub(super) fn writable(&self, kind: &str, key: &str) -> Result<(&Arc<dyn AnyKind>, String)> {
        let (_, found, _) = self.key_of(kind, key)?;
        self.here(kind, key)?;
        if self.node.is_troubled(false) {
            return Err(self.node.trouble().widen().into());
        }
        if matches!(found.policy().persistence, Persistence::Volatile) {
            return Err(wrong_state(format!("no state is kept of agents of the kind `{kind}`")));
        }
        Ok((found, format!("{kind}/{key}")))
    }

    async fn expected_row(&self, kind: &str, key: &str, expected: Option<i64>) -> Result<AgentRow> {
        let row = self.row(kind, key).await?.filter(|row| row.version > 0 && !snapshot::is_empty(&row.bytes));
        let row = row.ok_or_else(|| not_found(format!("{kind}/{key} has no state yet")))?;
        check_version(&row, expected).map(|()| row)
    }

    /// Holds an agent's messages, and waits until its cell has left memory.
    pub(super) async fn hold(&self, kind: &str, key: &str) -> Result<()> {
        self.command(kind, key, Entrance::Paused, Control::Leave).await?;
        self.gone(kind, key).await
    }

    /// Waits until an agent's cell has left memory that was told to; not for ever: a turn that is cut short has the stop
    /// time-out of its kind, and `on_stop` has it again.
    pub(super) async fn gone(&self, kind: &str, key: &str) -> Result<()> {
        let (_, found, _) = self.key_of(kind, key)?;
        let gone = async {
            while found.live(key).is_some() {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        let cut = found.policy().stop_timeout.saturating_mul(2).saturating_add(MOMENT);
        let in_time = tokio::time::timeout(TURN_TIMEOUT.max(cut), gone).await;
        in_time.map_err(|_| {
            let what = format!("{kind}/{key} is still at a turn");
            AskError::Overloaded { what, retry_after: Duration::from_secs(5) }.into()
        })
    }

    /// Lets an agent go on that was held: as its status has it, which somebody may have changed.
    pub(super) async fn let_go_on(&self, kind: &str, key: &str) -> Result<()> {
        let row = self.row(kind, key).await;
        if matches!(&row, Ok(Some(row)) if row.status != StoredStatus::Normal) {
            return Ok(());
        }
        self.command(kind, key, Entrance::Open, Control::None).await?;
        // Tasks that came meanwhile were put aside.
        self.node.unpark(&format!("{kind}/{key}")).await?;
        self.node.wake_dispatcher(false);
        row.map(|_| ())
    }

    async fn command(&self, kind: &str, key: &str, entrance: Entrance, control: Control) -> Result<()> {
        let (kind, _, key) = self.key_of(kind, key)?;
        let going = || OperatorError::from(AskError::Unavailable("the node is going down".to_owned()));
        let actors = self.node.actors().ok_or_else(going)?;
        let command = Command { kind, key: key.to_owned(), entrance: Some(entrance), control, clear: false };
        actors.orchestrator.send(command).await.map_err(|_| going())
    }

    async fn write_next(&self, kind: &dyn AnyKind, row: &AgentRow, subject: &str, next: Next) -> Result<i64> {
        let epoch = self.node.epoch(row.id);
        let event = |name| Event::new(Level::Warn, name, subject).field("by", "operator");
        let (bytes, schema_version, event) = match next {
            Next::Edited(state) => {
                let bytes = framed(row, (epoch, row.version.saturating_add(1)), kind.version(), &state)
                    .map_err(wrong_state)?;
                (bytes, kind.version(), event(event::AGENT_EDITED))
            }
            Next::Kept(to) if to == row.version => {
                return Err(wrong_state(format!("{subject} is at version {to} already")));
            }
            Next::Kept(to) => {
                let frame = self.kept_frame(row, subject, to).await?;
                let (bytes, schema_version) = again(kind, row, &frame, epoch)
                    .map_err(|why| wrong_state(format!("version {to} of {subject} cannot be read: {why}")))?;
                (bytes, schema_version, event(event::STATE_RESTORED).field("of_version", to))
            }
        };
        let bytes_of_state = bytes.len().saturating_sub(HEADER_BYTES);
        self.put(row, Arc::new(bytes), schema_version).await?;
        let version = row.version.saturating_add(1);
        let event = event.field("in_place_of", row.version).field("version", version);
        self.node.logger.emit(event.field("bytes", bytes_of_state));
        Ok(version)
    }
}
