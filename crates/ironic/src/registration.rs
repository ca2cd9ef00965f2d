//! What Ironic is told of a machine, and how a node that exists differs from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use url::Url;
use uuid::Uuid;

use crate::lenient::{Info, Shown};
use crate::node::Node;
use crate::patch::Patch;
use crate::port::Mac;
use crate::secret::Secret;

/// A machine as Ironic is to know it.
#[derive(Clone, Debug, PartialEq)]
pub struct Registration {
    /// The node's UUID: as last seen, or the one to create it with. Derive the latter from the machine, so that a creation
    /// whose answer was lost is recognised.
    pub uuid: Uuid,
    /// The node's name, a DNS label.
    pub name: String,
    /// The cell, for the mark in `extra`.
    pub cell: String,
    /// The machine, for the mark in `extra`.
    pub machine: String,
    /// How Ironic reaches the BMC.
    pub bmc: Bmc,
    /// Names the credentials given, such as the version of a secret: Ironic does not show passwords, so a change is
    /// recognised by this. It must tell nothing of the password.
    pub credentials: String,
    /// Implementations by interface: `boot`, `inspect`, `network`, `bios`, `firmware`, `raid`, `management`, `power`,
    /// `vendor`; `deploy` serves at creation only, later each deployment names its own.
    pub interfaces: BTreeMap<String, String>,
    /// What boots for inspection, cleaning and `direct` deploys.
    pub agent: Agent,
    /// The mode to boot in.
    pub boot_mode: BootMode,
    /// `x86_64` or `aarch64`.
    pub cpu_arch: Option<String>,
    /// MAC addresses; the first is booted from.
    pub macs: Vec<Mac>,
    /// Traits of ours; those of others stay.
    pub traits: BTreeSet<Trait>,
    /// The project that owns the node.
    pub owner: Option<String>,
    /// Whether this node is cleaned between uses.
    pub automated_clean: AutomatedClean,
}

/// Whether Ironic cleans a node between uses by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutomatedClean {
    /// As the node has it, and Ironic's configuration where it says nothing.
    #[default]
    Kept,
    /// As given; `None` leaves it to Ironic's configuration.
    Set(Option<bool>),
}

/// How Ironic reaches the BMC, from where the conductor is.
#[derive(Clone, Debug, PartialEq)]
pub enum Bmc {
    /// Hardware type `redfish`.
    Redfish {
        /// `https://HOST[:PORT]`.
        address: String,
        /// `/redfish/v1/Systems/…`; may be left out where there is one system.
        system_id: Option<String>,
        /// Ironic's own account there.
        username: String,
        /// Its password.
        password: Secret,
        /// How the conductor checks the certificate.
        verify_ca: VerifyCa,
    },
    /// Hardware type `ipmi`.
    Ipmi {
        /// Host.
        address: String,
        /// UDP port, 623 without.
        port: Option<u16>,
        /// Ironic's own account there.
        username: String,
        /// Its password.
        password: Secret,
        /// Cipher suite: 17, or 3 for old BMCs.
        cipher_suite: Option<u8>,
    },
    /// Any other hardware type, with settings that are not secret.
    Other {
        /// Its name.
        driver: String,
        /// `driver_info`.
        info: Map<String, Value>,
    },
}

/// `redfish_verify_ca`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyCa {
    /// By the CAs that the conductor's system trusts.
    System,
    /// By the CAs in a file of the conductor.
    File(String),
    /// Not at all.
    Off,
}

/// What Ironic boots to work on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agent {
    /// Whatever Ironic's configuration says.
    Default,
    /// An ISO image by virtual media (`deploy_iso`).
    Iso(String),
    /// Kernel and ramdisk (`deploy_kernel`, `deploy_ramdisk`).
    Kernel {
        /// URL of the kernel.
        kernel: String,
        /// URL of the ramdisk.
        ramdisk: String,
    },
}

/// `capabilities: boot_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BootMode {
    /// UEFI.
    #[default]
    Uefi,
    /// Legacy BIOS.
    Bios,
}

impl BootMode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Uefi => "uefi",
            Self::Bios => "bios",
        }
    }
}

/// A trait of a node: `CUSTOM_` and upper-case letters, digits and underscores, at most 255 in all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Trait(String);

impl Trait {
    /// The trait of ours that says `parts`: `CUSTOM_BAILIWICK_JURISDICTION_FR` for `["jurisdiction", "fr"]`. What may not
    /// stand in a trait becomes an underscore.
    pub fn bailiwick(parts: &[&str]) -> Self {
        let word = |part: &&str| -> String {
            part.chars()
                .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
                .collect()
        };
        let parts: Vec<String> = parts.iter().map(word).collect();
        let mut name = format!("{}{}", Self::PREFIX, parts.join("_"));
        name.truncate(255);
        Self(name)
    }

    /// What all traits of ours begin with.
    pub const PREFIX: &'static str = "CUSTOM_BAILIWICK_";

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Trait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A node to be created.
#[derive(Clone, Debug, PartialEq)]
pub struct NewNode {
    fields: Map<String, Value>,
    password: Option<(&'static str, Secret)>,
}

impl NewNode {
    /// The body of the request.
    pub(crate) fn body(&self) -> Value {
        let mut body = Value::Object(self.fields.clone());
        if let Some((key, password)) = &self.password {
            body["driver_info"][*key] = json!(password.reveal());
        }
        body
    }

    pub(crate) fn secrets(&self) -> Vec<Secret> {
        self.password.iter().map(|(_, password)| password.clone()).collect()
    }
}

/// What we keep at a node, in `extra.bailiwick`: whose it is and what was done to it last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// The cell.
    #[serde(default)]
    pub cell: String,
    /// The machine.
    #[serde(default)]
    pub machine: String,
    /// [`Registration::credentials`] as last sent.
    #[serde(default)]
    pub credentials: String,
    /// The instance last assigned; stays when the instance is gone, so that none is deployed twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Uuid>,
    /// The manual cleaning last asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean: Option<CleanMark>,
    /// `provision_updated_at` of the failure that the caller was told of last, and may leave behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<String>,
}

/// A manual cleaning that was decided on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanMark {
    /// The caller's name for it.
    pub request: Uuid,
    /// `provision_updated_at` when it was decided on: the same still means that it has not begun.
    pub from: Option<String>,
}

impl Marks {
    const KEY: &'static str = "bailiwick";

    /// The marks at a node, if it has any.
    pub fn of(node: &Node) -> Option<Self> {
        serde_json::from_value(node.extra.get(Self::KEY)?.clone()).ok()
    }

    pub(crate) fn set(&self, patch: Patch) -> Patch {
        patch.set(&["extra", Self::KEY], json!(self))
    }
}

/// What may be changed in a node's present state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Idle: everything.
    All,
    /// Deployed, or failed: how the BMC is reached, whether it is cleaned, and our marks.
    Access,
}

impl Registration {
    /// The hardware type.
    pub fn driver(&self) -> &str {
        match &self.bmc {
            Bmc::Redfish { .. } => "redfish",
            Bmc::Ipmi { .. } => "ipmi",
            Bmc::Other { driver, .. } => driver,
        }
    }

    /// `driver_info` without the password, and the password with its key.
    fn driver_info(&self) -> (Map<String, Value>, Option<(&'static str, &Secret)>) {
        let mut info = Map::new();
        let mut put = |key: &str, value: Value| info.insert(key.to_owned(), value);
        let password = match &self.bmc {
            Bmc::Redfish { address, system_id, username, password, verify_ca } => {
                put("redfish_address", json!(address));
                if let Some(system_id) = system_id {
                    put("redfish_system_id", json!(system_id));
                }
                put("redfish_username", json!(username));
                let verify = match verify_ca {
                    VerifyCa::System => json!(true),
                    VerifyCa::Off => json!(false),
                    VerifyCa::File(path) => json!(path),
                };
                put("redfish_verify_ca", verify);
                Some(("redfish_password", password))
            }
            Bmc::Ipmi { address, port, username, password, cipher_suite } => {
                put("ipmi_address", json!(address));
                if let Some(port) = port {
                    put("ipmi_port", json!(port));
                }
                put("ipmi_username", json!(username));
                if let Some(suite) = cipher_suite {
                    put("ipmi_cipher_suite", json!(suite.to_string()));
                }
                Some(("ipmi_password", password))
            }
            Bmc::Other { info: settings, .. } => {
                for (key, value) in settings {
                    put(key, value.clone());
                }
                None
            }
        };
        match &self.agent {
            Agent::Default => {}
            Agent::Iso(url) => {
                put("deploy_iso", json!(url));
            }
            Agent::Kernel { kernel, ramdisk } => {
                put("deploy_kernel", json!(kernel));
                put("deploy_ramdisk", json!(ramdisk));
            }
        }
        (info, password)
    }

    fn marks(&self) -> Marks {
        Marks {
            cell: self.cell.clone(),
            machine: self.machine.clone(),
            credentials: self.credentials.clone(),
            ..Marks::default()
        }
    }

    /// The marks that a node of ours should have: what was done to it last stays.
    pub(crate) fn marks_for(&self, node: &Node) -> Marks {
        let known = Marks::of(node).unwrap_or_default();
        Marks { instance: known.instance, clean: known.clean, told: known.told, ..self.marks() }
    }

    /// The node to create.
    pub fn new_node(&self) -> NewNode {
        let (info, password) = self.driver_info();
        let mut fields = Map::new();
        let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
        put("uuid", json!(self.uuid));
        put("name", json!(self.name));
        put("driver", json!(self.driver()));
        put("driver_info", Value::Object(info));
        let mut properties = json!({ "capabilities": format!("boot_mode:{}", self.boot_mode.as_str()) });
        if let Some(arch) = &self.cpu_arch {
            properties["cpu_arch"] = json!(arch);
        }
        put("properties", properties);
        put("extra", json!({ Marks::KEY: self.marks() }));
        for (interface, implementation) in &self.interfaces {
            put(&format!("{interface}_interface"), json!(implementation));
        }
        if let Some(owner) = &self.owner {
            put("owner", json!(owner));
        }
        if let AutomatedClean::Set(Some(clean)) = self.automated_clean {
            put("automated_clean", json!(clean));
        }
        NewNode { fields, password: password.map(|(key, password)| (key, password.clone())) }
    }

    /// What must be changed at a node so that Ironic reaches the BMC as registered; empty where nothing has to. May be changed
    /// in maintenance too: a node that is held while passwords change is told of them before it is let go.
    pub fn access(&self, node: &Node) -> Patch {
        self.differences(node, Scope::Access)
    }

    /// What must be changed at a node so that it is as registered.
    pub(crate) fn differences(&self, node: &Node, scope: Scope) -> Patch {
        let mut patch = self.access_differences(node);
        let wanted = self.marks_for(node);
        if Marks::of(node).as_ref() != Some(&wanted) {
            patch = wanted.set(patch);
        }
        // Also in use: it must be known before the instance is taken away.
        if let AutomatedClean::Set(clean) = self.automated_clean
            && node.automated_clean != clean
        {
            patch = patch.set(&["automated_clean"], json!(clean));
        }
        if scope == Scope::All { self.other_differences(node, patch) } else { patch }
    }

    /// How the BMC is reached. The password is sent when Ironic shows another, when the credentials have another name than
    /// those last sent, and with every other change: an address must never be changed under an old password.
    fn access_differences(&self, node: &Node) -> Patch {
        let (info, password) = self.driver_info();
        let mut patch = Patch::new();
        for (key, value) in &info {
            if node.driver_info.shows(key, value) == Shown::Other {
                patch = patch.set(&["driver_info", key], value.clone());
            }
        }
        let Some((key, password)) = password else { return patch };
        let renewed = Marks::of(node).is_none_or(|marks| marks.credentials != self.credentials);
        let shown = node.driver_info.shows(key, &json!(password.reveal()));
        if renewed || shown == Shown::Other || !patch.is_empty() {
            patch = patch.set_secret(&["driver_info", key], password);
        }
        patch
    }

    fn other_differences(&self, node: &Node, mut patch: Patch) -> Patch {
        if node.name.as_deref() != Some(&self.name) {
            patch = patch.set(&["name"], self.name.clone());
        }
        if node.driver != self.driver() {
            patch = patch.set(&["driver"], self.driver());
        }
        for (interface, implementation) in self.interfaces.iter().filter(|(name, _)| *name != "deploy") {
            if node.interface(interface) != Some(implementation) {
                patch = patch.set(&[&format!("{interface}_interface")], implementation.clone());
            }
        }
        if let Some(capabilities) = with_boot_mode(&node.properties, self.boot_mode) {
            patch = patch.set(&["properties", "capabilities"], capabilities);
        }
        if let Some(arch) = &self.cpu_arch
            && node.properties.text("cpu_arch") != Some(arch)
        {
            patch = patch.set(&["properties", "cpu_arch"], arch.clone());
        }
        if self.owner.is_some() && node.owner != self.owner {
            patch = patch.set(&["owner"], json!(self.owner));
        }
        patch
    }

    /// The traits that the node should have, if it has others: ours as registered, those of others as they are.
    pub(crate) fn traits_for(&self, node: &Node) -> Option<Vec<Trait>> {
        let found: BTreeSet<Trait> = node.traits.iter().cloned().map(Trait).collect();
        let others = found.iter().filter(|name| !name.as_str().starts_with(Trait::PREFIX));
        let wanted: BTreeSet<Trait> = others.chain(&self.traits).cloned().collect();
        (wanted != found).then(|| wanted.into_iter().collect())
    }

    /// By what a node of this machine is recognised.
    pub fn bmc_place(&self) -> Option<BmcPlace> {
        match &self.bmc {
            Bmc::Redfish { address, system_id, .. } => BmcPlace::redfish(address, system_id.as_deref()),
            Bmc::Ipmi { address, port, .. } => BmcPlace::ipmi(address, *port),
            Bmc::Other { info, .. } => BmcPlace::of_info(&info.clone().into()),
        }
    }
}

/// `properties.capabilities` with a boot mode, if it has another: `a:1,boot_mode:uefi`.
fn with_boot_mode(properties: &Info, mode: BootMode) -> Option<String> {
    let capabilities = properties.text("capabilities").unwrap_or_default();
    let wanted = format!("boot_mode:{}", mode.as_str());
    let mut members: Vec<&str> =
        capabilities.split(',').map(str::trim).filter(|member| !member.is_empty()).collect();
    if members.contains(&wanted.as_str()) {
        return None;
    }
    members.retain(|member| !member.starts_with("boot_mode:"));
    members.push(&wanted);
    Some(members.join(","))
}

/// Where a BMC is, in one spelling: what two registrations of one machine have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BmcPlace {
    /// Host and port, lower case.
    pub authority: String,
    /// The last part of the system's path, where one BMC has several.
    pub system: Option<String>,
}

impl BmcPlace {
    /// Of a Redfish service. Scheme and path do not matter; the port does.
    pub fn redfish(address: &str, system_id: Option<&str>) -> Option<Self> {
        let text = address.trim();
        let text = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let url = Url::parse(&text).ok()?;
        let authority = format!("{}:{}", url.host_str()?.to_lowercase(), url.port_or_known_default()?);
        let system = system_id
            .and_then(|id| id.trim_end_matches('/').rsplit('/').next())
            .filter(|id| !id.is_empty())
            .map(ToOwned::to_owned);
        Some(Self { authority, system })
    }

    /// Of an IPMI service.
    pub fn ipmi(address: &str, port: Option<u16>) -> Option<Self> {
        let address = address.trim().to_lowercase();
        let authority = format!("{address}:{}", port.unwrap_or(623));
        (!address.is_empty()).then_some(Self { authority, system: None })
    }

    /// Of a node.
    pub fn of(node: &Node) -> Option<Self> {
        Self::of_info(&node.driver_info)
    }

    fn of_info(info: &Info) -> Option<Self> {
        if let Some(address) = info.text("redfish_address") {
            return Self::redfish(address, info.text("redfish_system_id"));
        }
        let port = info.get("ipmi_port").and_then(|port| match port {
            Value::String(text) => text.parse().ok(),
            other => other.as_u64().and_then(|port| u16::try_from(port).ok()),
        });
        Self::ipmi(info.text("ipmi_address")?, port)
    }

    /// Whether both may be the same: a system that is not named may be any.
    pub fn may_be(&self, other: &Self) -> bool {
        self.authority == other.authority
            && match (&self.system, &other.system) {
                (Some(one), Some(two)) => one == two,
                _ => true,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn a_trait_says_what_it_is_told_in_the_letters_that_a_trait_may_have() {
        assert_eq!(Trait::bailiwick(&["jurisdiction", "fr"]).as_str(), "CUSTOM_BAILIWICK_JURISDICTION_FR");
        assert_eq!(Trait::bailiwick(&["zone", "eu-west/1é"]).as_str(), "CUSTOM_BAILIWICK_ZONE_EU_WEST_1_");
        assert_eq!(Trait::bailiwick(&[&"x".repeat(300)]).as_str().len(), 255);
    }

    #[test]
    fn one_bmc_is_recognised_in_every_spelling() {
        let place = |address, system| BmcPlace::redfish(address, system).unwrap();
        let expected = place("https://bmc-1.example", Some("/redfish/v1/Systems/1"));
        for (address, system) in [
            ("bmc-1.example", Some("1")),
            ("https://BMC-1.example:443/", Some("/redfish/v1/Systems/1/")),
            ("bmc-1.example:443", None),
        ] {
            assert!(place(address, system).may_be(&expected), "{address}");
        }
        for (address, system) in
            [("bmc-1.example:8443", Some("1")), ("bmc-2.example", None), ("bmc-1.example", Some("2"))]
        {
            assert!(!place(address, system).may_be(&expected), "{address}");
        }
        assert_eq!(place("https://[2001:DB8::1]", None).authority, "[2001:db8::1]:443");
    }

    #[test]
    fn a_node_as_registered_differs_in_nothing() {
        let registration = samples::registration();
        let node = samples::registered(&registration);
        assert_eq!(registration.differences(&node, Scope::All), Patch::new());
        assert_eq!(registration.traits_for(&node), None);
    }

    #[test]
    fn renamed_credentials_send_the_password_anew() {
        let node = samples::registered(&samples::registration());
        let registration = Registration { credentials: "v2".to_owned(), ..samples::registration() };
        let patch = registration.differences(&node, Scope::Access);
        assert_eq!(patch.paths(), ["/driver_info/redfish_password", "/extra/bailiwick"]);
    }

    #[test]
    fn another_address_is_never_set_without_its_password() {
        let node = samples::registered(&samples::registration());
        let mut registration = samples::registration();
        let Bmc::Redfish { address, .. } = &mut registration.bmc else { panic!("a Redfish registration") };
        *address = "https://bmc-2.example".to_owned();
        let patch = registration.differences(&node, Scope::All);
        assert_eq!(patch.paths(), ["/driver_info/redfish_address", "/driver_info/redfish_password"]);
    }

    #[test]
    fn what_others_set_stays() {
        let registration = samples::registration();
        let mut node = samples::registered(&registration);
        node.properties.0.insert("capabilities".to_owned(), json!("secure_boot:true,boot_mode:bios"));
        node.traits.extend(["CUSTOM_OTHERS".to_owned(), "CUSTOM_BAILIWICK_OLD".to_owned()]);
        let patch = registration.differences(&node, Scope::All);
        assert_eq!(patch.body()[0]["value"], "secure_boot:true,boot_mode:uefi");
        let traits: Vec<String> =
            registration.traits_for(&node).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(traits, ["CUSTOM_BAILIWICK_JURISDICTION_FR", "CUSTOM_OTHERS"]);
    }

    #[test]
    fn nothing_shows_the_password() {
        let registration = samples::registration();
        let node = registration.new_node();
        assert_eq!(node.body()["driver_info"]["redfish_password"], "hunter2");
        assert!(!format!("{registration:?} {node:?}").contains("hunter2"));
    }
}
