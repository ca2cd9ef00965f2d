//! Wishes: what each asks of a host, in which order.

use super::timing::{self, ATTACHING, DELAYED, DELETING, POWERING, SERVICING};
use super::trouble::failure;
use super::{Next, Object, Snapshot, Target, lasting, passing};
use crate::desired::{
    Content, Difference, bmc_secret, data_secret, data_secrets, difference, host_object, is_foreign,
};
use crate::error::problem;
use crate::host::BareMetalHost;
use crate::registration::{Deployment, Inspection, Payload, Power, Registration, Wish};
use crate::secret::{Secret, SecretText};
use crate::states::{OperationalStatus, ProvisioningState as State};
use crate::{
    ANNOTATION_DEPLOYMENT, ANNOTATION_DETACHED, ANNOTATION_PAUSED, HELD_BY_US, KIND_HOST, LABEL_MACHINE,
    LABEL_OWNER,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Annotation that asks for another inspection.
const ANNOTATION_INSPECT: &str = "inspect.metal3.io";

/// One question.
pub(super) struct Drive<'a> {
    pub(super) registration: &'a Registration,
    pub(super) wish: &'a Wish,
    pub(super) seen: &'a Snapshot,
}

/// `Err` is the answer found before the end: what must be done, waited for or refused first.
type Step<T = ()> = Result<T, Next>;

impl Drive<'_> {
    pub(super) fn next(&self) -> Step<Next> {
        let Some(host) = &self.seen.host else { return self.without_host() };
        self.same_host(host)?;
        if host.deleting_since.is_some() {
            return Err(self.being_deleted(host));
        }
        // A host that we hold is told of an account that was replaced meanwhile before it is let go: Ironic would log in with the
        // old password at once.
        let held = host.annotations.get(ANNOTATION_DETACHED).is_some_and(|by| by == HELD_BY_US);
        if held && *self.wish != Wish::Removed {
            self.bmc_secret(&host.name)?;
        }
        free_hands(host, self.wish)?;
        if *self.wish == Wish::Removed {
            self.unused_by_others(host)?;
            return Ok(Next::Delete(Target {
                kind: KIND_HOST,
                name: host.name.clone(),
                uid: host.uid.clone(),
            }));
        }
        let content = self.content(host)?;
        self.bmc_secret(&host.name)?;
        if let Content::Deployment(deployment) = content {
            deployment.check().map_err(lasting)?;
            self.data_secrets(host, deployment)?;
        }
        self.bring_in_line(host, content)?;
        if let Some(next) = failure(self.registration, self.wish, self.seen, host) {
            return Err(next);
        }
        Ok(self.settled(host))
    }

    fn without_host(&self) -> Step<Next> {
        let machine = &self.registration.machine;
        if *self.wish == Wish::Removed {
            return Ok(self.leftover(machine.as_str()).unwrap_or(Next::Reached));
        }
        // To make it anew would hide that what is on the machine's disks is in nobody's hands.
        if self.registration.expected || self.registration.known_uid.is_some() {
            let message = format!("the host of Machine/{machine} was deleted by somebody else");
            return Err(lasting(problem("metal3.host-gone", message)));
        }
        self.registration.check().map_err(lasting)?;
        if self.registration.credentials.is_none() {
            let message = format!("Machine/{machine} has no account for the provisioning service");
            return Err(lasting(problem("metal3.no-credentials", message)));
        }
        self.bmc_secret(machine.as_str())?;
        let content = match self.wish {
            Wish::ExternallyProvisioned => Content::External,
            Wish::Offered => Content::Offered,
            _ => Content::Nothing,
        };
        Ok(Next::Apply(Object::Host(host_object(self.registration, None, content))))
    }

    /// The host last seen, and not one that was made in its place.
    fn same_host(&self, host: &BareMetalHost) -> Step {
        match &self.registration.known_uid {
            Some(known) if *known != host.uid => {
                let message = format!("{KIND_HOST}/{} was deleted and made anew by somebody else", host.name);
                Err(lasting(problem("metal3.host-gone", message).difference(&host.uid, known)))
            }
            _ => Ok(()),
        }
    }

    fn being_deleted(&self, host: &BareMetalHost) -> Next {
        if *self.wish == Wish::Removed {
            return failure(self.registration, self.wish, self.seen, host)
                .unwrap_or_else(|| timing::wait(&DELETING, host, self.seen.now));
        }
        let place = format!("{KIND_HOST}/{}", host.name);
        passing(problem("metal3.being-deleted", format!("somebody is deleting {place}")).at(place))
    }

    fn unused_by_others(&self, host: &BareMetalHost) -> Step {
        if !is_foreign(self.registration, host) {
            return Ok(());
        }
        let place = format!("{KIND_HOST}/{}", host.name);
        let consumer = host.spec.consumer_ref.clone().unwrap_or_default();
        let who = format!("{}/{}", consumer.kind, consumer.name);
        let problem = problem("metal3.consumed", format!("{place} is used by {who}"));
        Err(lasting(
            problem.difference(who, format!("Machine/{} or nobody", self.registration.machine)).at(place),
        ))
    }

    /// What is to be on the host, given what is there.
    fn content(&self, host: &BareMetalHost) -> Step<Content<'_>> {
        match self.wish {
            Wish::Registered | Wish::Inspected | Wish::Removed => return Ok(Content::Kept),
            Wish::Offered if is_foreign(self.registration, host) => return Ok(Content::Offered),
            _ => self.unused_by_others(host)?,
        }
        if host.spec.externally_provisioned && *self.wish != Wish::ExternallyProvisioned {
            let place = format!("{KIND_HOST}/{}", host.name);
            let message = format!("{place} runs what somebody else has put on it");
            return Err(lasting(problem("metal3.externally-provisioned", message).at(place)));
        }
        match self.wish {
            Wish::Provisioned(deployment) => at_most_once(host, deployment),
            Wish::Released => Ok(Content::Nothing),
            _ if host.spec.has_deployment() && !host.spec.externally_provisioned => {
                Err(deployed(host, "nothing"))
            }
            Wish::ExternallyProvisioned if is_open(host) => Ok(Content::External),
            Wish::ExternallyProvisioned => Ok(Content::Kept),
            Wish::Offered => Ok(Content::Offered),
            _ => Ok(Content::Nothing),
        }
    }

    fn bmc_secret(&self, host: &str) -> Step {
        let Some(credentials) = &self.registration.credentials else { return Ok(()) };
        self.secret(Secret::bmc(bmc_secret(host), credentials, self.secret_labels()))
    }

    /// While the machine runs its image nobody reads them any more.
    fn data_secrets(&self, host: &BareMetalHost, deployment: &Deployment) -> Step {
        if host.state() == &State::Provisioned {
            return Ok(());
        }
        for (part, key, data) in [
            ("user-data", "userData", &deployment.user_data),
            ("network-data", "networkData", &deployment.network_data),
            ("meta-data", "metaData", &deployment.meta_data),
        ] {
            if let Some(text) = data {
                let data: BTreeMap<&'static str, SecretText> = BTreeMap::from([(key, text.clone())]);
                let owner = Some((host.name.clone(), host.uid.clone()));
                self.secret(Secret::new(data_secret(&host.name, part), data, self.secret_labels(), owner))?;
            }
        }
        Ok(())
    }

    fn secret(&self, wished: Secret) -> Step {
        let Some(seen) = self.seen.secrets.get(&wished.name) else {
            return Err(Next::Apply(Object::Secret(wished)));
        };
        let differing: Vec<_> = seen.differing(&wished).collect();
        let edited = differing.iter().find_map(|key| Some((key, seen.foreign.get(*key)?)));
        if let Some((key, manager)) = edited {
            let place = format!("Secret/{}", wished.name);
            let message = format!("`{manager}` has changed {key} of {place}");
            return Err(lasting(problem("metal3.edited-by-hand", message).at(place)));
        }
        if differing.is_empty() { Ok(()) } else { Err(Next::Apply(Object::Secret(wished))) }
    }

    fn secret_labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (LABEL_OWNER.to_owned(), self.registration.cell.to_string()),
            (LABEL_MACHINE.to_owned(), self.registration.machine.to_string()),
        ])
    }

    fn bring_in_line(&self, host: &BareMetalHost, content: Content<'_>) -> Step {
        self.registration.check().map_err(lasting)?;
        match difference(host_object(self.registration, Some(host), content), host, content) {
            Difference::None => Ok(()),
            Difference::ByHand(problem) => Err(lasting(problem)),
            Difference::Strip(fields) => {
                let spec: serde_json::Map<_, _> =
                    fields.into_iter().map(|field| (field.to_owned(), Value::Null)).collect();
                Err(patch(host, json!({ "spec": spec }), "take off what was on it before"))
            }
            Difference::Apply(object) => {
                address_may_change(host, &object.spec)?;
                Err(Next::Apply(Object::Host(object)))
            }
        }
    }

    /// Everything is written; now the operator's work.
    fn settled(&self, host: &BareMetalHost) -> Next {
        match host.status.operational_status {
            OperationalStatus::Delayed => return timing::wait(&DELAYED, host, self.seen.now),
            // The annotation is gone already, and what the status says of the power is of the past.
            OperationalStatus::Detached => return timing::wait(&ATTACHING, host, self.seen.now),
            _ => {}
        }
        let state = host.state();
        match self.wish {
            Wish::Registered if !is_early(state) => Next::Reached,
            Wish::Inspected => self.inspected(host),
            Wish::Offered if is_foreign(self.registration, host) => Next::Reached,
            Wish::Available | Wish::Offered if is_available(host) => Next::Reached,
            Wish::Released if is_available(host) => self.leftover(&host.name).unwrap_or(Next::Reached),
            Wish::Provisioned(deployment) => self.provisioned(host, deployment),
            Wish::ExternallyProvisioned if *state == State::ExternallyProvisioned => {
                self.powered(host, Power::On)
            }
            _ => self.wait(host),
        }
    }

    fn inspected(&self, host: &BareMetalHost) -> Next {
        if self.seen.hardware.is_some() && host.state() != &State::Inspecting {
            return Next::Reached;
        }
        let place = format!("{KIND_HOST}/{}", host.name);
        if self.registration.inspection == Inspection::Disabled {
            let message = format!("inspection of {place} is disabled");
            return lasting(problem("metal3.not-inspected", message).at(place));
        }
        match host.state() {
            State::Available | State::Ready if host.annotations.contains_key(ANNOTATION_INSPECT) => {
                timing::wait(&timing::INSPECTING, host, self.seen.now)
            }
            State::Available | State::Ready => patch(
                host,
                json!({ "metadata": { "annotations": { ANNOTATION_INSPECT: "" } } }),
                "ask for inspection",
            ),
            State::Provisioned
            | State::Provisioning
            | State::ExternallyProvisioned
            | State::Deprovisioning => {
                let message = format!("{place} is in use and was never inspected");
                lasting(problem("metal3.not-inspected", message).at(place))
            }
            _ => self.wait(host),
        }
    }

    fn provisioned(&self, host: &BareMetalHost, deployment: &Deployment) -> Next {
        let wished = host.spec.has_deployment();
        match host.state() {
            State::Provisioned if wished => self.powered(host, deployment.power),
            // The operator takes a failed image off, and tries again for ever.
            State::Deprovisioning if wished => {
                let place = format!("{KIND_HOST}/{}", host.name);
                let message = format!(
                    "putting the image on {place} failed; the operator cleans the host and tries again"
                );
                passing(problem("metal3.provisioning-error", message).at(place))
            }
            _ => self.wait(host),
        }
    }

    fn powered(&self, host: &BareMetalHost, wished: Power) -> Next {
        if host.status.operational_status == OperationalStatus::Servicing {
            return timing::wait(&SERVICING, host, self.seen.now);
        }
        if host.status.powered_on == (wished == Power::On) {
            Next::Reached
        } else {
            timing::wait(&POWERING, host, self.seen.now)
        }
    }

    fn wait(&self, host: &BareMetalHost) -> Next {
        if let Some(pace) = timing::of_state(host.state()) {
            return timing::wait(pace, host, self.seen.now);
        }
        let place = format!("{KIND_HOST}/{}", host.name);
        let message = format!("{place} is in a state that this version does not know");
        passing(
            problem("metal3.state-unknown", message)
                .difference(host.state().as_str(), "a known state")
                .at(place),
        )
    }

    /// A Secret of ours that is of no use any more: of the config drive, and once there is no host, of its BMC.
    fn leftover(&self, host: &str) -> Option<Next> {
        let mut names = data_secrets(host);
        if self.seen.host.is_none() {
            names.insert(bmc_secret(host));
        }
        let ours = |name: &String| {
            let secret = self.seen.secrets.get(name)?;
            let owner = secret.labels.get(LABEL_OWNER)?;
            (owner == self.registration.cell.as_str()).then(|| Target {
                kind: "Secret",
                name: name.clone(),
                uid: secret.uid.clone(),
            })
        };
        names.iter().find_map(ours).map(Next::Delete)
    }
}

fn is_early(state: &State) -> bool {
    matches!(state, State::None | State::Unmanaged | State::Registering)
}

fn is_available(host: &BareMetalHost) -> bool {
    matches!(host.state(), State::Available | State::Ready)
}

/// Whether `externallyProvisioned` may be set: the operator's webhook allows it only when a host is made, and when available.
fn is_open(host: &BareMetalHost) -> bool {
    host.spec.externally_provisioned || is_available(host)
}

fn runs_nothing(host: &BareMetalHost) -> bool {
    let provisioning = &host.status.provisioning;
    provisioning.image.url.is_empty()
        && provisioning.custom_deploy.as_ref().is_none_or(|deploy| deploy.method.is_empty())
}

fn url(deployment: &Deployment) -> Option<&String> {
    match &deployment.payload {
        Payload::Disk { url, .. } | Payload::LiveIso { url } => Some(url),
        Payload::Custom { .. } => None,
    }
}

fn deployed(host: &BareMetalHost, expected: &str) -> Next {
    let place = format!("{KIND_HOST}/{}", host.name);
    let image = host.spec.image.as_ref().map_or("a custom deployment", |image| &image.url);
    let found = host.annotations.get(ANNOTATION_DEPLOYMENT).map_or(image, String::as_str);
    let message = format!("{place} was given something else to run");
    lasting(problem("metal3.deployed", message).difference(found, expected).at(place))
}

/// Neither paused nor detached.
fn free_hands(host: &BareMetalHost, wish: &Wish) -> Step {
    let place = format!("{KIND_HOST}/{}", host.name);
    let refuse = |code, message: String, by: &str| {
        let problem = problem(code, message).at(&place);
        // Our own hold ends when the cell lets go of it; another's when somebody does.
        Err(if by == HELD_BY_US { passing(problem) } else { lasting(problem) })
    };
    let detached = host.annotations.get(ANNOTATION_DETACHED);
    // A host that we detached ourselves may be forgotten as it is: the operator then touches nothing of the machine.
    if let Some(by) = detached.filter(|by| *wish != Wish::Removed || *by != HELD_BY_US) {
        return refuse("metal3.detached", format!("{place} is detached from the provisioning service"), by);
    }
    if let Some(by) = host.annotations.get(ANNOTATION_PAUSED) {
        let who = if by.is_empty() { "somebody".to_owned() } else { format!("`{by}`") };
        return refuse("metal3.paused", format!("{place} is paused by {who}"), by);
    }
    Ok(())
}

/// A machine that was given something else is never overwritten.
fn at_most_once<'d>(host: &BareMetalHost, deployment: &'d Deployment) -> Step<Content<'d>> {
    let given = host.annotations.get(ANNOTATION_DEPLOYMENT).map(String::as_str);
    let same = given == Some(deployment.id.as_str());
    if !host.spec.has_deployment() {
        if same {
            let place = format!("{KIND_HOST}/{}", host.name);
            let message = format!("somebody has taken the image off {place}");
            let problem =
                problem("metal3.edited-by-hand", message).difference("nothing", deployment.id.as_str());
            return Err(lasting(problem.at(place)));
        }
        let free = is_available(host) && runs_nothing(host);
        return Ok(if free { Content::Deployment(deployment) } else { Content::Nothing });
    }
    let running = &host.status.provisioning.image.url;
    let other = !running.is_empty() && url(deployment).is_some_and(|url| url != running);
    if same && !other {
        Ok(Content::Deployment(deployment))
    } else {
        Err(deployed(host, deployment.id.as_str()))
    }
}

/// The operator lets an address change only while it registers the host (its webhook); without the webhook it would go on
/// with the old node.
fn address_may_change(host: &BareMetalHost, spec: &serde_json::Map<String, Value>) -> Step {
    let wished = spec.get("bmc").and_then(|bmc| bmc.get("address")).and_then(Value::as_str);
    let found = &host.spec.bmc.address;
    let early = matches!(host.state(), State::None | State::Unmanaged | State::Registering);
    if early || found.is_empty() || wished.is_none_or(|wished| wished == found) {
        return Ok(());
    }
    let place = format!("{KIND_HOST}/{}", host.name);
    let message = format!("the BMC's address of {place} cannot be changed any more");
    let problem = problem("metal3.address-fixed", message).difference(found, wished.unwrap_or_default());
    Err(lasting(problem.at(place)))
}

fn patch(host: &BareMetalHost, patch: Value, purpose: &'static str) -> Next {
    Next::Patch { host: host.name.clone(), resource_version: host.resource_version.clone(), patch, purpose }
}
