//! Who may touch a machine's power, and requests to the operator by annotation.
//!
//! While baremetal-operator manages a host, power is its own. Before a cell touches it, it holds the host: [`pause`] stops the
//! operator, but Ironic goes on with what it has begun, and by default (`[conductor] force_power_state_during_sync`) puts back
//! the power state that it remembers at its next look. [`detach`] takes the host out of Ironic, after which nobody else touches its
//! power. To have the operator itself switch a running host off, wish its deployment with [`crate::Power::Off`].
//!
//! These annotations are merged, never applied: the operator removes some of them, and an applied one would come back.

use crate::error::Error;
use crate::host::BareMetalHost;
use crate::run::Cluster;
use crate::states::{OperationalStatus, ProvisioningState};
use crate::{ANNOTATION_DETACHED, ANNOTATION_PAUSED, HELD_BY_US};
use kube::Client;
use serde_json::{Value, json};

/// A host that the cell holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Where it stood.
    pub state: ProvisioningState,
    /// Whether the provisioning service has nothing under way on it: its power stays as it is put. For a paused host that is
    /// said of the operator's work alone; for a detached one it becomes true once the operator reports it.
    pub quiet: bool,
    /// Whether it was on, as far as the operator knows.
    pub powered_on: bool,
}

/// Stops the operator's work on a host. Done already, it is not done again; held by others, it is refused.
pub async fn pause(client: &Client, namespace: &str, host: &str) -> Result<Held, Error> {
    let seen = hold(client, namespace, host, ANNOTATION_PAUSED, "paused").await?;
    let quiet = seen.state().is_stable() && seen.status.operational_status != OperationalStatus::Servicing;
    Ok(held(&seen, quiet))
}

/// Lets the operator go on; a pause of others is left alone.
pub async fn unpause(client: &Client, namespace: &str, host: &str) -> Result<(), Error> {
    release(client, namespace, host, ANNOTATION_PAUSED, "let go").await
}

/// Takes a host out of Ironic; what runs on it goes on running. The operator does it in the states available, provisioned and
/// externally provisioned, and waits for them otherwise: ask again until `quiet`. For a host that runs a live ISO there is no way
/// back but to remove and register it again, since Ironic cannot adopt it (baremetal-operator 0.13.2 with Ironic 39: "Missing are:
/// kernel and ramdisk").
pub async fn detach(client: &Client, namespace: &str, host: &str) -> Result<Held, Error> {
    let seen = hold(client, namespace, host, ANNOTATION_DETACHED, "detached").await?;
    let quiet = seen.status.operational_status == OperationalStatus::Detached;
    Ok(held(&seen, quiet))
}

/// Puts a detached host back into Ironic; the operator adopts what runs on it.
pub async fn attach(client: &Client, namespace: &str, host: &str) -> Result<(), Error> {
    release(client, namespace, host, ANNOTATION_DETACHED, "attach").await
}

/// How a running host is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebootMode {
    /// Its operating system is asked; after a while its power is cut.
    Soft,
    /// Its power is cut.
    Hard,
}

/// Asks the operator to restart a provisioned host once.
pub async fn reboot(client: &Client, namespace: &str, host: &str, mode: RebootMode) -> Result<(), Error> {
    let mode = match mode {
        RebootMode::Soft => r#"{"mode":"soft"}"#,
        RebootMode::Hard => r#"{"mode":"hard"}"#,
    };
    annotate(client, namespace, host, None, "reboot.metal3.io", json!(mode), "restart").await
}

/// Asks the operator to inspect an available host again.
pub async fn inspect_again(client: &Client, namespace: &str, host: &str) -> Result<(), Error> {
    annotate(client, namespace, host, None, "inspect.metal3.io", json!(""), "inspect again").await
}

async fn hold(
    client: &Client,
    namespace: &str,
    host: &str,
    annotation: &str,
    hold: &'static str,
) -> Result<BareMetalHost, Error> {
    let seen = Cluster { client, namespace }.host(host).await?;
    match seen.annotations.get(annotation) {
        Some(value) if value == HELD_BY_US => {}
        Some(value) => {
            return Err(Error::HeldByOthers { name: host.to_owned(), hold, value: value.clone() });
        }
        None => {
            let version = Some(seen.resource_version.as_str());
            annotate(client, namespace, host, version, annotation, json!(HELD_BY_US), "hold").await?;
        }
    }
    Ok(seen)
}

async fn release(
    client: &Client,
    namespace: &str,
    host: &str,
    annotation: &str,
    purpose: &str,
) -> Result<(), Error> {
    let seen = Cluster { client, namespace }.host(host).await?;
    if seen.annotations.get(annotation).is_none_or(|value| value != HELD_BY_US) {
        return Ok(());
    }
    let version = Some(seen.resource_version.as_str());
    annotate(client, namespace, host, version, annotation, Value::Null, purpose).await
}

async fn annotate(
    client: &Client,
    namespace: &str,
    host: &str,
    version: Option<&str>,
    annotation: &str,
    value: Value,
    purpose: &str,
) -> Result<(), Error> {
    let patch = json!({ "metadata": { "annotations": { annotation: value } } });
    Cluster { client, namespace }.patch(host, version, patch, purpose).await.map(drop)
}

fn held(host: &BareMetalHost, quiet: bool) -> Held {
    Held { state: host.state().clone(), quiet, powered_on: host.status.powered_on }
}
