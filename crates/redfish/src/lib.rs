//! The Redfish client: transport, sessions, quirks, walk, inventory.

pub mod error;
pub mod pin;
pub mod reader;

pub use error::Error;
pub use pin::SpkiPin;
pub use reader::{ReadError, Reader, Resource};
