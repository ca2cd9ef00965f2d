//! The client of one Ironic.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Method;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::answer::Answer;
use crate::deployment::ConfigDrive;
use crate::error::Error;
use crate::history::HistoryEvent;
use crate::inventory::Inspection;
use crate::node::{Node, Step};
use crate::patch::Patch;
use crate::port::{Mac, Port};
use crate::registration::{NewNode, Trait};
use crate::transport::{Endpoint, Options, Request, Transport};
use crate::version::{self, Microversion};

/// A client of one Ironic. Clones share connections and the version agreed on. Dropping a call ends it; whether a call that
/// changes something was heard is then not known, as after a time-out: observe again.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    transport: Transport,
    version: Mutex<Option<Microversion>>,
}

/// What the provision state is told to do (`PUT /v1/nodes/{node}/states/provision`).
#[derive(Clone, Debug, PartialEq)]
pub enum Provision {
    /// Verify the BMC (from `enroll`), or leave `available` or a failed state for `manageable`.
    Manage,
    /// Clean, then `available`.
    Provide,
    /// Inspect.
    Inspect,
    /// Deploy.
    Active {
        /// What the instance finds out about itself.
        config_drive: Option<ConfigDrive>,
    },
    /// Take the instance away, then clean.
    Deleted,
    /// End a wait for the agent.
    Abort,
    /// Perform these clean steps, in `manageable`.
    Clean {
        /// In this order.
        steps: Vec<Step>,
    },
}

impl Provision {
    /// The verb as the API names it.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Manage => "manage",
            Self::Provide => "provide",
            Self::Inspect => "inspect",
            Self::Active { .. } => "active",
            Self::Deleted => "deleted",
            Self::Abort => "abort",
            Self::Clean { .. } => "clean",
        }
    }
}

/// What power is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// On.
    On,
    /// Off at once.
    Off,
    /// Off by the operating system, else at once.
    SoftOff,
    /// Off and on at once.
    Reboot,
    /// Off by the operating system, and on.
    SoftReboot,
}

impl Power {
    fn target(self) -> &'static str {
        match self {
            Self::On => "power on",
            Self::Off => "power off",
            Self::SoftOff => "soft power off",
            Self::Reboot => "rebooting",
            Self::SoftReboot => "soft rebooting",
        }
    }
}

/// What Ironic says of one of a node's interfaces (`GET /v1/nodes/{node}/validate`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validation {
    /// `deploy`, `boot`, `power`, …
    pub interface: String,
    /// `None` where the driver does not have it.
    pub result: Option<bool>,
    /// Why not.
    pub reason: Option<String>,
}

/// Which nodes, and which of their fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeQuery {
    /// Fields to send; all without. `uuid` and `provision_state` come always.
    pub fields: Option<Vec<&'static str>>,
    /// Of this driver only.
    pub driver: Option<String>,
    /// Of this owner only.
    pub owner: Option<String>,
}

impl Client {
    /// A client of an endpoint. Nothing is sent yet.
    pub fn new(endpoint: &Endpoint, options: Options) -> Result<Self, Error> {
        let transport = Transport::new(endpoint, options)?;
        Ok(Self { inner: Arc::new(Inner { transport, version: Mutex::default() }) })
    }

    /// Host and port, for people.
    pub fn authority(&self) -> &str {
        self.inner.transport.authority()
    }

    /// The version of the API that both sides speak; asks the server the first time.
    pub async fn version(&self) -> Result<Microversion, Error> {
        let known = *self.known_version();
        match known {
            Some(version) => Ok(version),
            None => self.negotiate().await,
        }
    }

    fn known_version(&self) -> std::sync::MutexGuard<'_, Option<Microversion>> {
        self.inner.version.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `GET /v1/` without a version: served by every Ironic, with its newest version in a header.
    async fn negotiate(&self) -> Result<Microversion, Error> {
        let answer = self.patiently(&Request::get(&[""]), None).await.map_err(|error| match error {
            // Must not be taken for the absence of whatever was to be asked next.
            Error::NotFound { message } => Error::NotIronic { reason: message },
            error => error,
        })?;
        let Some(found) = answer.newest_version() else {
            return Err(Error::NotIronic { reason: "it names no version of the API".to_owned() });
        };
        let common =
            version::common(found).ok_or(Error::VersionUnsupported { found, needed: version::OLDEST })?;
        *self.known_version() = Some(common);
        Ok(common)
    }

    /// Sends a request in the version agreed on. A 406 says that the server was exchanged for an older or newer one: its
    /// version is asked again, and the request, which was not looked at, is sent once more if that is another.
    async fn call(&self, request: &Request) -> Result<Answer, Error> {
        let before = self.version().await?;
        match self.in_version(request, before).await {
            Err(Error::NotAcceptable { message }) => {
                let now = self.negotiate().await?;
                if now == before {
                    return Err(Error::NotAcceptable { message });
                }
                self.in_version(request, now).await
            }
            outcome => outcome,
        }
    }

    async fn in_version(&self, request: &Request, version: Microversion) -> Result<Answer, Error> {
        if request.method == Method::GET {
            return self.patiently(request, Some(version)).await;
        }
        let answer = self.inner.transport.exchange(request, Some(version)).await?;
        succeeded(answer)
    }

    /// A request that changes nothing, several times if need be.
    async fn patiently(&self, request: &Request, version: Option<Microversion>) -> Result<Answer, Error> {
        let options = *self.inner.transport.options();
        let mut attempt = 1;
        loop {
            let outcome = match self.inner.transport.exchange(request, version).await {
                Ok(answer) => succeeded(answer),
                Err(error) => Err(error),
            };
            let error = match outcome {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let again =
                matches!(error, Error::Busy { .. } | Error::Unreachable { .. } | Error::Server { .. });
            if !again || attempt >= options.attempts {
                return Err(error);
            }
            let back_off = options.pause.saturating_mul(1 << (attempt - 1).min(16));
            let pause = error.retry_after().unwrap_or_default().max(back_off).min(options.longest_pause);
            tracing::debug!(code = error.code(), attempt, ?pause, "Ironic is asked again");
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    async fn read<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Error> {
        read(self.call(request).await?.json()?)
    }

    /// A node by UUID or name; `None` where Ironic itself says that there is none.
    pub async fn node(&self, ident: &str) -> Result<Option<Node>, Error> {
        if ident.is_empty() {
            return Ok(None);
        }
        absent(self.read(&Request::get(&["nodes", ident])).await)
    }

    /// Creates a node; it is in `enroll` then.
    pub async fn create_node(&self, node: &NewNode) -> Result<Node, Error> {
        let request = Request::new(Method::POST, &["nodes"]).body(&node.body(), node.secrets());
        self.read(&request).await
    }

    /// Changes a node. Returns it as changed.
    pub async fn patch_node(&self, uuid: Uuid, patch: &Patch) -> Result<Node, Error> {
        let request =
            Request::new(Method::PATCH, &["nodes", &uuid.to_string()]).body(&patch.body(), patch.secrets());
        self.read(&request).await
    }

    /// Deletes a node with its ports. A node that is gone already counts as deleted.
    pub async fn delete_node(&self, uuid: Uuid) -> Result<(), Error> {
        let request = Request::new(Method::DELETE, &["nodes", &uuid.to_string()]);
        absent(self.call(&request).await.map(drop)).map(drop)
    }

    /// All nodes, page by page.
    pub async fn nodes(&self, query: &NodeQuery) -> Result<Vec<Node>, Error> {
        let mut request = Request::get(&["nodes"]);
        match &query.fields {
            None => request = request.query("detail", "true"),
            Some(fields) => {
                let mut all = vec!["uuid", "provision_state"];
                all.extend(fields.iter().filter(|field| !matches!(**field, "uuid" | "provision_state")));
                request = request.query("fields", all.join(","));
            }
        }
        if let Some(driver) = &query.driver {
            request = request.query("driver", driver);
        }
        if let Some(owner) = &query.owner {
            request = request.query("owner", owner);
        }
        self.pages(request, "nodes").await
    }

    /// The ports of a node.
    pub async fn ports_of(&self, node: Uuid) -> Result<Vec<Port>, Error> {
        let request =
            Request::get(&["ports"]).query("node_uuid", node.to_string()).query("fields", PORT_FIELDS);
        self.pages(request, "ports").await
    }

    /// The ports with a MAC address: one at most in a sound Ironic.
    pub async fn ports_with(&self, mac: &Mac) -> Result<Vec<Port>, Error> {
        let request = Request::get(&["ports"]).query("address", mac.as_str()).query("fields", PORT_FIELDS);
        self.pages(request, "ports").await
    }

    /// Creates a port.
    pub async fn create_port(&self, node: Uuid, mac: &Mac, pxe_enabled: bool) -> Result<Port, Error> {
        let body = json!({"node_uuid": node, "address": mac.as_str(), "pxe_enabled": pxe_enabled});
        self.read(&Request::new(Method::POST, &["ports"]).body(&body, Vec::new())).await
    }

    /// Deletes a port. One that is gone already counts as deleted.
    pub async fn delete_port(&self, uuid: Uuid) -> Result<(), Error> {
        let request = Request::new(Method::DELETE, &["ports", &uuid.to_string()]);
        absent(self.call(&request).await.map(drop)).map(drop)
    }

    /// Replaces the traits of a node.
    pub async fn set_traits(&self, node: Uuid, traits: &[Trait]) -> Result<(), Error> {
        let names: Vec<&str> = traits.iter().map(Trait::as_str).collect();
        let request = Request::new(Method::PUT, &["nodes", &node.to_string(), "traits"])
            .body(&json!({ "traits": names }), Vec::new());
        self.call(&request).await.map(drop)
    }

    /// What Ironic says of the node's interfaces, without speaking to the BMC.
    pub async fn validate(&self, node: Uuid) -> Result<Vec<Validation>, Error> {
        let request = Request::get(&["nodes", &node.to_string(), "validate"]);
        let answer: Map<String, Value> = self.read(&request).await?;
        Ok(answer
            .into_iter()
            .map(|(interface, told)| Validation {
                interface,
                result: told.get("result").and_then(Value::as_bool),
                reason: told.get("reason").and_then(Value::as_str).map(ToOwned::to_owned),
            })
            .collect())
    }

    /// Asks for a transition. Success says that it has begun.
    pub async fn provision(&self, node: Uuid, provision: &Provision) -> Result<(), Error> {
        let mut body = json!({ "target": provision.verb() });
        let mut secrets = Vec::new();
        match provision {
            Provision::Active { config_drive: Some(drive) } => {
                body["configdrive"] = drive.body();
                secrets.extend(drive.user_data.clone());
            }
            Provision::Clean { steps } => body["clean_steps"] = steps_body(steps),
            _ => {}
        }
        let request = Request::new(Method::PUT, &["nodes", &node.to_string(), "states", "provision"])
            .body(&body, secrets);
        self.call(&request).await.map(drop)
    }

    /// Asks for a change of power. Success says that it has begun; [`Node::power_state`] tells when it is done.
    pub async fn power(&self, node: Uuid, power: Power, timeout: Option<Duration>) -> Result<(), Error> {
        let mut body = json!({ "target": power.target() });
        if let Some(timeout) = timeout {
            body["timeout"] = json!(timeout.as_secs().max(1));
        }
        let request = Request::new(Method::PUT, &["nodes", &node.to_string(), "states", "power"])
            .body(&body, Vec::new());
        self.call(&request).await.map(drop)
    }

    /// Begins maintenance: Ironic acts on the node no more, and power is free for others to switch.
    pub async fn begin_maintenance(&self, node: Uuid, reason: &str) -> Result<(), Error> {
        let request = Request::new(Method::PUT, &["nodes", &node.to_string(), "maintenance"])
            .body(&json!({ "reason": reason }), Vec::new());
        self.call(&request).await.map(drop)
    }

    /// Ends maintenance, and with it the fault that Ironic noted.
    pub async fn end_maintenance(&self, node: Uuid) -> Result<(), Error> {
        let request = Request::new(Method::DELETE, &["nodes", &node.to_string(), "maintenance"]);
        self.call(&request).await.map(drop)
    }

    /// What inspection found; `None` before the first.
    pub async fn inventory(&self, node: Uuid) -> Result<Option<Inspection>, Error> {
        absent(self.read(&Request::get(&["nodes", &node.to_string(), "inventory"])).await)
    }

    /// The events of a node that Ironic still keeps, oldest first.
    pub async fn history(&self, node: Uuid) -> Result<Vec<HistoryEvent>, Error> {
        let request = Request::get(&["nodes", &node.to_string(), "history"]).query("detail", "true");
        self.pages(request, "history").await
    }

    /// Asks the BMC through Ironic for its boot device: succeeds only if Ironic's credentials for the BMC work now.
    pub async fn probe_bmc(&self, node: Uuid) -> Result<(), Error> {
        let request = Request::get(&["nodes", &node.to_string(), "management", "boot_device"]);
        // Not repeated: every attempt is a login at the BMC that may count towards its lock-out.
        let version = self.version().await?;
        let answer = self.inner.transport.exchange(&request, Some(version)).await?;
        succeeded(answer).map(drop)
    }

    /// A whole list. Markers are taken from the members, because the `next` link names the server as it sees itself.
    async fn pages<T: DeserializeOwned>(
        &self,
        request: Request,
        name: &'static str,
    ) -> Result<Vec<T>, Error> {
        let options = *self.inner.transport.options();
        let mut members: Vec<T> = Vec::new();
        let mut markers: HashSet<String> = HashSet::new();
        let mut marker: Option<String> = None;
        loop {
            let mut page_request = Request::get(&[]);
            page_request.path.clone_from(&request.path);
            page_request.query.clone_from(&request.query);
            page_request = page_request.query("limit", options.page.to_string());
            page_request.query.extend(marker.take().map(|marker| ("marker", marker)));
            let mut page: Value = self.read(&page_request).await?;
            let Some(Value::Array(found)) = page.get_mut(name).map(Value::take) else {
                return Err(Error::Unreadable { reason: format!("a list without `{name}`") });
            };
            let last = found.last().and_then(|member| member.get("uuid")?.as_str()).map(ToOwned::to_owned);
            // One that does not read is left out: one odd member must not hide the others.
            members.extend(found.into_iter().filter_map(|member| serde_json::from_value(member).ok()));
            if page.get("next").is_none_or(Value::is_null) {
                return Ok(members);
            }
            let Some(last) = last else {
                return Err(Error::Paging { reason: "an empty page names a next one" });
            };
            if !markers.insert(last.clone()) {
                return Err(Error::Paging { reason: "a page comes twice" });
            }
            if members.len() > options.list {
                return Err(Error::Paging { reason: "it is longer than a list may be" });
            }
            marker = Some(last);
        }
    }
}

const PORT_FIELDS: &str = "uuid,node_uuid,address,pxe_enabled";

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("authority", &self.authority()).finish_non_exhaustive()
    }
}

/// The API takes `interface`, `step` and `args` of a clean step, and refuses a priority.
fn steps_body(steps: &[Step]) -> Value {
    steps
        .iter()
        .map(|step| {
            let mut body = json!({"interface": step.interface, "step": step.step});
            if let Some(args) = &step.args {
                body["args"] = Value::Object(args.clone());
            }
            body
        })
        .collect()
}

fn succeeded(answer: Answer) -> Result<Answer, Error> {
    if answer.status.is_success() { Ok(answer) } else { Err(answer.error()) }
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|error| Error::Unreadable { reason: error.to_string() })
}

fn absent<T>(outcome: Result<T, Error>) -> Result<Option<T>, Error> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
