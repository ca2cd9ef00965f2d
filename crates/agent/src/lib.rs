//! The node agent: what its host's own driver tells of the GPUs (DESIGN §5.6).

pub mod cell;
pub mod error;

pub use error::{Error, Exit};
