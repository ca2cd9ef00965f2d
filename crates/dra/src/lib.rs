//! Inventory and declarations to Kubernetes objects: slices, classes, taint rules, the admission policy. Pure.
//!
//! [`publish`] is a function from what is known and declared to objects, and nothing else (DESIGN §3.2). Writing them is the
//! work of sinks: [`reconcile`] tells a sink which ResourceSlices to write and delete so that no consumer ever sees half a
//! pool, and [`proof_slice`] with [`judge`] tells whether the admission policy holds before anything else is written.

mod attribute;
mod class;
mod codes;
mod compare;
mod device;
mod input;
mod json;
mod literal;
mod nvidia;
mod nvlink;
mod object;
mod partition;
#[cfg(feature = "plugin")]
pub mod plugin;
mod policy;
mod pool;
mod proof;
mod publish;
mod quantity;
mod slice;
mod taint;

pub use class::{extended_resource, selector};
pub use codes::CODES;
pub use device::{GpuKey, Verdict};
pub use input::{Input, PublishedMachine, ServerSupport, TaintRuleVersion};
pub use nvidia::{NVIDIA, nvidia_device};
pub use object::{Object, Output};
pub use partition::{devices, gives};
pub use policy::{POLICY_CLAIMS, POLICY_CLASSES, POLICY_SLICES, POLICY_TAINT_RULES};
pub use pool::{Step, reconcile};
pub use proof::{DryRun, PROOF_GROUP, PROOF_USER, Proof, counters_slice, judge, proof_slice};
pub use publish::publish;

/// The DRA driver's name, and the domain of its attributes and extended resources.
pub const DRIVER: &str = "gpu.bailiwick.dev";

/// Label with the name of the cell that wrote an object: what a sink prunes by.
pub const LABEL_OWNER: &str = "bailiwick.dev/owner";

/// Label `app.kubernetes.io/managed-by` of everything published, and the field manager of server-side apply.
pub const MANAGER: &str = "bailiwick";

/// Label and annotation of a class that gives GPUs out on a BMC's word alone.
pub const TRIAL: &str = "bailiwick.dev/trial";

/// Key of the taint on a device that something is wrong with.
pub const TAINT_HEALTH: &str = "bailiwick.dev/health";

/// Key of the taint on the devices of an alarmed machine.
pub const TAINT_ALARM: &str = "bailiwick.dev/alarm";
