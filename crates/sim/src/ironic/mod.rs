//! A simulated Ironic API: Ironic's states, verbs, sentences and delays, without conductor, database or BMC.
//!
//! [`IronicEndpoint::builder`] starts one on a port of 127.0.0.1. It answers as Ironic 39 does (what is said here was compared with it,
//! `tests/ironic_api/contract.rs`), and holds any number of nodes without a task for each: a node's next state is computed when it is due.
//!
//! * Delays are zero unless [`Delays`] say otherwise; with [`IronicBuilder::stepped`] time stands still until a test moves it.
//! * Faults of requests are [`crate::Fault`]s (status, latency, close, …), those of nodes are [`NodeFault`]s (a deploy fails, a clean fails,
//!   the node vanishes, …).
//! * [`IronicEndpoint::deploys`] and its neighbours count what was asked of each node, so that a test can show that nothing was asked twice.
//! * [`IronicBuilder::on_event`] tells the owner what was deployed where, so that a simulated host can start.
//!
//! Not there: allocations, chassis, port groups, volumes, runbooks (their lists are empty), lookup and heartbeat (there is no agent),
//! firmware and BIOS settings (empty lists), the contents of virtual media.

mod api;
mod clock;
mod drivers;
mod endpoint;
mod fault;
mod fleet;
mod hook;
mod http;
mod inventory;
mod job;
mod node;
mod patch;
mod port;
mod record;
mod refusal;
mod states;
mod version;

pub use endpoint::{IronicBuilder, IronicEndpoint, NodeSnapshot};
pub use fault::{Effect, Ending, NodeFault, NodeFaultId};
pub use hook::{ConfigDrive, Instance, NodeEvent};
pub use inventory::{CredentialCheck, InventorySource, NodeFacts};
pub use job::{Delays, Step};
pub use record::{Cleaning, CleaningOutcome, RequestEntry, VerbCount};
pub use states::{Operation, Power, ProvisionState, Verb};
pub use version::Microversion;
