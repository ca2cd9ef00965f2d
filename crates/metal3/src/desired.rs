//! The host as wished, and how the one in the cluster differs from it.

use crate::host::BareMetalHost;
use crate::managed::Path;
use crate::registration::{Cleaning, Deployment, Inspection, Payload, Power, Registration};
use crate::states::ProvisioningState;
use crate::{
    ANNOTATION_DEPLOYMENT, ANNOTATION_INTENT, ANNOTATION_TAKEN_OVER, API_VERSION, KIND_HOST, LABEL_MACHINE,
    LABEL_OWNER,
};
use domain::{Digest, Problem};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A BareMetalHost to be applied: the fields that are ours, and no others.
#[derive(Clone, Debug, PartialEq)]
pub struct HostObject {
    /// `metadata.name`.
    pub name: String,
    /// The version that was seen, where ownership is taken from others: nothing may have changed in between.
    pub resource_version: Option<String>,
    /// Whether fields are taken from whoever held them before the host was taken over.
    pub force: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// `spec`.
    pub spec: Map<String, Value>,
}

impl HostObject {
    /// The object as sent.
    pub(crate) fn to_object(&self, namespace: &str) -> Value {
        let mut metadata = json!({
            "name": self.name, "namespace": namespace, "labels": self.labels, "annotations": self.annotations,
        });
        if let Some(version) = &self.resource_version {
            metadata["resourceVersion"] = json!(version);
        }
        json!({ "apiVersion": API_VERSION, "kind": KIND_HOST, "metadata": metadata, "spec": self.spec })
    }

    /// Every field with its value.
    fn fields(&self) -> BTreeMap<Path, Value> {
        let mut fields = BTreeMap::new();
        let object = json!({ "metadata": { "labels": self.labels, "annotations": self.annotations }, "spec": self.spec });
        flatten(&object, &mut Vec::new(), &mut fields);
        fields
    }
}

/// What is to be on the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content<'a> {
    /// Whatever is there.
    Kept,
    /// Nothing.
    Nothing,
    /// What Cluster API wants.
    Offered,
    /// This.
    Deployment(&'a Deployment),
    /// What somebody else has put there.
    External,
}

/// Parts of `spec` that say what is on the machine. All of them, and these alone, are taken away when it is released.
pub(crate) const DEPLOYMENT_FIELDS: &[&str] =
    &["image", "customDeploy", "userData", "networkData", "metaData", "externallyProvisioned"];

/// Structures that are replaced as a whole: `x-kubernetes-map-type: atomic`.
const ATOMIC: &[&str] = &["consumerRef", "userData", "networkData", "metaData"];

/// Name of the Secret with a host's BMC credentials.
pub(crate) fn bmc_secret(host: &str) -> String {
    format!("{host}-bmc")
}

/// Name of a Secret of the config drive.
pub(crate) fn data_secret(host: &str, part: &str) -> String {
    format!("{host}-{part}")
}

/// Whether the host was there before we were.
pub(crate) fn is_taken_over(host: &BareMetalHost) -> bool {
    !host.managers.ours_there() || host.annotations.contains_key(ANNOTATION_TAKEN_OVER)
}

/// The host as wished.
pub(crate) fn host_object(
    registration: &Registration,
    host: Option<&BareMetalHost>,
    content: Content<'_>,
) -> HostObject {
    let name = host.map_or(registration.machine.as_str(), |host| &host.name).to_owned();
    let mut spec = base(registration, &name);
    let theirs = |field: &str| {
        let path = ["spec".to_owned(), field.to_owned()];
        host.is_some_and(|host| host.managers.others(&path).next().is_some())
    };
    if host.is_some_and(is_taken_over) {
        // How the BMC is reached and booted stays the affair of whoever made the host.
        spec.retain(|field, _| field == "bmc" || field == "automatedCleaningMode" || !theirs(field));
        leave_bmc(&mut spec, registration, host);
    }
    let consumed = host.is_some_and(|host| is_foreign(registration, host));
    if !consumed && !matches!(content, Content::Offered) {
        spec.insert("consumerRef".into(), consumer(registration));
    }
    let observed_online = host.is_some_and(|host| host.spec.online);
    let idle = registration.idle_power == Power::On;
    let online = match content {
        // The operator provisions no host that is to be off.
        Content::Deployment(deployment) => {
            let running = host.is_some_and(|host| host.state() == &ProvisioningState::Provisioned);
            Some(deployment.power == Power::On || !running)
        }
        Content::External => Some(true),
        Content::Nothing => Some(idle),
        // Power is the consumer's affair; a field that nobody else holds cannot be let go of, since it is required.
        Content::Kept | Content::Offered if theirs("online") => None,
        Content::Kept | Content::Offered => Some(host.map_or(idle, |_| observed_online)),
    };
    if let Some(online) = online {
        spec.insert("online".into(), json!(online));
    }
    if matches!(content, Content::Offered) && theirs("automatedCleaningMode") {
        spec.remove("automatedCleaningMode");
    }
    let mut annotations = BTreeMap::new();
    match content {
        Content::Kept => keep(host, consumed, &mut spec, &mut annotations),
        Content::Deployment(deployment) => {
            deploy(deployment, &name, &mut spec);
            annotations.insert(ANNOTATION_DEPLOYMENT.to_owned(), deployment.id.to_string());
        }
        Content::External => {
            spec.insert("externallyProvisioned".into(), json!(true));
        }
        Content::Nothing | Content::Offered => {}
    }
    if let Some(time) = host.filter(|host| is_taken_over(host)).and_then(taken_over_at) {
        annotations.insert(ANNOTATION_TAKEN_OVER.to_owned(), time.to_string());
    }
    let intent = Digest::of_json(&json!({ "spec": spec, "annotations": annotations })).to_string();
    annotations.insert(ANNOTATION_INTENT.to_owned(), intent["sha256:".len()..][..16].to_owned());
    let mut labels = registration.place.labels();
    labels.insert(LABEL_OWNER.to_owned(), registration.cell.to_string());
    labels.insert(LABEL_MACHINE.to_owned(), registration.machine.to_string());
    HostObject { name, resource_version: None, force: false, labels, annotations, spec }
}

fn base(registration: &Registration, name: &str) -> Map<String, Value> {
    let inspection = match registration.inspection {
        Inspection::Agent => "agent",
        Inspection::Disabled => "disabled",
    };
    let cleaning = match registration.cleaning {
        Cleaning::Metadata => "metadata",
        Cleaning::Disabled => "disabled",
    };
    let mut spec = Map::new();
    spec.insert(
        "bmc".into(),
        json!({
            "address": registration.address.as_str(),
            "credentialsName": bmc_secret(name),
            "disableCertificateVerification": !registration.verify_certificate,
        }),
    );
    spec.insert("bootMode".into(), json!(registration.boot_mode.as_str()));
    spec.insert("automatedCleaningMode".into(), json!(cleaning));
    spec.insert("inspectionMode".into(), json!(inspection));
    if let Some(mac) = &registration.boot_mac {
        spec.insert("bootMACAddress".into(), json!(mac.to_ascii_lowercase()));
    }
    if !registration.root_device.is_empty() {
        spec.insert("rootDeviceHints".into(), json!(registration.root_device));
    }
    spec
}

/// Of a host that was taken over, the BMC's address is not ours, and its account only where we were given one.
fn leave_bmc(spec: &mut Map<String, Value>, registration: &Registration, host: Option<&BareMetalHost>) {
    let Some(bmc) = spec.get_mut("bmc").and_then(Value::as_object_mut) else { return };
    let held = |part: &str| {
        let path = ["spec".to_owned(), "bmc".to_owned(), part.to_owned()];
        host.is_some_and(|host| host.managers.others(&path).next().is_some())
    };
    bmc.retain(|part, _| match part.as_str() {
        "credentialsName" => registration.credentials.is_some() || !held(part),
        _ => !held(part),
    });
    if registration.credentials.is_none()
        && let (Some(name), Some(host)) = (bmc.get_mut("credentialsName"), host)
    {
        *name = json!(host.spec.bmc.credentials_name);
    }
    if bmc.is_empty() {
        spec.remove("bmc");
    }
}

/// A consumer keeps Cluster API's Metal3 provider from choosing the host (it takes hosts without one).
fn consumer(registration: &Registration) -> Value {
    json!({ "apiVersion": "bailiwick.dev/v1alpha1", "kind": "Machine", "name": registration.machine })
}

/// Whether somebody other than the cell uses the host.
pub(crate) fn is_foreign(registration: &Registration, host: &BareMetalHost) -> bool {
    host.spec.consumer_ref.as_ref().is_some_and(|consumer| {
        !(consumer.kind == "Machine"
            && consumer.api_version.starts_with("bailiwick.dev/")
            && consumer.name == registration.machine.as_str())
    })
}

/// What we hold of the content stays ours: applying without it would take it away. Where nobody tells what we hold, that may be all of it,
/// unless others use the host.
fn keep(
    host: Option<&BareMetalHost>,
    consumed: bool,
    spec: &mut Map<String, Value>,
    annotations: &mut BTreeMap<String, String>,
) {
    let Some(host) = host else { return };
    let ours = host.managers.ours();
    let untold = !host.managers.are_told() && !consumed;
    for field in DEPLOYMENT_FIELDS {
        let held = untold || ours.iter().any(|path| path.len() > 1 && path[0] == "spec" && path[1] == *field);
        if let Some(value) = host.raw.pointer(&format!("/spec/{field}")).filter(|_| held) {
            spec.insert((*field).to_owned(), value.clone());
        }
    }
    let path: Path = ["metadata", "annotations", ANNOTATION_DEPLOYMENT].map(str::to_owned).to_vec();
    if let Some(id) = host.annotations.get(ANNOTATION_DEPLOYMENT).filter(|_| untold || ours.contains(&path)) {
        annotations.insert(ANNOTATION_DEPLOYMENT.to_owned(), id.clone());
    }
}

fn deploy(deployment: &Deployment, host: &str, spec: &mut Map<String, Value>) {
    match &deployment.payload {
        Payload::Disk { url, checksum, algorithm, format } => {
            let image = json!({
                "url": url, "checksum": checksum, "checksumType": algorithm.as_str(), "format": format.as_str(),
            });
            spec.insert("image".into(), image);
        }
        Payload::LiveIso { url } => {
            spec.insert("image".into(), json!({ "url": url, "format": "live-iso" }));
        }
        Payload::Custom { method } => {
            spec.insert("customDeploy".into(), json!({ "method": method }));
        }
    }
    for (field, part, data) in [
        ("userData", "user-data", &deployment.user_data),
        ("networkData", "network-data", &deployment.network_data),
        ("metaData", "meta-data", &deployment.meta_data),
    ] {
        if data.is_some() {
            spec.insert(field.into(), json!({ "name": data_secret(host, part) }));
        }
    }
}

/// When others wrote last before the host was taken over.
fn taken_over_at(host: &BareMetalHost) -> Option<Timestamp> {
    match host.annotations.get(ANNOTATION_TAKEN_OVER) {
        Some(time) => time.parse().ok(),
        None => host.managers.newest_other(),
    }
}

/// How the host in the cluster stands to the one wished.
#[derive(Debug, PartialEq)]
pub(crate) enum Difference {
    /// As wished, and ours.
    None,
    /// To be applied.
    Apply(HostObject),
    /// Others hold parts of the content that must go, since before the host was taken over; applying cannot take those away.
    Strip(Vec<&'static str>),
    /// Others have changed what is ours.
    ByHand(Problem),
}

/// Compares.
pub(crate) fn difference(mut wished: HostObject, host: &BareMetalHost, content: Content<'_>) -> Difference {
    let fields = wished.fields();
    let taken_over =
        host.annotations.get(ANNOTATION_TAKEN_OVER).and_then(|time| time.parse::<Timestamp>().ok());
    let since = if host.managers.ours_there() { taken_over } else { host.managers.newest_other() };
    let ours = host.managers.ours();
    // Where nobody tells who holds what, what stands there has to do: the intent among it says that all of it was applied.
    let told = host.managers.are_told();
    // Whoever held a field before the host was taken over has no say in it any more.
    let hand = |path: &Path| {
        let late = |at: Option<Timestamp>| since.is_none_or(|since| at.is_none_or(|at| at > since));
        host.managers
            .others_alone(path, &ours)
            .find(|manager| late(manager.at))
            .map(|manager| manager.name.clone())
    };
    let mut needed = ours.iter().any(|path| !fields.contains_key(path));
    let mut edits = Vec::new();
    for (path, value) in &fields {
        let found = at(&host.raw, path);
        if found != Some(value) {
            needed = true;
            if host.managers.others(path).next().is_some() {
                wished.force = true;
                edits.extend(
                    hand(path).map(|manager| (path.clone(), manager, found.cloned(), Some(value.clone()))),
                );
            }
        } else if told && !ours.contains(path) {
            needed = true;
        }
    }
    let mut strip = Vec::new();
    if !matches!(content, Content::Kept | Content::Offered) {
        for field in DEPLOYMENT_FIELDS {
            let path: Path = vec!["spec".to_owned(), (*field).to_owned()];
            let found = at(&host.raw, &path).filter(|value| !value.is_null() && **value != json!(false));
            let unwished = found.is_some() && !wished.spec.contains_key(*field);
            if unwished && (!told || host.managers.others(&path).next().is_some()) {
                match hand(&path) {
                    Some(manager) => edits.push((path, manager, found.cloned(), None)),
                    None => strip.push(*field),
                }
            }
        }
    }
    if let Some((path, manager, found, expected)) = edits.into_iter().next() {
        return Difference::ByHand(by_hand(host, &path, &manager, found, expected));
    }
    if !strip.is_empty() {
        return Difference::Strip(strip);
    }
    if !needed {
        return Difference::None;
    }
    wished.resource_version = wished.force.then(|| host.resource_version.clone());
    Difference::Apply(wished)
}

fn by_hand(
    host: &BareMetalHost,
    path: &Path,
    manager: &str,
    found: Option<Value>,
    expected: Option<Value>,
) -> Problem {
    let field = path.join(".");
    let told = |value: Option<Value>| value.map_or("nothing".to_owned(), |value| value.to_string());
    let place = format!("{KIND_HOST}/{}", host.name);
    crate::error::problem("metal3.edited-by-hand", format!("`{manager}` has changed {field} of {place}"))
        .difference(told(found), told(expected))
        .at(format!("{place} {field}"))
}

fn at<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, name| value.get(name))
}

fn flatten(value: &Value, path: &mut Path, into: &mut BTreeMap<Path, Value>) {
    let whole = path.len() == 2 && ATOMIC.contains(&path[1].as_str());
    match value {
        Value::Object(parts) if !whole => {
            for (name, below) in parts {
                path.push(name.clone());
                flatten(below, path, into);
                path.pop();
            }
        }
        leaf => {
            into.insert(path.clone(), leaf.clone());
        }
    }
}

/// Names of the Secrets that a host's config drive may have.
pub(crate) fn data_secrets(host: &str) -> BTreeSet<String> {
    ["user-data", "network-data", "meta-data"].into_iter().map(|part| data_secret(host, part)).collect()
}
