//! Where a machine stands (DESIGN §5.3). This part knows the states up to `enrolled`; later ones come with their work.

use crate::problem::Problem;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The durable state of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MachineState {
    /// People declared it; nobody has spoken to its BMC.
    Declared,
    /// Its BMC answered and its key is pinned; no credentials were sent yet.
    Discovered,
    /// Its identity was checked and its inventory taken.
    Enrolled,
}

impl MachineState {
    /// As the API and the database write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::Discovered => "discovered",
            Self::Enrolled => "enrolled",
        }
    }

    /// Reads [`Self::as_str`] back.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Declared, Self::Discovered, Self::Enrolled].into_iter().find(|state| state.as_str() == text)
    }
}

impl std::fmt::Display for MachineState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a machine waits for: `bailiwick why` prints this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// Why.
    pub problem: Problem,
    /// Since when this same code has held.
    #[schemars(with = "String")]
    pub since: Timestamp,
    /// When it is tried again; `null` where only a changed declaration helps.
    #[schemars(with = "Option<String>")]
    pub until: Option<Timestamp>,
    /// How often it was tried in vain.
    pub attempts: u32,
}

/// What one step of the reconciler ends in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The machine moved on.
    Advance(MachineState),
    /// Try again then.
    Wait {
        /// Why.
        problem: Problem,
        /// When.
        until: Timestamp,
    },
    /// Nothing to do until something else changes.
    Done,
    /// Cannot go on until people change something.
    Fail(Problem),
}
