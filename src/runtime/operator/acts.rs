//! The audit log: acts are recorded before they are done, and completed with their outcome.

use std::{future::Future, time::Duration};

use uuid::Uuid;

use super::{Operator, OperatorError, Result, conversations::foreign_cursor, page_limit};
use crate::{
    agent::AskError,
    model::{
        act::Act,
        event::{self, Event, Level},
        period::Period,
    },
    runtime::views::Page,
    store::{ActFilter, StoreError},
};

/// How long the store may take to record an act; after that the act is refused.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Which acts to list.
#[derive(Debug, Clone, Default)]
pub struct ActQuery {
    /// Only by the token of this name.
    pub who: Option<String>,
    /// Only on this subject.
    pub subject: Option<String>,
    /// Only this action.
    pub action: Option<String>,
    /// Only those of this period.
    pub period: Period,
    /// The cursor of the previous page.
    pub cursor: Option<String>,
    /// 1 to 1,000; 100 when absent.
    pub limit: Option<usize>,
}

impl Operator {
    /// One page of the audit log, newest first.
    ///
    /// # Errors
    /// An invalid cursor or limit; errors of the store.
    pub async fn acts(&self, query: &ActQuery) -> Result<Page<Act>> {
        let limit = page_limit(query.limit)?;
        let cursor = query.cursor.as_ref().map(|c| c.parse::<Uuid>()).transpose();
        let cursor = cursor.map_err(|_| foreign_cursor())?;
        let ActQuery { who, subject, action, period, .. } = query.clone();
        let (from, until) = period.ids();
        let before = [cursor, until].into_iter().flatten().min();
        let items = self.node.store.acts(&ActFilter { who, subject, action, from, before, limit }).await?;
        let next_cursor = items.last().filter(|_| items.len() == limit).map(|act| act.id.to_string());
        Ok(Page { items, next_cursor })
    }

    /// Records an act before it is done.
    ///
    /// # Errors
    /// [`AskError::Unavailable`]: the act must not be done, because it could not be recorded.
    pub(crate) async fn begin_act(&self, act: &Act) -> Result<()> {
        let (store, act) = (self.node.store.clone(), act.clone());
        let Err(why) = self.patiently(async move { store.begin_act(&act).await }).await else {
            return Ok(());
        };
        let why = format!("not done, since the store cannot write down that it was: {why}");
        Err(OperatorError::Ask(AskError::Unavailable(why)))
    }

    /// Records the outcome of an act, in the log too.
    pub(crate) async fn end_act(&self, act: &Act) {
        let (store, ended) = (self.node.store.clone(), act.clone());
        self.tell_act(act, self.patiently(async move { store.end_act(&ended).await }).await.err());
    }

    /// Records what was done and could not wait for the store, such as a login during an outage.
    pub(crate) fn note_act(&self, act: Act) {
        let me = self.clone();
        self.node.runtime.spawn(async move {
            let (store, done) = (me.node.store.clone(), act.clone());
            let write = async move {
                store.begin_act(&done).await?;
                store.end_act(&done).await
            };
            me.tell_act(&act, me.patiently(write).await.err());
        });
    }

    fn tell_act(&self, act: &Act, unwritten: Option<String>) {
        let event = Event::new(Level::Info, event::OPERATOR_ACTED, act.subject.clone())
            .field("who", act.who.clone())
            .field_opt("by", act.by.clone())
            .field("action", act.action.clone())
            .field_opt("outcome", act.outcome.clone())
            .field("act", act.id.to_string())
            .field_opt("unwritten", unwritten);
        self.node.logger.emit(event);
    }

    /// Runs a call of the store in a Tokio task of its own, which continues if its caller stops waiting.
    async fn patiently(
        &self,
        call: impl Future<Output = std::result::Result<(), StoreError>> + Send + 'static,
    ) -> std::result::Result<(), String> {
        match tokio::time::timeout(STORE_TIMEOUT, self.node.runtime.spawn(call)).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(error.to_string()),
            Ok(Err(_)) | Err(_) => Err("it does not answer".to_owned()),
        }
    }
}
