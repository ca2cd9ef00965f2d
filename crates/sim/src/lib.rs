//! A simulated site: BMCs over HTTPS from recorded trees or models, with faults by rule.
//!
//! * [`Bmc::builder`] starts one BMC on a port of 127.0.0.1: what tests of clients use.
//! * [`Site`] starts racks of them behind one listener, each on a loopback address of its own: [`Site::from_file`], [`Site::builder`],
//!   [`Site::quickstart_rack`].
//! * [`Tree`] is what a BMC shows: a recording, a [`Model`], or resources made up in a test.
//! * [`Fault`] is a rule for what goes wrong; [`Behaviour`] is what one vendor does and another does not.
//! * A machine started with [`HostOptions`] is bootable: Ironic can drive it through virtual media, its host boots what is there, and
//!   [`Bmc::booted`], [`Bmc::watch_booted`] and [`OnBoot`] tell what that was.
//! * [`decoy`] and [`legacy`] are servers that are no BMCs, or have certificates that no Rust library serves.
//!
//! A site file:
//!
//! ```toml
#![doc = include_str!("../examples/site.toml")]
//! ```

mod access;
mod accounts;
mod actions;
mod behaviour;
mod bmc;
mod body;
mod boot;
mod bootable;
mod clock;
mod cluster;
mod codes;
pub mod decoy;
mod der;
mod device;
mod error;
mod expand;
mod fault;
mod files;
mod handler;
mod host;
pub mod ipmi;
pub mod ironic;
pub mod legacy;
mod machine;
mod media;
pub mod messages;
pub mod model;
mod outage;
mod power;
mod seed;
mod server;
mod settings;
mod single;
mod site;
mod template;
mod tls;
mod tree;

pub use behaviour::{
    AccountStyle, Behaviour, BootResource, BootStyle, Etags, Expand, PowerStyle, RestartStyle, SettingsStyle,
    TaskLocation, TaskStyle, VirtualMediaStyle,
};
pub use bmc::{Bmc, Counters, RequestRecord};
pub use cluster::{Cluster, JoinOutcome};
pub use codes::CODES;
pub use error::Error;
pub use fault::{Action, Fault, FaultId, Faults, Selector};
pub use host::{Booted, BootedHost, ConfigDrive, Disk, Erasure, HostFault, HostOptions, OnBoot, iso};
pub use model::Model;
pub use power::PowerState;
pub use seed::Seed;
pub use single::{BmcBuilder, RunningBmc};
pub use site::{Identities, MachineKind, RunningSite, SimMachine, Site, SiteBuilder};
pub use tls::{CertificateAuthority, CertificateKind, KeyStore, TlsIdentity};
pub use tree::{ExpandSupport, Tree};
