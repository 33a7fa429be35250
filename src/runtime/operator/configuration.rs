//! The configuration: effective values, and operators' changes.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::{Operator, OperatorError, Result};
use crate::{
    Invalid,
    agent::AskError,
    clock,
    config::{Change, Errors, Settings, Shown},
    model::act::{self, Act},
    runtime::configuration::{Applied, ConfigureError, reload},
};

/// The effective configuration.
#[derive(Debug, Clone, Serialize)]
pub struct ConfigView {
    /// Every key with its value and origin, by name; secrets as `***`.
    pub items: Vec<Shown>,
    /// Counts the changes that this process has applied, from 0.
    pub generation: u64,
    /// The keys whose new values wait for a restart.
    pub needs_restart: Vec<String>,
    /// The tag of what the store keeps of it, for `If-Match`: of the same meaning on every node that shares it.
    #[serde(skip)]
    pub tag: String,
}

impl Operator {
    /// The effective configuration.
    pub fn configuration(&self) -> ConfigView {
        let node = &self.node;
        ConfigView {
            tag: node.settings_tag(),
            generation: node.generation(),
            needs_restart: node.needs_restart(),
            items: node.settings.load().show().to_vec(),
        }
    }

    /// The effective configuration, as the program reads it.
    pub fn settings(&self) -> Arc<Settings> {
        self.node.settings.load_full()
    }

    /// Keeps a JSON merge patch of all sections in the store, and applies what needs no restart: all of it or
    /// nothing. `if_match`: only upon what [`ConfigView::tag`] named. `dry_run`: only says what it would come to.
    ///
    /// # Errors
    /// [`AskError::Invalid`] with every key that is wrong; [`OperatorError::Changed`] where it was changed
    /// since.
    pub async fn configure(&self, patch: &Value, if_match: Option<&str>, dry_run: bool) -> Result<Applied> {
        Ok(self.node.configure(patch, if_match, dry_run, "operator").await?)
    }

    /// Reads all layers again, as on SIGHUP, and records it as an act. Where they are refused the log says why, and
    /// everything stays.
    pub async fn reload_configuration(&self, why: &str) {
        let act = Act { who: format!("({why})"), ..Act::new(clock::now(), "config.reload", "config") };
        self.note_act(match reload(&self.node, why).await {
            Ok(Applied { changed, .. }) => {
                let (before, after) = (Some(Change::before(&changed)), Some(Change::values(&changed)));
                Act { outcome: Some(act::OK.to_owned()), before, after, ..act }
            }
            Err(_) => Act { outcome: Some("invalid".to_owned()), ..act },
        });
    }
}

impl From<ConfigureError> for OperatorError {
    fn from(error: ConfigureError) -> Self {
        match error {
            ConfigureError::Invalid(errors) => Self::Ask(AskError::Invalid(findings(&errors))),
            ConfigureError::Stale | ConfigureError::Overtaken => Self::Changed(error.to_string()),
            ConfigureError::Store(error) => error.into(),
        }
    }
}

fn findings(errors: &Errors) -> Invalid {
    let finding = |problem: &crate::config::Problem| {
        let hint = problem.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        (problem.pointer(), format!("{}{hint}", problem.message))
    };
    Invalid(errors.0.iter().map(finding).collect())
}
