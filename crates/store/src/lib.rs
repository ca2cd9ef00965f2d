//! What a cell knows, on disk: `SQLite` and `PostgreSQL` behind one [`Store`].
//!
//! One SQL text serves both. Every write is one transaction that also appends the events that tell of it (DESIGN §3.5), and
//! writers go one after the other, so that events are numbered in the order in which they become visible: whoever read up to
//! event *n* misses none by asking for those after *n*. Readers never wait. Passwords are sealed before they are written, the
//! pending ones of plans too; tokens are kept as digests only.

mod accepted;
mod accounts;
mod agents;
mod authorities;
mod clock;
mod declarations;
mod enrolment;
mod error;
mod events;
mod gpus;
mod machines;
mod meta;
mod open;
mod place;
mod plans;
mod queue;
mod reports;
mod rows;
mod seal;
mod steps;
mod tokens;
mod write;
mod writer;

pub use accounts::{BmcAccount, Holder, Phase};
pub use agents::{AgentError, AgentRecord, EnrolmentId, ProbeRecord};
pub use authorities::{Authority, AuthorityKey};
pub use enrolment::Enrolment;
pub use error::{CODES, StoreError};
pub use events::Event;
pub use gpus::{GpuConflict, GpuRecord};
pub use machines::{InventoryMark, MachineRecord};
pub use open::{SCHEMA_VERSION, Store, StoreOptions};
pub use plans::{Applied, AppliedChange, StoredPlan};
pub use queue::{Guard, Lease, Overdue, Turn};
pub use reports::Reported;
pub use steps::Advance;
pub use tokens::TokenRecord;

/// A secret in memory: wiped when dropped.
pub use zeroize::Zeroizing;
