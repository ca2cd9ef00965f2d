//! The landscape of one BMC: service root, systems, managers, chassis, and which system is the host.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::decode::{Node, bare_path, last_segment};
use crate::error::Error;
use crate::identity;
use crate::quirks::{self, Profile};
use crate::reader::{ReadError, Reader};
use crate::walk::{Shared, Walk};

/// The service root. With the slash: some servers redirect without (DSP0266 6.3 has both).
pub(crate) const ROOT: &str = "/redfish/v1/";

/// So many systems that could not be read are asked for once more, to tell why.
const SECOND_LOOKS: usize = 8;

/// What everything else starts from.
pub struct Landscape {
    pub(crate) root: Shared,
    pub(crate) systems: Vec<Shared>,
    pub(crate) managers: Vec<Shared>,
    pub(crate) chassis: Vec<Shared>,
    /// Index of the host in `systems`.
    pub(crate) host: Option<usize>,
    /// Index of the host's manager in `managers`.
    pub(crate) manager: Option<usize>,
    pub(crate) profile: Profile,
    /// Paths of other hosts behind the same service, whose parts are not this host's.
    peers: BTreeSet<String>,
}

impl Landscape {
    pub(crate) fn host(&self) -> Option<&Shared> {
        self.systems.get(self.host?)
    }

    pub(crate) fn manager(&self) -> Option<&Shared> {
        self.managers.get(self.manager?)
    }

    /// The host and what belongs to it: GPU baseboards, for one.
    pub(crate) fn systems_host_first(&self) -> Vec<&Shared> {
        let host = self.host();
        let others = self.systems.iter().filter(|system| {
            host.is_none_or(|host| !Arc::ptr_eq(host, system)) && !self.peers.contains(bare_path(&system.uri))
        });
        host.into_iter().chain(others).collect()
    }
}

impl<R: Reader> Walk<'_, R> {
    /// Reads root, systems, managers and chassis. Fails if there is no Redfish service, or if none of the systems that it
    /// lists can be read.
    pub(crate) async fn landscape(&self) -> Result<Landscape, ReadError> {
        let root = self.root().await?;
        self.learn_features(&root, &quirks::profile(&root.body, None));
        let systems_uri = self.link_or_usual(&root, "Systems");
        let managers_uri = self.link_or_usual(&root, "Managers");
        let chassis_uri = self.link_or_usual(&root, "Chassis");
        self.probe_expand(&chassis_uri).await;
        let (systems, managers, chassis) = tokio::join!(
            self.systems(&systems_uri),
            self.members(&managers_uri),
            self.members_where(&chassis_uri, |uri| !quirks::is_bare_chassis(last_segment(uri))),
        );
        // an error stays one although managers may link to some: on a DGX they do to the baseboard only, not to the host
        let systems = systems?;
        let systems = self.found_by_links(systems, &managers, &chassis).await;
        let (managers, chassis) = (sound(managers), sound(chassis));
        let mut landscape = Landscape {
            profile: quirks::profile(&root.body, None),
            root,
            systems,
            managers,
            chassis,
            host: None,
            manager: None,
            peers: BTreeSet::new(),
        };
        self.choose(&mut landscape);
        self.settle(&mut landscape, &systems_uri).await?;
        Ok(landscape)
    }

    /// A listed system that cannot be read may be the host: then the best of the others must not be taken for it, or a DGX
    /// becomes its own baseboard for as long as one request fails.
    async fn settle(&self, landscape: &mut Landscape, systems_uri: &str) -> Result<(), ReadError> {
        let Some(host) = landscape.host() else { return Ok(()) };
        let root = self.node(&landscape.root);
        let managers = identity::nodes(&landscape.managers, &self.log);
        let service = identity::service_manager(&root, &managers);
        if identity::is_host(&self.node(host), &managers, service.as_deref()) {
            return Ok(());
        }
        let is_known =
            |uri: &String| landscape.systems.iter().any(|system| bare_path(&system.uri) == bare_path(uri));
        let mut found = Vec::new();
        let listed = self.member_links(systems_uri).await;
        for uri in listed.iter().filter(|uri| !is_known(uri)).take(SECOND_LOOKS) {
            match self.fetch(uri).await {
                Ok(system) => found.push(Arc::new(system)),
                Err(Some(error)) => return Err(error),
                Err(None) => return Err(self.lost()),
            }
        }
        if !found.is_empty() {
            landscape.systems.append(&mut found);
            landscape.systems = sound(std::mem::take(&mut landscape.systems));
            self.choose(landscape);
        }
        Ok(())
    }

    async fn root(&self) -> Result<Shared, ReadError> {
        match self.fetch(ROOT).await {
            Ok(root) => {
                let body = &root.body;
                let known = ["RedfishVersion", "Systems", "Chassis", "Managers", "SessionService", "Links"];
                if !known.iter().any(|field| body.get(*field).is_some()) {
                    let reason = format!("{ROOT} is a JSON object, but not a service root");
                    return Err(ReadError::Bmc(Error::NotRedfish { reason }));
                }
                Ok(Arc::new(root))
            }
            Err(Some(ReadError::NotFound { uri })) => {
                Err(ReadError::Bmc(Error::NotRedfish { reason: format!("{uri} does not exist") }))
            }
            Err(Some(error)) => Err(error),
            Err(None) => Err(self.lost()),
        }
    }

    /// Why the BMC as a whole was given up.
    pub(crate) fn lost(&self) -> ReadError {
        let unknown = || ReadError::Bmc(Error::NotRedfish { reason: "reading was given up".to_owned() });
        self.take_fatal().unwrap_or_else(unknown)
    }

    /// A collection of the root. Its link may be missing until the BMC is reset (quirk 22): then the usual path is tried.
    fn link_or_usual(&self, root: &Shared, field: &str) -> String {
        self.node(root).link(field).unwrap_or_else(|| {
            self.log.note(
                "redfish.link.missing",
                bare_path(ROOT),
                format!("the service root has no link `{field}`"),
            );
            format!("/redfish/v1/{field}")
        })
    }

    /// The systems. That the list cannot be read, or none of those listed, is an error: nothing can be said of the machine.
    async fn systems(&self, uri: &str) -> Result<Vec<Shared>, ReadError> {
        let systems = self.members(uri).await;
        if self.is_lost() {
            return Err(self.lost());
        }
        if !systems.is_empty() {
            return Ok(sound(systems));
        }
        // nothing: find out whether there is nothing or whether it cannot be read
        let listed = match self.read(uri).await {
            Some(_) => self.member_links(uri).await,
            None => match self.fetch(uri).await {
                Err(Some(ReadError::NotFound { .. })) | Ok(_) => return Ok(Vec::new()),
                Err(Some(error)) => return Err(error),
                Err(None) => return Err(self.lost()),
            },
        };
        for system in listed.iter().take(SECOND_LOOKS) {
            match self.fetch(system).await {
                Err(Some(ReadError::NotFound { .. })) | Ok(_) => {}
                Err(Some(error)) => return Err(error),
                Err(None) => return Err(self.lost()),
            }
        }
        Ok(Vec::new())
    }

    /// Systems that only managers or chassis link to (quirk 22).
    async fn found_by_links(
        &self,
        mut systems: Vec<Shared>,
        managers: &[Shared],
        chassis: &[Shared],
    ) -> Vec<Shared> {
        if !systems.is_empty() {
            return systems;
        }
        let mut links = BTreeSet::new();
        for (resource, field) in managers
            .iter()
            .map(|m| (m, "ManagerForServers"))
            .chain(chassis.iter().map(|c| (c, "ComputerSystems")))
        {
            if let Some(node) = self.node(resource).child("Links") {
                links.extend(node.links(field));
            }
        }
        systems.extend(self.read_all(&links.into_iter().collect::<Vec<_>>()).await);
        systems
    }

    fn choose(&self, landscape: &mut Landscape) {
        let root = self.node(&landscape.root);
        let systems = identity::nodes(&landscape.systems, &self.log);
        let managers = identity::nodes(&landscape.managers, &self.log);
        let service = identity::service_manager(&root, &managers);
        let host = identity::host(&systems, &managers, service.as_deref(), &self.log);
        let host_node = host.and_then(|index| systems.get(index));
        let manager = identity::manager(host_node, &managers, service.as_deref());
        let manufacturer = host_node.and_then(|node| node.text("Manufacturer"));
        if host.is_none() {
            self.log.note("redfish.host.missing", "/redfish/v1/Systems", "the BMC shows no computer system");
        } else if host_node
            .is_some_and(|node| node.child("Links").is_none_or(|links| links.links("ManagedBy").is_empty()))
        {
            // quirk 23
            let path = host_node.map(Node::path).unwrap_or_default();
            self.log.note("redfish.link.missing", path, "the host has no link `Links.ManagedBy`");
        }
        let profile = quirks::profile(&landscape.root.body, manufacturer.as_deref());
        let others = host.map(|host| identity::peers(&systems, &managers, service.as_deref(), host));
        let others: BTreeSet<String> = others
            .into_iter()
            .flatten()
            .filter_map(|index| systems.get(index))
            .map(|system| bare_path(system.path()).to_owned())
            .collect();
        landscape.host = host;
        landscape.manager = manager;
        landscape.profile = profile;
        landscape.chassis.retain(|chassis| {
            let links = self.node(chassis).child("Links").map(|links| links.links("ComputerSystems"));
            let of = links.unwrap_or_default();
            of.is_empty() || of.iter().any(|system| !others.contains(bare_path(system)))
        });
        landscape.peers = others;
    }
}

/// In the order of their paths, so that nothing depends on the BMC's order.
fn sound(mut resources: Vec<Shared>) -> Vec<Shared> {
    resources.sort_by(|a, b| a.uri.cmp(&b.uri));
    resources.dedup_by(|a, b| a.uri == b.uri);
    resources
}
