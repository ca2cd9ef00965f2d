//! The node agent: what its host's own driver tells of the GPUs (DESIGN §5.6).

#![allow(
    clippy::format_push_string,
    clippy::format_collect,
    reason = "text for people is short; one that reads well counts for more than an allocation"
)]

pub mod cell;
pub mod completions;
pub mod enrol;
pub mod error;
pub mod output;
pub mod probe;
pub mod reference;
pub mod run;

pub use error::{Error, Exit};
