//! The node agent: what its host's own driver tells of the GPUs (DESIGN §5.6).

pub mod error;
pub mod run;

pub use error::{Error, Exit};
