//! Starts the real counterparts for tests: a Kubernetes control plane, real nodes, PostgreSQL,
//! Ironic, baremetal-operator, sushy-emulator, `ipmi_sim`.
//!
//! `hack/testbed/build` makes the programs; this crate finds them, starts them on ports and sockets
//! that the system chooses, with all their state in a temporary directory, and kills them when the
//! value is dropped. They also die when the test process is killed. A counterpart that is missing or
//! does not start is an [`Error`], which fails the test and says what to do; it is never a skip.
//!
//! ```no_run
//! # async fn example() -> Result<(), bailiwick_testbed::Error> {
//! let control_plane = bailiwick_testbed::ControlPlane::start().await?;
//! let nodes = control_plane.kubectl(&["get", "nodes", "-o", "name"], None).await?.success()?;
//! assert_eq!(nodes, "");
//! # Ok(())
//! # }
//! ```

mod cluster_api;
mod control_plane;
mod error;
mod https;
mod images;
mod ipmi;
mod ironic;
mod kubectl;
mod node;
mod operator;
mod parts;
mod passwords;
mod pki;
mod pods;
mod postgres;
mod process;
mod shared;
mod sushy;

pub use cluster_api::ClusterApiCrds;
pub use control_plane::{ControlPlane, ControlPlaneOptions};
pub use error::Error;
pub use ipmi::{IpmiSim, Ipmitool};
pub use ironic::{Ironic, IronicOptions};
pub use kubectl::Output;
pub use node::{Node, NodeOptions};
pub use operator::{BaremetalOperator, BaremetalOperatorOptions, IronicAddress};
pub use parts::{Part, repository_root};
pub use pods::make_gpu_files;
pub use postgres::{Postgres, PostgresOptions};
pub use sushy::SushyEmulator;
