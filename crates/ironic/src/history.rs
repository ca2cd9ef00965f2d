//! A node's history. Ironic keeps errors only, at most 300 a node, and prunes them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::lenient::lenient;

/// One event, by default an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEvent {
    /// Its UUID.
    pub uuid: String,
    /// When.
    #[serde(default, deserialize_with = "lenient")]
    pub created_at: Option<Timestamp>,
    /// `ERROR` or `INFO`.
    #[serde(default, deserialize_with = "lenient")]
    pub severity: String,
    /// During what: `cleaning`, `deploying`, `verify`, …
    #[serde(default, deserialize_with = "lenient")]
    pub event_type: Option<String>,
    /// The text, at most 255 characters without `detail`.
    #[serde(default, deserialize_with = "lenient")]
    pub event: String,
}

impl HistoryEvent {
    /// Whether something failed.
    pub fn is_error(&self) -> bool {
        !self.severity.eq_ignore_ascii_case("INFO")
    }
}
