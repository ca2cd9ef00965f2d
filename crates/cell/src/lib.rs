//! The service: API, reconciler, publishers (DESIGN §5.11).

pub mod api;
mod enrol;
mod error;
mod life;
mod listen;
mod publish;
mod reconcile;
mod service;
pub mod settings;
mod trouble;
mod world;

pub use error::{CODES, CellError};
pub use service::{Cell, RunningCell};
pub use settings::{Settings, SinkSettings};
