//! GPUs as the driver sees them: the NVML probe and what is wrong with a GPU (DESIGN §5.6).

mod error;
mod host;
mod nvml;

pub use error::{CODES, Error};
pub use host::{HostRoot, Place};
pub use nvml::Nvml;
