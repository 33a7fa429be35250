//! The audit log: acts are written down before they are done, and again with what came of them.

use std::time::Duration;

use uuid::Uuid;

use super::{Operator, OperatorError, Result, conversations::foreign_cursor, page_limit};
use crate::{
    agent::AskError,
    model::{
        act::Act,
        event::{self, Event, Level},
    },
    runtime::views::Page,
    store::ActFilter,
};

/// How long the store may take to write an act down, before it is not done.
const PATIENCE: Duration = Duration::from_secs(5);

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
    /// A cursor or limit that is none; the store's.
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
        let written = tokio::time::timeout(PATIENCE, self.node.store.begin_act(act)).await;
        let why = match written {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it does not answer".to_owned(),
        };
        let why = format!("not done, since the store cannot write down that it was: {why}");
        Err(OperatorError::Ask(AskError::Unavailable(why)))
    }

    /// Writes down what came of it, in the log too.
    pub(crate) async fn end_act(&self, act: &Act) {
        let written = tokio::time::timeout(PATIENCE, self.node.store.end_act(act)).await;
        let unwritten = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the store does not answer".to_owned()),
        };
        let event = Event::new(Level::Info, event::OPERATOR_ACTED, act.subject.clone())
            .field("who", act.who.clone())
            .field_opt("by", act.by.clone())
            .field("action", act.action.clone())
            .field_opt("outcome", act.outcome.clone())
            .field("act", act.id.to_string())
            .field_opt("unwritten", unwritten);
        self.node.logger.emit(event);
    }
}
