//! The words of the design as types: jurisdictions, declarations, inventory, facts, lifecycle, plans.
//!
//! Pure: no runtime, no network, no database, no Kubernetes.

pub mod assignment;
pub mod base_cluster;
mod check;
pub mod codes;
pub mod declaration;
pub mod fact;
pub mod inventory;
pub mod jurisdiction;
pub mod lifecycle;
pub mod manifest;
pub mod name;
pub mod plan;
pub mod principal;
pub mod problem;

pub use assignment::Goal;
pub use declaration::{Declaration, Kind, Spec};
pub use fact::Fact;
pub use inventory::Inventory;
pub use jurisdiction::Containment;
pub use lifecycle::{MachineState, Outcome, Waiting};
pub use name::{Digest, Name};
pub use plan::Plan;
pub use problem::{Diagnose, Problem};
