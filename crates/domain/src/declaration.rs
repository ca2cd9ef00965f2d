//! What people declare: YAML with `apiVersion: bailiwick.dev/v1alpha1`, `kind`, `metadata`, `spec` (DESIGN §5.1).
//!
//! One schema each, here. JSON Schemas for editors and the reference are generated from these types. Unknown fields are errors.

use crate::assignment::AssignmentSpec;
use crate::base_cluster::BaseClusterSpec;
use crate::firmware::FirmwareProfileSpec;
use crate::name::Name;
use crate::partition::Partitions;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The only version there is.
pub const API_VERSION: &str = "bailiwick.dev/v1alpha1";

/// The kinds this version of Bailiwick takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Kind {
    /// A legal territory.
    Jurisdiction,
    /// Who owns, operates, supports.
    LegalEntity,
    /// A datacentre in one jurisdiction.
    Site,
    /// One physical server.
    Machine,
    /// The Kubernetes cluster on a site's own metal.
    BaseCluster,
    /// What a machine shall be used for.
    Assignment,
    /// What a tenant can ask for.
    GpuClass,
    /// The versions and settings that a model must have.
    FirmwareProfile,
}

impl Kind {
    /// All kinds, in the order in which they refer to each other.
    pub const ALL: [Self; 8] = [
        Self::Jurisdiction,
        Self::LegalEntity,
        Self::Site,
        Self::Machine,
        Self::BaseCluster,
        Self::Assignment,
        Self::GpuClass,
        Self::FirmwareProfile,
    ];

    /// As written in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jurisdiction => "Jurisdiction",
            Self::LegalEntity => "LegalEntity",
            Self::Site => "Site",
            Self::Machine => "Machine",
            Self::BaseCluster => "BaseCluster",
            Self::Assignment => "Assignment",
            Self::GpuClass => "GpuClass",
            Self::FirmwareProfile => "FirmwareProfile",
        }
    }

    /// Reads what a person types: singular or plural, any case, and `class` for `GpuClass`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "jurisdiction" | "jurisdictions" => Self::Jurisdiction,
            "legalentity" | "legalentities" | "entity" | "entities" => Self::LegalEntity,
            "site" | "sites" => Self::Site,
            "machine" | "machines" => Self::Machine,
            "basecluster" | "baseclusters" | "cluster" | "clusters" => Self::BaseCluster,
            "assignment" | "assignments" => Self::Assignment,
            "gpuclass" | "gpuclasses" | "class" | "classes" => Self::GpuClass,
            "firmwareprofile" | "firmwareprofiles" | "firmware" => Self::FirmwareProfile,
            _ => return None,
        })
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Name and labels of a declaration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// A DNS label, unique within its kind.
    pub name: Name,
    /// Free labels, kept and shown, never interpreted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A legal territory, nested: `eu` contains `de`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JurisdictionSpec {
    /// The jurisdictions it lies directly within.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub within: Vec<Name>,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

/// Who owns, operates, supports, or holds keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LegalEntitySpec {
    /// Registered name.
    pub legal_name: String,
    /// ISO 3166-1 alpha-2 country of the registered seat.
    pub country: Country,
    /// Legal Entity Identifier (ISO 17442), where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lei: Option<String>,
    /// The LegalEntity that ultimately owns it; absent means that it is its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ultimate_parent: Option<Name>,
}

/// ISO 3166-1 alpha-2 country code, upper case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Country(#[schemars(regex(pattern = r"^[A-Z]{2}$"))] String);

impl Country {
    /// The two letters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Country {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() == 2 && text.bytes().all(|b| b.is_ascii_uppercase()) {
            Ok(Self(text))
        } else {
            Err(serde::de::Error::custom(format!(
                "{text:?} is not an ISO 3166-1 country code of two capitals, such as DE"
            )))
        }
    }
}

/// A datacentre in one jurisdiction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SiteSpec {
    /// The legal territory it stands in.
    pub jurisdiction: Name,
    /// The LegalEntity that operates it.
    pub operator: Name,
    /// ISO 3166-1 alpha-2 country it stands in.
    pub country: Country,
    /// Networks its BMCs are in. The cell connects to no other address.
    #[schemars(with = "Vec<String>")]
    pub bmc_networks: Vec<IpNet>,
    /// Classification of its machines unless a machine says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Zone>,
}

/// Classification: a tier, and a handling marking within it (facts: sovereignty §2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Zone {
    /// The tier.
    pub tier: Tier,
    /// The marking inside the tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handling: Option<Handling>,
}

impl std::fmt::Display for Zone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.tier.as_str())?;
        self.handling.map_or(Ok(()), |handling| write!(f, "/{}", handling.as_str()))
    }
}

/// Tiers of classification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// The lowest.
    Official,
    /// Harm if disclosed.
    Secret,
    /// Grave harm if disclosed.
    TopSecret,
}

impl Tier {
    /// As written in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Official => "official",
            Self::Secret => "secret",
            Self::TopSecret => "top-secret",
        }
    }
}

/// Handling markings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Handling {
    /// Needs care beyond its tier.
    Sensitive,
}

impl Handling {
    /// As written in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sensitive => "sensitive",
        }
    }
}

/// One physical server. Its identity is what the hardware says; `serial` and `mac` are expectations held against it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MachineSpec {
    /// The Site it stands in.
    pub site: Name,
    /// Its position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<RackPosition>,
    /// Classification; the site's where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Zone>,
    /// Serial number it must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// A MAC address, of the host or of its BMC, that it must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// How to reach its management controller.
    pub bmc: BmcSpec,
    /// What its GPUs may be parted into when somebody claims a part: profiles of Multi-Instance GPU such as `1g.10gb`, each at every
    /// place, or at the one that begins at a memory slice (`3g.40gb@4`); `*` means all that a GPU has. Where all of them fit on a GPU
    /// at once, the scheduler needs no counters. Absent: its GPUs are given out whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<Partitions>,
}

/// A position in a rack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RackPosition {
    /// The rack.
    pub name: Name,
    /// Lowest rack unit it occupies, counted from 1 at the bottom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<u16>,
}

/// How to reach a management controller. A password is never written here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BmcSpec {
    /// `host`, `host:port`, `[v6]:port` or an https URL, for Redfish; `ipmi://host[:port]` for a machine that has none.
    pub address: String,
    /// Account name.
    pub username: String,
    /// File that holds the password, read by the command that applies, relative to the declaration; sealed by the cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// Or: a secret mounted in the cell's secrets directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// The cell replaces the password by one of its own making before the machine is handed to a provisioning service, and
    /// gives that service an account of its own. Retiring the machine gives the BMC its declared password back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rotate: bool,
    /// SHA-256 of the BMC's public key (SPKI); checked before credentials are sent. Absent: the first key seen is kept. IPMI has
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<crate::name::Digest>,
}

/// A secret under the cell's secrets directory, laid out as Kubernetes mounts Secrets: `<secrets-dir>/<name>/<key>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRef {
    /// Name of the secret: a folder.
    pub name: Name,
    /// Key in it: a file. `password` where absent.
    #[serde(default = "SecretRef::default_key")]
    pub key: String,
}

impl SecretRef {
    fn default_key() -> String {
        "password".to_owned()
    }
}

/// What a tenant can ask for; becomes a DeviceClass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GpuClassSpec {
    /// GPUs of this jurisdiction and of all it contains.
    pub jurisdiction: Name,
    /// Model names, exactly as `bailiwick get gpus` shows them; absent means any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Only GPUs of machines in this zone; absent means any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Zone>,
    /// A profile of Multi-Instance GPU, such as `1g.10gb`: the class gives out partitions of that size; absent means whole GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// What must be known of a GPU before it may be allocated. `[inventoried]` is for trials only.
    #[serde(default = "Requirement::default_set")]
    pub requires: Vec<Requirement>,
    /// Containers may ask for its GPUs by the extended resource `gpu.bailiwick.dev/<name of the class>` too
    /// (`resources.limits`), without a claim.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub extended_resource: bool,
}

/// What must be known of a GPU before it may be allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Requirement {
    /// A BMC listed it. Trials only: nothing confirmed that it is there.
    Inventoried,
    /// The node's own probe confirmed it.
    Probed,
    /// Its attestation verdict is `affirming`.
    Attested,
}

impl Requirement {
    /// Probed and attested.
    pub fn default_set() -> Vec<Self> {
        vec![Self::Probed, Self::Attested]
    }

    /// As written in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inventoried => "inventoried",
            Self::Probed => "probed",
            Self::Attested => "attested",
        }
    }
}

impl GpuClassSpec {
    /// Whether GPUs are given out on a BMC's word alone. Every listing says so.
    pub fn is_trial(&self) -> bool {
        !(self.requires.contains(&Requirement::Probed) && self.requires.contains(&Requirement::Attested))
    }
}

/// The `spec` of any kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Spec {
    /// See [`JurisdictionSpec`].
    Jurisdiction(JurisdictionSpec),
    /// See [`LegalEntitySpec`].
    LegalEntity(LegalEntitySpec),
    /// See [`SiteSpec`].
    Site(SiteSpec),
    /// See [`MachineSpec`].
    Machine(Box<MachineSpec>),
    /// See [`BaseClusterSpec`].
    BaseCluster(Box<BaseClusterSpec>),
    /// See [`AssignmentSpec`].
    Assignment(AssignmentSpec),
    /// See [`GpuClassSpec`].
    GpuClass(GpuClassSpec),
    /// See [`FirmwareProfileSpec`].
    FirmwareProfile(Box<FirmwareProfileSpec>),
}

/// One declared object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// Name and labels.
    pub metadata: Metadata,
    /// What is declared; tells the kind.
    pub spec: Spec,
}

impl Declaration {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self.spec {
            Spec::Jurisdiction(_) => Kind::Jurisdiction,
            Spec::LegalEntity(_) => Kind::LegalEntity,
            Spec::Site(_) => Kind::Site,
            Spec::Machine(_) => Kind::Machine,
            Spec::BaseCluster(_) => Kind::BaseCluster,
            Spec::Assignment(_) => Kind::Assignment,
            Spec::GpuClass(_) => Kind::GpuClass,
            Spec::FirmwareProfile(_) => Kind::FirmwareProfile,
        }
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.metadata.name
    }

    /// `Kind/name`, as messages write it.
    pub fn reference(&self) -> String {
        format!("{}/{}", self.kind(), self.name())
    }

    /// The whole document as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Reads a document from JSON, as the API takes and the store keeps it. Unknown fields are errors.
    pub fn from_json(value: serde_json::Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(value)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document<S> {
    api_version: ApiVersion,
    kind: Kind,
    metadata: Metadata,
    spec: S,
}

#[derive(Serialize, Deserialize)]
enum ApiVersion {
    #[serde(rename = "bailiwick.dev/v1alpha1")]
    V1Alpha1,
}

impl Serialize for Declaration {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { metadata, spec } = self;
        Document { api_version: ApiVersion::V1Alpha1, kind: self.kind(), metadata: metadata.clone(), spec }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Declaration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let value = serde_json::Value::deserialize(deserializer)?;
        let kind =
            Kind::deserialize(value.get("kind").cloned().unwrap_or_default()).map_err(D::Error::custom)?;
        read_document(kind, &JsonDocument(value)).map_err(D::Error::custom)
    }
}

struct JsonDocument(serde_json::Value);

/// Reads one document into a given type; lets YAML keep its line numbers while JSON goes the same way.
pub(crate) trait ReadAs {
    type Error;
    fn read_as<T: serde::de::DeserializeOwned>(&self) -> Result<T, Self::Error>;
}

impl ReadAs for JsonDocument {
    type Error = serde_json::Error;
    fn read_as<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_value(self.0.clone())
    }
}

pub(crate) fn read_document<R: ReadAs>(kind: Kind, document: &R) -> Result<Declaration, R::Error> {
    fn read<R: ReadAs, S: serde::de::DeserializeOwned>(
        document: &R,
        wrap: fn(S) -> Spec,
    ) -> Result<Declaration, R::Error> {
        let Document { metadata, spec, .. } = document.read_as::<Document<S>>()?;
        Ok(Declaration { metadata, spec: wrap(spec) })
    }
    match kind {
        Kind::Jurisdiction => read(document, Spec::Jurisdiction),
        Kind::LegalEntity => read(document, Spec::LegalEntity),
        Kind::Site => read(document, Spec::Site),
        Kind::Machine => read(document, |spec: MachineSpec| Spec::Machine(Box::new(spec))),
        Kind::BaseCluster => read(document, |spec: BaseClusterSpec| Spec::BaseCluster(Box::new(spec))),
        Kind::Assignment => read(document, Spec::Assignment),
        Kind::GpuClass => read(document, Spec::GpuClass),
        Kind::FirmwareProfile => {
            read(document, |spec: FirmwareProfileSpec| Spec::FirmwareProfile(Box::new(spec)))
        }
    }
}

impl JsonSchema for Declaration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Declaration".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let document = |kind: Kind, spec: schemars::Schema, metadata: &schemars::Schema| {
            serde_json::json!({
                "type": "object",
                "required": ["apiVersion", "kind", "metadata", "spec"],
                "additionalProperties": false,
                "properties": {
                    "apiVersion": { "const": API_VERSION },
                    "kind": { "const": kind.as_str() },
                    "metadata": metadata,
                    "spec": spec,
                }
            })
        };
        let metadata = generator.subschema_for::<Metadata>();
        let documents = [
            document(Kind::Jurisdiction, generator.subschema_for::<JurisdictionSpec>(), &metadata),
            document(Kind::LegalEntity, generator.subschema_for::<LegalEntitySpec>(), &metadata),
            document(Kind::Site, generator.subschema_for::<SiteSpec>(), &metadata),
            document(Kind::Machine, generator.subschema_for::<MachineSpec>(), &metadata),
            document(Kind::BaseCluster, generator.subschema_for::<BaseClusterSpec>(), &metadata),
            document(Kind::Assignment, generator.subschema_for::<AssignmentSpec>(), &metadata),
            document(Kind::GpuClass, generator.subschema_for::<GpuClassSpec>(), &metadata),
            document(Kind::FirmwareProfile, generator.subschema_for::<FirmwareProfileSpec>(), &metadata),
        ];
        schemars::json_schema!({ "oneOf": documents })
    }
}
