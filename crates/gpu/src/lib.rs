//! GPUs as the driver sees them: the NVML probe and what is wrong with a GPU (DESIGN §5.6).
//!
//! [`Nvml`] is a driver's library; [`probe`] asks one, by the traits of [`source`], for everything that it tells;
//! by [`Parting`] it makes and destroys MIG instances.

mod error;
mod health;
mod host;
mod library;
mod nvml;
mod parts;
mod raw;
mod read;
pub mod source;
mod watch;

pub use error::Error;
pub use health::Xids;
pub use host::{HostRoot, Place};
pub use nvml::Nvml;
pub use parts::{Part, PartError, Parting};
pub use read::{Context, probe, without_driver};
pub use watch::{Seen, Tips, Watch, Watcher};
