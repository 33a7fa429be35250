//! The settings that operators have changed at run time: one document, written as a whole.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::Value;

use super::StoreError;

/// What has been set, and how often that was changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeptSettings {
    /// Counts the changes, from 0.
    pub generation: i64,
    /// Values by dotted key.
    pub values: BTreeMap<String, Value>,
}

impl KeptSettings {
    /// The keys that others hold, and these do not.
    pub(crate) fn lacks(&self, others: &Self) -> Vec<String> {
        others.values.keys().filter(|key| !self.values.contains_key(*key)).cloned().collect()
    }

    /// Reads the document of a row.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where it is no object.
    pub(super) fn of_row((generation, document): (i64, String)) -> Result<Self, StoreError> {
        let values = serde_json::from_str(&document)
            .map_err(|e| StoreError::Corrupt(format!("greenroom_settings: its document: {e}")))?;
        Ok(Self { generation, values })
    }

    /// The document as it is written.
    pub(super) fn document(&self) -> String {
        Value::from_iter(self.values.clone()).to_string()
    }
}

/// What operators have set, beside the rest of the store.
#[async_trait]
pub trait SettingsShelf: Send + Sync {
    /// What has been set.
    async fn settings(&self) -> Result<KeptSettings, StoreError>;

    /// Writes `next` over the generation before its own. `false`: another one stands there. Sent again it is
    /// recognised.
    async fn keep_settings(&self, next: &KeptSettings) -> Result<bool, StoreError>;
}

/// Writes what is read and written for one connection, as
/// [`schedule_statements`](super::schedules::schedule_statements) does.
macro_rules! settings_statements {
    ($conn:ty, [$($async:tt)*], [$($wait:tt)*]) => {
        use crate::store::{StoreError, schema::greenroom_settings, settings::KeptSettings};

        /// What has been set.
        pub(super) $($async)* fn read(conn: &mut $conn) -> Result<KeptSettings, StoreError> {
            use greenroom_settings::dsl;
            let row = dsl::greenroom_settings.find(1).select((dsl::generation, dsl::document));
            KeptSettings::of_row(RunQueryDsl::first(row, conn)$($wait)*.map_err(sql)?)
        }

        /// Writes `next` over the generation before its own.
        pub(super) $($async)* fn write(conn: &mut $conn, next: &KeptSettings) -> Result<bool, StoreError> {
            use greenroom_settings::dsl;
            let old = dsl::greenroom_settings.find(1).filter(dsl::generation.eq(next.generation - 1));
            let new = (dsl::generation.eq(next.generation), dsl::document.eq(next.document()));
            let written = RunQueryDsl::execute(diesel::update(old).set(new), conn)$($wait)*;
            Ok(written.map_err(written_error)? == 1 || read(conn)$($wait)*? == *next)
        }
    };
}
pub(super) use settings_statements;
