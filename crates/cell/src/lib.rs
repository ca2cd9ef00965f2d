//! The service: API, reconciler, publishers (DESIGN §5.11).

mod agents;
pub mod api;
mod base_cluster;
mod enrol;
mod error;
mod gpus;
mod ipmi;
mod join;
mod life;
mod listen;
mod provision;
mod publish;
mod reconcile;
mod secrets;
mod service;
pub mod settings;
mod trouble;
mod world;

pub use error::{CODES, CellError};
pub use provision::{IronicSettings, Metal3Settings, ProvisionerSettings, ServiceSettings};
pub use service::{Cell, RunningCell, bmc_accounts};
pub use settings::{AgentSettings, Settings, SinkSettings};
