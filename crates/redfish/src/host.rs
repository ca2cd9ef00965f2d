//! Which system and which manager to act on. Acting on the wrong one of several is worse than not acting: where they cannot be
//! told apart, nothing is done.

use std::collections::HashSet;

use domain::{Diagnose, Problem};
use serde_json::Value;

use crate::decode::{Log, Node, bare_path};
use crate::error;
use crate::identity;
use crate::quirks::{self, Profile};
use crate::reader::{ReadError, Reader, Resource};

/// Pages of a collection that are read at most.
const PAGES: usize = 100;

/// What to act on behind one BMC.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Path of the host's ComputerSystem.
    pub system: String,
    /// Path of the manager that manages it.
    pub manager: Option<String>,
    /// What is different on this vendor's BMCs.
    pub profile: Profile,
    /// The machine's model.
    pub model: Option<String>,
    /// The machine's serial number.
    pub serial: Option<String>,
    /// The machine's UUID.
    pub uuid: Option<String>,
}

/// Why there is nothing to act on.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Several systems may be it.
    #[error("{} look alike as the host", systems.join(" and "))]
    Ambiguous {
        /// Their paths.
        systems: Vec<String>,
    },
    /// No system is it.
    #[error("no system behind the BMC is the host{}", .serial.as_ref().map(|s| format!(" {s}")).unwrap_or_default())]
    NotFound {
        /// The serial number that was looked for.
        serial: Option<String>,
    },
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl HostError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Ambiguous { .. } => "bmc.host-ambiguous",
            Self::NotFound { .. } => "bmc.host-not-found",
            Self::Read(error) => error.code(),
        }
    }
}

impl Diagnose for HostError {
    fn problem(&self) -> Problem {
        match self {
            Self::Read(error) => error.problem(),
            _ => error::problem(self.code(), self.to_string()),
        }
    }
}

impl Host {
    /// Finds the host by links and by what only a host has (quirk 24); with a serial number, by that alone.
    pub async fn find<R: Reader>(reader: &R, serial: Option<&str>) -> Result<Self, HostError> {
        let root = reader.get("/redfish/v1/").await?;
        let systems = members(reader, &link(&root.body, "Systems")).await?;
        let managers = members(reader, &link(&root.body, "Managers")).await?;
        let log = Log::default();
        let root_node = Node::new(&root.body, &root.uri, &log);
        let (systems, managers) = (nodes(&systems, &log), nodes(&managers, &log));
        let service = identity::service_manager(&root_node, &managers);
        let describe = |node: &Node<'_>| {
            let profile = quirks::profile(&root.body, node.identifier("Manufacturer").as_deref());
            (identity::identity(node, &profile, &log), profile)
        };
        let found = match serial.map(str::trim) {
            Some(serial) => {
                let is = |node: &&Node<'_>| describe(node).0.serial.as_deref() == Some(serial);
                only(&systems.iter().filter(is).collect::<Vec<_>>())?
            }
            None => guess(&systems, &managers, service.as_deref())?,
        };
        let system = found.ok_or_else(|| HostError::NotFound { serial: serial.map(ToOwned::to_owned) })?;
        let manager = identity::manager(Some(system), &managers, service.as_deref());
        let (identity, profile) = describe(system);
        Ok(Self {
            system: bare_path(system.path()).to_owned(),
            manager: manager
                .and_then(|index| managers.get(index))
                .map(|node| bare_path(node.path()).to_owned()),
            profile,
            model: identity.model,
            serial: identity.serial,
            uuid: identity.uuid,
        })
    }
}

fn guess<'n, 'a>(
    systems: &'n [Node<'a>],
    managers: &[Node<'a>],
    service: Option<&str>,
) -> Result<Option<&'n Node<'a>>, HostError> {
    let log = Log::default();
    let Some(index) = identity::host(systems, managers, service, &log) else { return Ok(None) };
    let Some(host) = systems.get(index).filter(|host| identity::is_host(host, managers, service)) else {
        return Ok(None);
    };
    let peers = identity::peers(systems, managers, service, index);
    if peers.is_empty() && log.take().is_empty() {
        return Ok(Some(host));
    }
    let others = peers.iter().filter_map(|peer| systems.get(*peer));
    let paths = std::iter::once(host).chain(others).map(|node| node.path().to_owned()).collect();
    Err(HostError::Ambiguous { systems: paths })
}

fn only<'n, 'a>(nodes: &[&'n Node<'a>]) -> Result<Option<&'n Node<'a>>, HostError> {
    match nodes {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => Err(HostError::Ambiguous { systems: nodes.iter().map(|node| node.path().to_owned()).collect() }),
    }
}

fn nodes<'a>(resources: &'a [Resource], log: &'a Log) -> Vec<Node<'a>> {
    resources.iter().map(|resource| Node::new(&resource.body, &resource.uri, log)).collect()
}

/// Where a member of the service root is; by its usual name where the root does not link to it (quirk 22).
pub(crate) fn link(root: &Value, name: &str) -> String {
    let linked = root.get(name).and_then(|link| link.get("@odata.id")?.as_str());
    linked.map_or_else(|| format!("/redfish/v1/{name}"), ToOwned::to_owned)
}

/// Every member of a collection. All of them or none: to overlook one could mean to act on another.
pub(crate) async fn members<R: Reader>(reader: &R, uri: &str) -> Result<Vec<Resource>, ReadError> {
    let mut resources = Vec::new();
    for link in member_links(reader, uri).await? {
        resources.push(reader.get(&link).await?);
    }
    Ok(resources)
}

/// The paths of a collection's members, each once, over all pages (quirks 20, 21 and 43).
pub(crate) async fn member_links<R: Reader>(reader: &R, uri: &str) -> Result<Vec<String>, ReadError> {
    let mut links: Vec<String> = Vec::new();
    let mut visited = HashSet::new();
    let mut next = Some(uri.to_owned());
    while let Some(page_uri) = next.take() {
        if visited.len() >= PAGES || !visited.insert(page_uri.clone()) {
            break;
        }
        let page = reader.get(&page_uri).await?;
        let log = Log::default();
        for link in Node::new(&page.body, &page.uri, &log).links("Members") {
            if !links.contains(&link) {
                links.push(link);
            }
        }
        next = page.body.get("Members@odata.nextLink").and_then(Value::as_str).map(ToOwned::to_owned);
    }
    Ok(links)
}
