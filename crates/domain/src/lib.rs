//! The words of the design as types: jurisdictions, declarations, inventory, facts, lifecycle, plans.
//!
//! Pure: no runtime, no network, no database, no Kubernetes.

pub mod inventory;
pub mod problem;

pub use inventory::Inventory;
pub use problem::{Diagnose, Problem};
