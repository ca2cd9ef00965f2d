//! The Redfish client: transport, sessions, quirks, walk, inventory.

pub mod client;
pub mod error;
pub mod etag;
pub mod limits;
pub mod pin;
pub mod reader;
pub mod retry;
pub mod session;
pub mod tls;
pub mod transport;

mod address;
mod certificate;
mod login;
mod message;

pub use client::{Client, Options, Target};
pub use error::Error;
pub use limits::Limits;
pub use pin::SpkiPin;
pub use reader::{ReadError, Reader, Resource};
pub use retry::RetryPolicy;
pub use session::{Authentication, Credentials, LoginBudget};
pub use tls::{Peer, Trust};
pub use transport::Timeouts;
