//! The Redfish client: transport, sessions, quirks, walk, inventory.

pub mod client;
pub mod decode;
pub mod error;
pub mod etag;
pub mod gpu;
pub mod identity;
pub mod inventory;
pub mod limits;
pub mod pin;
pub mod probe;
pub mod quirks;
pub mod reader;
pub mod retry;
pub mod session;
pub mod tls;
pub mod transport;
pub mod walk;

mod address;
mod certificate;
mod collection;
mod login;
mod message;

pub use client::{Client, Options, Target};
pub use error::Error;
pub use inventory::inventory;
pub use limits::Limits;
pub use pin::SpkiPin;
pub use reader::{ReadError, Reader, Resource};
pub use retry::RetryPolicy;
pub use session::{Authentication, Credentials, LoginBudget};
pub use tls::{Peer, Trust};
pub use transport::Timeouts;
pub use walk::WalkOptions;
