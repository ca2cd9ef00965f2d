//! The Redfish client: transport, sessions, quirks, walk, inventory; power, boot, clock, accounts.
//!
//! [`Client::connect`] proves the BMC, reads its service root and logs in; [`inventory()`] reads through any [`Reader`], such
//! as the client; [`Client::close`] ends the session. [`probe::probe`] finds BMCs without credentials.
//!
//! To act, [`host::Host::find`] says on what; [`power`], [`boot`], [`clock`], [`manager`], [`accounts`] and [`rotation`] each verify
//! what they did by reading it. All that talk to one BMC share its [`guard::BmcGuard`]: one budget of failed logins an account, one
//! pace, one fence.
//!
//! A request goes down through `client` (patience: attempts, refusals, redirects), `transport` (one exchange, bounded in time,
//! size and number) and `tls` (trust); an answer comes up through `limits` (bytes to a JSON object). Quirks are numbered as in
//! the tests that show them.

pub mod accounts;
pub mod boot;
pub mod budget;
pub mod client;
pub mod clock;
pub mod decode;
pub mod error;
pub mod etag;
pub mod gpu;
pub mod guard;
pub mod host;
pub mod identity;
pub mod inventory;
pub mod limits;
pub mod manager;
pub mod pin;
pub mod power;
pub mod probe;
pub mod quirks;
pub mod reader;
pub mod retry;
pub mod rotation;
pub mod session;
pub mod task;
pub mod tls;
pub mod transport;
pub mod walk;
pub mod write;

mod action;
mod address;
mod certificate;
mod codes;
mod collection;
mod login;
mod message;

pub use budget::LoginBudget;
pub use client::{Client, Options, Target};
pub use error::Error;
pub use guard::{BmcGuard, Guards, Pace};
pub use inventory::inventory;
pub use limits::Limits;
pub use pin::SpkiPin;
pub use reader::{ReadError, Reader, Resource};
pub use retry::RetryPolicy;
pub use session::{Authentication, Credentials};
pub use tls::{Peer, Trust};
pub use transport::Timeouts;
pub use walk::WalkOptions;
pub use write::{Outcome, WriteError};
