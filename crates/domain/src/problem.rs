//! Problems: every wait, refusal and failure carries a stable code, a sentence, and the difference (DESIGN §3.4).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One problem as people and programs see it: in the API (RFC 9457), in `why`, in events, on the command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Stable code: lower-case words joined by dots and dashes, such as `bmc.pin-mismatch`. Listed in `docs/reference/codes.md`.
    pub code: String,
    /// One sentence saying what happened.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What was found, where something else was expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// What was expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// Where: a file and line, a Redfish path, a field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

impl Problem {
    /// A problem with a code and a sentence; the rest by the builder methods.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            hint: None,
            found: None,
            expected: None,
            at: None,
        }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the difference.
    #[must_use]
    pub fn difference(mut self, found: impl Into<String>, expected: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self.expected = Some(expected.into());
        self
    }

    /// Adds where it was met.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.at = Some(place.into());
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} [{}]", self.message, self.code)?;
        if let (Some(found), Some(expected)) = (&self.found, &self.expected) {
            write!(f, " (found {found}, expected {expected})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// Anything that can be told as a [`Problem`]. Every error enum of the workspace implements it.
pub trait Diagnose {
    /// The problem, complete with code and hint.
    fn problem(&self) -> Problem;
}
