//! What to do next with a host: a pure function of what stands in the cluster and what is wished.
//!
//! One answer is at most one write, and an answer that was carried out is never given again unless something else changed; so a
//! caller may repeat it for ever, and lose any answer on the way.

mod find;
mod timing;
mod trouble;
mod wishes;

pub use find::find;

use crate::desired::HostObject;
use crate::hardware::Hardware;
use crate::host::BareMetalHost;
use crate::registration::{Registration, Wish};
use crate::secret::{Secret, SeenSecret};
use domain::Problem;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// What stands in the cluster.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The machine's host ([`find`]); `None` where it has none.
    pub host: Option<BareMetalHost>,
    /// What inspection found, once it has.
    pub hardware: Option<Hardware>,
    /// The Secrets that go with it, by name; those that do not exist are absent.
    pub secrets: BTreeMap<String, SeenSecret>,
    /// The time now.
    pub now: Timestamp,
}

/// The one thing to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Apply this object server-side as [`crate::MANAGER`].
    Apply(Object),
    /// Delete this object.
    Delete(Target),
    /// Merge this into the host, if it still has that version.
    Patch {
        /// The host's name.
        host: String,
        /// The version that was seen.
        resource_version: String,
        /// JSON merge patch (RFC 7396).
        patch: Value,
        /// What for, in a few words.
        purpose: &'static str,
    },
    /// Nothing: the operator is at work.
    Wait(Wait),
    /// Nothing: it is as wished.
    Reached,
    /// Nothing: it cannot be as wished for now.
    Refuse {
        /// Why, and what to do.
        problem: Problem,
        /// Whether it may pass by itself.
        persistence: Persistence,
    },
}

/// An object to be applied.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A host.
    Host(HostObject),
    /// A Secret.
    Secret(Secret),
}

/// An object to be deleted: this very one, none made in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `BareMetalHost` or `Secret`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq)]
pub struct Wait {
    /// What for.
    pub problem: Problem,
    /// When to look again.
    pub poll_after: Duration,
    /// How long this usually takes on a real server.
    pub usual: Duration,
    /// Since when it has been going on, as far as the operator tells.
    pub since: Option<Timestamp>,
}

/// Whether a refusal may pass by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// The operator goes on trying: look again.
    Passing,
    /// Somebody must change something first.
    Lasting,
}

/// What to do next.
pub fn next(registration: &Registration, wish: &Wish, seen: &Snapshot) -> Next {
    let drive = wishes::Drive { registration, wish, seen };
    drive.next().unwrap_or_else(|next| next)
}

pub(crate) fn passing(problem: Problem) -> Next {
    Next::Refuse { problem, persistence: Persistence::Passing }
}

pub(crate) fn lasting(problem: Problem) -> Next {
    Next::Refuse { problem, persistence: Persistence::Lasting }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
