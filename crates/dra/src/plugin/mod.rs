//! The kubelet plugin: registers with the kubelet of this node, prepares the claims that it asks for by CDI, takes them back, and
//! tells the health of devices. Serves DRA `v1` and `v1beta1`, health `v1` and `v1alpha1`.
//!
//! What it hands out is decided by others: the claim's allocation is read from the API server ([`Claims`]), whether a device may be
//! handed out is the [`Gate`]'s word, parts of GPUs are made by [`Parts`], and what was used is made fit for the next by [`Scrub`].

mod api_server;
mod cdi;
mod checkpoint;
mod claim;
mod durable;
mod error;
mod health;
mod parts;
mod preparer;
mod registration;
mod release;
mod rpc;
mod scrub;
mod service;
mod socket;
mod store;
pub mod wire;

pub use api_server::{ApiServer, ApiServerError, Credential, Token};
pub use cdi::{Access, DeviceNode};
pub use checkpoint::{Held, HeldDevice, HeldState, Partition};
pub use claim::{CONFIG_API_VERSION, CONFIG_KIND};
pub use error::{PluginError, Refusal};
pub use health::Health;
pub use parts::{Begin, Made, NotMade, Parts, Placed};
pub use preparer::{Claims, Gate, Permitted, PermittedDevice, Preparer, PreparerOptions};
pub use registration::{Registration, RegistrationState};
pub use release::Orphan;
pub use scrub::{Scrub, Scrubbed};
pub use service::Plugin;
