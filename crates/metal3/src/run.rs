//! One step against a cluster: observe, ask [`drive::next`], do that one thing.

use crate::desired::{bmc_secret, data_secrets};
use crate::drive::{self, Next, Object, Persistence, Snapshot, Target};
use crate::error::Error;
use crate::hardware::Hardware;
use crate::host::{BareMetalHost, Consumer};
use crate::registration::{Registration, Wish};
use crate::secret::SeenSecret;
use crate::states::{OperationalStatus, ProvisioningState};
use crate::{ANNOTATION_DEPLOYMENT, API_VERSION, KIND_HOST, LABEL_MACHINE, MANAGER};
use domain::Problem;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret as CoreSecret;
use kube::Client;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
    Preconditions,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long one call may take.
const CALL_WITHIN: Duration = Duration::from_secs(30);
/// How many hosts are listed at once.
const PAGE: u32 = 250;

/// What one step came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// It is as wished; `None` where the wish is that there is no host.
    Reached(Option<Standing>),
    /// One thing was done; look again at once.
    Acted(Action),
    /// The operator is at work.
    Waiting {
        /// What is waited for.
        problem: Problem,
        /// When to look again.
        poll_after: Duration,
        /// How long this usually takes on a real server.
        usual: Duration,
        /// Since when it has been going on, as far as the operator tells.
        since: Option<Timestamp>,
        /// The host.
        standing: Option<Standing>,
    },
    /// It cannot be as wished for now.
    Refused {
        /// Why, and what to do.
        problem: Problem,
        /// Whether it may pass by itself.
        persistence: Persistence,
        /// The host.
        standing: Option<Standing>,
    },
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// In a few words: `apply`, `delete`, or what the change was for.
    pub verb: &'static str,
    /// `BareMetalHost` or `Secret`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its UID: a host's is to be remembered as `Registration.known_uid`.
    pub uid: String,
}

/// A machine's host, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its name: another than the machine's where the host was taken over.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Where it stands.
    pub state: ProvisioningState,
    /// How the operator gets on with it.
    pub operational_status: OperationalStatus,
    /// Whether it is on, as far as the operator knows.
    pub powered_on: bool,
    /// The node's UUID in Ironic, once there is one.
    pub node: Option<String>,
    /// Who uses it.
    pub consumer: Option<Consumer>,
    /// The deployment that it was given.
    pub deployment: Option<String>,
    /// When what was put on it last had been taken off again, its disks cleaned as the host says; `None` where nothing was, or
    /// where something is on it.
    pub cleaned: Option<Timestamp>,
    /// When its hardware was looked at last.
    pub inspected: Option<Timestamp>,
    /// Whether anything was ever put on it.
    pub was_provisioned: bool,
}

/// Looks at the machine's host, and does the one thing that brings it nearer to the wish. May be repeated, interrupted and run
/// by several callers at once: what was done already is not done again.
///
/// An error is about the API server; nothing was lost, and what was meant to be written may or may not have been.
pub async fn step(
    client: &Client,
    namespace: &str,
    registration: &Registration,
    wish: &Wish,
) -> Result<Progress, Error> {
    let cluster = Cluster { client, namespace };
    let seen = match cluster.observe(registration).await? {
        Ok(seen) => seen,
        Err(problem) => {
            return Ok(Progress::Refused { problem, persistence: Persistence::Lasting, standing: None });
        }
    };
    let standing = seen.host.as_ref().map(Standing::of);
    match drive::next(registration, wish, &seen) {
        Next::Apply(object) => cluster.apply(&object).await.map(Progress::Acted),
        Next::Delete(target) => cluster.delete(&target).await.map(Progress::Acted),
        Next::Patch { host, resource_version, patch, purpose } => {
            let uid = cluster.patch(&host, Some(&resource_version), patch, purpose).await?;
            Ok(Progress::Acted(Action { verb: purpose, kind: KIND_HOST, name: host, uid }))
        }
        Next::Wait(wait) => Ok(Progress::Waiting {
            problem: wait.problem,
            poll_after: wait.poll_after,
            usual: wait.usual,
            since: wait.since,
            standing,
        }),
        Next::Reached => Ok(Progress::Reached(standing)),
        Next::Refuse { problem, persistence } => Ok(Progress::Refused { problem, persistence, standing }),
    }
}

/// Steps until the wish is reached, or refused for good, waiting in between as told. Dropping it stops at any point without
/// harm. A passing refusal or error is waited out for as long as the caller lets it run; `told` hears of every step.
pub async fn follow(
    client: &Client,
    namespace: &str,
    registration: &Registration,
    wish: &Wish,
    mut told: impl FnMut(&Result<Progress, Error>),
) -> Result<Progress, Error> {
    const AGAIN: Duration = Duration::from_secs(10);
    // An action is followed by a look at once, but never in a tight loop.
    const AT_ONCE: Duration = Duration::from_millis(200);
    loop {
        let progress = step(client, namespace, registration, wish).await;
        told(&progress);
        let pause = match &progress {
            Ok(Progress::Acted(_)) => AT_ONCE,
            Ok(Progress::Waiting { poll_after, .. }) => *poll_after,
            Ok(Progress::Refused { persistence: Persistence::Passing, .. }) => AGAIN,
            Err(error) if error.is_passing() => AGAIN,
            _ => return progress,
        };
        tokio::time::sleep(pause).await;
    }
}

/// What stands in the cluster, without doing anything: for [`drive::next`], which tells what would be done. `Err` within: no one
/// host is the machine's.
pub async fn observe(
    client: &Client,
    namespace: &str,
    registration: &Registration,
) -> Result<Result<Snapshot, Problem>, Error> {
    Cluster { client, namespace }.observe(registration).await
}

/// What inspection found of the host with this name, as facts ([`Hardware::facts`]); `None` before it has.
pub async fn facts(
    client: &Client,
    namespace: &str,
    host: &str,
) -> Result<Option<Vec<(String, Value)>>, Error> {
    Ok(hardware(client, namespace, host).await?.map(|hardware| hardware.facts()))
}

/// The same as it was found.
pub async fn hardware(client: &Client, namespace: &str, host: &str) -> Result<Option<Hardware>, Error> {
    Cluster { client, namespace }.hardware(host).await
}

impl Standing {
    /// A host in short.
    pub fn of(host: &BareMetalHost) -> Self {
        let id = &host.status.provisioning.id;
        let history = &host.status.operation_history;
        Self {
            name: host.name.clone(),
            uid: host.uid.clone(),
            created: host.created,
            state: host.state().clone(),
            operational_status: host.status.operational_status.clone(),
            powered_on: host.status.powered_on,
            node: (!id.is_empty()).then(|| id.clone()),
            consumer: host.spec.consumer_ref.clone(),
            deployment: host.annotations.get(ANNOTATION_DEPLOYMENT).cloned(),
            cleaned: history
                .deprovision
                .end
                .filter(|end| history.provision.start.is_none_or(|put| put <= *end)),
            inspected: history.inspect.end,
            was_provisioned: history.provision.start.is_some(),
        }
    }
}

/// The namespace of the hosts.
pub(crate) struct Cluster<'a> {
    pub(crate) client: &'a Client,
    pub(crate) namespace: &'a str,
}

impl Cluster<'_> {
    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let (group, version) = API_VERSION.split_once('/').unwrap_or(("", API_VERSION));
        let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        if kind == "HardwareData" {
            // The plural is the singular: what rules of English would make of it is not served.
            "hardwaredata".clone_into(&mut resource.plural);
        }
        Api::namespaced_with(self.client.clone(), self.namespace, &resource)
    }

    fn secrets(&self) -> Api<CoreSecret> {
        Api::namespaced(self.client.clone(), self.namespace)
    }

    async fn observe(&self, registration: &Registration) -> Result<Result<Snapshot, Problem>, Error> {
        let hosts = self.hosts(registration).await?;
        let host = match drive::find(registration, &hosts) {
            Ok(host) => host.cloned(),
            Err(problem) => return Ok(Err(problem)),
        };
        let name = host.as_ref().map_or(registration.machine.as_str(), |host| &host.name);
        let hardware = match &host {
            Some(host) => self.hardware(name).await?.or_else(|| host.status.hardware.clone()),
            None => None,
        };
        let mut secrets = BTreeMap::new();
        let mut names = data_secrets(name);
        names.insert(bmc_secret(name));
        names.extend(
            host.as_ref().map(|host| host.spec.bmc.credentials_name.clone()).filter(|name| !name.is_empty()),
        );
        for name in names {
            let secret = call(format!("read Secret/{name}"), self.secrets().get_opt(&name)).await?;
            secrets.extend(secret.map(|secret| (name, SeenSecret::read(secret))));
        }
        Ok(Ok(Snapshot { host, hardware, secrets, now: Timestamp::now() }))
    }

    /// The host with the machine's label; where none has it, every host, since one may be the machine under another name.
    async fn hosts(&self, registration: &Registration) -> Result<Vec<BareMetalHost>, Error> {
        let labelled = ListParams::default().labels(&format!("{LABEL_MACHINE}={}", registration.machine));
        let hosts = self.list(labelled).await?;
        if hosts.is_empty() { self.list(ListParams::default()).await } else { Ok(hosts) }
    }

    async fn list(&self, params: ListParams) -> Result<Vec<BareMetalHost>, Error> {
        let api = self.api(KIND_HOST);
        let mut params = params.limit(PAGE);
        let mut hosts = Vec::new();
        loop {
            let page = call(format!("list {KIND_HOST}s"), api.list(&params)).await?;
            hosts.extend(page.items.into_iter().filter_map(read));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(hosts),
            }
        }
    }

    async fn hardware(&self, host: &str) -> Result<Option<Hardware>, Error> {
        let api = self.api("HardwareData");
        let object = call(format!("read HardwareData/{host}"), api.get_opt(host)).await?;
        Ok(object.and_then(|object| Hardware::read(&serde_json::to_value(object).unwrap_or_default())))
    }

    /// The host of this name.
    pub(crate) async fn host(&self, name: &str) -> Result<BareMetalHost, Error> {
        let object = call(format!("read {KIND_HOST}/{name}"), self.api(KIND_HOST).get_opt(name)).await?;
        object.and_then(read).ok_or_else(|| Error::NoHost { name: name.to_owned() })
    }

    async fn apply(&self, object: &Object) -> Result<Action, Error> {
        let params = PatchParams::apply(MANAGER);
        let (kind, name, uid) = match object {
            Object::Host(host) => {
                let params = if host.force { params.force() } else { params };
                let body = host.to_object(self.namespace);
                let api = self.api(KIND_HOST);
                let doing = format!("apply {KIND_HOST}/{}", host.name);
                let answer = call(doing, api.patch(&host.name, &params, &Patch::Apply(&body))).await?;
                (KIND_HOST, &host.name, answer.metadata.uid)
            }
            Object::Secret(secret) => {
                let body = secret.to_object(self.namespace);
                let api = self.secrets();
                let doing = format!("apply Secret/{}", secret.name);
                let answer = call(doing, api.patch(&secret.name, &params, &Patch::Apply(&body))).await?;
                ("Secret", &secret.name, answer.metadata.uid)
            }
        };
        Ok(Action { verb: "apply", kind, name: name.clone(), uid: uid.unwrap_or_default() })
    }

    async fn delete(&self, target: &Target) -> Result<Action, Error> {
        let preconditions = Preconditions { uid: Some(target.uid.clone()), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        let doing = format!("delete {}/{}", target.kind, target.name);
        let answer = if target.kind == KIND_HOST {
            call(doing, gone(self.api(KIND_HOST).delete(&target.name, &params))).await
        } else {
            call(doing, gone(self.secrets().delete(&target.name, &params))).await
        };
        answer?;
        Ok(Action { verb: "delete", kind: target.kind, name: target.name.clone(), uid: target.uid.clone() })
    }

    /// Merges a patch into a host; with a version, only into that one. Returns the host's UID.
    pub(crate) async fn patch(
        &self,
        host: &str,
        version: Option<&str>,
        mut patch: Value,
        purpose: &str,
    ) -> Result<String, Error> {
        if let Some(version) = version {
            patch["metadata"]["resourceVersion"] = Value::from(version);
        }
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let api = self.api(KIND_HOST);
        let doing = format!("{purpose}: {KIND_HOST}/{host}");
        let answer = call(doing, api.patch(host, &params, &Patch::Merge(&patch))).await?;
        Ok(answer.metadata.uid.unwrap_or_default())
    }
}

fn read(object: DynamicObject) -> Option<BareMetalHost> {
    BareMetalHost::read(serde_json::to_value(object).ok()?)
}

/// What is gone already needs no deletion.
async fn gone<T>(deletion: impl Future<Output = Result<T, kube::Error>>) -> Result<(), kube::Error> {
    match deletion.await {
        Err(kube::Error::Api(status)) if status.code != 404 => Err(kube::Error::Api(status)),
        Err(kube::Error::Api(_)) | Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn call<T>(doing: String, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Error> {
    match tokio::time::timeout(CALL_WITHIN, call).await {
        Ok(answer) => answer.map_err(|error| Error::of_call(doing, error)),
        Err(_) => Err(Error::Timeout { doing, after: CALL_WITHIN }),
    }
}
