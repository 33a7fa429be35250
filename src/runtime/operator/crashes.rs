//! Crashes: recent ones, and groups by site.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use uuid::Uuid;

use super::{Operator, Result, conversations::foreign_cursor, not_found, page_limit};
use crate::{
    model::{
        crash_group::{CrashGroup, Site},
        period::Period,
        supervision::CrashReport,
    },
    runtime::views::{CrashDetail, CrashTally, Page},
    store::{CrashFilter, StoreError},
};

/// How long a crash that is in memory waits for what the store knows of its site.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// Which crashes to list.
#[derive(Debug, Clone, Default)]
pub struct CrashQuery {
    /// Only those of this period; of groups, those that had a crash since and one before its end.
    pub period: Period,
    /// The cursor of the previous page.
    pub cursor: Option<String>,
    /// 1 to 1,000; 100 groups when absent.
    pub limit: Option<usize>,
}

impl Operator {
    /// The last 1,024 crashes of this node since it started, newest first.
    pub fn crashes(&self) -> Vec<CrashReport> {
        self.node.crashes.list().iter().map(|report| CrashReport::clone(report)).collect()
    }

    /// One page of those; all of them where no limit is given.
    ///
    /// # Errors
    /// An invalid cursor or limit.
    pub fn crash_page(&self, query: &CrashQuery) -> Result<Page<CrashReport>> {
        let mut all = self.node.crashes.list();
        all.retain(|report| query.period.holds(report.at));
        let before =
            query.cursor.as_deref().map(str::parse::<Uuid>).transpose().map_err(|_| foreign_cursor())?;
        let from = before.map_or(0, |id| {
            let id = id.to_string();
            let there = all.iter().position(|report| report.id == id).map(|at| at + 1);
            // it is not kept any more: ids are in the order of time, and their texts as well
            there.unwrap_or_else(|| all.iter().take_while(|report| report.id > id).count())
        });
        let limit = query.limit.map_or(Ok(all.len()), |limit| page_limit(Some(limit)))?;
        let page = all.iter().skip(from).take(limit);
        let items: Vec<CrashReport> = page.map(|report| CrashReport::clone(report)).collect();
        let more = from + items.len() < all.len();
        let next_cursor = items.last().filter(|_| more).map(|report| report.id.clone());
        Ok(Page { items, next_cursor })
    }

    /// One page of the crashes of all nodes by site, those with the latest crashes first. They outlive the
    /// node.
    ///
    /// # Errors
    /// An invalid cursor or limit; errors of the store.
    pub async fn crash_groups(&self, query: &CrashQuery) -> Result<Page<CrashGroup>> {
        let limit = page_limit(query.limit)?;
        let before = query.cursor.as_deref().map(read_cursor).transpose()?;
        self.node.flush_crashes().await?;
        let filter = CrashFilter { named: None, period: query.period, before, limit };
        let items = self.node.store.crash_groups(&filter).await?;
        let next_cursor = items.last().filter(|_| items.len() == limit).map(cursor);
        Ok(Page { items, next_cursor })
    }

    /// One crash by its id, or the last one of a group by the group's.
    ///
    /// # Errors
    /// [`AskError::NotFound`](crate::AskError::NotFound) where it is neither among the last 1,024 of this
    /// node nor the last one of its site; the store's, where it is not in memory.
    pub async fn crash(&self, id: &str) -> Result<CrashDetail> {
        let Some(report) = self.node.crashes.find(id) else {
            let unknown =
                || not_found(format!("no crash {id} among the last ones, nor the last one of a site"));
            let group = self.group(id).await?.ok_or_else(unknown)?;
            return Ok(detail(group.report.clone(), Some(group)));
        };
        let id = Site::of(&report).id().to_string();
        let group = tokio::time::timeout(STORE_TIMEOUT, self.group(&id)).await;
        // Without an answer there is no group to show; the crash itself is known.
        Ok(detail(report, group.ok().and_then(|found| found.ok().flatten())))
    }

    async fn group(&self, name: &str) -> std::result::Result<Option<CrashGroup>, StoreError> {
        self.node.flush_crashes().await?;
        // Whoever asks for one wants to see where it was; not at any price.
        let _ = tokio::time::timeout(STORE_TIMEOUT / 2, self.node.name_crashes()).await;
        let filter = CrashFilter { named: Some(name.to_owned()), limit: 1, ..CrashFilter::default() };
        Ok(self.node.store.crash_groups(&filter).await?.pop())
    }
}

fn detail(report: Arc<CrashReport>, group: Option<CrashGroup>) -> CrashDetail {
    let (tally, backtrace) = match group {
        Some(CrashGroup { id, first, last, count, backtrace, .. }) => {
            (Some(CrashTally { id, first, last, count }), backtrace)
        }
        None => (None, None),
    };
    CrashDetail { report: Arc::unwrap_or_clone(report), group: tally, backtrace }
}

/// Where a page ends: the last crash of its last group, in microseconds, and that group.
fn cursor(group: &CrashGroup) -> String {
    format!("{}.{}", group.last.as_microsecond(), group.id)
}

fn read_cursor(text: &str) -> Result<(Timestamp, Uuid)> {
    let read = |text: &str| {
        let (at, id) = text.split_once('.')?;
        Some((Timestamp::from_microsecond(at.parse().ok()?).ok()?, id.parse().ok()?))
    };
    read(text).ok_or_else(foreign_cursor)
}
