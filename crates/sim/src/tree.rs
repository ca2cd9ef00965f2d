//! Resource trees: what a BMC shows, by path. Shared between all BMCs of a model or recording.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::bootable::BootPaths;
use crate::error::Error;
use crate::seed::Seed;
use crate::template::Body;

/// A Redfish resource tree: path (and, for recorded pages, query) to body.
///
/// Bodies are kept as bytes, ready to serve. Those of models hold places that each BMC fills from its seed.
#[derive(Debug, Default)]
pub struct Tree {
    resources: HashMap<Box<str>, Resource>,
    root: RootFacts,
    /// Set by [`Tree::bootable`].
    boot: Option<BootPaths>,
    /// Whether everything is shown as it was recorded.
    recorded: bool,
}

#[derive(Debug)]
pub(crate) struct Resource {
    body: Body,
    /// `@odata.etag` as recorded.
    pub(crate) etag: Option<Box<str>>,
}

/// What the service root says and the simulator acts on.
#[derive(Debug, Default)]
struct RootFacts {
    expand: ExpandSupport,
    sessions: Option<Box<str>>,
    accounts: Option<Box<str>>,
}

/// `ProtocolFeaturesSupported.ExpandQuery` of the service root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ExpandSupport {
    /// `$expand=*`.
    pub expand_all: bool,
    /// `$expand=~`.
    pub links: bool,
    /// `$expand=.`.
    pub no_links: bool,
    /// `($levels=n)`.
    pub levels: bool,
    /// The greatest `n`.
    pub max_levels: Option<u8>,
}

impl Tree {
    /// Reads a recording: a gzipped tar of `redfish/v1/**/index.json`, queries in the folder's name. Bodies are served as recorded, errors
    /// stored in place of resources included.
    pub fn from_tar_gz(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let file = std::fs::File::open(path).map_err(Error::file("read", path))?;
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::io::BufReader::new(file)));
        let mut bodies = HashMap::new();
        for entry in archive.entries().map_err(Error::file("read", path))? {
            let mut entry = entry.map_err(Error::file("read", path))?;
            let name = entry.path().map_err(Error::file("read", path))?.to_string_lossy().into_owned();
            let Some(resource) = name.trim_start_matches("./").strip_suffix("/index.json") else { continue };
            if resource != "redfish" && !resource.starts_with("redfish/") {
                continue;
            }
            let mut body = Vec::new();
            entry.read_to_end(&mut body).map_err(Error::file("read", path))?;
            bodies.insert(format!("/{resource}"), Bytes::from(body));
        }
        if !bodies.contains_key(ROOT) {
            return Err(Error::Recording {
                path: path.to_owned(),
                reason: "it has no redfish/v1/index.json".to_owned(),
            });
        }
        Ok(Self { recorded: true, ..Self::from_bodies(bodies) })
    }

    /// A tree of these resources. Paths are canonical: no slash at the end, `/redfish/v1` for the root.
    pub fn from_values(resources: impl IntoIterator<Item = (String, Value)>) -> Self {
        Self::from_bodies(resources.into_iter().map(|(path, value)| (path, Bytes::from(value.to_string()))))
    }

    fn from_bodies(bodies: impl IntoIterator<Item = (String, Bytes)>) -> Self {
        let mut resources = HashMap::new();
        for (path, body) in bodies {
            let etag = serde_json::from_slice::<Etag>(&body).ok().and_then(|etag| etag.etag);
            resources.insert(canonical(&path).into(), Resource { body: Body::parse(body), etag });
        }
        let mut tree = Self { resources, root: RootFacts::default(), boot: None, recorded: false };
        tree.root = tree.root_facts();
        tree
    }

    fn root_facts(&self) -> RootFacts {
        let root = self.template_value(ROOT).unwrap_or_default();
        let expand = root.pointer("/ProtocolFeaturesSupported/ExpandQuery").cloned().unwrap_or_default();
        RootFacts {
            expand: serde_json::from_value(expand).unwrap_or_default(),
            sessions: root
                .pointer("/Links/Sessions/@odata.id")
                .and_then(Value::as_str)
                .map(|s| canonical(s).into()),
            accounts: self.linked(&root, "AccountService").and_then(|service| {
                let accounts = service.get("Accounts").and_then(reference)?;
                Some(canonical(accounts).into())
            }),
        }
    }

    fn linked(&self, from: &Value, property: &str) -> Option<Value> {
        self.template_value(canonical(from.get(property).and_then(reference)?))
    }

    /// Number of resources, pages included.
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// All paths, in no order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.resources.keys().map(AsRef::as_ref)
    }

    /// Whether there is a resource at this canonical path.
    pub fn contains(&self, path: &str) -> bool {
        self.resources.contains_key(path)
    }

    /// The body at this canonical path as the machine of this seed and name shows it.
    pub fn body(&self, path: &str, seed: &Seed, name: &str) -> Option<Bytes> {
        Some(self.resources.get(path)?.body.render(seed, name))
    }

    pub(crate) fn resource(&self, path: &str) -> Option<&Resource> {
        self.resources.get(path)
    }

    /// What the service root says of `$expand`.
    pub fn expand_support(&self) -> ExpandSupport {
        self.root.expand
    }

    /// Where sessions live.
    pub(crate) fn sessions_path(&self) -> &str {
        self.root.sessions.as_deref().unwrap_or("/redfish/v1/SessionService/Sessions")
    }

    /// Where the resources are that a boot has to do with; none unless the tree is bootable.
    pub(crate) fn boot_paths(&self) -> Option<&BootPaths> {
        self.boot.as_ref()
    }

    /// The same tree with these resources in place of its own, or added.
    pub(crate) fn with_changes(&self, changes: HashMap<String, Value>, boot: Option<BootPaths>) -> Self {
        let unchanged = self.resources.iter().filter(|(path, _)| !changes.contains_key(path.as_ref()));
        let mut bodies: HashMap<String, Bytes> =
            unchanged.map(|(path, resource)| (path.to_string(), resource.body.source())).collect();
        bodies.extend(changes.into_iter().map(|(path, value)| (path, Bytes::from(value.to_string()))));
        Self { boot, recorded: self.recorded, ..Self::from_bodies(bodies) }
    }

    /// Where accounts are worked out, and not shown as recorded.
    pub(crate) fn accounts_path(&self) -> Option<&str> {
        self.root.accounts.as_deref().filter(|_| !self.recorded || self.boot.is_some())
    }

    /// The resource with its places unfilled.
    pub(crate) fn template_value(&self, path: &str) -> Option<Value> {
        let body = self.resources.get(path)?.body.source();
        serde_json::from_slice(&body).ok()
    }

    /// The path of the host among several systems: the one that boots, not a GPU baseboard (quirk 24).
    pub fn host_system(&self) -> Option<String> {
        let systems = self.template_value("/redfish/v1/Systems")?;
        let paths: Vec<String> =
            members(&systems).filter_map(reference).map(|id| canonical(id).to_owned()).collect();
        let boots = |path: &&String| {
            self.template_value(path)
                .is_some_and(|system| system.get("Boot").is_some() && system.get("Bios").is_some())
        };
        paths.iter().find(boots).or_else(|| paths.first()).cloned()
    }

    /// The same tree with every collection longer than `size` cut into pages linked by `Members@odata.nextLink` (quirk 20).
    #[must_use]
    pub fn paged(&self, size: usize) -> Self {
        let mut bodies = HashMap::new();
        for path in self.paths() {
            let Some(resource) = self.resources.get(path) else { continue };
            let body = resource.body.source();
            let value = serde_json::from_slice::<Value>(&body).unwrap_or_default();
            let long = value["Members"].as_array().is_some_and(|members| members.len() > size && size > 0);
            if !long || value.get(NEXT_LINK).is_some() || path.contains('?') {
                bodies.insert(path.to_owned(), body);
                continue;
            }
            for (page, page_path) in pages(path, &value, size) {
                bodies.insert(page_path, Bytes::from(page.to_string()));
            }
        }
        Self { recorded: self.recorded, ..Self::from_bodies(bodies) }
    }

    /// The same tree with serial numbers, service tags, UUIDs and MAC addresses replaced by places, the same value everywhere by the same
    /// place: many machines can then be served from one recording without being one machine. Placeholders stay what they are.
    #[must_use]
    pub fn with_derived_identities(&self) -> Self {
        let mut bodies = HashMap::new();
        for (path, resource) in &self.resources {
            let body = resource.body.source();
            let derived = match serde_json::from_slice::<Value>(&body) {
                Ok(mut value) => {
                    derive_identities(&mut value);
                    Bytes::from(value.to_string())
                }
                Err(_) => body,
            };
            bodies.insert(path.to_string(), derived);
        }
        Self { recorded: self.recorded, ..Self::from_bodies(bodies) }
    }

    /// A shared handle.
    pub fn shared(self) -> Arc<Self> {
        Arc::new(self)
    }
}

impl Resource {
    pub(crate) fn render(&self, seed: &Seed, name: &str) -> Bytes {
        self.body.render(seed, name)
    }
}

/// The service root.
pub(crate) const ROOT: &str = "/redfish/v1";
/// The link to the next page of a collection (DSP0266, "Collection resource response").
pub(crate) const NEXT_LINK: &str = "Members@odata.nextLink";

#[derive(Deserialize)]
struct Etag {
    #[serde(rename = "@odata.etag")]
    etag: Option<Box<str>>,
}

/// A path without slash at the end.
pub(crate) fn canonical(path: &str) -> &str {
    if path.len() > 1 { path.trim_end_matches('/') } else { path }
}

/// The members of a collection; none where `Members` is missing or null (quirk 21).
pub(crate) fn members(collection: &Value) -> impl Iterator<Item = &Value> {
    collection.get("Members").and_then(Value::as_array).into_iter().flatten()
}

/// The path that a reference names.
pub(crate) fn reference(value: &Value) -> Option<&str> {
    value.get("@odata.id")?.as_str()
}

fn pages(path: &str, collection: &Value, size: usize) -> Vec<(Value, String)> {
    let all: Vec<Value> = members(collection).cloned().collect();
    let mut out = Vec::new();
    for (index, chunk) in all.chunks(size).enumerate() {
        let skip = index * size;
        let mut page = collection.as_object().cloned().unwrap_or_else(Map::new);
        page.insert("Members".to_owned(), chunk.into());
        page.insert("Members@odata.count".to_owned(), json!(all.len()));
        if skip + chunk.len() < all.len() {
            page.insert(NEXT_LINK.to_owned(), json!(format!("{path}?$skip={}", skip + size)));
        }
        let page_path = if skip == 0 { path.to_owned() } else { format!("{path}?$skip={skip}") };
        out.push((Value::Object(page), page_path));
    }
    out
}

fn derive_identities(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(derive_identities),
        Value::Object(map) => {
            for (key, field) in map.iter_mut() {
                match field {
                    Value::String(text) => {
                        if let Some(place) = place_for(key, text) {
                            *text = place;
                        }
                    }
                    other => derive_identities(other),
                }
            }
        }
        _ => {}
    }
}

/// What recordings show where there is no serial number (facts §6, quirk 27).
const PLACEHOLDERS: [&str; 5] = ["unknown", "notavailable", "default", "00000000", "string"];

/// The place that stands for a recorded identity; none where the property is no identity or its value a placeholder.
fn place_for(property: &str, value: &str) -> Option<String> {
    let text = value.trim();
    let (label, n) = (hex::encode(text.as_bytes()), text.len());
    match property {
        "SerialNumber" | "SKU" | "ServiceTag" | "ChassisServiceTag" | "NodeID" => {
            let plain = (5..=32).contains(&n) && text.bytes().all(|b| b.is_ascii_alphanumeric());
            let all_the_same = text.bytes().all(|b| Some(b) == text.bytes().next());
            if !plain || all_the_same || PLACEHOLDERS.contains(&text.to_ascii_lowercase().as_str()) {
                return None;
            }
            let kind = if text.bytes().all(|b| b.is_ascii_digit()) { "digits" } else { "alnum" };
            Some(format!("{{{{{kind} {label} {n}}}}}"))
        }
        "UUID" => {
            let uuid = uuid::Uuid::parse_str(value).ok()?;
            (!uuid.is_nil() && !uuid.is_max()).then(|| format!("{{{{uuid {}}}}}", uuid.simple()))
        }
        "MACAddress" | "PermanentMACAddress" | "MacAddress" | "ManagerMACAddress" => {
            let real =
                n == 17 && value.bytes().filter(|b| *b == b':').count() == 5 && value != "00:00:00:00:00:00";
            real.then(|| format!("{{{{mac {}}}}}", hex::encode(text.to_ascii_lowercase().as_bytes())))
        }
        _ => None,
    }
}
