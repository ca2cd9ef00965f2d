//! What the endpoint remembers for tests: requests, verbs, cleanings.

use std::collections::HashMap;

use serde_json::Value;

use super::job::Step;
use super::states::Verb;

/// How often a verb was asked of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerbCount {
    /// Answered 202.
    pub accepted: u32,
    /// Answered otherwise.
    pub refused: u32,
}

/// One request, kept since [`super::IronicEndpoint::record_requests`].
#[derive(Clone, Debug)]
pub struct RequestEntry {
    /// `GET`, …
    pub method: String,
    /// The path with its query, as it came.
    pub target: String,
    /// The microversion that was asked for.
    pub version: Option<String>,
    /// The body, secrets and config drives masked.
    pub body: Value,
    /// The status of the answer; 0 where the connection was closed instead.
    pub status: u16,
}

/// One clean of a node, from which a test sees what was erased and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleaning {
    /// Whether it was the one between two uses, or one asked for.
    pub automated: bool,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// How it ended.
    pub outcome: CleaningOutcome,
}

/// How a clean ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CleaningOutcome {
    /// All steps were carried out.
    Completed,
    /// A step failed.
    Failed,
    /// It was aborted.
    Aborted,
}

impl Cleaning {
    /// Whether disks were erased, if only their metadata.
    pub fn erased_disks(&self) -> bool {
        self.outcome == CleaningOutcome::Completed
            && self.steps.iter().any(|step| step.step.starts_with("erase_devices"))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Records {
    verbs: HashMap<(String, Verb), VerbCount>,
    cleanings: HashMap<String, Vec<Cleaning>>,
}

impl Records {
    pub(crate) fn count(&mut self, uuid: &str, verb: Verb, accepted: bool) {
        let count = self.verbs.entry((uuid.to_owned(), verb)).or_default();
        *(if accepted { &mut count.accepted } else { &mut count.refused }) += 1;
    }

    pub(crate) fn verb(&self, uuid: &str, verb: Verb) -> VerbCount {
        self.verbs.get(&(uuid.to_owned(), verb)).copied().unwrap_or_default()
    }

    pub(crate) fn total(&self, verb: Verb) -> VerbCount {
        self.verbs.iter().filter(|((_, other), _)| *other == verb).fold(
            VerbCount::default(),
            |sum, (_, count)| VerbCount {
                accepted: sum.accepted + count.accepted,
                refused: sum.refused + count.refused,
            },
        )
    }

    pub(crate) fn cleaned(&mut self, uuid: &str, cleaning: Cleaning) {
        self.cleanings.entry(uuid.to_owned()).or_default().push(cleaning);
    }

    pub(crate) fn cleanings(&self, uuid: &str) -> Vec<Cleaning> {
        self.cleanings.get(uuid).cloned().unwrap_or_default()
    }
}
