//! Restore: reads the stored state or the last image, checks it, and opens its resources.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    drive::{Unhooked, hook},
    leave::{quarantined_text, stopped_text},
    runner::{Exit, Runner},
    window::fail,
};
use crate::{
    agent::{Agent, AskError, Stored, lane::Entrance, turn::Passage},
    clock,
    model::{
        event::{self, Event, Level},
        snapshot,
        supervision::{CrashKind, CrashReason, Decision},
    },
    runtime::{
        crashes::guard,
        inbox::{Control, Phase},
        millis,
        restart_order::Part,
    },
    store::{AgentRow, SeenState, StoreError, StoredStatus},
};

/// How often a load is tried before what waits is answered: it takes less than a second, and no time
/// where the store is known to be down.
const LOAD_TRIES: u32 = 5;

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

impl<A: Agent> Runner<A> {
    /// Reads the agent from the store and opens it.
    pub(super) async fn restore(&mut self) -> Option<Exit> {
        self.inbox().set_phase(Phase::Starting);
        let begun = Instant::now();
        let id = self.lane.name.id;
        self.epoch = self.node.epoch(id);
        if let Some((error, _)) = self.node.elsewhere(id, &self.subject()) {
            return Some(self.turn_away(error));
        }
        if self.is_troubled() {
            return Some(self.turn_away(self.node.trouble()));
        }
        self.air.image = None;
        self.air.version = 0;
        self.decided = self.lane.decided();
        if self.volatile() && self.kind.held.excludes(id, self.epoch) {
            return self.revive().await;
        }
        let mut tries = 0;
        let row = loop {
            let (node, kind) = (self.node.clone(), self.volatile().then(|| self.kind.clone()));
            let load = async move {
                if let Some(kind) = kind {
                    kind.held.read(&node, A::KIND).await?;
                }
                node.load(id).await
            };
            let Some(loaded) = self.unless_troubled(load).await else {
                return Some(self.turn_away(self.node.trouble()));
            };
            match loaded {
                Ok(row) => break row,
                Err(e) if tries < LOAD_TRIES && !self.node.is_closing() && !self.is_troubled() => {
                    tries += 1;
                    self.node.outage.failed(&e);
                    tokio::time::sleep(Duration::from_millis(10 << tries)).await;
                }
                Err(e) => return Some(self.turn_away(AskError::Unavailable(e.to_string()))),
            }
        };
        let Some(row) = row else { return self.revive().await };
        let why = row.reason.clone().unwrap_or_default();
        match row.status {
            StoredStatus::Normal => {}
            StoredStatus::Paused => {
                self.batch.extend(self.lane.found(self.decided, Entrance::Paused).unwrap_or_default());
                return Some(self.let_go());
            }
            StoredStatus::Stopped => return Some(Exit::Shut(stopped_text(&self.subject(), &why))),
            StoredStatus::Quarantined => return Some(Exit::Shut(quarantined_text(&self.subject(), &why))),
            StoredStatus::Deleted => {
                if let Some(exit) = self.begin_anew().await {
                    return Some(exit);
                }
            }
        }
        if self.volatile() {
            return self.revive().await;
        }
        match decode::<A>(&row) {
            Ok(None) => {
                // Of a deleted one the version goes on: no late commit of that one may come upon this one.
                self.air.version = row.version;
                self.inbox().version.store(row.version, Ordering::Relaxed);
                self.revive().await
            }
            Ok(Some(agent)) => {
                self.air.version = row.version;
                self.inbox().version.store(row.version, Ordering::Relaxed);
                let bytes = row.bytes.len();
                self.air.image = Some(Arc::new(row.bytes));
                self.agent = Some(Box::new(agent));
                let exit = match self.open().await {
                    Ok(()) => None,
                    Err(why) => {
                        self.drop_agent();
                        match self.failed_start(why).await {
                            Some(exit) => Some(exit),
                            None => self.revive().await,
                        }
                    }
                };
                let took = begun.elapsed();
                self.node.metrics.restored(took);
                if exit.is_none() && self.node.logger.wants(Level::Debug, event::STATE_RESTORED) {
                    let event = Event::new(Level::Debug, event::STATE_RESTORED, self.subject())
                        .field("version", row.version)
                        .field("age_ms", age_ms(row.updated_at))
                        .field("bytes", bytes)
                        .field("duration_ms", millis(took));
                    self.node.logger.emit(event);
                }
                exit
            }
            Err(RestoreError::Future { found, known }) => {
                let why = RestoreError::Future { found, known }.to_string();
                Some(self.turn_away(AskError::Unavailable(why)))
            }
            Err(RestoreError::Unreadable(why)) => Some(self.quarantine(why).await),
        }
    }

    /// Takes the name of a deleted agent: it is in the listings again.
    async fn begin_anew(&mut self) -> Option<Exit> {
        let (node, lane, epoch) = (self.node.clone(), self.lane.clone(), self.epoch);
        let normal = StoredStatus::Normal;
        let call = async move {
            let name = &lane.name;
            node.store.set_status(name.id, &name.kind, &name.key, epoch, normal, None).await
        };
        match self.unless_troubled(call).await {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(self.turn_away(AskError::Unavailable(error.to_string()))),
            None => Some(self.turn_away(self.node.trouble())),
        }
    }

    /// Waits for what the store says, unless it is known to say nothing. The call itself goes on.
    pub(super) async fn unless_troubled<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Option<Result<T, StoreError>> {
        let mut call = self.node.runtime.spawn(call);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(said) = Pin::new(&mut call).poll(cx) {
                return Poll::Ready(Some(said.unwrap_or_else(|e| Err(StoreError::Unknown(e.to_string())))));
            }
            self.inbox().waker.register(cx.waker());
            if self.is_troubled() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }

    /// Decodes the last image and opens the agent's resources.
    pub(super) async fn revive(&mut self) -> Option<Exit> {
        loop {
            let begun = match self.air.image.as_ref().map(|image| read_image::<A>(image)) {
                Some(Ok(agent)) => Ok(agent),
                Some(Err(why)) => return Some(self.quarantine(why).await),
                None => guard(A::default),
            };
            let opened = match begun {
                Ok(agent) => {
                    self.agent = Some(Box::new(agent));
                    self.open().await
                }
                Err((message, site)) => Err(failed(format!("default: {message}"), site)),
            };
            match opened {
                Ok(()) => return None,
                Err(why) => {
                    self.drop_agent();
                    if let Some(exit) = self.failed_start(why).await {
                        return Some(exit);
                    }
                }
            }
        }
    }

    /// A start that failed: waits for the back-off, or gives up.
    async fn failed_start(&mut self, why: NotOpen) -> Option<Exit> {
        let NotOpen::Failed(reason) = why else { return Some(self.leave_unopened().await) };
        let (decision, fault) = self.report(None, reason);
        let delay = match decision {
            Decision::Restart { delay, .. } => Some(delay),
            // Its group decides what becomes of it.
            Decision::Exceeded { .. } if self.kind.policy.group.is_some() => Some(self.longest()),
            Decision::Exceeded { .. } | Decision::Leave => None,
        };
        match delay {
            Some(delay) => {
                self.inbox().set_phase(Phase::Restarting);
                if self.back_off(delay).await {
                    return None;
                }
                Some(self.leave_unopened().await)
            }
            None => {
                let entries = std::mem::take(&mut self.window).entries;
                fail(&self.lane, entries.into_iter().map(|e| e.letter), &AskError::Failed(fault.clone()));
                Some(self.stop(format!("it could not start: {}", fault.message)).await)
            }
        }
    }

    /// Whoever asks it to leave decides what follows; what was not durable never was.
    async fn leave_unopened(&mut self) -> Exit {
        if self.air.flight.is_some() {
            let outcome = self.outcome().await;
            if let Err(outcome) = self.air.land(outcome) {
                self.fail_all(&outcome);
            }
        }
        let entries = std::mem::take(&mut self.window).entries;
        let error = AskError::Unavailable("the agent did not start".to_owned());
        fail(&self.lane, entries.into_iter().map(|e| e.letter), &error);
        self.let_go()
    }

    /// Runs `on_start`, where others restart as well when it comes to its place.
    async fn open(&mut self) -> Result<(), NotOpen> {
        let part = self.inbox().held.lock().part.take();
        if self.inbox().control() == Control::Renew {
            self.forgive();
        }
        // Until the end of this function, which is that of its start.
        let _part = match part {
            Some(part) => Some(self.take_place(part).await?),
            None => None,
        };
        let Some(agent) = self.agent.as_mut().filter(|_| !self.turn.is_double) else { return Ok(()) };
        self.turn.is_new = self.air.image.is_none();
        self.turn.begin(None, Passage::Hook, self.kind.policy.turn_timeout);
        let (turn, policy) = (&self.turn, &self.kind.policy);
        // what is not an `async fn` may do something before there is a future
        let start = async { agent.on_start(turn).await };
        let (limit, stop_timeout) = (policy.turn_timeout, policy.stop_timeout);
        let started = hook(start, turn, &self.air.inbox, limit, stop_timeout).await;
        let outbox = self.turn.take_outbox().unwrap_or_default();
        let sent = !outbox.sends_nothing();
        match started {
            Ok(()) if sent => Err(failed("`on_start` may not send: move it to a handler".to_owned(), None)),
            Ok(()) => {
                for alarm in outbox.alarms {
                    // a timer that it replaces holds a user's message
                    let _ = guard(move || alarm(true));
                }
                Ok(())
            }
            Err(Unhooked::Failed(message, site)) => Err(failed(format!("on_start: {message}"), site)),
            Err(Unhooked::Left) => Err(NotOpen::Left),
        }
    }
}

impl<A: Agent> Runner<A> {
    /// Waits for its place in a restart of several: it has stopped. Where another restart begins meanwhile, for its
    /// place in that one: two that wait for each other's members would come to nothing.
    async fn take_place(&self, mut part: Box<Part>) -> Result<Box<Part>, NotOpen> {
        self.inbox().set_phase(Phase::Restarting);
        loop {
            self.inbox().done(Control::Renew);
            part.stopped();
            let mut next = None;
            let mut place = Box::pin(part.place());
            let turn = std::future::poll_fn(|cx| {
                next = self.inbox().held.lock().part.take();
                if next.is_some() { Poll::Ready(()) } else { place.as_mut().poll(cx) }
            });
            if !self.unless_leaving(turn).await {
                return Err(NotOpen::Left);
            }
            drop(place);
            match next {
                Some(next) => part = next,
                None => return Ok(part),
            }
        }
    }

    /// Nothing counts against it any more.
    pub(super) fn forgive(&mut self) {
        self.lane.forgive();
        self.streak = 0;
    }
}

/// Why an agent is not open for messages.
enum NotOpen {
    Failed(CrashReason),
    /// It is to leave, and its start took too long for that.
    Left,
}

fn failed(message: String, site: Option<String>) -> NotOpen {
    NotOpen::Failed(CrashReason { kind: CrashKind::Start, message, site })
}

/// Reads the state of a row; `None` where it has none yet.
pub(crate) fn decode<A: Agent>(row: &AgentRow) -> Result<Option<A>, RestoreError> {
    if row.version == 0 || snapshot::is_empty(&row.bytes) {
        Ok(None)
    } else {
        decode_seen(row.seen()).map(Some)
    }
}

/// Reads a state: nothing is written, and no hook runs.
pub(crate) fn decode_seen<A: Agent>(state: SeenState<'_>) -> Result<A, RestoreError> {
    let unreadable = |e: &dyn std::fmt::Display| RestoreError::Unreadable(e.to_string());
    let (header, body) = snapshot::open(state.bytes).map_err(|e| unreadable(&e))?;
    header.matches(state.id, state.epoch, state.version).map_err(|e| unreadable(&e))?;
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
        .map_err(|e| {
            RestoreError::Unreadable(e.downcast_ref().map_or_else(|| format!("{e:#}"), without_values))
        })
}

/// What serde says of a state, without the values that it quotes: it goes into the log. Of what else a type
/// says of a value of its own nothing is told, for it may quote it.
fn without_values(error: &serde_json::Error) -> String {
    const OF_VALUES: [&str; 5] =
        ["invalid type", "invalid value", "invalid length", "unknown variant", "unknown field"];
    const OF_FIELDS: [&str; 2] = ["missing field `", "duplicate field `"];
    let (text, at) = (error.to_string(), format!(" at line {} column {}", error.line(), error.column()));
    let what = text.strip_suffix(&*at).unwrap_or(&text);
    let begins = |with: &[&str]| with.iter().any(|known| what.starts_with(known));
    match what.rsplit_once(", expected ") {
        Some((found, expected)) if begins(&OF_VALUES) => {
            let found = found.split([':', '`']).next().unwrap_or_default().trim_end();
            format!("{found}, expected {expected}{at}")
        }
        None if !error.is_data() || begins(&OF_FIELDS) => format!("{what}{at}"),
        _ => format!("a value is refused{at}"),
    }
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
fn read_image<A: Agent>(frame: &[u8]) -> Result<A, String> {
    let body = frame.get(snapshot::HEADER_BYTES..).unwrap_or_default();
    guard(|| serde_json::from_slice::<A>(body))
        .map_err(|(message, _)| message)?
        .map_err(|e| without_values(&e))
}

/// Whether an image reads back: what NaN, tuple keys and one-way attributes would break.
pub(in crate::runtime) fn reads_back<A: Agent>(body: &[u8]) -> Result<(), String> {
    match guard(|| serde_json::from_slice::<A>(body)) {
        Ok(Ok(agent)) => {
            let _ = guard(move || drop(agent));
            Ok(())
        }
        Ok(Err(e)) => Err(without_values(&e)),
        Err((message, _)) => Err(message),
    }
}

fn age_ms(at: Timestamp) -> i64 {
    clock::now().as_millisecond().saturating_sub(at.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_state_are_not_told() {
        #[derive(Debug, serde::Deserialize)]
        #[allow(dead_code)]
        struct Safe {
            pin: u32,
            mood: Option<Mood>,
            #[serde(default, deserialize_with = "refused")]
            word: (),
        }
        fn refused<'de, D: serde::Deserializer<'de>>(from: D) -> Result<(), D::Error> {
            let word: String = serde::Deserialize::deserialize(from)?;
            Err(serde::de::Error::custom(format!("{word} will not do, expected another")))
        }
        #[derive(Debug, serde::Deserialize)]
        enum Mood {
            Calm,
            Cross,
        }
        for (state, told) in [
            (r#"{"pin":"hush, expected: `x`"}"#, "invalid type, expected u32 at line 1 column 28"),
            (r#"{"pin":-77}"#, "invalid value, expected u32 at line 1 column 10"),
            (r#"{"pin":1,"mood":"hush"}"#, "unknown variant, expected `Calm` or `Cross` at line 1 column 22"),
            (r#"{"pin":1,"word":"hush"}"#, "a value is refused at line 1 column 23"),
            (r#"{"mood":null}"#, "missing field `pin` at line 1 column 13"),
            (r#"{"pin":1"#, "EOF while parsing an object at line 1 column 8"),
        ] {
            assert_eq!(without_values(&serde_json::from_str::<Safe>(state).unwrap_err()), told);
        }
    }
}
