//! The audit log: acts are recorded before they are done, and completed with their outcome.

use std::{future::Future, time::Duration};

use uuid::Uuid;

use super::{Operator, OperatorError, Result, conversations::foreign_cursor, page_limit};
use crate::{
    agent::AskError,
    model::{
        act::Act,
        event::{self, Event, Level},
    },
    runtime::views::Page,
    store::{ActFilter, StoreError},
};

/// How long the store may take to write an act down, before it is not done.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Which acts to list.
#[derive(Debug, Clone, Default)]
pub struct ActQuery {
    /// Only whose token has this name.
    pub who: Option<String>,
    /// Only what was done to this.
    pub subject: Option<String>,
    /// Only this action.
    pub action: Option<String>,
    /// From the page before.
    pub cursor: Option<String>,
    /// 1 to 1,000; 100 when absent.
    pub limit: Option<usize>,
}

impl Operator {
    /// One page of what operators did, the latest first.
    ///
    /// # Errors
    /// An invalid cursor or limit; the store's.
    pub async fn acts(&self, query: &ActQuery) -> Result<Page<Act>> {
        let limit = page_limit(query.limit)?;
        let before = query.cursor.as_ref().map(|c| c.parse::<Uuid>()).transpose();
        let before = before.map_err(|_| foreign_cursor())?;
        let ActQuery { who, subject, action, .. } = query.clone();
        let items = self.node.store.acts(&ActFilter { who, subject, action, before, limit }).await?;
        let next_cursor = items.last().filter(|_| items.len() == limit).map(|act| act.id.to_string());
        Ok(Page { items, next_cursor })
    }

    /// Writes down what is about to be done.
    ///
    /// # Errors
    /// [`AskError::Unavailable`]: it is not to be done, since nobody could tell later.
    pub(crate) async fn begin_act(&self, act: &Act) -> Result<()> {
        let (store, act) = (self.node.store.clone(), act.clone());
        let Err(why) = self.patiently(async move { store.begin_act(&act).await }).await else {
            return Ok(());
        };
        let why = format!("not done, since the store cannot write down that it was: {why}");
        Err(OperatorError::Ask(AskError::Unavailable(why)))
    }

    /// Writes down what came of it, in the log too.
    pub(crate) async fn end_act(&self, act: &Act) {
        let (store, ended) = (self.node.store.clone(), act.clone());
        let unwritten = self.patiently(async move { store.end_act(&ended).await }).await.err();
        let event = Event::new(Level::Info, event::OPERATOR_ACTED, act.subject.clone())
            .field("who", act.who.clone())
            .field_opt("by", act.by.clone())
            .field("action", act.action.clone())
            .field_opt("outcome", act.outcome.clone())
            .field("act", act.id.to_string())
            .field_opt("unwritten", unwritten);
        self.node.logger.emit(event);
    }

    /// Runs a call of the store's in a task of its own, which goes on when nobody waits for it any more.
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
