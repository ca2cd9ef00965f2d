//! Ironic's REST API: a typed client, and the logic that drives one node toward a goal.
//!
//! [`Client`] speaks the API (`client`, over `transport`; `answer` tells what an answer means). [`drive`] decides, without
//! I/O, what to do next with a node; [`run::step`] observes, does one such thing, and says what is waited for. [`find`]
//! recognises the node of a machine that Ironic knows already. [`erasure`] tells what cleaning erased.

pub mod client;
pub mod deployment;
pub mod drive;
pub mod erasure;
pub mod error;
pub mod find;
pub mod history;
pub mod inventory;
pub mod node;
pub mod patch;
pub mod port;
pub mod refusal;
pub mod registration;
pub mod run;
pub mod secret;
pub mod transport;
pub mod trust;
pub mod version;

mod answer;
mod lenient;
#[cfg(test)]
mod samples;

pub use client::{Client, NodeQuery, Power, Provision, Validation};
pub use deployment::{ConfigDrive, DeployKind, Deployment, Image, RootDevice, instance_uuid};
pub use drive::{Action, Next, Task, Wait, Wish};
pub use error::{CODES, Error};
pub use find::{Directory, Found, Identity};
pub use inventory::{Inspection, Inventory};
pub use node::{Info, Node, PowerState, ProvisionState, Step};
pub use patch::Patch;
pub use port::{Mac, Port};
pub use refusal::Refusal;
pub use registration::{
    Agent, AutomatedClean, Bmc, BmcPlace, BootMode, Marks, Registration, Trait, VerifyCa,
};
pub use run::{Progress, step};
pub use secret::Secret;
pub use transport::{Authentication, Endpoint, Options};
pub use trust::{Pin, Trust};
pub use version::Microversion;
