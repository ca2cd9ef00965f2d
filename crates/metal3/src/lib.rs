//! BareMetalHost objects for baremetal-operator, and Cluster API objects for base clusters.
//!
//! [`drive::next`] is pure: from what stands in the cluster and what is wished it says the one thing to do next.
//! [`step`] observes, asks it, and does that one thing by server-side apply as field manager `bailiwick`; it may be repeated and
//! interrupted at any time. [`cluster_api::render`] writes a base cluster as objects for a Git repository.
//!
//! What a cell's user must be allowed in the namespace of the hosts: `get, list, create, patch, delete` on `baremetalhosts`,
//! `get` on `hardwaredata` (both of `metal3.io`), `get, create, patch, delete` on `secrets`.

mod address;
pub mod cluster_api;
mod desired;
pub mod drive;
mod error;
pub mod hardware;
pub mod host;
mod lenient;
mod managed;
mod power;
mod registration;
mod run;
mod secret;
mod states;

pub use address::{BmcAddress, NotAnAddress, Transport, bmc_address, ipmi_address};
pub use desired::HostObject;
pub use error::{CODES, Error};
pub use power::{Held, RebootMode, attach, detach, inspect_again, pause, reboot, unpause};
pub use registration::{
    Algorithm, BootMode, Cleaning, Deployment, DiskFormat, Inspection, Payload, Place, Power, Registration,
    Wish, label_value, no_config_drive,
};
pub use run::{Action, Progress, Standing, facts, follow, hardware, observe, step};
pub use secret::{Credentials, Secret, SecretText, SeenSecret};
pub use states::{ErrorType, OperationalStatus, ProvisioningState};

/// Field manager of everything written.
pub const MANAGER: &str = "bailiwick";

/// `apiVersion` of Metal3's objects.
pub const API_VERSION: &str = "metal3.io/v1alpha1";

/// `kind` of a host.
pub const KIND_HOST: &str = "BareMetalHost";

/// Label with the cell's name.
pub const LABEL_OWNER: &str = "bailiwick.dev/owner";
/// Label with the machine's name: finds a host that was taken over under another name.
pub const LABEL_MACHINE: &str = "bailiwick.dev/machine";
/// Label with the jurisdiction.
pub const LABEL_JURISDICTION: &str = "bailiwick.dev/jurisdiction";
/// Label with the site.
pub const LABEL_SITE: &str = "bailiwick.dev/site";
/// Label with the tier of the zone.
pub const LABEL_ZONE_TIER: &str = "bailiwick.dev/zone-tier";
/// Label with the handling marking of the zone.
pub const LABEL_ZONE_HANDLING: &str = "bailiwick.dev/zone-handling";
/// Label with the model in its label form ([`label_value`]).
pub const LABEL_MODEL: &str = "bailiwick.dev/model";

/// Annotation with the id of the deployment that a host was given.
pub const ANNOTATION_DEPLOYMENT: &str = "bailiwick.dev/deployment";
/// Annotation with a digest of what is wished. It changes with every wish, which wakes an operator that backs off for minutes
/// after failures (facts: metal3-ironic, gotcha 4).
pub const ANNOTATION_INTENT: &str = "bailiwick.dev/intent";
/// Annotation on a host that was taken over: the time of the last change by others before that. Later ones are edits by hand.
pub const ANNOTATION_TAKEN_OVER: &str = "bailiwick.dev/taken-over";
/// Annotation with the time when a stuck host was last nudged.
pub const ANNOTATION_NUDGED: &str = "bailiwick.dev/nudged";
/// baremetal-operator's annotation that makes it leave a host alone.
pub const ANNOTATION_PAUSED: &str = "baremetalhost.metal3.io/paused";
/// baremetal-operator's annotation that takes a host out of Ironic.
pub const ANNOTATION_DETACHED: &str = "baremetalhost.metal3.io/detached";
/// The value by which the cell knows its own pauses. Cluster API's Metal3 provider writes `metal3.io/capm3`, people anything.
pub const HELD_BY_US: &str = "bailiwick.dev";
