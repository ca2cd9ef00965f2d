//! A node's history. Ironic keeps errors, and of late the beginning and end of cleanings; at most 300 events a node.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::lenient::lenient;

/// One event.
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
