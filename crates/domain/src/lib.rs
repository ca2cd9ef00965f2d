//! The words of the design as types: jurisdictions, declarations, inventory, facts, lifecycle, plans.
//!
//! Pure: no runtime, no network, no database, no Kubernetes.

pub mod address;
pub mod agent;
pub mod assignment;
pub mod base_cluster;
mod check;
pub mod codes;
pub mod declaration;
pub mod erasure;
pub mod fact;
pub mod firmware;
pub mod gpu_views;
pub mod instance;
pub mod inventory;
pub mod jurisdiction;
pub mod lifecycle;
pub mod manifest;
pub mod name;
pub mod partition;
pub mod permit;
pub mod placeholder;
pub mod plan;
pub mod principal;
pub mod probe;
pub mod problem;
pub mod selector;
pub mod topology;

pub use address::IpmiAddress;
pub use assignment::Goal;
pub use declaration::{Declaration, Kind, Spec};
pub use erasure::Erasure;
pub use fact::Fact;
pub use instance::Instance;
pub use inventory::Inventory;
pub use jurisdiction::Containment;
pub use lifecycle::{MachineState, Outcome, Step, Waiting};
pub use name::{Digest, Name};
pub use partition::Partitions;
pub use plan::Plan;
pub use probe::Probe;
pub use problem::{Diagnose, Problem};
